"""Some seeds of the simulation, and that a seed is repeatable. `python -m tests.simulation` runs ten thousand."""

from twisted.trial.unittest import SynchronousTestCase

from tests.simulation.__main__ import failure
from tests.simulation.world import simulate


class SimulationTests(SynchronousTestCase):
    def test_some_seeds(self) -> None:
        for seed in range(100):
            self.assertEqual(failure(seed), "")

    def test_a_seed_is_repeatable(self) -> None:
        first: list[str] = []
        second: list[str] = []
        simulate(7, first)
        simulate(7, second)
        self.assertGreater(len(first), 20)
        self.assertEqual(first, second)
