// The message field. Enter sends the message, Shift+Enter starts a new line. A message that fails stays in the field.

import { $ } from "./elements.js";

const SLOW = 500; // milliseconds after which the page shows that a message is still being sent
const NOT_CONNECTED = "Not connected. Your message stays here.";

export class Composer {
  room = null;

  constructor(connection) {
    this.connection = connection;
    this.field = $("text");
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.field.addEventListener("keydown", (event) => {
      // While an input method composes a word (Chinese, Japanese, …), Enter belongs to it. Safari says so by keyCode 229.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.send();
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

  /** Focus the field, but not on a touch screen: a keyboard would cover half of the page there. */
  focusField() {
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

  /** Fit the field's height to its text. The style sheet bounds it. */
  fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight + 2}px`;
  }

  async send() {
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
      await room.send(text);
    } catch (error) {
      this.restore(room, text, error.message);
    }
    clearTimeout(slow);
    this.progress();
  }

  /** Put a text that could not be sent back into the field, before anything typed meanwhile. */
  restore(room, text, problem) {
    const joined = (written) => (written ? `${text}\n${written}` : text);
    if (room === this.room) {
      this.field.value = joined(this.field.value);
      this.problem(problem);
      this.fit();
    } else Object.assign(room, { draft: joined(room.draft), problem });
  }
}
