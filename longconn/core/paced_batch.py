"""Makes many calls, a bounded number in each turn of the reactor, so that other clients are served in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from longconn.core.broker import Done
from longconn.core.errors import INTERNAL, CommandError
from longconn.core.log import about, log
from longconn.core.timers import Call, Clock

_T = TypeVar("_T")

#: Calls in one turn at most, and bytes that they publish. More would fill the queues of subscribers that are not slow.
TURN_CALLS = 250
TURN_BYTES = 64 * 1024
#: Seconds between two such turns. In the meantime, subscribers are sent the publications.
PAUSE = 0.002


class PacedBatch(Generic[_T]):
    """Makes `calls` in order: pairs of a weight in bytes and a function.

    Each call waits for the answer to the one before; with `parallel` it does not wait. A call that returns a number
    other than 0 had no effect, and is made again after that many seconds. `on_result` gets the index and the result of
    each call: a CommandError if the call was refused or failed. `on_end` is called after the last result. Batches with
    the same set `under_way` share what one turn may do; they are in it until their end.
    """

    def __init__(
        self,
        clock: Clock,
        calls: Iterable[tuple[int, Callable[[Done[_T]], float | None]]],
        on_result: Callable[[int, _T | CommandError], None],
        on_end: Callable[[], None],
        *,
        parallel: bool = False,
        under_way: set[PacedBatch[Any]] | None = None,
    ) -> None:
        self._clock = clock
        self._calls = iter(calls)
        self._next = next(self._calls, None)
        self._on_result = on_result
        self._on_end = on_end
        self._parallel = parallel
        self._under_way = set() if under_way is None else under_way
        self._under_way.add(self)
        self._made = self._answered = 0
        self._going = False
        self._over = False
        self._delayed: Call | None = None

    def go(self) -> None:
        """Make as many calls as one turn may, and continue in a later turn."""
        self._delayed = None
        self._going = True
        count = size = 0
        share = len(self._under_way) or 1
        most_calls, most_bytes = max(1, TURN_CALLS // share), TURN_BYTES // share
        while self._next is not None and (self._parallel or self._answered == self._made):
            weight, call = self._next
            full = count == most_calls or (size and size + weight > most_bytes)
            delay = PAUSE if full else self._make(call)
            if delay:
                if not self._over:
                    self._delayed = self._clock.callLater(delay, self.go)
                break
            count += 1
            size += weight
            if not self._over:
                self._next = next(self._calls, None)
        self._going = False
        if self._next is None and self._answered == self._made and not self._over:
            self._over = True
            self._under_way.discard(self)
            self._on_end()

    def stop(self) -> None:
        """Make no more calls, and report no more results."""
        self._over = True
        self._under_way.discard(self)
        self._next = None
        if self._delayed is not None:
            self._delayed.cancel()
            self._delayed = None

    def _make(self, call: Callable[[Done[_T]], float | None]) -> float | None:
        index = self._made
        self._made += 1

        def answered(result: _T | CommandError) -> None:
            if self._over:
                return
            self._answered += 1
            self._on_result(index, result)
            if not self._going and self._delayed is None:
                self.go()

        try:
            delay = call(answered)
        except CommandError as error:
            answered(error)
        except Exception:  # a defect of one call must not keep the others from being made
            log.exception("a call of a batch failed", extra=about("internal_error"))
            answered(CommandError(INTERNAL))
        else:
            if delay:
                self._made -= 1
            return delay
        return None
