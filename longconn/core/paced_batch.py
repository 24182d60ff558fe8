"""Many calls for one answer, a share of them in each turn, so that others are served meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from longconn.core.broker import Done
from longconn.core.errors import INTERNAL, CommandError
from longconn.core.timers import Call, Clock

log = logging.getLogger("longconn")

_T = TypeVar("_T")

#: Calls of one turn, and the bytes that they publish; more would wait for subscribers that read as fast as they can.
TURN_CALLS = 250
TURN_BYTES = 64 * 1024
#: Seconds between two turns, in which subscribers are sent to.
PAUSE = 0.01


class PacedBatch(Generic[_T]):
    """Makes `calls`, a pair each of a weight in bytes and what to call, and answers with their results in order.

    Each is made when the one before was answered; with `parallel` without waiting for that. A call that
    is refused, or fails, has its CommandError for a result.
    """

    def __init__(
        self,
        clock: Clock,
        calls: Sequence[tuple[int, Callable[[Done[_T]], None]]],
        done: Callable[[list[_T | CommandError]], None],
        parallel: bool = False,
    ) -> None:
        self._clock = clock
        self._calls = calls
        self._done = done
        self._parallel = parallel
        self._results: dict[int, _T | CommandError] = {}
        self._next = 0
        self._going = False
        self._call: Call | None = None

    @property
    def over(self) -> bool:
        """Whether all is answered."""
        return len(self._results) == len(self._calls)

    def go(self) -> None:
        """Make as many calls as a turn may, and come back for the others."""
        self._call = None
        self._going = True
        count = size = 0
        while self._next < len(self._calls) and (self._parallel or len(self._results) == self._next):
            weight, call = self._calls[self._next]
            if count == TURN_CALLS or (size and size + weight > TURN_BYTES):
                self._call = self._clock.callLater(PAUSE, self.go)
                break
            count += 1
            size += weight
            self._make(call)
        self._going = False
        self._finish()

    def stop(self) -> None:
        """Make no more calls; there is no answer."""
        self._calls = ()
        self._done = _nothing
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _make(self, call: Callable[[Done[_T]], None]) -> None:
        index = self._next
        self._next += 1

        def answered(result: _T | CommandError) -> None:
            self._results[index] = result
            if not self._going and self._call is None:
                self.go()

        try:
            call(answered)
        except CommandError as error:
            answered(error)
        except Exception:  # the others, and the answer, are not to suffer
            log.exception("a call of many failed")
            answered(CommandError(INTERNAL))

    def _finish(self) -> None:
        if self.over:
            done, self._done = self._done, _nothing
            done([self._results[index] for index in range(len(self._calls))])


def _nothing(results: object) -> None:
    """It was answered already."""
