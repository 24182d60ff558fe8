"""What a connection sends: frames of all its calls, in turns, within the windows of HTTP/2.

Every byte of a connection goes through its `Sender`, and from there to the connection's `SocketOutlet`,
which asks for more as the kernel takes it. What the windows (RFC 9113, section 5.2) or the kernel do
not take waits in the calls (`longconn.protocols.grpc.stream_outlet`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from h2.connection import H2Connection

from longconn.core.hub import log
from longconn.core.timers import Clock
from longconn.protocols.connection.socket_outlet import SocketOutlet
from longconn.wire.http2 import DATA, head

#: Bytes that are collected for one write to the connection.
BATCH = 64 * 1024
#: Bytes taken from the calls at a time when the connection asks for more.
_FILL = 16 * 1024
#: Bytes of frames that are not flow-controlled and wait: a peer that makes us answer and reads nothing.
_MOST_CONTROL = 512 * 1024


class Turns:
    """Sends what each turn of the reactor collected, of all connections, by one delayed call."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: list[Callable[[], Any]] = []
        self._call: Any = None

    def soon(self, callback: Callable[[], Any]) -> None:
        """Call `callback` when this turn is over."""
        self._waiting.append(callback)
        if self._call is None:
            self._call = self._clock.callLater(0, self._end)

    def _end(self) -> None:
        self._call = None
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            try:
                callback()
            except Exception:  # one connection's must not keep the others from sending
                log.exception("a gRPC connection could not be written to")


class Waiting(Protocol):
    """A call in which something waits (`longconn.protocols.grpc.stream_outlet.StreamOutlet`)."""

    def give(self) -> bool: ...


class Sender(Iterator[bytes]):
    """The frames that one connection sends, in their order: the source that its outlet asks.

    `on_overflow` is called when too much waits that is not flow-controlled.
    """

    def __init__(
        self, http2: H2Connection, outlet: SocketOutlet, turns: Turns, on_overflow: Callable[[], None]
    ) -> None:
        self.http2 = http2
        self.turns = turns
        #: bytes that are collected, and below which calls may add theirs: 0 while the kernel takes no more
        self.size = 0
        self.room = BATCH
        #: frames that were sent, since it was last asked, to which a peer may answer by a PING or a WINDOW_UPDATE
        self.sent_frames = 0
        self._outlet = outlet
        self._on_overflow = on_overflow
        self._parts: list[bytes | memoryview] = []
        self._ready: deque[Waiting] = deque()
        self._due = False

    def append(self, frames: bytes) -> None:
        """Frames that are not flow-controlled; they go after what was collected before."""
        self._parts.append(frames)
        self.size += len(frames)
        if not self._due:
            self._due = True
            self.turns.soon(self.flush)
        if self.size > _MOST_CONTROL:
            self._on_overflow()

    def add(self, size: int, stream: int, *parts: bytes | memoryview) -> None:
        """One DATA frame, for which the windows have room: it is counted here."""
        self.http2.outbound_flow_control_window -= size
        self.sent_frames += 1
        self._parts.append(head(size, DATA, 0, stream))
        self._parts += parts
        self.size += size + 9
        if not self._due:
            self._due = True
            self.turns.soon(self.flush)
        elif self.size >= BATCH and self.room:
            self.flush()

    def ready(self, outlet: Waiting) -> None:
        """A call has something to send, and room in its window."""
        self._ready.append(outlet)
        if not self._due:
            self._due = True
            self.turns.soon(self.flush)

    def hold(self) -> None:
        """Collect until `flush` is called: it will be."""
        self._due = True

    def flush(self) -> None:
        """Send what was collected, as far as the connection takes it."""
        self._due = False
        # Without room the outlet has this source already, and asks when it can.
        if self.room and (self._parts or self._ready):
            self.room = 0
            self._outlet.write_backlog(self)

    def __next__(self) -> bytes:
        if not self._parts:
            self._fill()
        if not self._parts:
            self.room = BATCH
            raise StopIteration
        parts, self._parts = self._parts, []
        self.size = 0
        return b"".join(parts)

    def _fill(self) -> None:
        """Let the calls that wait have their turns."""
        # Nothing is to be sent from within.
        due, self._due = self._due, True
        for _ in range(len(self._ready)):
            if self.size >= _FILL or self.http2.outbound_flow_control_window <= 0:
                break
            outlet = self._ready.popleft()
            if outlet.give():
                self._ready.append(outlet)
        self._due = due

    def drop(self) -> None:
        """No call sends any more."""
        self._ready.clear()

    def stop(self) -> None:
        """The connection is lost."""
        self.room = 0
        self._parts.clear()
        self._ready.clear()
