// What we are called: asked for at the first visit, remembered, changed when we like, and refused beside the field.

import { memory } from "./address.js";
import { $ } from "./elements.js";

const AGAIN = 5000; // milliseconds between two attempts to get back a name that was ours
const ATTEMPTS = 12;
const PATIENCE = 5000; // milliseconds for which the dialog waits for the server

export class Naming {
  constructor(connection) {
    this.connection = connection;
    this.dialog = $("naming");
    this.field = $("name");
    $("me").addEventListener("click", () => this.ask());
    $("naming-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.take(this.field.value.trim());
    });
    $("nameless").addEventListener("click", () => this.take(""));
    // Escape: as it was, and at the first visit without a name.
    this.dialog.addEventListener("cancel", () => {
      if (connection.state === "idle") this.take("");
    });
  }

  /** Go there as we are known, or ask. */
  start() {
    const name = memory.get("name");
    if (typeof name === "string") this.connection.start(name);
    else this.ask();
  }

  ask(error = "") {
    this.field.value = this.connection.name;
    this.say(error);
    if (!this.dialog.open) this.dialog.showModal();
    this.field.select();
  }

  say(error) {
    $("name-error").textContent = error;
    this.field.setAttribute("aria-invalid", String(Boolean(error)));
  }

  async take(name) {
    const { connection } = this;
    this.say("");
    try {
      if (name !== connection.held || connection.state !== "connected") await this.change(name);
      else connection.name = name; // not the one that was refused
    } catch (error) {
      this.say(error.message);
      this.field.select();
      return;
    }
    memory.set("name", name);
    this.show();
    this.dialog.close();
    $("text").focus();
  }

  /** Be called so, as far as the server answers in time. Throws what it refuses. */
  change(name) {
    const { connection } = this;
    if (name && connection.state === "connected") return connection.rename(name);
    // Without a name from now on, or not there yet: by another connection.
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
      setTimeout(resolve, PATIENCE);
      connection.start(name);
    });
  }

  connected() {
    clearTimeout(this.again);
    if (this.connection.nameless) {
      if (this.lost) this.regain(ATTEMPTS);
    } else {
      this.lost = "";
      this.waiting?.resolve();
      this.waiting = null;
    }
    this.show();
  }

  /** The server refuses the name, of which we heard before or not. */
  refused(error) {
    if (this.waiting) {
      this.waiting.reject(error);
      this.waiting = null;
    } else if (this.connection.held) this.lost = this.connection.name;
    else this.ask(error.message);
  }

  /** It was ours a moment ago: ask for it until whoever has it, likely our old connection, is gone. */
  regain(attempts) {
    this.again = setTimeout(async () => {
      try {
        if (this.connection.nameless) await this.connection.rename(this.lost);
      } catch {
        if (attempts > 1) this.regain(attempts - 1);
      }
      this.show();
    }, AGAIN);
  }

  show() {
    const { held, name, nameless } = this.connection;
    $("me-name").textContent = held || "Choose a name";
    $("me-change").hidden = !held;
    $("me-problem").textContent = nameless && name ? `${name} is not free now` : "";
  }
}
