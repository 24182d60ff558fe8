// The user's name: asked for at the first visit, kept in the browser, changed in a dialog that shows refusals.

import { memory } from "./address.js";
import { $ } from "./elements.js";

const AGAIN = 5000; // milliseconds between two attempts to get back a name that this session held
const ATTEMPTS = 12; // then less often
const SELDOM = 30000;
const DIALOG_TIMEOUT = 5000; // milliseconds for which the dialog waits for the server

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
    // Escape keeps the current name. At the first visit it goes on without one.
    this.dialog.addEventListener("cancel", () => {
      if (connection.state === "idle") this.take("");
    });
  }

  /** Connect with the remembered name, or ask for one. */
  start() {
    const name = memory.get("name");
    if (typeof name === "string") this.connection.start(name);
    else this.ask();
  }

  ask(error = "") {
    this.field.value = this.connection.name;
    this.showError(error);
    if (!this.dialog.open) this.dialog.showModal();
    this.field.select();
  }

  showError(error) {
    $("name-error").textContent = error;
    this.field.setAttribute("aria-invalid", String(Boolean(error)));
  }

  async take(name) {
    const { connection } = this;
    this.showError("");
    try {
      if (name !== connection.heldName || connection.state !== "connected") await this.change(name);
      else connection.name = name; // instead of the one that was refused
    } catch (error) {
      this.showError(error.message);
      this.field.select();
      return;
    }
    memory.set("name", name);
    this.show();
    this.dialog.close();
    $("text").focus();
  }

  /** Ask the server for a name. Resolves after the dialog's time-out at the latest. Throws the server's refusal. */
  change(name) {
    const { connection } = this;
    if (name && connection.state === "connected") return connection.rename(name);
    // Giving a name up, or taking one while not connected, needs a new connection.
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
      setTimeout(resolve, DIALOG_TIMEOUT);
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

  /** The server refuses the name, which this session may have held before. */
  refused(error) {
    if (this.waiting) {
      this.waiting.reject(error);
      this.waiting = null;
    } else if (this.connection.heldName) this.lost = this.connection.name;
    else this.ask(error.message);
  }

  /** Ask again for a name that this session held. Most likely our old connection still holds it on the server. */
  regain(attempts) {
    this.again = setTimeout(async () => {
      try {
        if (this.connection.nameless) await this.connection.rename(this.lost);
      } catch {
        this.regain(attempts - 1);
      }
      this.show();
    }, attempts > 0 ? AGAIN : SELDOM);
  }

  show() {
    const { heldName, name, nameless } = this.connection;
    $("me-name").textContent = heldName || "Choose a name";
    $("me-change").hidden = !heldName;
    $("me-problem").textContent = nameless && name ? `${name} is not free now` : "";
  }
}
