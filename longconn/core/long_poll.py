"""Waiting once for what comes after a position, without being a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longconn.core.broker import Done
from longconn.core.errors import CommandError
from longconn.core.names import check_channel
from longconn.core.publication import History, Position

if TYPE_CHECKING:
    from longconn.core.hub import Hub


class LongPoll:
    """Calls `done` once: when there is something after `since`, when that is lost, or at `expire`.

    It keeps the channel subscribed at the broker meanwhile and asks for history again when
    something came, so that it sees what any other client sees. `stop` gives it up.
    """

    def __init__(self, hub: Hub, channel: str, since: Position, done: Done[History]) -> None:
        self._hub = hub
        self._name = channel
        self._since = since
        self._done: Done[History] | None = done
        # An answer of the broker is awaited; and something came since we asked.
        self._asking = False
        self._news = False

    def start(self, host: str = "") -> None:
        """Raises CommandError for a bad or refused channel."""
        self._hub.visit(check_channel(self._name), host)
        self._hub.channel(self._name).watch(self)

    def on_ready(self, error: CommandError | None) -> None:
        if error is not None:
            self._finish(error)
        else:
            self._ask()

    def on_news(self) -> None:
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

    def expire(self) -> None:
        """Nothing came in time: answer with nothing, from where it stood."""
        self._finish(History([], self._since))

    def stop(self) -> None:
        """Nobody wants the answer any more. May be called twice."""
        if self._done is not None:
            self._done = None
            channel = self._hub.channels.get(self._name)
            if channel is not None:
                channel.unwatch(self)

    def _finish(self, result: History | CommandError) -> None:
        done = self._done
        self.stop()
        if done is not None:
            done(result)
