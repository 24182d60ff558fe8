"""The clock that the core is given, coarse timers, and rates."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

#: The rates of an address are those of this many clients.
ADDRESS_SHARE = 10


class Call(Protocol):
    """A delayed call: the part of Twisted's IDelayedCall that the core uses."""

    def cancel(self) -> None: ...

    def active(self) -> bool: ...


class Clock(Protocol):
    """The part of a reactor that the core uses (Twisted's IReactorTime). `seconds` measures time: see `keep_steady`.

    A clock may also have `wall_time`: see there.
    """

    def seconds(self) -> float: ...

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any) -> Any: ...


def keep_steady(clock: Any) -> None:
    """Let a reactor measure time by a monotonic clock from now on.

    Twisted's reactors take the time of their delayed calls from the wall clock (`seconds` of
    twisted/internet/base.py). When that is set back, every call that waits is late by as much, also one that is due
    at once; when it is set forward, every time-out is over. The new clock starts at the wall clock's time, so that
    calls that wait already stay right. Any other clock, such as `twisted.internet.task.Clock`, stays as it is.
    """
    if getattr(clock, "seconds", None) is time.time:
        monotonic = time.monotonic
        ahead = time.time() - monotonic()
        clock.seconds = lambda: monotonic() + ahead


def wall_time(clock: Clock) -> Callable[[], float]:
    """The time that people and tokens see, in seconds since 1970: `clock.wall_time`, or the system's without one."""
    found: Callable[[], float] = getattr(clock, "wall_time", time.time)
    return found


def until(at: float, wall_time: float) -> float:
    """Seconds from `wall_time` to `at`, and at most a minute, since the wall clock may be set before that."""
    return max(0.0, min(at - wall_time, 60.0))


class Timed(Protocol):
    """An object that has a timer in a `Wheel`."""

    #: the second at which its timer ends; 0 while it has none. Only the wheel changes it.
    due: int

    def on_due(self, now: float) -> None:
        """The timer ended. `now` is the clock's time."""
        ...


class Wheel:
    """Coarse timers for many thousand items: one delayed call for all, with a resolution of one second.

    The name is that of timer wheels: for each second there is a set of the items whose timers end then. An item has
    one timer. It is called at its time, or at most a second and a turn later. A delayed call of the reactor costs half
    a KiB and a place in a heap; an item costs a slot in a set.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: the time of the last tick or the last end of a turn, whichever is later: for uses that need not be exact
        self.now = clock.seconds()
        self._buckets: dict[int, set[Timed]] = {}
        self._call: Call | None = None

    def set(self, item: Timed, delay: float) -> None:
        """Call `item.on_due` in `delay` seconds. This replaces a timer that the item has."""
        second = int(self._clock.seconds() + delay) + 1
        if item.due != second:
            self.clear(item)
            item.due = second
            self._buckets.setdefault(second, set()).add(item)
            if self._call is None:
                self._call = self._clock.callLater(1, self._tick)

    def clear(self, item: Timed) -> None:
        """Stop the item's timer, if it has one."""
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
                bucket = self._buckets.get(second, set())  # an item that was called may have cleared the last one
                while bucket:
                    item = bucket.pop()
                    item.due = 0
                    item.on_due(now)
                self._buckets.pop(second, None)
        finally:  # the reactor logs an exception of an item; the next tick calls the other items
            if self._buckets and self._call is None:
                self._call = self._clock.callLater(1, self._tick)

    def stop(self) -> None:
        """Forget all items, and leave no delayed call behind."""
        self._buckets.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None


class Bucket:
    """A token bucket: `rate` a second, `burst` at once. Rate 0 is no limit.

    The bucket may be overdrawn, so that one large message passes. The next one waits until the debt is paid.
    """

    __slots__ = ("_at", "_level", "_on_empty", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._at = now
        # Called once, when the bucket is empty for the first time.
        self._on_empty: Callable[[Bucket, float], None] | None = None

    def wait(self, now: float) -> float:
        """Seconds until `spend` is allowed; 0 if it is allowed now."""
        rate = self.rate
        if not rate:
            return 0.0
        level = self._level + (now - self._at) * rate
        self._at = now
        self._level = level = min(level, self.burst)
        # A whole token, or (for bursts below one) whatever the bucket can hold.
        wait = (min(1.0, self.burst) - level) / rate
        # Seconds since 1970 have this precision in a float: adding a shorter wait might not change the time.
        if wait <= 1e-6:
            return 0.0
        on_empty, self._on_empty = self._on_empty, None
        if on_empty is None:
            return wait
        on_empty(self, now)
        return self.wait(now)

    def level(self, now: float) -> float:
        """What it holds now; less than 0 is a debt."""
        return min(self._level + (now - self._at) * self.rate, self.burst)

    def spend(self, amount: float) -> None:
        """Take `amount` out."""
        if self.rate:
            self._level -= amount


class Buckets:
    """One bucket for each key (an address). Of more than `limit` buckets, the least recently used are forgotten.

    A bucket that was not used for `burst / rate` seconds is full again, so that forgetting it changes nothing.
    """

    def __init__(self, rate: float, burst: float, limit: int = 10_000) -> None:
        self._rate = rate
        self._burst = burst
        self._limit = limit
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._unlimited = Bucket(0, 0, 0)

    def bucket(self, key: str, now: float) -> Bucket:
        """The bucket of `key`; a new one is full."""
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


class ClientBuckets:
    """The buckets of clients. What they may send at once, the clients of one address share.

    A bucket begins with a tenth of a second's worth. When it is empty for the first time, it takes the rest of its
    burst from the bucket of its address, as far as that has it. From then on it is a bucket like any other. So a client
    that comes back does not have a whole burst again, and it finds the debt that it left: at most a second's worth of
    it. A client without a host has a burst of its own.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._start = min(max(1.0, rate / 10), burst)
        self._of_addresses = Buckets(ADDRESS_SHARE * rate, ADDRESS_SHARE * burst)

    def bucket(self, host: str, now: float) -> Bucket:
        """A bucket for a new client at `host`."""
        if not (self._rate and host):
            return Bucket(self._rate, self._burst, now)
        made = Bucket(self._rate, self._start, now)
        shared = self._of_addresses.bucket(host, now)
        level = min(self._start, max(shared.level(now), -self._rate))
        shared.spend(max(level, 0.0))
        made.spend(self._start - level)
        made._on_empty = partial(self._take_rest, host)
        return made

    def close(self, host: str, bucket: Bucket, now: float) -> None:
        """A client at `host` is gone: its debt stays with the address."""
        if self._rate and host:
            bucket._on_empty = None
            self._of_addresses.bucket(host, now).spend(max(0.0, -bucket.level(now)))

    def _take_rest(self, host: str, bucket: Bucket, now: float) -> None:
        """Give `bucket` the rest of its burst, as far as its address has it."""
        shared = self._of_addresses.bucket(host, now)
        rest = max(0.0, min(self._burst - self._start, shared.level(now)))
        shared.spend(rest)
        bucket.burst = self._burst
        bucket.spend(-rest)
