"""The command queue: order, waiting, and the end."""

from twisted.trial.unittest import SynchronousTestCase

from longconn import Settings
from longconn.core.command_queue import UNTIL_TOLD, CommandQueue
from longconn.testing import FakeClock


class Reading:
    """Notes whether the connection reads."""

    reads = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class QueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.reader = FakeClock(), Reading()
        self.done: list[str] = []
        #: seconds for which a command waits before it is executed, once
        self.waits: dict[str, float] = {}
        settings = Settings(publish_rate=1, publish_burst=2)
        self.queue: CommandQueue[str] = CommandQueue(self.clock, settings, self.reader, self.execute)

    def execute(self, command: str) -> float:
        wait = self.waits.pop(command, 0.0)
        if not wait:
            self.done.append(command)
        return wait

    def test_while_one_waits_all_behind_it_do_and_nothing_is_read(self) -> None:
        self.waits["b"] = 3
        self.queue.feed(["a", "b", "c"])
        self.queue.feed(["d"])
        self.assertEqual((self.done, self.queue.waiting, self.reader.reads), (["a"], ("b", "c", "d"), False))
        self.clock.advance(2.9)
        self.assertTrue(self.queue.held_back)
        self.clock.advance(0.2)
        self.assertEqual((self.done, self.queue.held_back, self.reader.reads), (list("abcd"), False, True))

    def test_one_that_waits_until_it_is_told(self) -> None:
        self.waits["a"] = UNTIL_TOLD
        self.queue.feed(["a", "b"])
        self.clock.advance(100)
        self.assertEqual(self.done, [])
        self.queue.go_on()
        self.queue.go_on()
        self.assertEqual(self.done, [])  # in another turn
        self.clock.settle()
        self.assertEqual(self.done, ["a", "b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_behind_it_may_wait_too(self) -> None:
        self.waits |= {"a": 1, "b": 1}
        self.queue.feed(["a", "b", "c"])
        self.clock.advance(1)
        self.assertEqual((self.done, self.reader.reads), (["a"], False))
        self.clock.advance(1)
        self.assertEqual((self.done, self.reader.reads), (["a", "b", "c"], True))

    def test_after_the_end_nothing_is_executed(self) -> None:
        for end in (CommandQueue.close, CommandQueue.stop):
            self.setUp()
            self.waits["a"] = 1
            self.queue.feed(["a", "b"])
            end(self.queue)
            self.queue.feed(["c"])
            self.clock.advance(5)
            self.assertEqual((self.done, self.clock.getDelayedCalls()), ([], []))

    def test_the_rate_of_commands(self) -> None:
        self.assertEqual([self.queue.command_wait() for _ in range(2)], [0, 0])
        self.assertAlmostEqual(self.queue.command_wait(), 1)
        self.clock.advance(2)
        self.assertEqual(self.queue.command_wait(), 0)
        self.queue.charge(300)  # as three commands
        self.assertAlmostEqual(self.queue.command_wait(), 3)
