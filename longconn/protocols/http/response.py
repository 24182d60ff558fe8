"""A response that does not end: twisted.web writes its head, and an outlet writes its body.

The body bypasses twisted.web: its `Request.write` would make a chunk of every message for every client, while
here a chunk is made once for all clients of a channel.
"""

from __future__ import annotations

from collections.abc import Callable

from longconn.core.disconnects import Disconnect
from longconn.protocols.connection.set_up import notice_dead_peer
from longconn.protocols.connection.socket_outlet import SocketOutlet
from longconn.protocols.http.errors import Headers, HTTPError
from longconn.protocols.http.exchange import HTTPExchange
from longconn.protocols.http.large_answer import MultiplexedTransport

#: nginx would collect the events before it passes them on.
NO_BUFFERING = ("X-Accel-Buffering", "no")


class StreamingResponse:
    """The response to `exchange`, and its `outlet`.

    `on_close` is called when the server closes the client: it writes the last bytes by `end`. `on_lost` is called
    when the connection is lost, and by `give_up`.
    """

    __slots__ = ("_exchange", "_on_close", "_on_lost", "_request", "chunked", "outlet", "started")

    def __init__(
        self, exchange: HTTPExchange, on_close: Callable[[Disconnect], None], on_lost: Callable[[], None]
    ) -> None:
        self._exchange = exchange
        self._request = exchange.request
        self._on_close = on_close
        self._on_lost = on_lost
        self.started = False
        #: whether the body is chunked: HTTP/1.0 and HTTP/2 have no chunks
        self.chunked = self._request.clientproto == b"HTTP/1.1"
        transport = self._request.channel.transport or MultiplexedTransport(self._request)
        notice_dead_peer(transport, exchange.hub.settings)  # of a connection of another program's site
        leave = getattr(self._request.channel, "leave", None)  # the connection counts as the client's, and once
        if leave is not None:
            leave()
        self.outlet = SocketOutlet(exchange.hub, transport, self._close)

    def watch(self) -> None:
        """Call `on_lost` when the connection ends."""
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
            # The connection ends with the stream: no other request is read on it.
            request.setHeader("Connection", "close")
            channel.persistent = 0
            discard = getattr(channel, "discard_input", None)
            if discard is not None:
                discard()
        request.write(b"")

    def end(self, last: bytes) -> None:
        """Send the last bytes, which are framed already, and end the response."""
        self.outlet.finish(last + (b"0\r\n\r\n" if self.chunked else b""), self.outlet.lose)

    def give_up(self) -> None:
        """Give up before the head was written: the request can be answered in another way."""
        self.outlet.detach()
        self._lost()
        channel = self._request.channel
        if channel is not None and channel.transport is not None:
            # The outlet was the transport's producer instead of the channel.
            channel.transport.registerProducer(channel, True)
            count = getattr(channel, "count", None)
            if count is not None:
                count()

    def _close(self, disconnect: Disconnect) -> None:
        if self.started:
            self._on_close(disconnect)
        else:
            self.give_up()
            status = 503 if disconnect.reconnect else 403
            self._exchange.fail(HTTPError(status, disconnect.text, code=disconnect.code))

    def _lost(self) -> None:
        self.outlet.stop()
        on_lost, self._on_lost = self._on_lost, _do_nothing
        self._on_close = _do_nothing  # they are the client's: a reference cycle would keep it in memory
        on_lost()


def _do_nothing(*_: object) -> None:
    """The connection is lost."""
