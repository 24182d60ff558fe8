// A chat made with uWebSockets.js: its own publish/subscribe, and a GET. node uws_chat.js PORT
const uWS = require(process.env.BENCH_UWS);

const app = uWS.App();
app.ws("/ws", {
  compression: uWS.DISABLED,
  idleTimeout: 960,
  upgrade(response, request, context) {
    response.upgrade(
      { channel: request.getQuery("channel") ?? "" },
      request.getHeader("sec-websocket-key"),
      request.getHeader("sec-websocket-protocol"),
      request.getHeader("sec-websocket-extensions"),
      context,
    );
  },
  open(socket) { socket.subscribe(socket.getUserData().channel); },
  message(socket, text) { app.publish(socket.getUserData().channel, text, false); },
});
app.get("/PrintHello", (response) => { response.end("hello word"); });
app.listen("127.0.0.1", Number(process.argv[2]), (listening) => { if (!listening) process.exit(1); });
