"""GET /channels/NAME: the publications after a position, and a long poll for the next ones."""

from __future__ import annotations

import re

from longconn.core.errors import BAD_REQUEST, CommandError
from longconn.core.json_text import write
from longconn.core.long_poll import LongPoll
from longconn.core.publication import History, Position
from longconn.protocols.http.exchange import HTTPExchange
from longconn.wire.sse import publication_json, quoted

#: Seconds that a long poll may wait at most.
LONGEST_WAIT = 60.0
_WAIT = re.compile(r"\d{1,6}(?:\.\d{1,6})?", re.ASCII)


class ChannelHistory:
    """Answers with history, and keeps the polls that wait."""

    def __init__(self) -> None:
        self._polls: set[LongPoll] = set()
        # The last answer and its key: many clients that poll one channel get the same.
        self._last: tuple[object, bytes] = (None, b"")

    def answer(self, exchange: HTTPExchange, channel: str) -> None:
        """Answer at once, or after a wait if the query asks for one. Raises CommandError or HTTPError."""
        since = exchange.since()
        wait = _seconds(exchange.parameter("wait"))
        if since is not None and wait and exchange.request.method != b"HEAD":
            self._wait(exchange, channel, since, wait)
            return

        def known(result: History | CommandError) -> None:
            self._finish(exchange, channel, since, result)

        exchange.watch()
        exchange.hub.door.history(exchange.caller, channel, known, since, 0 if since is None else -1)

    def end_polls(self) -> None:
        """Answer all polls that wait, as if their time were over."""
        for each in tuple(self._polls):
            each.expire()

    def _wait(self, exchange: HTTPExchange, channel: str, since: Position, seconds: float) -> None:
        hub = exchange.hub
        hub.places.check_poll(exchange.host)

        def leave() -> None:
            if poll is not None:
                self._polls.discard(poll)
                hub.places.remove_poll(poll)

        def answered(result: History | CommandError) -> None:
            leave()
            self._finish(exchange, channel, since, result)

        def stop() -> None:
            leave()
            if poll is not None:
                poll.stop()

        poll: LongPoll | None = None
        exchange.watch(stop)
        exchange.notice_end()
        poll = hub.door.wait_for_news(exchange.caller, channel, since, seconds, answered)
        if poll is not None:
            self._polls.add(poll)
            hub.places.add_poll(poll, exchange.host)

    def _finish(
        self, exchange: HTTPExchange, channel: str, since: Position | None, result: History | CommandError
    ) -> None:
        if isinstance(result, CommandError):
            exchange.fail(result)
            return
        kept = result.publications
        # Before the answer is encoded, which takes long.
        if exchange.lost or not exchange.has_room(sum(each.data.size for each in kept)):
            return
        key = (channel, since, result.position, result.recovered, len(kept), kept[0].offset if kept else 0)
        if self._last[0] != key:
            self._last = key, _encode(channel, result)
        exchange.answer(200, self._last[1], "application/json")


def _seconds(text: str | None) -> float:
    if not text:
        return 0.0
    if not _WAIT.fullmatch(text):
        raise CommandError(BAD_REQUEST, what="wait is a number of seconds")
    return min(float(text), LONGEST_WAIT)


def _encode(channel: str, history: History) -> bytes:
    name = quoted(channel)
    return b'{"epoch":%b,"offset":%d,"recovered":%b,"publications":[%b]}\n' % (
        write(history.position.epoch),
        history.position.offset,
        b"true" if history.recovered else b"false",
        b",".join([publication_json(each, name) for each in history.publications]),
    )
