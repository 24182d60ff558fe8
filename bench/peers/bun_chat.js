// A chat made with Bun: its own publish/subscribe over WebSocket, SSE, a GET and a POST. bun bun_chat.js PORT
const streams = new Map();
const encoder = new TextEncoder();

function toStreams(channel, text) {
  const members = streams.get(channel);
  if (members === undefined) return;
  const event = encoder.encode(`data: ${text}\n\n`);
  for (const controller of members) controller.enqueue(event);
}

function events(channel) {
  let mine;
  const body = new ReadableStream({
    start(controller) {
      mine = controller;
      if (!streams.has(channel)) streams.set(channel, new Set());
      streams.get(channel).add(controller);
      controller.enqueue(encoder.encode(":\n\n"));
    },
    cancel() { streams.get(channel).delete(mine); },
  });
  return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
}

const server = Bun.serve({
  port: Number(process.argv[2]),
  hostname: "127.0.0.1",
  idleTimeout: 255,
  maxRequestBodySize: 16 << 20,
  async fetch(request, server) {
    const url = new URL(request.url);
    if (url.pathname === "/PrintHello") return new Response("hello word");
    if (url.pathname === "/ws") {
      const data = { channel: url.searchParams.get("channel") ?? "" };
      return server.upgrade(request, { data }) ? undefined : new Response("no upgrade", { status: 400 });
    }
    const [, , channel, tail] = url.pathname.split("/");
    if (tail === "events") return events(channel);
    for (const line of (await request.text()).trimEnd().split("\n")) {
      server.publish(channel, line);
      toStreams(channel, line);
    }
    return Response.json({ epoch: "x", offset: 1 });
  },
  websocket: {
    perMessageDeflate: false,
    idleTimeout: 960,
    open(socket) { socket.subscribe(socket.data.channel); },
    message(socket, text) {
      server.publish(socket.data.channel, text);
      toStreams(socket.data.channel, text);
    },
  },
});
