// One conversation with the server, which outlives its connections: it comes back by itself, by another way if one
// is blocked, and asks for the same name again.

import { memory } from "./address.js";
import { Events, Socket, TOO_LARGE, tryWebSocket } from "./transports.js";

const PATIENCE = 8000; // milliseconds for the answer to `connect`
const PROBE = 2000; // milliseconds for an answer to a `ping` that is sent in doubt
const GRACE = 10; // seconds beyond the server's ping
const SHORTEST = 500; // milliseconds between two attempts
const LONGEST = 20000;
const NAME_TRIES = 5; // how often a name that was ours is asked for before it is given up
const BLOCKED_FOR = 60000; // milliseconds until a blocked WebSocket is tried again, and twice that the next time
const BLOCKED_MOST = 3600000;

/** A command was refused: `code`, and the server's words. */
export class Refusal extends Error {
  constructor({ code, message, temporary }) {
    super(message);
    Object.assign(this, { code, temporary });
  }
}

/** The connection ended before an answer came; `client` is who had asked. */
export class Lost extends Error {
  constructor(client) {
    super("the connection was lost");
    this.client = client;
  }
}

const isFinal = (code) => (code >= 3500 && code < 4000) || code >= 4500;
const isNameRefused = (code) => code === 152 || code === 153;

/**
 * `on.state()` is called when `state` changes, `on.connected()` for each new connection, `on.push(push)` for what
 * comes unasked, `on.refused(error)` when the name is refused: then it goes on without.
 * States: idle, connecting, connected, waiting (until `retryAt`), stopped (`reason`).
 */
export class Connection {
  state = "idle";
  reason = "";
  retryAt = 0;
  client = ""; // our id, of this connection
  ids = new Set(); // all that we had
  name = ""; // that we ask for
  held = ""; // that the server gave us last
  nameless = false; // the name was refused: connect without

  constructor(on) {
    this.on = on;
    this.attempts = 0;
    this.tries = 0;
    this.count = 0;
    this.calls = new Map();
    this.blocked = { until: 0, wait: BLOCKED_FOR, ...memory.get("blocked") };
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.hurry());
  }

  get transportName() {
    return this.state === "connected" ? this.transport.name : "";
  }

  /** Connect, with a name or without (""). */
  start(name) {
    this.name = name;
    this.nameless = false;
    this.tries = 0;
    this.now();
  }

  /** Take another name without another connection. Throws Refusal or Lost. */
  async rename(name) {
    const { data } = await this.call("rpc", { method: "chat.rename", data: { name } });
    this.name = this.held = data.name;
    this.nameless = false;
  }

  /** Another connection, at once. */
  now() {
    this.drop();
    this.attempts = 0;
    this.open(this.preferred);
  }

  /** The page is looked at again, or the network changed: come back now, or see whether the connection lives. */
  hurry() {
    if (this.state === "waiting") this.now();
    else if (this.state === "connected") {
      const asked = this.current;
      const timer = setTimeout(() => asked === this.current && this.ended({ code: 0 }), PROBE);
      const answered = () => clearTimeout(timer);
      this.call("ping", {}).then(answered, answered);
    }
  }

  // A connection.

  get preferred() {
    return Date.now() < this.blocked.until ? Events : Socket;
  }

  open(Transport, isSecond = false) {
    const connect = { id: ++this.count, connect: { name: "page" } };
    if (this.name && !this.nameless) connect.connect.data = { chat: { name: this.name } };
    const on = {
      messages: (messages) => messages.forEach((each) => on === this.current && this.message(each)),
      end: (why) => on === this.current && this.ended(why),
    };
    Object.assign(this, { current: on, connectId: connect.id, isSecond });
    this.transport = new Transport(connect, on);
    this.timer = setTimeout(() => this.ended({ code: 0 }), PATIENCE);
    this.to("connecting");
  }

  welcome(connect) {
    const { client, ping = 0, pong = false } = connect;
    Object.assign(this, { client, pong, silence: ping ? (ping + GRACE) * 1000 : 0, attempts: 0, tries: 0 });
    this.ids.add(client);
    this.held = this.nameless ? "" : this.name;
    this.transport.welcome(connect);
    this.listen();
    clearTimeout(this.later);
    if (this.transport instanceof Socket) this.block(0, BLOCKED_FOR);
    else this.later = setTimeout(() => this.unblock(), Math.max(1000, this.blocked.until - Date.now()));
    this.to("connected");
    this.on.connected();
  }

  /** `connect` was refused. */
  refused(error) {
    if (!isNameRefused(error.code)) {
      if (error.temporary) this.wait();
      else this.stop(error.message);
    } else if (this.held === this.name && this.tries++ < NAME_TRIES) {
      // The old connection may have it until the server misses it: it is ours again soon, or somebody else's.
      this.attempts = 0; // the server is there
      this.wait();
    } else {
      this.nameless = true;
      this.on.refused(error);
      this.now();
    }
  }

  /** The connection is over, or never came about. */
  ended({ code = 0, reason = "" }) {
    const wasConnecting = this.state === "connecting";
    const wasSocket = this.transport instanceof Socket;
    this.drop(code === TOO_LARGE ? new Refusal({ code, message: "the message is too large" }) : undefined);
    if (isFinal(code)) this.stop(reason);
    else if (wasConnecting && !this.isSecond) {
      if (wasSocket) this.block(Date.now() + this.blocked.wait, this.blocked.wait);
      this.open(wasSocket ? Events : Socket, true);
    } else {
      // Where neither way leads to the server, it was not for the WebSocket.
      if (wasConnecting) this.block(0, BLOCKED_FOR);
      this.wait();
    }
  }

  /** Leave the connection. What it did not answer is told `error`. */
  drop(error = new Lost(this.client)) {
    this.current = null;
    this.transport?.close();
    clearTimeout(this.timer);
    const calls = [...this.calls.values()];
    this.calls.clear();
    for (const each of calls) each.reject(error);
  }

  // Between connections. Full jitter, so that a server that was started anew is not met by all at once.

  wait() {
    this.drop();
    const delay = SHORTEST + Math.random() * Math.min(LONGEST - SHORTEST, SHORTEST * 2 ** this.attempts++);
    this.retryAt = Date.now() + delay;
    this.timer = setTimeout(() => this.open(this.preferred), delay);
    this.to("waiting");
  }

  stop(reason) {
    this.drop();
    this.reason = reason;
    this.to("stopped");
  }

  to(state) {
    this.state = state;
    this.on.state();
  }

  block(until, wait) {
    this.blocked = { until, wait: Math.min(wait, BLOCKED_MOST) };
    memory.set("blocked", this.blocked);
  }

  /** While it goes well by server-sent events: see whether a WebSocket may be opened by now, and change to it. */
  unblock() {
    tryWebSocket((yes) => {
      if (this.state !== "connected" || this.transport instanceof Socket) return;
      const wait = yes ? BLOCKED_FOR : 2 * this.blocked.wait;
      this.block(yes ? 0 : Date.now() + wait, wait);
      if (yes) this.now();
      else this.later = setTimeout(() => this.unblock(), this.blocked.wait);
    });
  }

  // Commands and what comes.

  /** Ask something; its result. Throws Refusal or Lost. */
  call(method, body) {
    return new Promise((resolve, reject) => {
      if (this.state !== "connected") return reject(new Lost(""));
      const id = ++this.count;
      this.calls.set(id, { resolve: (reply) => resolve(reply[method] ?? {}), reject });
      this.transport.send({ id, [method]: body });
    });
  }

  listen() {
    clearTimeout(this.timer);
    if (this.silence) this.timer = setTimeout(() => this.ended({ code: 0 }), this.silence);
  }

  message(message) {
    if (this.state === "connected") this.listen();
    if (message.push) this.on.push(message.push);
    else if (message.id === this.connectId) {
      if (message.error) this.refused(new Refusal(message.error));
      else this.welcome(message.connect);
    } else if (message.id) {
      const call = this.calls.get(message.id);
      this.calls.delete(message.id);
      if (message.error) call?.reject(new Refusal(message.error));
      else call?.resolve(message);
    } else if (this.pong) this.transport.send({});
  }
}
