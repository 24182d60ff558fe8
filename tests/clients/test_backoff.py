"""Delays between attempts."""

from twisted.trial.unittest import SynchronousTestCase

from longconn.clients.backoff import Backoff


class BackoffTests(SynchronousTestCase):
    def test_bounds(self) -> None:
        most, least = Backoff(lambda: 1.0, lambda: 0.0), Backoff(lambda: 0.0, lambda: 0.0)
        self.assertEqual([most.delay() for _ in range(8)], [1.0, 1.5, 2.5, 4.5, 8.5, 16.5, 20.0, 20.0])
        self.assertEqual([least.delay() for _ in range(8)], [0.5] * 8)

    def test_only_a_success_that_lasts_makes_the_next_delay_short(self) -> None:
        now = 100.0
        backoff = Backoff(lambda: 1.0, lambda: now)
        delays = []
        for lasted in (0, 19, 0, 20, 0):
            backoff.succeed()
            now += lasted
            delays.append(backoff.delay())
        self.assertEqual(delays, [1.0, 1.5, 2.5, 1.0, 1.5])
        now += 1000  # without a success
        self.assertEqual(backoff.delay(), 2.5)
