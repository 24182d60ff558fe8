"""How long to wait before the next attempt.

A server that is overloaded or broken may accept a client and lose it at once. So an attempt has succeeded when its
success has lasted.
"""

from __future__ import annotations

from collections.abc import Callable

#: Seconds: the shortest and the longest delay.
SHORTEST = 0.5
LONGEST = 20.0
#: Seconds for which a success has to last.
LASTING = 20.0


class Backoff:
    """Exponential backoff with full jitter: clients that lost the same server come back at different times.

    `random` returns numbers from 0 to 1, `seconds` a time that does not jump.
    """

    def __init__(self, random: Callable[[], float], seconds: Callable[[], float]) -> None:
        self._random = random
        self._seconds = seconds
        self._bound = SHORTEST
        self._succeeded_at: float | None = None

    def succeed(self) -> None:
        """An attempt succeeded: the next delay is short again if the next failure does not come at once."""
        self._succeeded_at = self._seconds()

    def delay(self) -> float:
        """Seconds to wait after one more failure, from SHORTEST to LONGEST."""
        if self._succeeded_at is not None and self._seconds() - self._succeeded_at >= LASTING:
            self._bound = SHORTEST
        self._succeeded_at = None
        bound, self._bound = self._bound, min(LONGEST, self._bound * 2)
        return min(LONGEST, SHORTEST + self._random() * bound)
