"""The queue of what waits to be sent: what counts, in which order it goes out, and what ends it."""

from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn import Hub, Settings
from longconn.core.disconnects import SLOW, WRITE_TIMEOUT, Disconnect
from longconn.protocols.connection.send_queue import SendQueue
from longconn.testing import FakeClock


class Owner:
    """An outlet that drops its queue when it is closed."""

    def __init__(self, hub: Hub) -> None:
        self.queue = SendQueue(hub, self)
        self.closed: list[Disconnect] = []

    @property
    def queued(self) -> int:
        return self.queue.queued

    def close(self, disconnect: Disconnect) -> None:
        self.closed.append(disconnect)
        self.queue.drop()


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.make(send_queue=100)

    def make(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.hub = Hub(self.clock, Settings(**settings))
        self.addCleanup(self.hub.stop)
        self.owner = Owner(self.hub)
        self.queue = self.owner.queue

    def take(self, size: int) -> bytes:
        data = bytes(self.queue.head(size)[:size])
        self.queue.sent(len(data))
        return data


class OrderTests(Case):
    def test_parts_and_backlogs_go_out_in_order_in_pieces_of_any_size(self) -> None:
        for size in (1, 2, 3, 5, 100):
            self.queue.add(b"one ")
            self.queue.add_backlog(iter((b"t", b"", b"wo ", b"three ")))
            self.queue.add_backlog(iter(()))
            self.queue.add(b"four")
            data = b""
            while not self.queue.empty:
                data += self.take(size)
            self.assertEqual(data, b"one two three four", size)

    def test_a_backlog_is_asked_only_for_what_goes_out(self) -> None:
        asked = []

        def source() -> Iterator[bytes]:
            for number in range(10):
                asked.append(number)
                yield b"1234"

        self.queue.add_backlog(source())
        self.assertEqual((self.take(6), asked), (b"123412", [0, 1]))

    def test_what_was_not_sent_of_the_head_is_the_head_still(self) -> None:
        self.queue.add(b"one ")
        self.queue.add(b"two")
        self.assertEqual(bytes(self.queue.head(7)), b"one two")
        self.queue.sent(5)
        self.assertEqual((self.queue.begun, self.take(10)), (True, b"wo"))
        self.assertEqual((self.queue.begun, self.queue.empty), (False, True))


class BoundTests(Case):
    def test_bytes_count_until_they_are_sent_and_backlogs_do_not(self) -> None:
        self.queue.add(b"x" * 60)
        self.queue.add_backlog(iter((b"y" * 1_000,)))
        self.queue.add(b"z" * 40)
        for taken, left in ((20, 80), (40, 40), (1_000, 40), (30, 10), (10, 0)):
            self.take(taken)
            self.assertEqual((self.queue.queued, self.hub._queued), (left, left))
            self.assertEqual(self.owner in self.hub.waiting, bool(left))
        self.assertEqual(self.owner.closed, [])

    def test_over_the_bound_the_owner_is_slow(self) -> None:
        self.queue.add(b"x" * 100)
        self.assertEqual(self.owner.closed, [])
        self.queue.add(b"x")
        self.assertEqual((self.owner.closed, self.hub._queued), ([SLOW], 0))

    def test_the_rest_of_a_message_does_not_count_against_the_bound_but_is_told_to_the_hub(self) -> None:
        self.queue.add_rest(b"x" * 1_000)
        self.queue.add(b"y" * 100)
        self.assertEqual((self.owner.closed, self.hub._queued), ([], 1_100))
        self.queue.add(b"y")
        self.assertEqual(self.owner.closed, [SLOW])

    def test_a_message_may_wait_whatever_its_size_if_its_sender_waits_too(self) -> None:
        self.queue.add(b"x" * 1_000, bounded=False)
        self.assertEqual((self.owner.closed, self.queue.queued), ([], 1_000))

    def test_dropped_it_keeps_only_what_was_begun(self) -> None:
        self.queue.add(b"begun")
        self.queue.add(b" not begun")
        self.take(2)
        self.queue.drop()
        self.assertEqual((self.queue.queued, self.hub._queued, self.hub.waiting), (0, 0, set()))
        self.assertEqual(self.take(100), b"gun")

    def test_stopped_it_keeps_nothing(self) -> None:
        self.queue.add_rest(b"begun")
        self.queue.add(b" not begun")
        self.queue.watch()
        self.queue.stop()
        self.assertEqual((self.queue.empty, self.queue.queued, self.hub._queued), (True, 0, 0))
        self.clock.advance(1_000)
        self.assertEqual((self.owner.closed, self.clock.getDelayedCalls()), ([], []))


class TimeTests(Case):
    def test_without_progress_it_is_closed_and_only_if_it_is_watched(self) -> None:
        self.make(write_timeout=30)
        self.clock.advance(100)
        self.assertEqual(self.owner.closed, [])
        self.queue.watch()
        self.clock.advance(20)
        self.queue.moved_at = self.clock.seconds()
        self.clock.advance(29)
        self.assertEqual(self.owner.closed, [])
        self.clock.advance(3)
        self.assertEqual(self.owner.closed, [WRITE_TIMEOUT])

    def test_without_that_limit_no_timer_is_left(self) -> None:
        self.make(write_timeout=0)
        self.queue.watch()
        self.assertEqual(self.clock.getDelayedCalls(), [])
