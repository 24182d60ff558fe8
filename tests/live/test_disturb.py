"""A connection that floods the server is not felt by the others. `python -m tests.long disturb` tries more."""

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.long.disturb import LONGEST, Result, disturb
from tests.long.situations import CLOCK_SET_AFTER


class DisturbTests(TestCase):
    timeout = 120

    def check(self, name: str, seconds: float = 1.0, most: float = LONGEST) -> Deferred[None]:
        def measured(result: Result) -> None:
            self.assertEqual(result.lost, 0)
            # Tests run beside each other, and share the cores: the hundredth that takes longest is for the long run.
            self.assertLess(result.half, most, result)

        return deferToThread(disturb, name, seconds).addCallback(measured)

    def test_pings_of_ten_websockets(self) -> Deferred[None]:
        return self.check("websocket-pings-of-ten")

    def test_the_clock_is_set_back_by_an_hour(self) -> Deferred[None]:
        return self.check("clock-back", CLOCK_SET_AFTER)

    def test_channels_that_come_and_go(self) -> Deferred[None]:
        return self.check("channels-come-and-go")

    def test_windows_of_one_byte_for_long_answers_over_http2(self) -> Deferred[None]:
        return self.check("http2-windows", 3.0, 0.1)
