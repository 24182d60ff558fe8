"""A clock that moves when a test says so."""

from __future__ import annotations

from twisted.internet.task import Clock

#: When a `FakeClock` starts, in seconds since 1970: a moment in 2023, so that nothing takes 0 for a time.
START = 1_700_000_000.0
#: Turns without an end: something schedules itself anew at once, for ever.
_TOO_MANY_TURNS = 100_000


class FakeClock(Clock):
    """Twisted's `task.Clock`, which starts at a real date and runs delayed calls in reactor turns.

    A turn runs what is due, and what that schedules for at once waits for the next turn, as under a
    reactor. Time stands still within a turn. What a call raises comes out of the method that ran it.
    """

    rightNow = START

    def turn(self) -> bool:
        """One turn of the reactor: run what is due now. False if nothing was."""
        due = [each for each in self.calls if each.getTime() <= self.rightNow]
        for call in due:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)
        return bool(due)

    def settle(self) -> None:
        """Run turns until nothing is due now. Raises RuntimeError where that never ends."""
        for _ in range(_TOO_MANY_TURNS):
            if not self.turn():
                return
        raise RuntimeError("something schedules itself for at once, for ever")

    def advance(self, amount: float) -> None:
        """Move time on by `amount` seconds; every call that comes due runs at its own time."""
        end = self.rightNow + amount
        self.settle()
        while self.calls:
            # callLater keeps them sorted; a call that was reset is sorted in here.
            self._sortCalls()
            due = self.calls[0].getTime()
            if due > end:
                break
            self.rightNow = max(self.rightNow, due)
            self.settle()
        self.rightNow = end
        self.settle()
