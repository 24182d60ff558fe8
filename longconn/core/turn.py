"""The end of a reactor turn: what was collected in it is sent, in an order that every client can rely on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from longconn.core.timers import Clock, Wheel


class Batched(Protocol):
    """A channel with something to send."""

    dirty: bool

    def flush(self) -> None: ...


class Turn:
    """Answers to write first, channels to flush, answers to write after them."""

    def __init__(self, clock: Clock, wheel: Wheel) -> None:
        self._clock = clock
        self._wheel = wheel
        # Each is taken out before it is called: what raises is logged by the reactor, and costs nobody else anything.
        self._first: deque[Callable[[], None]] = deque()
        self._dirty: deque[Batched] = deque()
        self._answers: deque[Callable[[], None]] = deque()
        self._last: deque[Callable[[], object]] = deque()
        self._end: Any = None
        self._ending = False

    def flush_later(self, channel: Batched) -> None:
        """Flush `channel` when this turn ends."""
        self._dirty.append(channel)
        self._end_later()

    def answer(self, write: Callable[[], None]) -> None:
        """Write an answer, after the publications that came back before it."""
        if self._dirty or self._answers:
            self._answers.append(write)
            self._end_later()
        else:
            write()

    def answer_first(self, write: Callable[[], None]) -> None:
        """Write an answer when this turn ends, before the publications that come after it was made."""
        self._first.append(write)
        self._end_later()

    def soon(self, callback: Callable[[], object]) -> None:
        """Call `callback` when this turn ends, after everything else: it sees what channels and answers have written.

        A callback that is added by another one is called when the next turn ends.
        """
        self._last.append(callback)
        self._end_later()

    def write_first(self) -> None:
        """Write the answers that go before what is about to be flushed."""
        while self._first:
            self._first.popleft()()

    def stop(self) -> None:
        """Forget all, and leave no delayed call behind."""
        for each in (self._first, self._dirty, self._answers, self._last):
            each.clear()
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _end_later(self) -> None:
        if self._end is None and not self._ending:
            self._end = self._clock.callLater(0, self._send)

    def _send(self) -> None:
        self._end = None
        self._ending = True
        self._wheel.now = self._clock.seconds()
        try:
            self.write_first()
            # What comes up meanwhile is for the next turn.
            answers = len(self._answers)
            for _ in range(len(self._dirty)):
                channel = self._dirty.popleft()
                channel.dirty = False
                channel.flush()
            for _ in range(answers):
                self._answers.popleft()()
            for _ in range(len(self._last)):
                self._last.popleft()()
        finally:
            self._ending = False
            if self._first or self._dirty or self._answers or self._last:
                self._end_later()
