"""The end of a reactor turn: publications and replies that were collected in it are written, in a fixed order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from time import perf_counter
from typing import Any, Protocol

from longconn.core.counters import Counters
from longconn.core.timers import Clock, Wheel


class Batched(Protocol):
    """A channel with a batch to send. `dirty` is true from `flush_later` until all is sent."""

    dirty: bool

    @property
    def oldest(self) -> int | None:
        """The `Turn.number` of the oldest batch that is not sent to all."""

    def flush(self, everything: bool = False) -> bool:
        """Send for a bounded time, unless `everything` is to be sent; whether nothing is left."""


class Turn:
    """Calls for the end of a turn: replies that go first, channels to flush, replies that go after them, all others."""

    def __init__(self, clock: Clock, wheel: Wheel, counters: Counters) -> None:
        self._clock = clock
        self._counters = counters
        self._wheel = wheel
        # Each call is taken out before it is made. The reactor logs an exception; the next turn makes the other calls.
        self._first: deque[Callable[[], None]] = deque()
        self._dirty: deque[Batched] = deque()
        # Replies, each with the number of the turn.
        self._answers: deque[tuple[int, Callable[[], None]]] = deque()
        self._last: deque[Callable[[], object]] = deque()
        #: counts turns: the batches that are flushed at the end of one have its number
        self.number = 0
        self._end: Any = None
        self._ending = False

    def flush_later(self, channel: Batched) -> None:
        """Flush `channel` when this turn ends."""
        self._dirty.append(channel)
        self._end_later()

    def answer(self, write: Callable[[], None]) -> None:
        """Write a reply after the publications that came back before it: at once if none waits."""
        if self._dirty or self._answers:
            self._answers.append((self.number, write))
            self._end_later()
        else:
            write()

    def answer_first(self, write: Callable[[], None]) -> None:
        """Write a reply when this turn ends, before any channel is flushed."""
        self._first.append(write)
        self._end_later()

    def soon(self, callback: Callable[[], object]) -> None:
        """Call `callback` when this turn ends, after all publications and replies are written.

        A callback that is added by another one is called when the next turn ends.
        """
        self._last.append(callback)
        self._end_later()

    def write_first(self) -> None:
        """Write the replies that go first. A channel that flushes before the turn ends calls this."""
        while self._first:
            self._first.popleft()()

    def stop(self) -> None:
        """Forget all calls, and leave no delayed call behind."""
        for each in (self._first, self._dirty, self._answers, self._last):
            each.clear()
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def finish(self) -> None:
        """Send all publications and replies now."""
        self.write_first()
        self._flush(everything=True)
        while self._answers:
            self._answers.popleft()[1]()

    def _flush(self, everything: bool) -> int | float:
        """Flush the channels, and return the number of the oldest batch that is not sent to all, infinity without."""
        oldest: int | float = inf
        if not self._dirty:
            return oldest
        began = perf_counter()
        for _ in range(len(self._dirty)):
            channel = self._dirty.popleft()
            channel.dirty = False
            if not channel.flush(everything):
                if not channel.dirty:
                    channel.dirty = True
                    self._dirty.append(channel)
                oldest = min(oldest, self.number if channel.oldest is None else channel.oldest)
        self._counters.fan_out.observe(perf_counter() - began)
        return oldest

    def _end_later(self) -> None:
        if self._end is None and not self._ending:
            self._end = self._clock.callLater(0, self._send)

    def _send(self) -> None:
        self._end = None
        self._ending = True
        self._wheel.now = self._clock.seconds()
        try:
            self.write_first()
            # Calls that these calls add wait for the next turn.
            answers = len(self._answers)
            oldest = self._flush(everything=False)
            self.number += 1
            while answers and self._answers and self._answers[0][0] < oldest:
                answers -= 1
                self._answers.popleft()[1]()
            last = len(self._last)
            while last and self._last:  # a callback may have stopped this
                last -= 1
                self._last.popleft()()
        finally:
            self._ending = False
            if self._first or self._dirty or self._answers or self._last:
                self._end_later()
