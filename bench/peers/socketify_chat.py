"""A chat made with socketify (uWebSockets): its own publish/subscribe, and a GET."""

from __future__ import annotations

import sys

from socketify import App, OpCode


def upgrade(response, request, context) -> None:
    """Keep the channel's name."""
    channel = request.get_query("channel") or "none"
    key, protocol = request.get_header("sec-websocket-key"), request.get_header("sec-websocket-protocol")
    response.upgrade(key, protocol, request.get_header("sec-websocket-extensions"), context, channel)


def opened(member) -> None:
    """Subscribe."""
    member.subscribe(member.get_user_data())


def said(member, message, opcode) -> None:
    """Publish to all members, the sender too."""
    app.publish(member.get_user_data(), message, OpCode.TEXT)


app = App()
app.ws("/ws", {"upgrade": upgrade, "open": opened, "message": said, "compression": 0, "idle_timeout": 960})
app.get("/PrintHello", lambda response, request: response.end("hello word"))
app.listen({"port": int(sys.argv[1]), "host": "127.0.0.1"}, lambda config: None)
app.run()
