"""A broker as one over a network is: it answers later, and sometimes that it cannot now."""

import random
from collections.abc import Callable, Sequence
from typing import Any

from longconn.core.broker import Done, Receiver
from longconn.core.errors import INTERNAL, CommandError
from longconn.core.memory_broker import MemoryBroker
from longconn.core.publication import Announcement, Data, History, Info, Position, Publication
from longconn.core.settings import Settings
from longconn.testing import FakeClock


class LateBroker:
    """A `MemoryBroker` a network away, as far as the hub can tell; now and then it refuses for now.

    What it is asked for it does a turn later, in order, and its answer takes another turn. So an answer
    may be older than a publication that came back before it; or newer, where `lag` is the number of turns
    more that publications and announcements take to come back. `failures` is the part of commands that it
    refuses; which ones follows from `seed`.
    """

    problem = ""
    presence = None
    counters = None

    def __init__(
        self, clock: FakeClock, settings: Settings, seed: int = 1, failures: float = 0.2, lag: int = 0
    ) -> None:
        self.failures = failures
        self.refused = 0
        self._clock = clock
        self.inner = MemoryBroker(clock, settings)
        self._random = random.Random(seed)
        self._calls: dict[int, Any] = {}
        self._count = 0
        self._lag = lag

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.inner.attach(self)

    def on_publication(self, publication: Publication) -> None:
        self._after(self._lag, lambda: self._receiver.on_publication(publication))

    def on_announcement(self, channel: str, announcement: Announcement) -> None:
        self._after(self._lag, lambda: self._receiver.on_announcement(channel, announcement))

    def subscribe(self, channel: str, done: Done[None]) -> None:
        self._ask(lambda answer: self.inner.subscribe(channel, answer), done)

    def unsubscribe(self, channel: str) -> None:
        self._later(lambda: self.inner.unsubscribe(channel))

    def publish(
        self, channel: str, data: Data, info: Info, done: Done[Position], keep: bool = True, once: str = ""
    ) -> None:
        self._ask(lambda answer: self.inner.publish(channel, data, info, answer, keep, once), done)

    def on_publications(self, channel: str, publications: Sequence[Publication]) -> None:
        self._after(self._lag, lambda: self._receiver.on_publications(channel, publications))

    def publish_many(self, channel: str, data: Sequence[Data], info: Info, done: Done[Position]) -> None:
        self._ask(lambda answer: self.inner.publish_many(channel, data, info, answer), done)

    def announce(self, channel: str, announcement: Announcement) -> None:
        self._later(lambda: self.inner.announce(channel, announcement))

    def listen(self, topic: str, on_message: Callable[[bytes], None]) -> None:
        self.inner.listen(topic, on_message)

    def tell(self, topic: str, message: bytes, done: Callable[[int | None], None]) -> None:
        self.inner.tell(topic, message, done)

    def history(self, channel: str, since: Position | None, limit: int, reverse: bool, done: Done[History]) -> None:
        self._ask(lambda answer: self.inner.history(channel, since, limit, reverse, answer), done)

    def remove_history(self, channel: str, done: Done[None]) -> None:
        self._ask(lambda answer: self.inner.remove_history(channel, answer), done)

    def stop(self) -> None:
        for each in self._calls.values():
            each.cancel()
        self._calls.clear()
        self.inner.stop()

    def _ask(self, command: Callable[[Done[Any]], None], done: Done[Any]) -> None:
        def answer(result: Any) -> None:
            self._later(lambda: done(result))

        if self._random.random() < self.failures:
            self.refused += 1
            self._later(lambda: answer(CommandError(INTERNAL)))
        else:
            self._later(lambda: command(answer))

    def _after(self, turns: int, action: Callable[[], None]) -> None:
        if turns:
            self._later(lambda: self._after(turns - 1, action))
        else:
            action()

    def _later(self, action: Callable[[], None]) -> None:
        """In the next turn, unless stopped."""
        self._count += 1
        number = self._count

        def act() -> None:
            del self._calls[number]
            action()

        self._calls[number] = self._clock.callLater(0, act)
