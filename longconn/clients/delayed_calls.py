"""Delayed calls of the reactor that are cancelled together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class DelayedCalls:
    """The delayed calls of one owner."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._calls: set[Any] = set()

    def seconds(self) -> float:
        """The reactor's time."""
        now: float = self._reactor.seconds()
        return now

    def call(self, delay: float, function: Callable[[], None]) -> Any:
        """Call `function` in `delay` seconds. The result can be passed to `cancel`."""

        def run() -> None:
            self._calls.discard(call)
            function()

        call = self._reactor.callLater(delay, run)
        self._calls.add(call)
        return call

    def cancel(self, call: Any) -> None:
        """Cancel a call. Does nothing for None, and for a call that was made or cancelled already."""
        if call in self._calls:
            self._calls.discard(call)
            call.cancel()

    def cancel_all(self) -> None:
        for call in tuple(self._calls):
            self.cancel(call)
