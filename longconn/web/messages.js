// The list of messages in the open channel. It follows the newest message while the list's end is in view.

import { $, hue, linked, make, named, sign, written } from "./elements.js";

const NEAR = 40; // pixels from the end that count as the end
const FEW = 4; // names shown of those that joined or left; the others are counted
const TOGETHER = 5 * 60 * 1000; // milliseconds within which messages of one client are one block

export class Messages {
  room = null;
  fresh = 0; // new messages below the visible part

  constructor() {
    this.list = $("messages");
    this.newer = $("newer");
    this.isAtEnd = true;
    this.list.addEventListener("scroll", () => {
      this.isAtEnd = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < NEAR;
      if (this.isAtEnd) this.count(0);
    }, { passive: true });
    this.newer.addEventListener("click", () => {
      this.toEnd();
      this.list.focus();
    });
    new ResizeObserver(() => this.isAtEnd && this.toEnd()).observe(this.list);
  }

  open(room) {
    this.room = room;
    this.isAtEnd = true;
    this.count(0);
    this.drawAll();
  }

  /** Draw the changes, once per animation frame. */
  update() {
    if (this.isDrawPending) return;
    this.isDrawPending = true;
    // A hidden page gets no animation frames.
    const next = document.hidden ? (call) => setTimeout(call, 100) : requestAnimationFrame;
    next(() => {
      this.isDrawPending = false;
      this.draw();
    });
  }

  draw() {
    const { room, list } = this;
    if (!room) return;
    if (room.drawing !== this.drawing || room.total - this.total >= room.items.length) return this.drawAll();
    const added = room.total - this.total;
    // The last line of joins and leaves may have become longer.
    const from = Math.max(0, room.items.length - added - 1);
    if (list.lastChild && room.items[from]?.kind === "moves") list.lastChild.replaceWith(this.element(from));
    for (let index = room.items.length - added; index < room.items.length; index++) list.append(this.element(index));
    const isShorter = list.childElementCount > room.items.length;
    while (list.childElementCount > room.items.length) list.firstChild.remove();
    if (isShorter) list.firstChild.replaceWith(this.element(0)); // it may have continued the block of a message that was removed
    this.total = room.total;
    this.hint();
    if (added) this.follow(room.items.slice(-added).filter((each) => each.kind === "message").length);
  }

  drawAll() {
    const { room, list } = this;
    const below = list.scrollHeight - list.scrollTop;
    list.replaceChildren(...(room?.items ?? []).map((_, index) => this.element(index)));
    Object.assign(this, { total: room?.total ?? 0, drawing: room?.drawing ?? 0 });
    if (this.isAtEnd) this.toEnd();
    else list.scrollTop = list.scrollHeight - below;
    this.hint();
  }

  /** Show or hide the hint of an empty channel. */
  hint() {
    const { room } = this;
    $("empty").hidden = !room?.entered || room.wanted !== null || room.items.some((each) => each.kind !== "moves");
  }

  follow(messages) {
    if (this.isAtEnd || this.room.items.at(-1)?.own) this.toEnd();
    else this.count(this.fresh + messages);
  }

  toEnd() {
    this.list.scrollTop = this.list.scrollHeight;
    this.isAtEnd = true;
    this.count(0);
  }

  count(fresh) {
    this.fresh = fresh;
    this.newer.hidden = !fresh;
    this.newer.firstElementChild.textContent = fresh === 1 ? "1 new message" : `${fresh} new messages`;
  }

  element(index) {
    const { items } = this.room;
    const item = items[index];
    if (item.kind === "note") return make("li", "note", item.text);
    if (item.kind === "moves") return make("li", "moves", ...item.moves.flatMap(move));
    const earlier = items.findLast((each, at) => at < index && each.kind === "message")?.time ?? new Date();
    return message(item, items[index - 1], earlier.toDateString() !== item.time.toDateString());
  }
}

/** The text of a join, a leave or a new name. */
function move({ what, names, more }, index) {
  const words = index ? [" · "] : [];
  if (what === "renamed") return [...words, named(names[0]), " is now ", named(names[1])];
  const count = names.length + more;
  names.slice(0, FEW).forEach((each, at) => {
    if (at) words.push(at === count - 1 ? " and " : ", ");
    words.push(named(each));
  });
  if (count > FEW) words.push(` and ${count - FEW} more`);
  return [...words, ` ${what}`];
}

function message(item, before, isOfAnotherDay) {
  const goesOn = !isOfAnotherDay && before?.kind === "message" && before.client === item.client &&
    before.name === item.name && item.time - before.time < TOGETHER;
  const element = make("li", `message${goesOn ? " goes-on" : ""}${item.own ? " own" : ""}`);
  const head = make("p", goesOn ? "said-by sr" : "said-by", named(item.name, `name ${hue(item.name)}`), " ");
  const day = isOfAnotherDay ? { weekday: "short", day: "numeric", month: "short" } : {};
  const time = make("time", "", item.time.toLocaleString([], { ...day, hour: "2-digit", minute: "2-digit" }));
  time.dateTime = item.time.toISOString();
  time.title = item.time.toLocaleString();
  head.append(time);
  const isText = typeof item.data === "string";
  const words = written(item.data);
  const content = isText && words ? linked(words) : [words || "(blank)"];
  const text = make(isText ? "p" : "code", `text${words ? "" : " blank"}`, ...content);
  if (isText) text.dir = "auto";
  if (!goesOn) element.append(sign(item.name));
  element.append(head, text);
  return element;
}
