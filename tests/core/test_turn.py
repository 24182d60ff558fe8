"""The end of a reactor turn."""

from twisted.trial.unittest import SynchronousTestCase

from longconn.core.counters import Counters
from longconn.core.timers import Wheel
from longconn.core.turn import Turn
from longconn.testing import FakeClock


class Channel:
    """A channel that writes down its flush, and then asks for `after`. It needs `flushes` of them."""

    dirty = True
    flushes = 1

    def __init__(self, turn: Turn, seen: list[str]) -> None:
        self._turn = turn
        self._seen = seen

    @property
    def oldest(self) -> int | None:
        return 0 if self.flushes else None

    def flush(self, everything: bool = False) -> bool:
        self.flushes = 0 if everything else self.flushes - 1
        self._seen.append("flush")
        if not self.flushes:
            self._turn.soon(lambda: self._seen.append("after the flush"))
        return not self.flushes


class TurnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = FakeClock()
        self.turn = Turn(self.clock, Wheel(self.clock), Counters())
        self.addCleanup(self.turn.stop)
        self.seen: list[str] = []

    def test_callbacks_follow_channels_and_answers_of_the_same_turn(self) -> None:
        self.turn.soon(lambda: self.seen.append("first asked"))
        self.turn.flush_later(Channel(self.turn, self.seen))
        self.turn.answer(lambda: self.seen.append("answer"))
        self.clock.turn()
        self.assertEqual(self.seen, ["flush", "answer", "first asked", "after the flush"])
        self.assertEqual(self.clock.calls, [])

    def test_an_answer_waits_for_what_came_before_it_and_takes_several_turns(self) -> None:
        long, short = Channel(self.turn, self.seen), Channel(self.turn, [])
        long.flushes = 3
        self.turn.flush_later(long)
        self.turn.answer(lambda: self.seen.append("answer"))
        self.clock.turn()
        self.turn.flush_later(short)
        self.turn.answer(lambda: self.seen.append("later answer"))
        self.clock.turn()
        self.assertEqual((self.seen, short.flushes), (["flush"] * 2, 0))
        self.clock.settle()
        self.assertEqual(self.seen, [*["flush"] * 3, "answer", "later answer", "after the flush"])

    def test_all_can_be_sent_at_once(self) -> None:
        long = Channel(self.turn, self.seen)
        long.flushes = 3
        self.turn.flush_later(long)
        self.turn.answer(lambda: self.seen.append("answer"))
        self.turn.finish()
        self.assertEqual(self.seen, ["flush", "answer"])

    def test_a_callback_of_a_callback_waits_for_the_next_turn(self) -> None:
        self.turn.soon(lambda: self.turn.soon(lambda: self.seen.append("second")))
        self.clock.turn()
        self.assertEqual(self.seen, [])
        self.clock.turn()
        self.assertEqual(self.seen, ["second"])

    def test_an_exception_does_not_keep_the_others_from_being_called(self) -> None:
        self.turn.soon(lambda: self.seen.append("before"))
        self.turn.soon(lambda: 1 // 0)
        self.turn.soon(lambda: self.seen.append("behind"))
        self.assertRaises(ZeroDivisionError, self.clock.turn)
        self.clock.settle()
        self.assertEqual(self.seen, ["before", "behind"])

    def test_stop_leaves_nothing(self) -> None:
        self.turn.soon(lambda: self.seen.append("never"))
        self.turn.stop()
        self.assertEqual(self.clock.calls, [])
        self.turn.flush_later(Channel(self.turn, self.seen))
        self.clock.settle()
        self.assertEqual(self.seen, ["flush", "after the flush"])
