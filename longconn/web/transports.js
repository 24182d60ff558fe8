// The two ways to the server, alike: `on.messages(objects)` is called with what comes, frame by frame, and
// `on.end({code, reason})` once when it is over, unless the page closed it. The structured protocol's frames hold
// JSON objects, joined by line feeds.

import { at } from "./address.js";

/** The code of an end for a message that is too large, whichever way it was sent. */
export const TOO_LARGE = 1009;

const objects = (frame) => frame.split("\n").filter(Boolean).map((line) => JSON.parse(line));

/** Commands and what comes back over one WebSocket. */
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

/** Server-sent events down, POSTs up: one at a time, so that commands arrive in their order. */
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
      const told = messages.find((each) => each.push?.disconnect)?.push.disconnect;
      if (told) this.end(told);
    };
    // It would come back by itself, but with the old commands: another one is made instead.
    source.onerror = () => this.end({ code: 0, reason: "" });
  }

  end(why) {
    if (this.source.onerror === null) return;
    this.close();
    this.on.end(why);
  }

  /** What the answer to `connect` said: where commands go. */
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
      const status = await this.posted({ ...this.session, data });
      if (status !== 204) this.end({ code: status === 413 ? TOO_LARGE : 0, reason: "" });
    }
    this.busy = false;
  }

  /** The status of the answer, 0 for none. */
  async posted(request) {
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request) };
    for (;;) {
      try {
        const { status } = await fetch(at("emulation"), options);
        if (status !== 429) return status;
      } catch {
        return 0;
      }
      // Nothing of it was taken: too much waits there.
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }

  close() {
    this.source.onmessage = this.source.onerror = null;
    this.source.close();
  }
}

/** Whether a WebSocket can be opened, told by `done(yes)`. */
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
