"""Requests that want WebSocket: checked here, served by whoever takes the connection over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from longconn.core.names import check_channel
from longconn.core.namespaces import Action
from longconn.protocols.http.errors import HTTPError
from longconn.protocols.http.exchange import HTTPExchange

#: Takes the connection of a request over: the request, `chat` or `echo`, a channel, a name.
TakeOver = Callable[[Any, str, str | None, str | None], None]

#: Paths that are upgraded, and what is spoken there.
UPGRADES = {"ws": "chat", "echo": "echo", "websocket": "echo"}
_WANTED = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
_VERSIONS = ("13", "8")


class WebSocketUpgrade:
    """Hands connections over to `take_over`, or by default to a `WebSocketFactory` made when it is needed."""

    def __init__(self, take_over: TakeOver | None) -> None:
        self._take_over = take_over

    def hand_over(self, exchange: HTTPExchange, mode: str) -> None:
        """Raises HTTPError or CommandError for a request that may not be upgraded."""
        request = exchange.request
        if request.method != b"GET" or request.clientproto != b"HTTP/1.1" or not _asks_for_websocket(exchange):
            raise HTTPError(426, "this path speaks WebSocket: ask for an upgrade (RFC 6455)", _WANTED)
        if exchange.header("sec-websocket-version") not in _VERSIONS:
            raise HTTPError(426, "WebSocket is spoken in version 13", _WANTED)
        if exchange.body():
            raise HTTPError(400, "an upgrade has no body")
        channel, name = exchange.parameter("channel"), exchange.parameter("name")
        if channel is not None:
            check_channel(channel)
        if mode == "chat":
            exchange.hub.check(Action.SUBSCRIBE, channel or exchange.hub.settings.default_channel)
        if name is not None:
            exchange.hub.claim(name)
        exchange.hub.check_room(exchange.host)
        if self._take_over is None:
            # Only here, and only by name: HTTP itself needs no WebSocket.
            from longconn.protocols.compose import websocket_factory

            self._take_over = websocket_factory(exchange.hub).take_over
        self._take_over(request, mode, channel, name)


def _asks_for_websocket(exchange: HTTPExchange) -> bool:
    """RFC 6455, section 4.2.1, points 3 and 4."""
    upgrades = {each.strip().lower() for value in exchange.headers("upgrade") for each in value.split(",")}
    options = {each.strip().lower() for value in exchange.headers("connection") for each in value.split(",")}
    return "websocket" in upgrades and "upgrade" in options
