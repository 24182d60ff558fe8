"""Delays between attempts."""

from twisted.trial.unittest import SynchronousTestCase

from longconn.clients.backoff import Backoff


class BackoffTests(SynchronousTestCase):
    def test_bounds(self) -> None:
        most, least = Backoff(lambda: 1.0), Backoff(lambda: 0.0)
        self.assertEqual([most.delay() for _ in range(8)], [1.0, 1.5, 2.5, 4.5, 8.5, 16.5, 20.0, 20.0])
        self.assertEqual([least.delay() for _ in range(8)], [0.5] * 8)
        most.reset()
        self.assertEqual(most.delay(), 1.0)
