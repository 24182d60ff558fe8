// A session with the server that outlives its connections. It reconnects by itself, over server-sent events where
// WebSockets are blocked, and asks for the same name again.

import { memory, tabSecret } from "./address.js";
import { Events, Socket, TOO_LARGE, tryWebSocket } from "./transports.js";

const CONNECT_TIMEOUT = 8000; // milliseconds for the reply to `connect`
const PROBE_TIMEOUT = 2000; // milliseconds for the reply to a `ping` that tests whether the connection is alive
const GRACE = 10; // seconds of silence beyond the server's ping interval
const SHORTEST = 500; // milliseconds between two attempts, and the longest
const LONGEST = 20000;
const NAME_TRIES = 5; // attempts to get back a name that this session held
const BLOCKED_FOR = 60000; // milliseconds until a blocked WebSocket is tried again; doubled each time
const BLOCKED_MOST = 3600000;

/** A command was refused: `code`, and the server's message. */
export class Refusal extends Error {
  constructor({ code, message, temporary }) {
    super(message);
    Object.assign(this, { code, temporary });
  }
}

/** The connection ended before the reply came. `client` is the client id of that connection. */
export class Lost extends Error {
  constructor(client) {
    super("the connection was lost");
    this.client = client;
  }
}

const isFinal = (code) => (code >= 3500 && code < 4000) || code >= 4500;
const isNameRefused = (code) => code === 152 || code === 153;

/**
 * Callbacks: `on.state()` when `state` changes, `on.connected()` for each new connection, `on.push(push)` for each
 * push of the server, `on.refused(error)` when the name is refused. The session then goes on without a name.
 * States: idle, connecting, connected, waiting (until `retryAt`), stopped (`reason`).
 */
export class Connection {
  state = "idle";
  reason = "";
  code = 0; // of the disconnect after which it is stopped
  retryAt = 0;
  client = ""; // our client id on this connection
  ids = new Set(); // every client id of this session
  name = ""; // the name to ask for
  heldName = ""; // the name that the server granted last
  nameless = false; // the name was refused: connect without it
  login = null; // { user, password }, where the server wants them

  constructor(on) {
    this.on = on;
    this.attempts = 0;
    this.tries = 0;
    this.count = 0;
    this.pending = new Map();
    this.blocked = { until: 0, wait: BLOCKED_FOR, ...memory.get("blocked") };
    addEventListener("online", () => this.checkNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.checkNow());
  }

  get transportName() {
    return this.state === "connected" ? this.transport.name : "";
  }

  /** Connect with a name; "" is none. */
  start(name) {
    this.name = name;
    this.nameless = false;
    this.tries = 0;
    this.reconnect();
  }

  /** Take another name on the current connection. Throws Refusal or Lost. */
  async rename(name) {
    const { data } = await this.call("rpc", { method: "chat.rename", data: { name } });
    this.name = this.heldName = data.name;
    this.nameless = false;
  }

  /** Open a new connection at once. */
  reconnect() {
    this.drop();
    this.attempts = 0;
    this.open(this.preferred);
  }

  /** The page became visible or the network came back: reconnect now, or test whether the connection is alive. */
  checkNow() {
    if (this.state === "waiting") this.reconnect();
    else if (this.state === "connected") {
      const asked = this.current;
      const timer = setTimeout(() => asked === this.current && this.ended({ code: 0 }), PROBE_TIMEOUT);
      const answered = () => clearTimeout(timer);
      this.call("ping", {}).then(answered, answered);
    }
  }

  // One connection.

  get preferred() {
    // Server-sent events have their connect in a URL, where a password must not be.
    return Date.now() < this.blocked.until && !this.login ? Events : Socket;
  }

  open(Transport, isSecond = false) {
    const connect = { id: ++this.count, connect: { name: "page" } };
    const data = {};
    if (this.name && !this.nameless) data.chat = { name: this.name, resume: tabSecret };
    if (this.login) data.login = this.login;
    connect.connect.data = data;
    const on = {
      messages: (messages) => messages.forEach((each) => on === this.current && this.message(each)),
      end: (why) => on === this.current && this.ended(why),
    };
    Object.assign(this, { current: on, connectId: connect.id, isSecond });
    this.transport = new Transport(connect, on);
    this.timer = setTimeout(() => this.ended({ code: 0 }), CONNECT_TIMEOUT);
    this.to("connecting");
  }

  welcome(connect) {
    const { client, ping = 0, pong = false } = connect;
    Object.assign(this, { client, pong, silence: ping ? (ping + GRACE) * 1000 : 0, tries: 0 });
    this.welcomedAt = Date.now();
    this.ids.add(client);
    this.heldName = this.nameless ? "" : this.name;
    this.transport.welcome(connect);
    this.restartSilenceTimer();
    clearTimeout(this.unblockTimer);
    if (this.transport instanceof Socket) this.block(0, BLOCKED_FOR);
    else this.unblockTimer = setTimeout(() => this.unblock(), Math.max(1000, this.blocked.until - Date.now()));
    this.to("connected");
    this.on.connected();
  }

  /** `connect` was refused. */
  refused(error) {
    if (!isNameRefused(error.code)) {
      if (error.temporary) this.wait();
      else this.stop(error.message);
    } else if (this.heldName === this.name && this.tries++ < NAME_TRIES) {
      // The server may not have noticed yet that our old connection, which holds the name, is lost.
      this.attempts = 0; // the server answers
      this.wait();
    } else {
      this.nameless = true;
      this.on.refused(error);
      this.reconnect();
    }
  }

  /** The connection ended, or could not be made. */
  ended({ code = 0, reason = "" }) {
    const wasConnecting = this.state === "connecting";
    const wasSocket = this.transport instanceof Socket;
    this.drop(code === TOO_LARGE ? new Refusal({ code, message: "the message is too large" }) : undefined);
    if (isFinal(code)) this.stop(reason, code);
    else if (wasConnecting && !this.isSecond && !this.login) {
      if (wasSocket) this.block(Date.now() + this.blocked.wait, this.blocked.wait);
      this.open(wasSocket ? Events : Socket, true);
    } else {
      // Neither transport reached the server, so WebSockets are not to blame.
      if (wasConnecting) this.block(0, BLOCKED_FOR);
      this.wait();
    }
  }

  /** Close the connection. Calls that wait for a reply fail with `error`. */
  drop(error = new Lost(this.client)) {
    this.current = null;
    this.transport?.close();
    clearTimeout(this.timer);
    const calls = [...this.pending.values()];
    this.pending.clear();
    for (const each of calls) each.reject(error);
  }

  // Between connections. Full jitter, so that the clients of a restarted server do not reconnect all at once.

  wait() {
    this.drop();
    // A connection that is lost at once is no success.
    if (this.welcomedAt && Date.now() - this.welcomedAt > LONGEST) this.attempts = 0;
    this.welcomedAt = 0;
    const delay = SHORTEST + Math.random() * Math.min(LONGEST - SHORTEST, SHORTEST * 2 ** this.attempts++);
    this.retryAt = Date.now() + delay;
    this.timer = setTimeout(() => this.open(this.preferred), delay);
    this.to("waiting");
  }

  stop(reason, code = 0) {
    this.drop();
    Object.assign(this, { reason, code });
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

  /** While connected by server-sent events: test whether a WebSocket can be opened, and change to it. */
  unblock() {
    tryWebSocket((opened) => {
      if (this.state !== "connected" || this.transport instanceof Socket) return;
      const wait = opened ? BLOCKED_FOR : 2 * this.blocked.wait;
      this.block(opened ? 0 : Date.now() + wait, wait);
      if (opened) this.reconnect();
      else this.unblockTimer = setTimeout(() => this.unblock(), this.blocked.wait);
    });
  }

  // Commands and replies.

  /** Send a command; resolves with its result. Throws Refusal or Lost. */
  call(method, body) {
    return new Promise((resolve, reject) => {
      if (this.state !== "connected") return reject(new Lost(""));
      const id = ++this.count;
      this.pending.set(id, { resolve: (reply) => resolve(reply[method] ?? {}), reject });
      this.transport.send({ id, [method]: body });
    });
  }

  restartSilenceTimer() {
    clearTimeout(this.timer);
    if (this.silence) this.timer = setTimeout(() => this.ended({ code: 0 }), this.silence);
  }

  message(message) {
    if (this.state === "connected") this.restartSilenceTimer();
    if (message.push) this.on.push(message.push);
    else if (message.id === this.connectId) {
      if (message.error) this.refused(new Refusal(message.error));
      else this.welcome(message.connect);
    } else if (message.id) {
      const call = this.pending.get(message.id);
      this.pending.delete(message.id);
      if (message.error) call?.reject(new Refusal(message.error));
      else call?.resolve(message);
    } else if (this.pong) this.transport.send({});
  }
}
