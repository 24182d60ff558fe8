"""Idempotency keys: a publication is made once, however often it is requested with the same key."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

from longconn.core.broker import Done
from longconn.core.errors import CommandError
from longconn.core.publication import Position
from longconn.core.timers import Clock

#: Seconds for which an answer is remembered, and the number of answers; beyond it the oldest is forgotten.
REMEMBERED = 300.0
MOST = 50_000


class _Answer:
    """The broker's answer, and the callers that wait for it."""

    __slots__ = ("at", "position", "waiting")

    def __init__(self, at: float) -> None:
        self.at = at
        self.position: Position | None = None
        self.waiting: list[Done[Position]] = []


class IdempotencyCache:
    """Remembers answers by channel and idempotency key."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # By digest, since a key may be as long as a body; the oldest first.
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()

    def publish(self, channel: str, key: str, publish: Callable[[Done[Position]], None], done: Done[Position]) -> None:
        """Call `publish`, unless it was called for this key lately; `done` gets the same answer in both cases.

        A refusal is not remembered: the next request with this key tries again.
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
