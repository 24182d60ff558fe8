"""A broker as one over a network is: it answers later, and sometimes not at all."""

import random
from collections.abc import Callable
from typing import Any

from longconn.core.broker import Done, Receiver
from longconn.core.errors import INTERNAL, CommandError
from longconn.core.memory import MemoryBroker
from longconn.core.publication import Announcement, Data, History, Info, Position
from longconn.core.settings import Settings
from longconn.testing import FakeClock


class LateBroker:
    """A `MemoryBroker` that does everything two turns later, in order, and now and then refuses for now.

    `failures` is the part of commands that it refuses; which ones follows from `seed`.
    """

    def __init__(self, clock: FakeClock, settings: Settings, seed: int = 1, failures: float = 0.2) -> None:
        self.failures = failures
        self.refused = 0
        self._clock = clock
        self._inner = MemoryBroker(clock, settings)
        self._random = random.Random(seed)
        self._calls: dict[int, Any] = {}
        self._count = 0

    def attach(self, receiver: Receiver) -> None:
        self._inner.attach(receiver)

    def subscribe(self, channel: str, done: Done[None]) -> None:
        self._later(lambda: self._inner.subscribe(channel, done), done)

    def unsubscribe(self, channel: str) -> None:
        self._later(lambda: self._inner.unsubscribe(channel))

    def publish(self, channel: str, data: Data, info: Info, done: Done[Position]) -> None:
        self._later(lambda: self._inner.publish(channel, data, info, done), done)

    def announce(self, channel: str, announcement: Announcement) -> None:
        self._later(lambda: self._inner.announce(channel, announcement))

    def history(self, channel: str, since: Position | None, limit: int, reverse: bool, done: Done[History]) -> None:
        self._later(lambda: self._inner.history(channel, since, limit, reverse, done), done)

    def stop(self) -> None:
        for each in self._calls.values():
            each.cancel()
        self._calls.clear()
        self._inner.stop()

    def _later(self, action: Callable[[], None], done: Done[Any] | None = None) -> None:
        fails = done is not None and self._random.random() < self.failures
        self._count += 1
        number = self._count

        def second() -> None:
            del self._calls[number]
            if done is not None and fails:
                self.refused += 1
                done(CommandError(INTERNAL))
            else:
                action()

        def first() -> None:
            self._calls[number] = self._clock.callLater(0, second)

        self._calls[number] = self._clock.callLater(0, first)
