"""Publications that are made once, however often they are asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

from longconn.core.broker import Done
from longconn.core.errors import CommandError
from longconn.core.publication import Position
from longconn.core.timers import Clock

#: Seconds for which an answer is remembered, and how many are; over it the oldest is forgotten first.
REMEMBERED = 300.0
MOST = 50_000


class _Answer:
    """The answer, once the broker gave it, and who waits for it until then."""

    __slots__ = ("at", "position", "waiting")

    def __init__(self, at: float) -> None:
        self.at = at
        self.position: Position | None = None
        self.waiting: list[Done[Position]] = []


class IdempotencyCache:
    """Remembers answers by channel and idempotency key."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # By a digest: a key may be as long as a body. The oldest first.
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()

    def publish(self, channel: str, key: str, publish: Callable[[Done[Position]], None], done: Done[Position]) -> None:
        """Call `publish`, unless that was done under this key lately; `done` gets the same answer either way.

        What was refused is not remembered: asked for again, it is tried again.
        """
        now = self._clock.seconds()
        self._forget(now)
        digest = blake2b(f"{channel}\0{key}".encode(), digest_size=16).digest()
        answer = self._answers.get(digest)
        if answer is not None:
            if answer.position is None:
                answer.waiting.append(done)
            else:
                done(answer.position)
            return
        mine = self._answers[digest] = _Answer(now)
        mine.waiting.append(done)

        def published(result: Position | CommandError) -> None:
            if not isinstance(result, CommandError):
                mine.position = result
            elif self._answers.get(digest) is mine:
                del self._answers[digest]
            waiting, mine.waiting = mine.waiting, []
            for each in waiting:
                each(result)

        try:
            publish(published)
        except CommandError as error:
            published(error)

    def _forget(self, now: float) -> None:
        while self._answers:
            oldest = next(iter(self._answers.values()))
            if len(self._answers) < MOST and oldest.at > now - REMEMBERED:
                break
            self._answers.popitem(last=False)
