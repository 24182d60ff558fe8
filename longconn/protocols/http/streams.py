"""GET /channels/NAME/events and /stream: a channel's publications in a response that does not end."""

from __future__ import annotations

import random
from collections.abc import Iterator

from longconn.core.client import Client
from longconn.core.disconnects import Disconnect
from longconn.core.errors import NAME_TAKEN, CommandError
from longconn.core.names import NameRequest, check_name
from longconn.core.publication import History, Position, Publication
from longconn.protocols.http.exchange import HTTPExchange
from longconn.protocols.http.response import NO_BUFFERING, StreamingResponse
from longconn.wire.sse import EventFormat, StreamFormat, quoted

#: Bytes of a backlog that are encoded in one step.
_SLICE = 64 * 1024
#: Milliseconds after which a browser reconnects, and the largest random addition when the server closes it.
_RETRY = 1000
_RETRY_SPREAD = 4000
_FORMATS: dict[tuple[str, bool], StreamFormat] = {
    ("sse", True): EventFormat(chunked=True),
    ("sse", False): EventFormat(chunked=False),
    ("stream", True): StreamFormat(chunked=True),
    ("stream", False): StreamFormat(chunked=False),
}


class ChannelStream:
    """One client of the hub on one response."""

    __slots__ = (
        "_channel",
        "_client",
        "_exchange",
        "_format",
        "_has_asked_for_name",
        "_outlet",
        "_response",
        "_since",
        "due",
    )

    def __init__(self, exchange: HTTPExchange, format: StreamFormat, channel: str) -> None:
        self.due = 0
        self._exchange = exchange
        self._format = format
        self._channel = channel
        self._client: Client | None = None
        self._since: Position | None = None
        self._has_asked_for_name = False
        self._response = StreamingResponse(exchange, self._on_close, self._on_lost)
        self._outlet = self._response.outlet

    def open(self, kind: str, name: NameRequest | None, since: Position | None) -> None:
        """Connect as `name`, subscribe, and answer when the broker has answered.

        A reader does not speak, so one whose name is taken is let in by another one. Raises CommandError; then nothing
        is left behind.
        """
        exchange = self._exchange
        self._since = since
        self._has_asked_for_name = name is not None
        try:
            try:
                client = self._connect(kind, name)
            except CommandError as error:
                if error.reason is not NAME_TAKEN:
                    raise
                client = self._connect(kind, None)
            self._client = self._outlet.client = client
            client.headers = exchange.caller.headers
            exchange.hub.identify(client, exchange.caller.identity)
            self._response.watch()
        except CommandError:
            self._response.give_up()
            raise
        exchange.hub.door.subscribe(client, self._channel, self._format, self._on_subscribed, since)

    def _connect(self, kind: str, name: NameRequest | None) -> Client:
        exchange, (wanted, resume) = self._exchange, name or (None, "")
        return exchange.hub.connect(
            self._outlet, kind, exchange.host, exchange.address, wanted, user=exchange.caller.user, resume=resume
        )

    def _on_subscribed(self, result: History | CommandError) -> None:
        if isinstance(result, CommandError):
            self._response.give_up()
            self._exchange.fail(result)
            return
        self._response.start((("Content-Type", self._format.content_type),))
        kept = result.publications
        if result.recovered:
            start = self._since or result.position
        else:
            start = Position(kept[0].epoch, kept[0].offset - 1) if kept else result.position
        # The head reaches the client together with the first bytes of the body.
        name = self._client.name if self._client is not None and self._has_asked_for_name else ""
        opening = self._format.opening(self._channel, start, result.recovered, _RETRY, name)
        if opening:
            self._outlet.write(self._format.frame(opening))
        if kept:
            self._outlet.write_backlog(self._backlog(kept))
        self._beat_later(self._exchange.hub.settings.ping_interval)

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
        retry = _RETRY + random.randrange(_RETRY_SPREAD)
        self._response.end(self._format.frame(self._format.farewell(disconnect, retry)))

    def _on_lost(self) -> None:
        self._exchange.hub.wheel.clear(self)
        if self._client is not None:
            self._client.gone()


def open_stream(kind: str, exchange: HTTPExchange, channel: str) -> None:
    """Answer with a stream; `kind` is `sse` or `stream`. Raises CommandError or HTTPError."""
    since = exchange.since(last_event_id=kind == "sse")
    name = exchange.name_request()
    if name is not None:
        check_name(name.name)
    request = exchange.request
    format = _FORMATS[kind, request.clientproto == b"HTTP/1.1"]  # HTTP/1.0 has no chunks
    if request.method == b"HEAD":

        def answer() -> None:
            for header in (("Content-Type", format.content_type), NO_BUFFERING):
                request.setHeader(*header)
            request.finish()

        exchange.check_client(channel, None, answer)
    else:
        ChannelStream(exchange, format, channel).open(kind, name, since)
