"""The writable end of one call: its messages, within its window and its bound.

Messages are handed on at once if nothing waits. What the windows of HTTP/2 (RFC 9113, section 5.2) or
the kernel do not take waits here. So the queue that is too long, or does not move, has a name.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from h2.stream import H2Stream
from twisted.internet.defer import CancelledError, Deferred, succeed

from longconn.core.client import Client
from longconn.core.disconnects import SLOW, WRITE_TIMEOUT, Disconnect
from longconn.core.hub import Hub, log
from longconn.protocols.grpc.sending import Sender
from longconn.wire.http2 import MAX_FRAME_SIZE

#: Bytes of a call that may wait while its handler is told that all is on its way.
_LOW_WATER = 32 * 1024


class Sending(Protocol):
    """What an outlet knows of its call (`longconn.protocols.grpc.call.GrpcCall`)."""

    path: str
    address: str

    def start(self) -> None: ...

    def on_client(self, more: int) -> None: ...

    def close(self, disconnect: Disconnect) -> None: ...

    def sent(self) -> None: ...


class _Ended:
    """In the place of a call that has ended, so that no cycle keeps it in memory."""

    path = address = ""

    def start(self) -> None: ...

    def on_client(self, more: int) -> None: ...

    def close(self, disconnect: Disconnect) -> None: ...

    def sent(self) -> None: ...


_ENDED = _Ended()


class StreamOutlet:
    """A call's writable end, for a call that is a client of the hub (`longconn.core.client.Outlet`).

    Set `client` after `hub.connect(call.outlet, …)`: `client.gone()` is called when the call ends. What is
    written are whole messages in their frames (`longconn.wire.grpc.frame`), one or many.
    """

    __slots__ = (
        "_call", "_client", "_drains", "_is_ready", "_queue", "_rest", "_rest_counts", "_sender", "_sent_at",
        "_stream", "_stream_id", "closing", "due", "ending", "hub", "queued", "started",
    )  # fmt: skip

    def __init__(self, hub: Hub, call: Sending, sender: Sender, stream_id: int, stream: H2Stream) -> None:
        self.hub = hub
        #: bytes that wait and count against the bound
        self.queued = 0
        #: the wheel's
        self.due = 0
        #: nothing more is taken
        self.closing = False
        #: whether the response's headers were sent, and whether `sent` is to be called when all is out
        self.started = False
        self.ending = False
        self._call = call
        self._client: Client | None = None
        self._sender = sender
        self._stream_id = stream_id
        # The library's: its window of this stream is counted here too.
        self._stream = stream
        self._queue: deque[bytes | Iterator[bytes]] | None = None
        #: what is left of a part that was begun, and whether that counts
        self._rest: memoryview | None = None
        self._rest_counts = False
        self._is_ready = False
        self._sent_at = 0.0
        self._drains: list[Deferred[None]] = []

    @property
    def client(self) -> Client | None:
        return self._client

    @client.setter
    def client(self, client: Client | None) -> None:
        self._call.on_client((client is not None) - (self._client is not None))
        self._client = client

    @property
    def torn(self) -> bool:
        """Whether a message may have been sent in part, and its rest waits."""
        return self._rest is not None

    def write(self, data: bytes) -> None:
        """Send `data` now, or let it wait within the bound; over it, the client is disconnected."""
        if self.closing or not data:
            return
        if not self.started:
            self._call.start()
        sender, stream, size = self._sender, self._stream, len(data)
        http2 = sender.http2
        if (
            self._queue is None
            and sender.size < sender.room
            and size <= stream.outbound_flow_control_window
            and size <= http2.outbound_flow_control_window
            and size <= MAX_FRAME_SIZE
        ):
            stream.outbound_flow_control_window -= size
            sender.add(size, self._stream_id, data)
            return
        self._wait(data)
        if self.queued > self.hub.settings.send_queue:
            self.close(SLOW)

    def write_message(self, data: bytes) -> None:
        """As `write`, for a handler that awaits `drained`: one message may be larger than the bound."""
        if not self.queued and len(data) > self.hub.settings.send_queue and not self.closing:
            if not self.started:
                self._call.start()
            self._wait(data)
        else:
            self.write(data)

    def write_backlog(self, source: Iterator[bytes]) -> None:
        """Send what `source` yields, asking for more as it goes out; it does not count as waiting."""
        if not self.closing:
            if not self.started:
                self._call.start()
            self._enqueue(source)

    def drained(self) -> Deferred[None]:
        """Fires when little is left that waits; fails with CancelledError at the end of the call."""
        if self.queued <= _LOW_WATER:
            return succeed(None)
        drain: Deferred[None] = Deferred()
        self._drains.append(drain)
        return drain

    def _wait(self, data: bytes) -> None:
        self.queued += len(data)
        self._enqueue(data)
        self.hub.waiting.add(self)
        self.hub.on_queued(self, len(data))

    def _enqueue(self, part: bytes | Iterator[bytes]) -> None:
        if self._queue is None:
            self._queue = deque()
            self._sent_at = self.hub.clock.seconds()
            self.hub.wheel.set(self, self.hub.settings.write_timeout or 3600)
        self._queue.append(part)
        self.wake()

    def wake(self) -> None:
        """There may be room in the stream's window, where there was none."""
        if self._queue is not None and not self._is_ready and self._stream.outbound_flow_control_window > 0:
            self._is_ready = True
            self._sender.ready(self)

    def give(self) -> bool:
        """Send a frame of what waits; whether there is more, and room for it. For the sender."""
        self._is_ready = False
        if self._queue is None:
            return False
        http2, stream = self._sender.http2, self._stream
        # A peer may allow larger frames, but the calls take turns by the frame.
        room = min(http2.outbound_flow_control_window, stream.outbound_flow_control_window, MAX_FRAME_SIZE)
        parts, size, counted = self._take(room)
        if size:
            stream.outbound_flow_control_window -= size
            self._sender.add(size, self._stream_id, *parts)
            self._sent_at = self.hub.wheel.now
        if counted:
            self.queued -= counted
            self.hub.on_queued(self, -counted)
            if self._drains and self.queued <= _LOW_WATER:
                self.hub.turn.soon(self._tell_drained)
        if not self._queue and self._rest is None:
            self._all_sent()
            return False
        self._is_ready = stream.outbound_flow_control_window > 0
        return self._is_ready

    def _take(self, room: int) -> tuple[list[bytes | memoryview], int, int]:
        """At most `room` bytes of what waits: in parts, how many, and how many of them count."""
        parts: list[bytes | memoryview] = []
        size = counted = 0
        while size < room:
            piece: bytes | memoryview | None
            if self._rest is not None:
                piece, counts = self._rest, self._rest_counts
            else:
                piece, counts = self._next()
                if piece is None:
                    break
            if len(piece) > room - size:
                view = memoryview(piece)
                piece, self._rest, self._rest_counts = view[: room - size], view[room - size :], counts
            else:
                self._rest = None
            parts.append(piece)
            size += len(piece)
            counted += len(piece) * counts
        return parts, size, counted

    def _next(self) -> tuple[bytes | None, bool]:
        """A part of what waits, and whether it counts; None if there is none."""
        while self._queue:
            first = self._queue[0]
            if isinstance(first, bytes):
                self._queue.popleft()
                return first, True
            piece = next(first, None)
            if piece is not None:
                return piece, False
            self._queue.popleft()
        return None, False

    def _all_sent(self) -> None:
        self._queue = None
        self.hub.waiting.discard(self)
        self.hub.wheel.clear(self)
        if self.ending:
            self._call.sent()

    def _tell_drained(self) -> None:
        drains, self._drains = self._drains, []
        for each in drains:
            if not each.called:
                each.callback(None)

    def on_due(self, now: float) -> None:
        """Nothing went out for as long as the wheel was set to, or something did meanwhile."""
        limit = self.hub.settings.write_timeout
        stalled = now - self._sent_at
        if limit and stalled >= limit:
            self.close(WRITE_TIMEOUT)
        else:
            self.hub.wheel.set(self, (limit - stalled) if limit else 3600)

    # The end.

    def close(self, disconnect: Disconnect) -> None:
        """End the call for a numbered reason. What waits is sent before, but not to the slow."""
        if self.closing and disconnect not in (SLOW, WRITE_TIMEOUT):
            return
        if disconnect in (SLOW, WRITE_TIMEOUT):
            if self._client is not None:
                level, who = logging.WARNING, f"client {self._client.name}"
            else:  # a connection may have a thousand of these, and all may wait for the same window
                level, who = logging.DEBUG, f"call {self._call.path}"
            log.log(
                level, "grpc %s from %s is disconnected (%d %s) with %d bytes waiting",
                who, self._call.address, disconnect.code, disconnect.text, self.queued,
            )  # fmt: skip
        self._call.close(disconnect)

    def finish(self) -> None:
        """Take nothing more; the call's `sent` is called when all is out, which may be now."""
        self.closing = True
        self.ending = True
        if self._queue is None:
            self._call.sent()

    def stop(self) -> None:
        """Forget what waits: the call has ended, or the connection."""
        self._call = _ENDED
        self.closing = True
        self.ending = False
        self._queue = None
        self._rest = None
        amount, self.queued = self.queued, 0
        self.hub.waiting.discard(self)
        self.hub.on_queued(self, -amount)
        self.hub.wheel.clear(self)
        drains, self._drains = self._drains, []
        for each in drains:
            if not each.called:
                each.errback(CancelledError())
