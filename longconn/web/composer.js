// The field in which a message is written. Enter says it, Shift+Enter starts a line; what could not be said stays.

import { $ } from "./elements.js";

const SLOW = 500; // milliseconds after which it is told that a message is still on its way
const NOT_CONNECTED = "Not connected. Your message stays here.";

export class Composer {
  room = null;

  constructor(connection) {
    this.connection = connection;
    this.field = $("text");
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.say();
    });
    this.field.addEventListener("keydown", (event) => {
      // While a word is being composed (Chinese, Japanese, …) Enter belongs to that; Safari says so by a code of its own.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.say();
    });
    this.field.addEventListener("input", () => {
      this.problem("");
      this.fit();
    });
  }

  open(room) {
    if (this.room) this.room.draft = this.field.value;
    this.room = room;
    this.field.value = room?.draft ?? "";
    this.field.disabled = $("send").disabled = !room;
    this.field.placeholder = room ? `Message #${room.channel}` : "";
    this.problem(room?.problem && room.problem !== NOT_CONNECTED ? room.problem : "");
    this.progress();
    this.fit();
  }

  /** Be ready to be typed into, where that brings no keyboard up over half of the page. */
  invite() {
    if (!matchMedia("(pointer: coarse)").matches) this.field.focus();
  }

  progress() {
    $("composer-note").textContent = this.room?.sending.size ? "Sending…" : "";
  }

  problem(text) {
    if (this.room) this.room.problem = text;
    if ($("composer-error").textContent !== text) $("composer-error").textContent = text;
  }

  connected() {
    if (this.room?.problem === NOT_CONNECTED) this.problem("");
  }

  /** As high as what is in it; the style says how high at most. */
  fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight + 2}px`;
  }

  async say() {
    const { room, field } = this;
    const text = field.value.replace(/\s+$/, "");
    if (!text || !room) return;
    if (this.connection.state !== "connected") return this.problem(NOT_CONNECTED);
    field.value = "";
    this.problem("");
    this.fit();
    field.focus();
    const slow = setTimeout(() => this.progress(), SLOW);
    try {
      await room.say(text);
    } catch (error) {
      this.giveBack(room, text, error.message);
    }
    clearTimeout(slow);
    this.progress();
  }

  /** What could not be said goes back into the field, before what was written meanwhile. */
  giveBack(room, text, problem) {
    const joined = (written) => (written ? `${text}\n${written}` : text);
    if (room === this.room) {
      this.field.value = joined(this.field.value);
      this.problem(problem);
      this.fit();
    } else Object.assign(room, { draft: joined(room.draft), problem });
  }
}
