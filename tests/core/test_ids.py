"""Identifiers that people hand to commands."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn import Hub
from longconn.core.publication import Data, Info, Position
from longconn.core.settings import Settings
from longconn.redis.broker import RedisBroker
from longconn.testing import FakeClock


class IdTests(SynchronousTestCase):
    def test_none_looks_like_an_option(self) -> None:
        """One in 64 did."""
        clock, settings = FakeClock(), Settings(channel_rate=0, publish_rate=0)
        hub = Hub(clock, settings)
        self.addCleanup(hub.stop)
        outlet: Any = None
        epochs: list[Any] = []
        for number in range(1000):
            hub.publish(f"channel{number}", Data.of_text("hello"), Info("ann"), epochs.append)
        clock.settle()
        self.assertIsInstance(epochs[-1], Position)
        ids = {
            "client": [hub.connect(outlet, "tcp", "", "").id for _ in range(1000)],
            "node": [Hub(clock, settings).node for _ in range(1000)],
            "node of Redis": [RedisBroker(clock, [], settings).node for _ in range(1000)],
            "epoch": [each.epoch for each in epochs],
        }
        for what, made in ids.items():
            self.assertEqual(len(set(made)), 1000, what)
            self.assertEqual([each for each in made if each.startswith("-")], [], what)
