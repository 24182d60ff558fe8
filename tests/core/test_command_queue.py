"""The command queue: order, waiting, and the end."""

from twisted.trial.unittest import SynchronousTestCase

from longconn.core.command_queue import EMPTY, UNTIL_TOLD, CommandQueue, InputMeter
from longconn.core.counters import Counters
from longconn.core.slices import FRAME_STEP, PART, Slices
from longconn.core.timers import ClientBuckets, Wheel
from longconn.core.turn import Turn
from longconn.testing import FakeClock


class Reading:
    """Notes whether the connection reads."""

    reads = True
    input_waits = False

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
        self.slices = Slices(Turn(self.clock, Wheel(self.clock), Counters()))
        self.queue: CommandQueue[str] = CommandQueue(
            self.clock, ClientBuckets(1, 2), self.slices, "10.0.0.1", self.reader, self.execute
        )

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

    def test_what_costs_less_than_a_command(self) -> None:
        self.assertEqual([self.queue.command_wait(EMPTY) for _ in range(11)], [0] * 11)
        self.assertAlmostEqual(self.queue.command_wait(EMPTY), 0.1)

    def test_a_read_of_many_commands_is_executed_in_several_turns(self) -> None:
        commands = [str(each) for each in range(1_000)]
        self.queue.feed(commands)
        first = len(self.done)
        self.assertTrue(0 < first < 300)
        self.assertFalse(self.reader.reads)
        self.clock.turn()
        self.assertTrue(first < len(self.done) < first + 300)
        self.queue.feed(["last"])
        self.clock.settle()
        self.assertEqual((self.done, self.reader.reads), ([*commands, "last"], True))

    def test_the_turn_is_shared_by_all_connections(self) -> None:
        done: list[str] = []

        def execute(name: str) -> float:
            done.append(name)
            return 0.0

        rates = ClientBuckets(100, 1_000)
        for number in range(50):
            host = f"10.0.1.{number % 2}"
            queue: CommandQueue[str] = CommandQueue(self.clock, rates, self.slices, host, Reading(), execute)
            queue.feed([host] * 200)
        while len(done) < 50 * 200:
            before = len(done)
            self.clock.turn()
            self.assertTrue(0 < len(done) - before < 300)
        self.assertEqual({each: done[:4_000].count(each) > 1_500 for each in set(done)}, dict.fromkeys(set(done), True))

    def test_commands_that_look_at_much_leave_the_rest_to_the_next_turn(self) -> None:
        def execute(command: str) -> float:
            self.queue.command_wait(0.1)
            self.queue.charge(5_000)
            self.done.append(command)
            return 0.0

        self.queue = CommandQueue(self.clock, ClientBuckets(0, 1), self.slices, "", self.reader, execute)
        self.queue.feed(["a", "b", "c"])
        self.assertEqual((self.done, self.reader.reads), (["a"], False))
        self.clock.turn()
        self.assertEqual(self.done, ["a", "b"])
        self.clock.settle()
        self.assertEqual((self.done, self.reader.reads), (["a", "b", "c"], True))

    def test_after_the_end_nothing_is_executed_in_a_later_turn(self) -> None:
        self.queue.feed([str(each) for each in range(1_000)])
        done = len(self.done)
        self.queue.stop()
        self.clock.settle()
        self.assertEqual((len(self.done), self.clock.getDelayedCalls()), (done, []))


class MeterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.reader = FakeClock(), Reading()
        self.slices = Slices(Turn(self.clock, Wheel(self.clock), Counters()))
        self.freed = 0

    def meter(self, rate: float, rated: bool = True) -> InputMeter:
        rates = ClientBuckets(rate, 100) if rated else None
        return InputMeter(self.clock, rates, self.slices, "10.0.0.1", self.reader, self.on_free)

    def on_free(self) -> None:
        self.freed += 1

    def count(self, meter: InputMeter, most: int = 1_000) -> int:
        """How many frames may be read before the connection is held."""
        for number in range(1, most + 1):
            if not meter.count(FRAME_STEP):
                return number
        return most

    def test_over_its_share_of_a_turn_the_reader_is_paused_until_the_next(self) -> None:
        meter = self.meter(rate=0)
        frames = self.count(meter)
        self.assertTrue(PART <= frames * FRAME_STEP <= 8_000)
        self.assertEqual((meter.held, self.reader.reads, self.freed), (True, False, 0))
        self.clock.turn()
        self.assertEqual((meter.held, self.reader.reads, self.freed), (False, True, 1))

    def test_over_its_rate_the_reader_is_paused_for_longer(self) -> None:
        for rated in (True, False):
            meter = self.meter(rate=10, rated=rated)
            for _ in range(100):
                self.count(meter, 10)
                self.clock.settle()
            self.assertEqual((meter.held, self.reader.reads), (rated, not rated))
            self.clock.advance(60)
            self.assertEqual((meter.held, self.reader.reads), (False, True))

    def test_a_connection_that_is_lost_is_not_resumed(self) -> None:
        meter = self.meter(rate=0)
        self.count(meter)
        meter.stop()
        self.clock.settle()
        self.assertEqual((self.freed, self.reader.reads, self.clock.getDelayedCalls()), (0, False, []))
