"""Time as the core sees it: the clock handed in, coarse timers, and rates."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol


class Call(Protocol):
    """A delayed call, as Twisted's IDelayedCall."""

    def cancel(self) -> None: ...

    def active(self) -> bool: ...


class Clock(Protocol):
    """What the core needs of a reactor (Twisted's IReactorTime); `seconds` counts from 1970."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any) -> Any: ...


class Timed(Protocol):
    """Something that waits in a `Wheel`; `due` belongs to the wheel and starts as 0."""

    due: int

    def on_due(self, now: float) -> None: ...


class Wheel:
    """Coarse timers for very many: one delayed call for all, a second's resolution.

    An item waits at most once. It is called not before its time and at most a second
    (and a turn) after. A delayed call of the reactor costs half a KiB and a place in a
    heap; a place here costs a slot in a set.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: the time, not older than this turn's flush or the last tick: for what need not be exact
        self.now = clock.seconds()
        self._buckets: dict[int, set[Timed]] = {}
        self._call: Call | None = None

    def set(self, item: Timed, delay: float) -> None:
        """Call `item.on_due` in `delay` seconds, in place of any earlier appointment."""
        second = int(self._clock.seconds() + delay) + 1
        if item.due != second:
            self.clear(item)
            item.due = second
            self._buckets.setdefault(second, set()).add(item)
            if self._call is None:
                self._call = self._clock.callLater(1, self._tick)

    def clear(self, item: Timed) -> None:
        bucket = self._buckets.get(item.due)
        if bucket is not None:
            bucket.discard(item)
            if not bucket:
                del self._buckets[item.due]
        item.due = 0

    def _tick(self) -> None:
        self._call = None
        self.now = now = self._clock.seconds()
        try:
            for second in sorted(each for each in self._buckets if each <= now):
                bucket = self._buckets.get(second, set())  # one before may have cleared the last of it
                while bucket:
                    item = bucket.pop()
                    item.due = 0
                    item.on_due(now)
                self._buckets.pop(second, None)
        finally:  # what raises is logged by the reactor; the others are called by the next tick
            if self._buckets and self._call is None:
                self._call = self._clock.callLater(1, self._tick)

    def stop(self) -> None:
        """Forget all; nothing is called any more."""
        self._buckets.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None


class Bucket:
    """A token bucket: `rate` a second, `burst` at once. Rate 0 is no limit.

    What is spent may exceed what is there, so that one large message passes; the debt
    is waited for before the next.
    """

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until something may be spent: 0 if it may now."""
        rate = self.rate
        if not rate:
            return 0.0
        level = self._level + (now - self._at) * rate
        self._at = now
        self._level = level = min(level, self.burst)
        # A whole token, or (for bursts below one) whatever the bucket can hold.
        wait = (min(1.0, self.burst) - level) / rate
        # Seconds since 1970 are that exact as a float: a wait below could have no end.
        return wait if wait > 1e-6 else 0.0

    def spend(self, amount: float) -> None:
        if self.rate:
            self._level -= amount


class Buckets:
    """One bucket for each key (an address), at most `limit` of them, the least recently used forgotten.

    A bucket of which nothing was taken for `burst / rate` seconds is full again, so
    forgetting it changes nothing.
    """

    def __init__(self, rate: float, burst: float, limit: int = 10_000) -> None:
        self._rate = rate
        self._burst = burst
        self._limit = limit
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._unlimited = Bucket(0, 0, 0)

    def bucket(self, key: str, now: float) -> Bucket:
        """The bucket of `key`, which is full if it is new."""
        if not self._rate:
            return self._unlimited
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self._rate, self._burst, now)
            if len(self._buckets) > self._limit:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket
