"""Requests that ask for WebSocket (RFC 6455): they are checked here, and another protocol takes the connection over."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from longconn.core.identity import Identity
from longconn.core.names import NameRequest, check_channel
from longconn.protocols.http.errors import HTTPError
from longconn.protocols.http.exchange import HTTPExchange
from longconn.protocols.http.routes import Access, Route
from longconn.wire.centrifugo import JSON_SUBPROTOCOL, PROTOBUF_SUBPROTOCOL
from longconn.wire.websocket import is_key

#: Takes the connection of a request over: the request, a mode of `_MODES`, a channel, a name, who it comes from if
#: that is known.
TakeOver = Callable[[Any, str, str | None, NameRequest | None, Identity | None], None]

#: Paths that are upgraded, and the mode of each.
_MODES = {"/ws": "chat", "/echo": "echo", "/websocket": "echo", "/connection/websocket": "centrifugo"}
_WANTED = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
_VERSIONS = ("13", "8")


def upgrade_routes(take_over: TakeOver) -> dict[str, Route]:
    """The paths that speak WebSocket; `take_over` gets the connections of requests that passed the checks."""
    return {
        path: Route(partial(_upgrade, take_over, mode), access=Access.USERS if mode == "echo" else Access.LATER)
        for path, mode in _MODES.items()
    }


def _upgrade(take_over: TakeOver, mode: str, exchange: HTTPExchange) -> None:
    """Raises HTTPError or CommandError for a request that may not be upgraded."""
    request = exchange.request
    if request.method != b"GET" or request.clientproto != b"HTTP/1.1" or not _asks_for_websocket(exchange):
        raise HTTPError(426, "this path speaks WebSocket: ask for an upgrade (RFC 6455)", _WANTED)
    if exchange.header("sec-websocket-version") not in _VERSIONS:
        raise HTTPError(426, "WebSocket is spoken in version 13", _WANTED)
    keys = exchange.headers("sec-websocket-key")
    if len(keys) != 1 or not is_key(keys[0]):
        raise HTTPError(400, "Sec-WebSocket-Key is Base64 of 16 bytes (RFC 6455, section 4.1)")
    if exchange.body():
        raise HTTPError(400, "an upgrade has no body")
    channel, name = exchange.parameter("channel"), exchange.name_request()
    if channel is not None:
        check_channel(channel)
    if mode == "centrifugo" and asks_for_protobuf(exchange):
        mode = "centrifugo-protobuf"
    wanted = (channel or exchange.hub.settings.default_channel) if mode == "chat" else None
    exchange.check_client(wanted, name, partial(take_over, request, mode, channel, name, exchange.identity))


def asks_for_protobuf(exchange: HTTPExchange) -> bool:
    """Whether a parameter or the subprotocol asks for the Protobuf flavour of Centrifugo's protocol."""
    if "protobuf" in (exchange.parameter("cf_protocol"), exchange.parameter("format")):
        return True
    offered = {each.strip() for value in exchange.headers("sec-websocket-protocol") for each in value.split(",")}
    return PROTOBUF_SUBPROTOCOL in offered and JSON_SUBPROTOCOL not in offered


def _asks_for_websocket(exchange: HTTPExchange) -> bool:
    """RFC 6455, section 4.2.1, points 3 and 4."""
    upgrades = {each.strip().lower() for value in exchange.headers("upgrade") for each in value.split(",")}
    options = {each.strip().lower() for value in exchange.headers("connection") for each in value.split(",")}
    return "websocket" in upgrades and "upgrade" in options
