"""Delayed calls that are given up together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class DelayedCalls:
    """The delayed calls of one owner."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._calls: set[Any] = set()

    def seconds(self) -> float:
        now: float = self._reactor.seconds()
        return now

    def call(self, delay: float, function: Callable[[], None]) -> Any:
        """Call in `delay` seconds; what is given back is for `cancel`."""

        def run() -> None:
            self._calls.discard(call)
            function()

        call = self._reactor.callLater(delay, run)
        self._calls.add(call)
        return call

    def cancel(self, call: Any) -> None:
        """Give a call up; one that was made already, or None, is nothing to give up."""
        if call in self._calls:
            self._calls.discard(call)
            call.cancel()

    def cancel_all(self) -> None:
        for call in tuple(self._calls):
            self.cancel(call)
