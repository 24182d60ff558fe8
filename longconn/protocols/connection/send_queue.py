"""The unsent bytes of one connection or call, and the verdict on a peer that does not read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from longconn.core.client import Outlet
from longconn.core.disconnects import SLOW, WRITE_TIMEOUT
from longconn.core.hub import Hub


class SendQueue:
    """A bounded queue of bytes, and of backlogs that are encoded as they go out.

    `owner` is an outlet; its `queued` is that of the queue, or 0 while it has none. An outlet makes one
    when something has to wait, and stops it when all is out, so that an idle connection has none.

    Bytes count against `Settings.send_queue`; over it the owner is closed with SLOW. A backlog does not
    count. Nor does the rest of a message that was begun: it has to go out whole, and one message may be
    larger than the bound. The hub counts all bytes except a backlog's, and has a bound on their sum.
    From `watch` on, the owner is closed with WRITE_TIMEOUT when `moved_at` is `Settings.write_timeout` ago.
    """

    __slots__ = ("_begun", "_begun_counts", "_hub", "_owner", "_parts", "due", "moved_at", "queued")

    def __init__(self, hub: Hub, owner: Outlet) -> None:
        self._hub = hub
        self._owner = owner
        self._parts: deque[bytes | Iterator[bytes]] = deque()
        # Whole parts that go out next. Some of the first may have gone already.
        self._begun = memoryview(b"")
        # How many of its bytes are in `queued`.
        self._begun_counts = 0
        #: bytes that wait, those of backlogs excepted
        self.queued = 0
        #: when something last went out, or the queue was made
        self.moved_at = hub.clock.seconds()
        #: the second at which its timer ends (`Timed` in core/timers.py)
        self.due = 0

    @property
    def empty(self) -> bool:
        return not (self._begun or self._parts)

    @property
    def begun(self) -> bool:
        """Whether a message may have been sent in part, and its rest waits."""
        return bool(self._begun)

    # Adding.

    def add(self, data: bytes, bounded: bool = True) -> None:
        """Let `data` wait. If it is `bounded` and too much waits now, the owner is closed with SLOW."""
        self._parts.append(data)
        self._count(len(data))
        if bounded and self.queued - self._begun_counts > self._hub.settings.send_queue:
            self._owner.close(SLOW)

    def add_rest(self, data: bytes) -> None:
        """Let the rest of a message wait that the owner began to send itself. The queue must be empty."""
        self._begun = memoryview(data)
        self._begun_counts = len(data)
        self._count(len(data))

    def add_backlog(self, source: Iterator[bytes]) -> None:
        """Add the bytes that `source` yields. It is asked for more as they go out."""
        self._parts.append(source)

    # Sending.

    def head(self, size: int) -> memoryview:
        """The next bytes to send: at least `size` of them, in whole parts, unless fewer wait."""
        if len(self._begun) < size:
            parts = [self._begun] if self._begun else []
            missing = size - len(self._begun)
            while self._parts and missing > 0:
                first = self._parts[0]
                if isinstance(first, bytes):
                    self._parts.popleft()
                    self._begun_counts += len(first)
                    part: bytes | None = first
                else:
                    part = next(first, None)
                if part is None:
                    self._parts.popleft()
                else:
                    parts.append(memoryview(part))
                    missing -= len(part)
            self._begun = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
        return self._begun

    def sent(self, size: int) -> None:
        """`size` bytes of the head went out."""
        self._begun = self._begun[size:]
        counted = min(size, self._begun_counts)
        if counted:
            self._begun_counts -= counted
            self._count(-counted)

    # Time.

    def watch(self) -> None:
        """From now on, close the owner if nothing goes out for too long."""
        if self._hub.settings.write_timeout:
            self._hub.wheel.set(self, self._hub.settings.write_timeout)

    def on_due(self, now: float) -> None:
        """The timer ended: close the owner if nothing went out for `write_timeout` seconds, or start it again."""
        limit = self._hub.settings.write_timeout
        stalled = now - self.moved_at
        if stalled >= limit:
            self._owner.close(WRITE_TIMEOUT)
        else:
            self._hub.wheel.set(self, limit - stalled)

    # The end.

    def drop(self) -> None:
        """Forget the parts that were not begun: the client is slow. A part that was begun does not count any more."""
        self._parts.clear()
        self._begun_counts = 0
        self._count(-self.queued)

    def stop(self) -> None:
        """Forget everything. The queue is not used again."""
        self._begun = memoryview(b"")
        self.drop()
        self._hub.wheel.clear(self)

    def _count(self, amount: int) -> None:
        """Tell the hub, which may close this owner or another."""
        self.queued += amount
        if self.queued:
            self._hub.waiting.add(self._owner)
        else:
            self._hub.waiting.discard(self._owner)
        self._hub.on_queued(self._owner, amount)
