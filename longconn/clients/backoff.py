"""How long to wait before the next attempt."""

from __future__ import annotations

from collections.abc import Callable

#: Seconds: the shortest and the longest delay.
SHORTEST = 0.5
LONGEST = 20.0


class Backoff:
    """Exponential backoff with full jitter: clients that lost the same server come back at different times.

    `random` returns numbers from 0 to 1.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._bound = SHORTEST

    def reset(self) -> None:
        """An attempt succeeded: the next delay is short again."""
        self._bound = SHORTEST

    def delay(self) -> float:
        """Seconds to wait after one more failure, from SHORTEST to LONGEST."""
        bound, self._bound = self._bound, min(LONGEST, self._bound * 2)
        return min(LONGEST, SHORTEST + self._random() * bound)
