"""An answer that does not end: a response of twisted.web whose body an outlet writes.

Once the head is written, everything goes past twisted.web: its `Request.write` would cut
every message into chunks of its own for every client, while ours are made once for all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from longconn.core.disconnects import Disconnect
from longconn.protocols.connection.socket_outlet import SocketOutlet
from longconn.protocols.http.errors import Headers, Refused
from longconn.protocols.http.exchange import Exchange

#: nginx would collect what it passes on.
NO_BUFFERING = ("X-Accel-Buffering", "no")


class _Shared:
    """A response body as a transport, where the connection carries others too (HTTP/2)."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self.write = request.write
        self.registerProducer = request.registerProducer
        self.unregisterProducer = request.unregisterProducer
        self.abortConnection = request.channel.abortConnection

    def loseConnection(self) -> None:
        self._request.finish()


class OpenResponse:
    """The response to `exchange`, and its `outlet`.

    `on_close` writes the farewell by `end`; `on_lost` is told once that the connection is lost or
    the response was given up.
    """

    __slots__ = ("_exchange", "_on_close", "_on_lost", "_request", "chunked", "outlet", "started")

    def __init__(self, exchange: Exchange, on_close: Callable[[Disconnect], None], on_lost: Callable[[], None]) -> None:
        self._exchange = exchange
        self._request = exchange.request
        self._on_close = on_close
        self._on_lost = on_lost
        self.started = False
        #: whether the body is chunked: HTTP/1.0 and HTTP/2 have no chunks
        self.chunked = self._request.clientproto == b"HTTP/1.1"
        transport = self._request.channel.transport or _Shared(self._request)
        self.outlet = SocketOutlet(exchange.hub, transport, self._close)

    def watch(self) -> None:
        """Notice when the connection ends."""
        self._exchange.watch(self._lost)

    def start(self, headers: Headers) -> None:
        """Write the head."""
        self.started = True
        request = self._request
        for header in headers:
            request.setHeader(*header)
        request.setHeader(*NO_BUFFERING)
        channel = request.channel
        if channel.transport is not None:
            # The stream ends with its connection; nothing else is read on it.
            request.setHeader("Connection", "close")
            channel.persistent = 0
            discard = getattr(channel, "discard_input", None)
            if discard is not None:
                discard()
        request.write(b"")

    def end(self, last: bytes) -> None:
        """Send the last bytes, framed already, and end."""
        self.outlet.finish(last + (b"0\r\n\r\n" if self.chunked else b""), self.outlet.lose)

    def give_up(self) -> None:
        """Leave the request as it was, to be answered otherwise."""
        self.outlet.detach()
        self._lost()
        channel = self._request.channel
        if channel is not None and channel.transport is not None:
            # The outlet took its place.
            channel.transport.registerProducer(channel, True)

    def _close(self, disconnect: Disconnect) -> None:
        if self.started:
            self._on_close(disconnect)
        else:
            self.give_up()
            status = 503 if disconnect.reconnect else 403
            self._exchange.fail(Refused(status, disconnect.text, code=disconnect.code))

    def _lost(self) -> None:
        self.outlet.stop()
        self._on_lost()
