// The two transports, with one interface: `on.messages(objects)` is called for each frame, and `on.end({code, reason})`
// once when the connection ends, unless the page closed it. A frame of Centrifugo's client protocol holds JSON objects
// with line feeds between them.

import { at } from "./address.js";

/** The code with which a connection ends after a message that is too large, on both transports. */
export const TOO_LARGE = 1009;

/** Numbers that JavaScript would alter (`1.50`, 1e999, twenty digits) stay as they were published. */
const exact = (key, value, context) =>
  typeof value === "number" && context?.source !== undefined && context.source !== String(value) && JSON.rawJSON
    ? JSON.rawJSON(context.source) : value;

const objects = (frame) => frame.split("\n").filter(Boolean).map((line) => JSON.parse(line, exact));

/** Commands and replies over one WebSocket. */
export class Socket {
  name = "WebSocket";

  constructor(connect, on) {
    const socket = (this.socket = new WebSocket(at("connection/websocket", "ws")));
    socket.onopen = () => this.send(connect);
    socket.onmessage = (event) => on.messages(objects(event.data));
    socket.onclose = (event) => on.end({ code: event.code, reason: event.reason });
  }

  welcome() {}

  send(command) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(command));
  }

  close() {
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
  }
}

/** Server-sent events down, POSTs up: one POST at a time, so that commands arrive in order. */
export class Events {
  name = "SSE";

  constructor(connect, on) {
    this.on = on;
    this.waiting = [];
    const source = (this.source = new EventSource(
      `${at("connection/sse")}?cf_connect=${encodeURIComponent(JSON.stringify(connect))}`,
    ));
    source.onmessage = (event) => {
      const messages = objects(event.data);
      on.messages(messages);
      const disconnect = messages.find((each) => each.push?.disconnect)?.push.disconnect;
      if (disconnect) this.end(disconnect);
    };
    // An EventSource reconnects by itself, but with the old commands. Ours ends, and `Connection` makes another.
    source.onerror = () => this.end({ code: 0, reason: "" });
  }

  end(why) {
    if (this.source.onerror === null) return;
    this.close();
    this.on.end(why);
  }

  /** Take the session from the reply to `connect`: POSTs name it. */
  welcome({ session, node }) {
    this.session = { session, node };
  }

  send(command) {
    this.waiting.push(JSON.stringify(command));
    if (this.waiting.length === 1 && !this.busy) queueMicrotask(() => this.post());
  }

  async post() {
    if (this.busy) return;
    this.busy = true;
    while (this.waiting.length && this.source.onerror !== null) {
      const data = this.waiting.splice(0, 16).join("\n");
      const status = await this.postOnce({ ...this.session, data });
      if (status !== 204) this.end({ code: status === 413 ? TOO_LARGE : 0, reason: "" });
    }
    this.busy = false;
  }

  /** POST a request; resolves with the status, 0 if there is no response. */
  async postOnce(request) {
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request) };
    for (let wait = 1000; ; wait = Math.min(2 * wait, 20000)) {
      try {
        const { status } = await fetch(at("emulation"), options);
        if (status !== 429) return status;
      } catch {
        return 0;
      }
      // 429: the server's queue is full, and it took no command of this request.
      await new Promise((resolve) => setTimeout(resolve, 500 + wait * Math.random()));
    }
  }

  close() {
    this.source.onmessage = this.source.onerror = null;
    this.source.close();
  }
}

/** Try to open a WebSocket. Calls `done(opened)`. */
export function tryWebSocket(done) {
  const socket = new WebSocket(at("connection/websocket", "ws"));
  const timer = setTimeout(() => socket.close(), 8000);
  let opened = false;
  socket.onopen = () => {
    opened = true;
    socket.close();
  };
  socket.onclose = () => {
    clearTimeout(timer);
    done(opened);
  };
}
