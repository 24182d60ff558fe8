"""Slows down guesses at a secret."""

from __future__ import annotations

from longconn.core.timers import Buckets, Clock

#: Wrong guesses of one address: at once, and seconds until one more is allowed.
AT_ONCE = 5
PAUSE = 12.0


class Guesses:
    """The wrong guesses at one kind of secret (a key, passwords, tokens), counted by the address that makes them.

    Ask `wait` before a secret is compared. While it is not 0, the right secret is refused as a wrong one is: the answer
    would tell them apart. The addresses that guessed last are remembered, 10,000 of them. Peers without a host are not
    slowed down, since they share no address with others that could be told from them.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets = Buckets(1 / PAUSE, AT_ONCE)

    def wait(self, host: str) -> float:
        """Seconds until the peer `host` may guess again; 0 if it may now."""
        now = self._clock.seconds()
        return self._buckets.bucket(host, now).wait(now) if host else 0.0

    def failed(self, host: str) -> None:
        """A guess of `host` was wrong."""
        self._buckets.bucket(host, self._clock.seconds()).spend(1)
