"""How long to wait before the next attempt."""

from __future__ import annotations

from collections.abc import Callable

#: Seconds: the least and the most.
LEAST = 0.5
MOST = 20.0


class Backoff:
    """Exponential backoff with full jitter, so that clients which lost one server do not come back as one.

    `random` gives numbers from 0 to 1.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._bound = LEAST

    def reset(self) -> None:
        """It worked."""
        self._bound = LEAST

    def delay(self) -> float:
        """Seconds to wait after one more failure, from LEAST to MOST."""
        bound, self._bound = self._bound, min(MOST, self._bound * 2)
        return min(MOST, LEAST + self._random() * bound)
