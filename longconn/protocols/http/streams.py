"""GET /channels/NAME/events and /stream: a channel's publications in a response that does not end."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from longconn.core.client import Client
from longconn.core.disconnects import Disconnect
from longconn.core.errors import CommandError
from longconn.core.namespaces import Action
from longconn.core.publication import History, Position, Publication
from longconn.protocols.http.errors import Headers
from longconn.protocols.http.exchange import HTTPExchange
from longconn.protocols.http.response import NO_BUFFERING, StreamingResponse
from longconn.wire.sse import EventFormat, StreamFormat, quoted, write_position

#: Bytes of a backlog that are encoded in one step.
_SLICE = 64 * 1024
#: Milliseconds after which a browser reconnects, and the largest random addition when the server closes it.
_RETRY = 1000
_RETRY_SPREAD = 4000


class ChannelStream:
    """One client of the hub on one response."""

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
        """Subscribe, and answer when the broker has answered. `kind` is `sse` or `stream`. `name` is claimed.

        Raises CommandError; then nothing is left behind.
        """
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

    # What is written besides the live publications.

    def _opening(self, result: History) -> bytes:
        """The first bytes of the body. They tell the position from which the stream goes on."""
        kept = result.publications
        if result.recovered:
            start = self._since or result.position
        else:
            start = Position(kept[0].epoch, kept[0].offset - 1) if kept else result.position
        name = quoted(self._channel)
        written = b'"epoch":"%b","offset":%d}' % (start.epoch.encode(), start.offset)
        if not isinstance(self._format, EventFormat):
            return b"" if result.recovered else b'{"channel":%b,"recovered":false,%b\n' % (name, written)
        # A browser does not dispatch an event without data, but it does resume from its id.
        opening = b":ok\nretry: %d\nid: %b\n\n" % (_RETRY, write_position(start).encode())
        if not result.recovered:
            opening += b'event: unrecovered\ndata: {"channel":%b,%b\n\n' % (name, written)
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
        """Write a heartbeat, unless something was written within the interval."""
        interval = self._exchange.hub.settings.ping_interval
        silent = now - self._outlet.sent_at
        if silent >= interval:
            self._outlet.write(self._format.frame(self._format.heartbeat))
            silent = 0
        self._beat_later(interval - silent)

    # The end.

    def _on_close(self, disconnect: Disconnect) -> None:
        """The server closes the client."""
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
    """Opens streams. The formats are made once: an encoding is shared by all clients with the same format."""

    def __init__(self) -> None:
        kinds: tuple[tuple[str, type[StreamFormat]], ...] = (("sse", EventFormat), ("stream", StreamFormat))
        self._formats = {(kind, chunked): make(chunked) for kind, make in kinds for chunked in (True, False)}

    def open(self, exchange: HTTPExchange, kind: str, channel: str) -> None:
        """Answer `exchange` with a stream. Raises CommandError or HTTPError."""
        since = exchange.since(last_event_id=kind == "sse")
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
