"""Waiting once for what is published after a position, without being a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longconn.core.broker import Done
from longconn.core.errors import CommandError
from longconn.core.names import check_channel
from longconn.core.publication import History, Position

if TYPE_CHECKING:
    from longconn.core.hub import Hub


class LongPoll:
    """Calls `done` once: when there is something after `since`, when `since` cannot be recovered, or at the time-out.

    Meanwhile it keeps the channel subscribed at the broker. When something is published it asks for history, so
    that it sees what every client sees.
    """

    def __init__(self, hub: Hub, channel: str, since: Position, done: Done[History]) -> None:
        self.due = 0  # for the wheel
        self._hub = hub
        self._name = channel
        self._since = since
        self._done: Done[History] | None = done
        # Whether a request for history is under way, and whether something was published since it was made.
        self._asking = False
        self._news = False

    def start(self, timeout: float, host: str = "") -> None:
        """Wait for `timeout` seconds, or up to a second longer. Raises CommandError for a bad or refused channel."""
        self._hub.visit(check_channel(self._name), host)
        self._hub.wheel.set(self, timeout)
        self._hub.channel(self._name).watch(self)

    def stop(self) -> None:
        """Give up without an answer. May be called twice."""
        self._hub.wheel.clear(self)
        if self._done is not None:
            self._done = None
            channel = self._hub.channels.get(self._name)
            if channel is not None:
                channel.unwatch(self)

    def expire(self) -> None:
        """Answer with no publication, and the position that was given."""
        self._finish(History([], self._since))

    def on_due(self, now: float) -> None:
        """The time is over."""
        self.expire()

    def on_ready(self, error: CommandError | None) -> None:
        """The channel is subscribed at the broker, or cannot be."""
        if error is not None:
            self._finish(error)
        else:
            self._ask()

    def on_news(self) -> None:
        """Something was published in the channel."""
        if self._asking:
            self._news = True
        else:
            self._ask()

    def _ask(self) -> None:
        self._asking = True
        self._news = False
        self._hub.broker.history(self._name, self._since, -1, False, self._on_history)

    def _on_history(self, result: History | CommandError) -> None:
        self._asking = False
        if self._done is None:
            return
        if isinstance(result, CommandError) or result.publications or not result.recovered:
            self._finish(result)
        elif self._news:
            self._ask()

    def _finish(self, result: History | CommandError) -> None:
        done = self._done
        self.stop()
        if done is not None:
            done(result)
