"""Waits once for publications after a position, without being a subscriber."""

from __future__ import annotations

from longconn.core.broker import Broker, Done
from longconn.core.channel import Channel
from longconn.core.errors import CommandError
from longconn.core.publication import History, Position
from longconn.core.slices import POLL, Slices, WaitingWork
from longconn.core.timers import Wheel


class LongPoll:
    """Calls `done` once: when a publication comes after `since`, when that position is lost, or at the time-out.

    It watches the channel, and asks the broker for history again after each batch. So it gets the same publications
    as a subscriber. The door makes it; `stop` gives it up.
    """

    def __init__(
        self,
        channel: Channel,
        broker: Broker,
        wheel: Wheel,
        slices: Slices,
        host: str,
        since: Position,
        done: Done[History],
    ) -> None:
        #: the second at which its timer ends (`Timed` in core/timers.py)
        self.due = 0
        self._wheel = wheel
        self._slices = slices
        self._host = host
        self._channel = channel
        self._broker = broker
        self._since = since
        self._done: Done[History] | None = done
        # Whether an answer of the broker is outstanding, and whether something came since it was asked for.
        self._asking = False
        self._news = False
        # The next question to the broker, while it waits for room in a turn: a publication may wake many polls.
        self._waiting: WaitingWork | None = None

    @property
    def over(self) -> bool:
        """Whether `done` was called, or the poll was given up."""
        return self._done is None

    def start(self, timeout: float) -> None:
        """Watch the channel for `timeout` seconds, or up to a second longer."""
        self._wheel.set(self, timeout)
        self._channel.watch(self)

    def on_due(self, now: float) -> None:
        """The timer ended: answer without news."""
        self.expire()

    def on_ready(self, error: CommandError | None) -> None:
        """The channel's answer to `watch`."""
        if error is not None:
            self._finish(error)
        else:
            self._ask()

    def on_news(self) -> None:
        """Something was published."""
        if self._asking:
            self._news = True
        elif self._slices.take(POLL):
            self._ask()
        elif self._waiting is None:
            self._waiting = self._slices.wait(self._host, POLL, self._ask)

    def _ask(self) -> None:
        self._asking = True
        self._news = False
        self._waiting = None
        self._broker.history(self._channel.name, self._since, -1, False, self._on_history)

    def _on_history(self, result: History | CommandError) -> None:
        self._asking = False
        if self._done is None:
            return
        if isinstance(result, CommandError) or result.publications or not result.recovered:
            self._finish(result)
        elif self._news:
            self._ask()

    def expire(self) -> None:
        """Nothing came in time: answer with no publications, and the position that was asked from."""
        self._finish(History([], self._since))

    def give_way(self) -> None:
        """A client gets the place: answer now."""
        self.expire()

    def stop(self) -> None:
        """Give up without an answer. A second call has no effect."""
        self._wheel.clear(self)
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if self._done is not None:
            self._done = None
            self._channel.unwatch(self)

    def _finish(self, result: History | CommandError) -> None:
        done = self._done
        self.stop()
        if done is not None:
            done(result)
