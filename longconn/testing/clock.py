"""A clock that a test moves."""

from __future__ import annotations

from twisted.internet.task import Clock

#: The start of a `FakeClock` in seconds since 1970, a moment in 2023: code that treats 0 as no time must not see 0.
START = 1_700_000_000.0
#: After so many turns without time passing, a call must be scheduling itself for ever.
_TOO_MANY_TURNS = 100_000


class FakeClock(Clock):
    """Twisted's `task.Clock`, but it starts at a real date and runs delayed calls in turns, as a reactor does.

    A turn runs the calls that are due. A call that they schedule with no delay waits for the next turn. Time stands
    still within a turn. An exception of a call comes out of the method that ran it.
    """

    rightNow = START
    #: how far the wall clock is ahead of this one, in seconds; set it as the system's clock may be set
    wall_ahead = 0.0

    def wall_time(self) -> float:
        """The wall clock's time: publications have it, and tokens expire by it."""
        return self.rightNow + self.wall_ahead

    def turn(self) -> bool:
        """Run the calls that are due, as one turn of a reactor. Returns False if there are none."""
        due = [each for each in self.calls if each.getTime() <= self.rightNow]
        for call in due:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)
        return bool(due)

    def settle(self) -> None:
        """Run turns until no call is due. Raises RuntimeError if that never ends."""
        for _ in range(_TOO_MANY_TURNS):
            if not self.turn():
                return
        raise RuntimeError("something schedules itself for at once, for ever")

    def advance(self, amount: float) -> None:
        """Move time on by `amount` seconds. Each call that becomes due runs at its own time."""
        end = self.rightNow + amount
        self.settle()
        while self.calls:
            # callLater keeps the calls sorted, but DelayedCall.reset does not.
            self._sortCalls()
            due = self.calls[0].getTime()
            if due > end:
                break
            self.rightNow = max(self.rightNow, due)
            self.settle()
        self.rightNow = end
        self.settle()
