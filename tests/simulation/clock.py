"""The clock of a simulation. It runs a call at a time, by a heap: thousands of seeds have to take a minute."""

import heapq
import math
from collections.abc import Callable
from typing import Any

from longconn.testing import START


class SimulatedCall:
    """A delayed call."""

    __slots__ = ("arguments", "function")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function: Callable[..., Any] | None = function
        self.arguments = arguments

    def cancel(self) -> None:
        self.function = None

    def active(self) -> bool:
        return self.function is not None


class SimulatedClock:
    """Moves from call to call."""

    def __init__(self) -> None:
        self.now = START
        #: from then on the network does nothing unusual
        self.quiet_from = math.inf
        self._calls: list[tuple[float, int, SimulatedCall]] = []
        self._number = 0

    def seconds(self) -> float:
        return self.now

    def wall_time(self) -> float:
        return self.now

    def callLater(self, delay: float, function: Callable[..., Any], *arguments: Any) -> SimulatedCall:
        call = SimulatedCall(function, arguments)
        self._number += 1
        heapq.heappush(self._calls, (self.now + delay, self._number, call))
        return call

    @property
    def waiting(self) -> list[SimulatedCall]:
        """The calls that are to come."""
        return [call for _, _, call in self._calls if call.active()]

    def advance(self, seconds: float) -> None:
        """Run all calls of the next seconds, each at its time."""
        end = self.now + seconds
        calls = self._calls
        while calls and calls[0][0] <= end:
            at, _, call = heapq.heappop(calls)
            function, call.function = call.function, None
            if function is not None:
                self.now = max(self.now, at)
                function(*call.arguments)
        self.now = end
