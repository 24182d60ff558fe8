"""The writable end of one stream: response headers, messages and trailers, within the window and a bounded queue.

A message is sent at once if nothing waits. Bytes that HTTP/2's windows (RFC 9113, section 5.2) or the kernel do not
take wait here, for each stream apart. A queue that is too long, or that makes no progress, ends its call and not the
connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from h2.stream import H2Stream
from twisted.internet.defer import CancelledError, Deferred, succeed

from longconn.core.client import Client
from longconn.core.disconnects import SLOW, WRITE_TIMEOUT, Disconnect
from longconn.core.hub import Hub
from longconn.protocols.connection.send_queue import SendQueue
from longconn.protocols.grpc.sending import Sender
from longconn.wire.grpc import response_headers
from longconn.wire.grpc_status import Metadata
from longconn.wire.http2 import MAX_FRAME_SIZE, ErrorCode

#: `drained` fires when no more bytes than these wait.
_LOW_WATER = 32 * 1024


class StreamOutlet:
    """A stream's writable end. For a call that is a client of the hub it is the client's outlet.

    Set `client` after `hub.connect(call.outlet, …)`: `client.gone()` is called when the call ends. `write` takes whole
    messages in their frames (`longconn.wire.grpc.frame`), one or several.

    `on_client` is called with 1 when `client` is set and with -1 when it is taken away; `on_close` when the call is to
    end for a numbered reason; `on_sent` when the last frame of the stream was sent.
    """

    __slots__ = (
        "_client", "_drains", "_gzip", "_is_ready", "_on_client", "_on_close", "_on_sent", "_queue", "_sender",
        "_stream", "_stream_id", "_trailers", "closing", "hub", "started",
    )  # fmt: skip

    def __init__(
        self,
        hub: Hub,
        sender: Sender,
        stream: H2Stream,
        gzip: bool,
        on_client: Callable[[int], None],
        on_close: Callable[[Disconnect], None],
        on_sent: Callable[[], None],
    ) -> None:
        self.hub = hub
        #: whether no more messages are taken
        self.closing = False
        #: whether the response's headers were sent
        self.started = False
        self._client: Client | None = None
        self._sender = sender
        # The library's object: the stream's window is counted down here as well.
        self._stream = stream
        self._stream_id: int = stream.stream_id
        self._gzip = gzip
        self._on_client = on_client
        self._on_close = on_close
        self._on_sent = on_sent
        # None unless something waits.
        self._queue: SendQueue | None = None
        self._trailers: list[tuple[bytes, bytes]] | None = None
        # Whether the sender has this stream among those that take turns.
        self._is_ready = False
        self._drains: list[Deferred[None]] = []

    @property
    def client(self) -> Client | None:
        return self._client

    @client.setter
    def client(self, client: Client | None) -> None:
        change = (client is not None) - (self._client is not None)
        self._client = client
        if change:
            self._on_client(change)

    @property
    def queued(self) -> int:
        """Bytes that wait, without those of a backlog."""
        return 0 if self._queue is None else self._queue.queued

    @property
    def finishing(self) -> bool:
        """Whether the trailers wait to be sent."""
        return self._trailers is not None

    # Writing.

    def start(self, metadata: Metadata = ()) -> None:
        """Send the response's headers. Raises ValueError for metadata that is not allowed."""
        self._sender.send_headers(self._stream_id, response_headers(self._gzip, metadata))
        self.started = True

    def write(self, data: bytes) -> None:
        """Send `data` now, or let it wait within the bound; over it, the call is closed as slow."""
        if self.closing or not data:
            return
        if not self.started:
            self.start()
        sender, stream, size = self._sender, self._stream, len(data)
        if (
            self._queue is None
            and sender.size < sender.room
            and size <= stream.outbound_flow_control_window
            and size <= sender.h2.outbound_flow_control_window
            and size <= MAX_FRAME_SIZE
        ):
            stream.outbound_flow_control_window -= size
            sender.add_data(size, self._stream_id, data)
            return
        self._need_queue().add(data)
        self.on_window()

    def write_message(self, data: bytes) -> None:
        """As `write`, for a handler that awaits `drained`: a single message may be larger than the bound."""
        if self.queued or len(data) <= self.hub.settings.send_queue:
            self.write(data)
        elif not self.closing:
            if not self.started:
                self.start()
            self._need_queue().add(data, bounded=False)
            self.on_window()

    def write_backlog(self, source: Iterator[bytes]) -> None:
        """Send the bytes of `source`, and ask it for more as they go out. They do not count against the bound."""
        if not self.closing:
            if not self.started:
                self.start()
            self._need_queue().add_backlog(source)
            self.on_window()

    def drained(self) -> Deferred[None]:
        """Fires when few bytes wait; fails with CancelledError at the end of the call."""
        if self.queued <= _LOW_WATER:
            return succeed(None)
        drain: Deferred[None] = Deferred()
        self._drains.append(drain)
        return drain

    # The queue.

    def _need_queue(self) -> SendQueue:
        if self._queue is None:
            self._queue = SendQueue(self.hub, self)
            self._queue.watch()
        return self._queue

    def on_window(self) -> None:
        """The stream's window may have opened."""
        if self._queue is not None and not self._is_ready and self._stream.outbound_flow_control_window > 0:
            self._is_ready = True
            self._sender.add_ready(self._send_frame)

    def _send_frame(self) -> bool:
        """The sender's turn for this stream: send one frame. True if more waits and the window has room for it."""
        self._is_ready = False
        queue, stream, connection = self._queue, self._stream, self._sender.h2
        if queue is None:
            return False
        # A window may be negative (RFC 9113, section 6.9.2). A peer may allow larger frames, but streams take turns by
        # the frame.
        window = min(connection.outbound_flow_control_window, stream.outbound_flow_control_window)
        room = max(0, min(window, MAX_FRAME_SIZE))
        data = queue.head(room)[:room]
        if data:
            stream.outbound_flow_control_window -= len(data)
            self._sender.add_data(len(data), self._stream_id, data)
            queue.moved_at = self.hub.wheel.now
            queue.sent(len(data))
            if self._drains and queue.queued <= _LOW_WATER:
                self.hub.turn.soon(self._tell_drained)
        if queue.empty:
            self._drop_queue()
            if self._trailers is not None:
                self._end_stream(self._trailers)
            return False
        self._is_ready = stream.outbound_flow_control_window > 0
        return self._is_ready

    def _drop_queue(self) -> None:
        if self._queue is not None:
            self._queue.stop()
            self._queue = None

    def _tell_drained(self) -> None:
        drains, self._drains = self._drains, []
        for each in drains:
            if not each.called:
                each.callback(None)

    # The end.

    def close(self, disconnect: Disconnect) -> None:
        """End the call for a numbered reason. Waiting bytes are sent first, except to a slow client."""
        if not self.closing or disconnect in (SLOW, WRITE_TIMEOUT):
            if self.client is not None:
                self.client.closing(disconnect)
            self._on_close(disconnect)

    def finish(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """Take no more messages, and end the stream with `trailers` after those that wait."""
        self.closing = True
        self._trailers = trailers
        if self._queue is None:
            self._end_stream(trailers)

    def abandon(self, trailers: list[tuple[bytes, bytes]], code: ErrorCode) -> None:
        """Drop waiting bytes and end the stream now: with `trailers`, or inside a message by RST_STREAM with `code`."""
        if self._queue is None or not self._queue.begun:
            self._end_stream(trailers)
        else:
            on_sent = self._on_sent
            self.stop()
            self._sender.reset(self._stream_id, code)
            on_sent()

    def _end_stream(self, trailers: list[tuple[bytes, bytes]]) -> None:
        on_sent = self._on_sent
        self.stop()
        headers = trailers if self.started else response_headers() + trailers  # "Trailers-Only"
        self._sender.send_headers(self._stream_id, headers, end_stream=True)
        if not self._stream.closed:
            # "Early Server Closure": the client has not half-closed, and need not send the rest.
            self._sender.reset(self._stream_id, ErrorCode.NO_ERROR)
        on_sent()

    def stop(self) -> None:
        """Forget waiting bytes, and the call, so that no cycle keeps it in memory."""
        self._on_client = self._on_close = _ignore
        self._on_sent = _ignore
        self.closing = True
        self._trailers = None
        self._drop_queue()
        drains, self._drains = self._drains, []
        for each in drains:
            if not each.called:
                each.errback(CancelledError())


def _ignore(*arguments: Any) -> None:
    """The callback of a stream that has ended."""
