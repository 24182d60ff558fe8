"""Coarse timers and rates."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock

from longconn.core.hub import Hub
from longconn.core.timers import Bucket, Buckets, ClientBuckets, Wheel, keep_steady, until, wall_time
from longconn.testing import FakeClock
from tests.core.common import Case


class Item:
    def __init__(self, clock: FakeClock) -> None:
        self.due = 0
        self.clock = clock
        self.called: list[float] = []
        self.then: Callable[[], None] = lambda: None

    def on_due(self, now: float) -> None:
        assert now == self.clock.seconds()
        self.called.append(now)
        self.then()


class SteadyTests(Case):
    """A reactor's calls, and a wall clock that is set."""

    def setUp(self) -> None:
        self.wall = 1_700_000_000.0
        self.patch(time, "time", lambda: self.wall)
        self.reactor: Any = SelectReactor()  # one that never runs
        self.reactor.seconds = time.time  # as twisted.internet.base.ReactorBase has it
        self.called: list[str] = []

    def tearDown(self) -> None:
        for each in self.reactor.removeAll():  # its waker
            each.connectionLost(None)

    def test_calls_are_made_in_time_when_the_wall_clock_is_set(self) -> None:
        for jump in (-86_400.0, 86_400.0):
            keep_steady(self.reactor)
            self.reactor.callLater(0, self.called.append, "at once")
            waits = self.reactor.callLater(60, self.called.append, "in a minute")
            self.wall += jump
            self.reactor.runUntilCurrent()
            self.assertEqual(self.called, ["at once"])
            self.assertAlmostEqual(self.reactor.timeout(), 60, places=0)
            waits.cancel()
            self.called.clear()

    def test_calls_that_wait_already_stay_right(self) -> None:
        self.reactor.callLater(60, self.called.append, "in a minute")
        keep_steady(self.reactor)
        self.assertAlmostEqual(self.reactor.timeout(), 60, places=0)
        self.assertAlmostEqual(self.reactor.seconds(), self.wall, places=0)

    def test_a_hub_makes_its_reactor_steady_and_knows_the_wall_clock(self) -> None:
        hub = Hub(self.reactor)
        self.wall += 3_600
        self.assertAlmostEqual(self.reactor.seconds(), self.wall - 3_600, places=0)
        self.assertEqual(hub.wall_time(), self.wall)

    def test_other_clocks_stay_as_they_are(self) -> None:
        clock, fake = Clock(), FakeClock()
        for each in (clock, fake):
            keep_steady(each)
            each.advance(5)
        self.assertEqual((clock.seconds(), wall_time(clock)()), (5, self.wall))
        fake.wall_ahead = -3
        self.assertEqual(wall_time(fake)(), fake.seconds() - 3)

    def test_a_time_of_the_wall_clock_is_looked_at_again_within_a_minute(self) -> None:
        self.assertEqual([until(at, 100) for at in (90, 100, 130, 9_999)], [0, 0, 30, 60])


class WheelTests(Case):
    def setUp(self) -> None:
        self.clock = FakeClock()
        self.wheel = Wheel(self.clock)
        self.item = Item(self.clock)

    def test_an_item_is_called_at_its_time_or_up_to_a_second_later(self) -> None:
        for delay in (0.1, 1, 2.5, 30):
            with self.subTest(delay=delay):
                item = Item(self.clock)
                start = self.clock.seconds()
                self.wheel.set(item, delay)
                self.clock.advance(60.3)
                self.assertEqual(len(item.called), 1)
                self.assertTrue(start + delay <= item.called[0] <= start + delay + 2, item.called[0] - start)

    def test_setting_an_item_again_replaces_its_timer(self) -> None:
        self.wheel.set(self.item, 2)
        self.wheel.set(self.item, 10)
        self.clock.advance(5)
        self.assertEqual(self.item.called, [])
        self.clock.advance(10)
        self.assertEqual(len(self.item.called), 1)

    def test_an_item_that_raises_does_not_stop_the_others(self) -> None:
        class Broken(Item):
            def on_due(self, now: float) -> None:
                raise ValueError("broken")

        items = [Broken(self.clock) if number % 3 else Item(self.clock) for number in range(9)]
        for each in items:
            self.wheel.set(each, 5)
        self.wheel.set(self.item, 20)
        for _ in range(30):
            with contextlib.suppress(ValueError):
                self.clock.advance(1)
        self.assertEqual([len(each.called) for each in items], [1, 0, 0] * 3)
        self.assertEqual((len(self.item.called), self.clock.getDelayedCalls()), (1, []))

    def test_an_item_may_clear_the_last_item_of_the_next_second(self) -> None:
        """Where the reactor was late, and one tick serves both."""
        first, second, third = (Item(self.clock) for _ in range(3))
        first.then = lambda: self.wheel.clear(second)
        for number, each in enumerate((first, second, third)):
            self.wheel.set(each, 1.2 + number)
        self.clock.rightNow += 4.5
        self.clock.settle()
        self.assertEqual([len(each.called) for each in (first, second, third)], [1, 0, 1])

    def test_a_cleared_item_is_not_called(self) -> None:
        other = Item(self.clock)
        self.wheel.set(self.item, 1)
        self.wheel.set(other, 1)
        self.wheel.clear(self.item)
        self.wheel.clear(self.item)
        self.clock.advance(5)
        self.assertEqual((self.item.called, len(other.called)), ([], 1))

    def test_an_item_may_set_itself_anew_and_clear_others_when_called(self) -> None:
        test = self

        class Greedy(Item):
            def on_due(self, now: float) -> None:
                super().on_due(now)
                test.wheel.clear(test.item)
                test.wheel.set(self, 1)

        greedy = Greedy(self.clock)
        self.wheel.set(greedy, 1)
        self.clock.advance(2)
        self.wheel.set(self.item, 1)
        self.clock.advance(10)
        self.assertTrue(5 <= len(greedy.called) <= 12)

    def test_one_delayed_call_for_all_and_none_without_items(self) -> None:
        items = [Item(self.clock) for _ in range(100)]
        for index, each in enumerate(items):
            self.wheel.set(each, index)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(200)
        self.assertEqual([len(each.called) for each in items], [1] * 100)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_leaves_nothing(self) -> None:
        self.wheel.set(self.item, 1)
        self.wheel.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(5)
        self.assertEqual(self.item.called, [])


class BucketTests(Case):
    def test_a_burst_and_then_the_rate(self) -> None:
        bucket = Bucket(rate=2, burst=3, now=100)
        for _ in range(3):
            self.assertEqual(bucket.wait(100), 0)
            bucket.spend(1)
        self.assertEqual(bucket.wait(100), 0.5)
        self.assertEqual(bucket.wait(100.25), 0.25)
        self.assertEqual(bucket.wait(100.5), 0)

    def test_it_holds_no_more_than_a_burst(self) -> None:
        bucket = Bucket(rate=2, burst=3, now=100)
        bucket.wait(1_000_000)
        bucket.spend(3)
        self.assertGreater(bucket.wait(1_000_000), 0)

    def test_an_amount_over_the_burst_passes_and_the_next_one_waits(self) -> None:
        bucket = Bucket(rate=10, burst=20, now=0)
        self.assertEqual(bucket.wait(0), 0)
        bucket.spend(100)
        self.assertAlmostEqual(bucket.wait(0), 8.1)
        self.assertEqual(bucket.wait(8.1), 0)

    def test_without_a_rate_there_is_no_limit(self) -> None:
        bucket = Bucket(rate=0, burst=1, now=0)
        bucket.spend(1_000_000)
        self.assertEqual(bucket.wait(0), 0)

    def test_a_burst_below_one_still_lets_pass(self) -> None:
        bucket = Bucket(rate=0.1, burst=0.5, now=0)
        self.assertEqual(bucket.wait(0), 0)
        bucket.spend(1)
        self.assertAlmostEqual(bucket.wait(0), 10)

    def test_the_stated_wait_is_always_long_enough(self) -> None:
        for rate in (0.3, 3, 100, 262_144):
            start = now = 1_700_000_000.0  # where a float's steps are a quarter of a microsecond
            bucket = Bucket(rate, burst=1, now=now)
            for _ in range(1000):
                now += bucket.wait(now)
                self.assertEqual(bucket.wait(now), 0)
                bucket.spend(1)
            self.assertAlmostEqual((now - start) * rate / 1000, 1, places=1)


def take(buckets: Buckets, key: str, now: float) -> float:
    """Spend one, if it may."""
    bucket = buckets.bucket(key, now)
    wait = bucket.wait(now)
    if not wait:
        bucket.spend(1)
    return wait


class BucketsTests(Case):
    def test_each_key_has_its_own(self) -> None:
        buckets = Buckets(rate=1, burst=2)
        self.assertEqual([take(buckets, "a", 0), take(buckets, "a", 0), take(buckets, "b", 0)], [0, 0, 0])
        self.assertEqual(take(buckets, "a", 0), 1)
        self.assertEqual(take(buckets, "b", 0), 0)

    def test_a_refusal_is_not_counted(self) -> None:
        buckets = Buckets(rate=1, burst=1)
        take(buckets, "a", 0)
        for _ in range(10):
            self.assertEqual(take(buckets, "a", 0), 1)
        self.assertEqual(take(buckets, "a", 1), 0)

    def test_the_least_recently_used_is_forgotten(self) -> None:
        buckets = Buckets(rate=1, burst=1, limit=2)
        for key in ("a", "b", "a", "c"):  # b goes
            take(buckets, key, 0)
        self.assertGreater(take(buckets, "a", 0), 0)
        self.assertEqual(take(buckets, "b", 0), 0)

    def test_without_a_rate_nothing_is_kept(self) -> None:
        buckets = Buckets(rate=0, burst=1)
        self.assertEqual([take(buckets, "a", 0) for _ in range(5)], [0] * 5)


class ClientBucketsTests(Case):
    """A rate of 10 and a burst of 50: an address has ten times that, and a client begins with one."""

    def setUp(self) -> None:
        super().setUp()
        self.buckets = ClientBuckets(rate=10, burst=50)

    def at_once(self, bucket: Bucket, now: float) -> int:
        for count in range(10_000):
            if bucket.wait(now):
                return count
            bucket.spend(1)
        return 10_000

    def new(self, now: float = 0, host: str = "a") -> Bucket:
        return self.buckets.bucket(host, now)

    def test_each_client_has_its_burst_and_its_rate(self) -> None:
        for bucket in [self.new() for _ in range(5)]:
            self.assertEqual((self.at_once(bucket, 0), self.at_once(bucket, 2)), (50, 20))

    def test_time_that_passes_before_the_first_command_adds_nothing_to_the_burst(self) -> None:
        bucket = self.new()
        self.assertEqual(self.at_once(bucket, 1_000), 50)
        self.assertEqual(self.at_once(bucket, 2_000), 50)

    def test_an_address_has_ten_bursts_and_each_further_client_only_its_rate(self) -> None:
        self.assertEqual(sum(self.at_once(self.new(), 0) for _ in range(1_000)), 500)
        last = self.new()
        self.assertEqual(self.at_once(last, 0.1), 11)  # ten of them are of the address
        self.assertEqual(self.at_once(last, 3), 29)
        self.assertEqual(self.at_once(self.new(0, "b"), 0), 50)

    def test_who_comes_back_does_not_gain(self) -> None:
        total = 0
        for _ in range(1_000):
            bucket = self.new()
            total += self.at_once(bucket, 0)
            self.buckets.close("a", bucket, 0)
        self.assertEqual(total, 500)

    def test_a_debt_stays_at_most_a_second_of_it(self) -> None:
        for debt, wait in ((100, 0), (499, 0), (502, 0.3), (100_000, 1.1)):
            self.setUp()
            bucket = self.new()
            bucket.spend(debt)
            self.buckets.close("a", bucket, 0)
            self.assertAlmostEqual(self.new().wait(0), wait, msg=str(debt))

    def test_without_a_host_or_a_rate_nothing_is_shared(self) -> None:
        self.assertEqual([self.at_once(self.new(host=""), 0) for _ in range(20)], [50] * 20)
        self.buckets = ClientBuckets(0, 1)
        self.assertEqual([self.at_once(self.new(), 0) for _ in range(3)], [10_000] * 3)
