"""A channel as an answer that does not end: server-sent events, or publications as lines of JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from longconn.core.client import Client
from longconn.core.disconnects import Disconnect
from longconn.core.errors import BAD_REQUEST, CommandError
from longconn.core.namespaces import Action
from longconn.core.publication import History, Position, Publication
from longconn.protocols.http.errors import Headers
from longconn.protocols.http.exchange import HTTPExchange
from longconn.protocols.http.response import NO_BUFFERING, StreamingResponse
from longconn.wire.sse import EventFormat, StreamFormat, quoted, read_position, write_position

#: Bytes of a backlog that are encoded at once.
_SLICE = 64 * 1024
#: Milliseconds after which a browser comes back; up to so many more when all are sent away at once.
_RETRY = 1000
_RETRY_SPREAD = 4000


class ChannelStream:
    """One client of the hub on one response. `kind` is `sse` or `stream`."""

    __slots__ = ("_channel", "_client", "_exchange", "_format", "_outlet", "_response", "_since", "due")

    def __init__(self, exchange: HTTPExchange, format: StreamFormat, channel: str) -> None:
        self.due = 0
        self._exchange = exchange
        self._format = format
        self._channel = channel
        self._client: Client | None = None
        self._since: Position | None = None
        self._response = StreamingResponse(exchange, self._on_close, self._on_lost)
        self._outlet = self._response.outlet

    def open(self, kind: str, name: str | None, since: Position | None) -> None:
        """Subscribe, and answer when the broker did. Raises CommandError, and then nothing is left behind."""
        exchange = self._exchange
        self._since = since
        try:
            client = exchange.hub.connect(self._outlet, kind, exchange.host, exchange.address, name)
        except CommandError:
            self._response.give_up()
            raise
        self._client = self._outlet.client = client
        self._response.watch()
        try:
            client.subscribe(self._channel, self._format, self._on_subscribed, since)
        except CommandError:
            self._response.give_up()
            raise

    def _on_subscribed(self, result: History | CommandError) -> None:
        if isinstance(result, CommandError):
            self._response.give_up()
            self._exchange.fail(result)
            return
        self._response.start(_head(self._format))
        opening = self._opening(result)
        if opening:
            self._outlet.write(self._format.frame(opening))
        if result.publications:
            self._outlet.write_backlog(self._backlog(result.publications))
        self._beat_later(self._exchange.hub.settings.ping_interval)

    # What is written beside the live publications.

    def _opening(self, result: History) -> bytes:
        """What goes first: the head reaches the client with it, and it says where the client stands."""
        top = result.position
        if result.recovered:
            start = self._since or top
        else:
            kept = result.publications
            start = Position(kept[0].epoch, kept[0].offset - 1) if kept else top
        name = quoted(self._channel)
        place = b'"epoch":"%b","offset":%d}' % (start.epoch.encode(), start.offset)
        if not isinstance(self._format, EventFormat):
            return b"" if result.recovered else b'{"channel":%b,"recovered":false,%b\n' % (name, place)
        # An event without data is not dispatched, but its id is what the browser resumes from.
        opening = b":ok\nretry: %d\nid: %b\n\n" % (_RETRY, write_position(start).encode())
        if not result.recovered:
            opening += b'event: unrecovered\ndata: {"channel":%b,%b\n\n' % (name, place)
        return opening

    def _backlog(self, publications: list[Publication]) -> Iterator[bytes]:
        name = quoted(self._channel)
        parts: list[bytes] = []
        size = 0
        for each in publications:
            part = self._format.write(each, name)
            if size and size + len(part) > _SLICE:
                yield self._format.frame(b"".join(parts))
                parts.clear()
                size = 0
            parts.append(part)
            size += len(part)
        yield self._format.frame(b"".join(parts))

    def _farewell(self, disconnect: Disconnect) -> bytes:
        if not isinstance(self._format, EventFormat):
            return b""
        data = {"code": disconnect.code, "reason": disconnect.text, "reconnect": disconnect.reconnect}
        retry = b""
        if disconnect.reconnect:
            retry = b"retry: %d\n" % (_RETRY + random.randrange(_RETRY_SPREAD))
        return b"%bevent: disconnect\ndata: %b\n\n" % (retry, json.dumps(data).encode())

    # Heartbeats.

    def _beat_later(self, delay: float) -> None:
        if delay:
            self._exchange.hub.wheel.set(self, delay)

    def on_due(self, now: float) -> None:
        """Say that we are alive, if nothing else did lately."""
        interval = self._exchange.hub.settings.ping_interval
        silent = now - self._outlet.sent_at
        if silent >= interval:
            self._outlet.write(self._format.frame(self._format.heartbeat))
            silent = 0
        self._beat_later(interval - silent)

    # The end.

    def _on_close(self, disconnect: Disconnect) -> None:
        """The hub's side closes."""
        self._exchange.hub.wheel.clear(self)
        self._response.end(self._format.frame(self._farewell(disconnect)))

    def _on_lost(self) -> None:
        self._exchange.hub.wheel.clear(self)
        if self._client is not None:
            self._client.gone()


def _head(format: StreamFormat) -> Headers:
    events = isinstance(format, EventFormat)
    return (("Content-Type", "text/event-stream; charset=utf-8" if events else "application/x-ndjson"),)


class ChannelStreams:
    """Opens them. The formats are made once, so that one encoding serves all clients of a kind."""

    def __init__(self) -> None:
        kinds: tuple[tuple[str, type[StreamFormat]], ...] = (("sse", EventFormat), ("stream", StreamFormat))
        self._formats = {(kind, chunked): make(chunked) for kind, make in kinds for chunked in (True, False)}

    def open(self, exchange: HTTPExchange, kind: str, channel: str) -> None:
        """Answer `exchange` with a stream. Raises CommandError or HTTPError."""
        since = position(exchange.header("last-event-id") if kind == "sse" else "", exchange.parameter("since"))
        name = exchange.parameter("name")
        request = exchange.request
        format = self._formats[kind, request.clientproto == b"HTTP/1.1"]
        if request.method == b"HEAD":
            exchange.hub.check(Action.SUBSCRIBE, channel)
            if name is not None:
                exchange.hub.claim(name)
            exchange.hub.check_room(exchange.host)
            for header in (*_head(format), NO_BUFFERING):
                request.setHeader(*header)
            request.finish()
        else:
            ChannelStream(exchange, format, channel).open(kind, name, since)


def position(*texts: str | None) -> Position | None:
    """The first that is there, as a position. Raises CommandError(BAD_REQUEST) if it is none."""
    for text in texts:
        if text:
            found = read_position(text)
            if found is None:
                raise CommandError(BAD_REQUEST, what="a position is EPOCH:OFFSET")
            return found
    return None
