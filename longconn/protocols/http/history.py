"""GET of a channel: what came since a position, and a long poll for what will."""

from __future__ import annotations

import json
import re

from longconn.core.errors import BAD_REQUEST, LIMIT_EXCEEDED, CommandError
from longconn.core.long_poll import LongPoll
from longconn.core.namespaces import Action
from longconn.core.publication import History, Position
from longconn.protocols.http.exchange import HTTPExchange
from longconn.protocols.http.streams import position
from longconn.wire.sse import publication_json, quoted

#: Seconds that a long poll may wait at most.
LONGEST_WAIT = 60.0
_WAIT = re.compile(r"\d{1,6}(?:\.\d{1,6})?", re.ASCII)


class ChannelHistory:
    """Answers with history; knows the polls that wait.

    Times-out are by the hub's wheel, so a poll may take up to a second longer than it asked for.
    """

    def __init__(self) -> None:
        self._waiting: dict[_WaitingPoll, None] = {}
        # The last answer and what it was made of: many who poll one channel ask for the same.
        self._last: tuple[object, bytes] = (None, b"")

    def answer(self, exchange: HTTPExchange, channel: str) -> None:
        """Raises CommandError or HTTPError."""
        hub = exchange.hub
        hub.check(Action.HISTORY, channel)
        since = position(exchange.parameter("since"))
        wait = _seconds(exchange.parameter("wait"))
        if since is None or not wait or exchange.request.method == b"HEAD":

            def known(result: History | CommandError) -> None:
                self.finish(exchange, channel, since, result)

            exchange.watch()
            hub.history(channel, known, since, 0 if since is None else -1, exchange.host)
            return
        hub.check_room(exchange.host)
        most = hub.settings.max_connections
        if most and len(hub.clients) + len(self._waiting) >= most:
            raise CommandError(LIMIT_EXCEEDED, what="connections")
        waiting = _WaitingPoll(self, exchange, channel, since)
        self._waiting[waiting] = None
        waiting.start(wait)

    def forget(self, waiting: _WaitingPoll) -> None:
        self._waiting.pop(waiting, None)

    def end_polls(self) -> None:
        """Answer all that wait, as if their time were over."""
        for each in tuple(self._waiting):
            each.poll.expire()

    def finish(
        self, exchange: HTTPExchange, channel: str, since: Position | None, result: History | CommandError
    ) -> None:
        if isinstance(result, CommandError):
            exchange.fail(result)
            return
        kept = result.publications
        key = (channel, since, result.position, result.recovered, len(kept), kept[0].offset if kept else 0)
        if self._last[0] != key:
            self._last = key, _encode(channel, result)
        exchange.answer(200, self._last[1], "application/json")


class _WaitingPoll:
    """One long poll that waits."""

    def __init__(self, histories: ChannelHistory, exchange: HTTPExchange, channel: str, since: Position) -> None:
        self.due = 0
        self._histories = histories
        self._exchange = exchange
        self._channel = channel
        self._since = since
        self.poll = LongPoll(exchange.hub, channel, since, self._on_answer)

    def start(self, wait: float) -> None:
        self._exchange.watch(self._stop)
        self._exchange.hub.wheel.set(self, wait)
        try:
            self.poll.start(self._exchange.host)
        except CommandError:
            self._stop()
            raise

    def on_due(self, now: float) -> None:
        self.poll.expire()

    def _on_answer(self, result: History | CommandError) -> None:
        self._stop()
        self._histories.finish(self._exchange, self._channel, self._since, result)

    def _stop(self) -> None:
        self._exchange.hub.wheel.clear(self)
        self._histories.forget(self)
        self.poll.stop()


def _seconds(text: str | None) -> float:
    if not text:
        return 0.0
    if not _WAIT.fullmatch(text):
        raise CommandError(BAD_REQUEST, what="wait is a number of seconds")
    return min(float(text), LONGEST_WAIT)


def _encode(channel: str, history: History) -> bytes:
    name = quoted(channel)
    return b'{"epoch":%b,"offset":%d,"recovered":%b,"publications":[%b]}\n' % (
        json.dumps(history.position.epoch).encode(),
        history.position.offset,
        b"true" if history.recovered else b"false",
        b",".join([publication_json(each, name) for each in history.publications]),
    )
