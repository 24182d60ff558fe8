// One channel of the page: its messages, its people, and the position for recovery.

import { Lost } from "./connection.js";

const MOST = 500; // messages kept on the page
const AT_FIRST = 50; // messages of history fetched on joining
const MOST_MOVES = 12; // groups of joins, leaves and new names in one line
const MOST_NAMES = 100; // names kept in one group; the others are counted
const RESUBSCRIBE = 2500; // from this code on, an `unsubscribe` push asks the client to subscribe again
const RETRY_AFTER = 3000; // milliseconds until a subscribe that was refused for now is tried again

const hasName = (info) => typeof info?.conn_info?.name === "string" && info.conn_info.name !== "";
/** Whether people are told when a client comes and goes: it is in the chat. */
const isNamed = (info) => hasName(info) && info.chat !== false;

function nameOf(info) {
  if (hasName(info)) return info.conn_info.name;
  // No name in the chat may hold an ellipsis, so that an id cannot be taken for a name.
  return info?.client ? `${info.client.slice(0, 8)}…` : "(server)";
}

/**
 * Items are messages `{kind: "message", name, client, own, data, time}`, joins and leaves `{kind: "moves", moves}`,
 * each `{what, names, more}`, and notes `{kind: "note", text}`. `total` counts the items that were ever appended.
 * `drawing` increases when other items changed. Callbacks: `on.changed(room)` for each change, `on.entered(room)` for
 * each subscribe that succeeded, `on.said(room, item, isLive)` for each message that was pushed or recovered.
 */
export class Room {
  items = [];
  total = 0;
  drawing = 0;
  unread = 0;
  draft = "";
  problem = ""; // why the last message could not be sent
  error = ""; // why the channel cannot be subscribed to
  entered = false; // subscribed now
  present = new Map(); // names by client id; null without the right to presence
  position = null; // {epoch, offset}, if the channel is recoverable
  last = 0; // offset of the newest message shown
  wanted = null; // the history to fetch: {after: an item or null, floor, before}
  sending = new Set(); // messages on their way: {text, client, seen}
  attempt = null; // the current subscribe; replies to earlier ones are ignored
  leaving = null; // a leave that may be the first half of a new name

  constructor(channel, connection, on) {
    Object.assign(this, { channel, connection, on });
  }

  // Subscribing.

  async enter() {
    const attempt = (this.attempt = {});
    const body = { channel: this.channel, join_leave: true };
    if (this.position) Object.assign(body, { recover: true, ...this.position });
    const isReturn = this.total > 0 || this.position !== null;
    try {
      const result = await this.connection.call("subscribe", body);
      if (attempt === this.attempt) this.subscribed(result, isReturn);
    } catch (error) {
      if (error instanceof Lost || attempt !== this.attempt) return;
      this.error = error.message;
      this.settle(false);
      if (error.temporary) setTimeout(() => attempt === this.attempt && this.enter(), RETRY_AFTER * (1 + Math.random()));
      this.on.changed(this);
    }
  }

  /** Handle the result of a subscribe. */
  subscribed(result, isReturn) {
    const { epoch = "", offset = 0, publications = [], was_recovering: asked, recovered, positioned } = result;
    this.entered = true;
    this.error = "";
    const floor = epoch === this.position?.epoch ? this.last : 0;
    this.position = positioned ? { epoch, offset } : null; // each publication moves it on
    if (asked && recovered) for (const each of publications) this.published(each, false);
    else {
      if (isReturn) {
        this.note(asked ? "Some messages could not be recovered." : "What was said meanwhile may be missing.");
      }
      this.wanted = { after: isReturn ? this.items.at(-1) : null, floor, before: Infinity };
      this.last = floor;
    }
    this.settle(recovered);
    if (this.wanted) this.fetchHistory();
    this.on.entered(this);
    this.on.changed(this);
  }

  /** The connection is lost. */
  disconnected() {
    this.entered = false;
    if (this.connection.state === "stopped") this.settle(false);
    this.on.changed(this);
  }

  async fetchHistory() {
    const { wanted } = this;
    let publications;
    try {
      ({ publications } = await this.connection.call("history", { channel: this.channel, limit: AT_FIRST, reverse: true }));
    } catch (error) {
      if (!(error instanceof Lost) && wanted === this.wanted) this.wanted = null; // we may not read the history
      return;
    }
    if (wanted !== this.wanted) return;
    this.wanted = null;
    const old = publications.reverse().filter(({ offset }) => offset > wanted.floor && offset < wanted.before);
    this.items.splice(this.items.indexOf(wanted.after) + 1, 0, ...old.map((each) => this.item(each)));
    this.last = Math.max(this.last, old.at(-1)?.offset ?? 0);
    if (this.position) this.position.offset = Math.max(this.position.offset, this.last);
    this.redraw();
  }

  async fetchPresence() {
    try {
      const { presence } = await this.connection.call("presence", { channel: this.channel });
      this.present = new Map(Object.entries(presence).map(([client, info]) => [client, nameOf({ client, ...info })]));
    } catch (error) {
      if (error instanceof Lost) return;
      this.present = null;
    }
    this.on.changed(this);
  }

  // Sending.

  /** Publish a text. Throws an error for the user if it was not, or may not have been, sent. */
  async send(text) {
    const sent = { text, client: this.connection.client, seen: false };
    this.sending.add(sent);
    try {
      await this.connection.call("publish", { channel: this.channel, data: text });
      this.sending.delete(sent);
    } catch (error) {
      if (error instanceof Lost) {
        return new Promise((resolve, reject) => {
          Object.assign(sent, { resolve, reject });
          // After the next subscribe, the recovered messages show whether it arrived.
          if (this.connection.state === "stopped") this.settle(false);
        });
      }
      this.sending.delete(sent);
      throw error;
    }
  }

  settle(recovered) {
    for (const each of this.sending) {
      if (!each.resolve) continue;
      this.sending.delete(each);
      if (each.seen) each.resolve();
      else each.reject(new Error(`It ${recovered ? "was not" : "may not have been"} sent: the connection was lost.`));
    }
  }

  /** Unsubscribe, or cancel a subscribe that is under way. */
  leave() {
    this.attempt = null;
    this.entered = false;
    this.connection.call("unsubscribe", { channel: this.channel }).catch(() => {});
  }

  // Pushes.

  push({ pub, join, leave, unsubscribe }) {
    const left = this.leaving;
    this.leaving = null; // a leave that may be the first half of a new name
    if (left && join?.info.client === left.client) return this.moved("renamed", join.info, left);
    if (left) this.moved("left", left);
    if (pub) this.published(pub, true);
    else if (join) this.moved("joined", join.info);
    else if (leave) {
      // A new name comes as a leave and a join of the same client, one right after the other.
      this.leaving = leave.info;
      queueMicrotask(() => this.leaving === leave.info && this.push({}));
    } else if (unsubscribe) {
      this.entered = false;
      if (unsubscribe.code >= RESUBSCRIBE) this.enter();
      else this.error = unsubscribe.reason;
      this.on.changed(this);
    }
  }

  /** Handle a join, a leave or a new name. A client without a name is listed as present, but not announced. */
  moved(what, info, old) {
    const name = nameOf(info);
    if (what === "left") this.present?.delete(info.client);
    else this.present?.set(info.client, name);
    const was = isNamed(old) ? nameOf(old) : "";
    const isAnnounced = isNamed(info) && was !== name && (this.isOwn(info) ? was : true);
    if (isAnnounced) this.move(what === "renamed" && !was ? "joined" : what, name, was);
    this.on.changed(this);
  }

  /** Joins and leaves in a row are one line. A client that takes a name right after its join joined by that name. */
  move(what, name, was) {
    const line = this.items.at(-1);
    if (line?.kind !== "moves" || line.moves.length === MOST_MOVES) {
      this.add({ kind: "moves", moves: [] });
      return this.move(what, name, was);
    }
    const { moves } = line;
    const latest = moves.findLast((each) => each.names.includes(was));
    const join = latest?.what === "joined" ? latest : null;
    const last = moves.at(-1);
    if (what === "renamed" && join) join.names[join.names.indexOf(was)] = name;
    else if (what === "renamed") moves.push({ what, names: [was, name], more: 0 });
    else if (last?.what !== what) moves.push({ what, names: [name], more: 0 });
    else if (last.names.length < MOST_NAMES) last.names.push(name);
    else last.more += 1;
  }

  published(publication, isLive) {
    const { offset = 0, data, info } = publication;
    if (offset && offset <= this.last) return; // the history contained it
    if (offset) {
      this.last = offset;
      if (this.position) this.position.offset = offset;
      if (this.wanted) this.wanted.before = Math.min(this.wanted.before, offset);
    }
    for (const each of this.sending) {
      if (!each.seen && each.client === info?.client && each.text === data) {
        each.seen = true;
        break;
      }
    }
    const item = this.item(publication);
    this.add(item);
    this.on.said(this, item, isLive);
  }

  item({ data, info, time }) {
    const own = this.isOwn(info);
    return { kind: "message", name: nameOf(info), client: info?.client, own, data, time: new Date(time ?? Date.now()) };
  }

  isOwn(info) {
    return this.connection.ids.has(info?.client);
  }

  add(item) {
    this.items.push(item);
    this.total += 1;
    if (this.items.length > MOST) this.items.splice(0, this.items.length - MOST);
    this.on.changed(this);
  }

  note(text) {
    this.add({ kind: "note", text });
  }

  redraw() {
    if (this.items.length > MOST) this.items.splice(0, this.items.length - MOST);
    this.drawing += 1;
    this.on.changed(this);
  }
}
