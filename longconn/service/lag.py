"""Measures by how much the reactor is late: what a client waits for beyond the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from longconn.core.timers import Clock

#: Seconds between two measurements.
_INTERVAL = 1.0


class ReactorLag:
    """Passes to `measured` how late a delayed call comes, in seconds, once a second from `start` to `stop`."""

    def __init__(self, clock: Clock, measured: Callable[[float], None]) -> None:
        self._clock = clock
        self._measured = measured
        self._due = 0.0
        self._call: Any = None

    def start(self) -> None:
        """Measure from now on."""
        self._due = self._clock.seconds() + _INTERVAL
        self._call = self._clock.callLater(_INTERVAL, self._measure)

    def stop(self) -> None:
        """Measure no more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _measure(self) -> None:
        self._measured(max(0.0, self._clock.seconds() - self._due))
        self.start()
