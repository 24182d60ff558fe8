"""POST: one publication, or many as lines of JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator

from longconn.core.client import check_size
from longconn.core.errors import BAD_DATA, TOO_MANY_REQUESTS, CommandError
from longconn.core.namespaces import Action
from longconn.core.publication import Data, Info, Position
from longconn.core.timers import Call
from longconn.protocols.http.errors import HTTPError, as_http_error
from longconn.protocols.http.exchange import HTTPExchange
from longconn.protocols.http.request import media_type

#: Publications of one request: what is checked and kept before the first is published.
MAX_LINES = 100_000
#: Bytes and lines that are checked in one turn of the reactor, and published.
_CHECKED = 256 * 1024
_PUBLISHED = 64 * 1024
_PUBLISHED_LINES = 250
#: Seconds between two turns of publishing, in which subscribers are sent to.
_PAUSE = 0.01


def publish(exchange: HTTPExchange, channel: str) -> None:
    """Publish the body of a request, and answer when the broker did. Raises CommandError or HTTPError."""
    hub = exchange.hub
    hub.check(Action.PUBLISH, channel)
    name = exchange.parameter("name")
    if name is not None:
        hub.claim(name)
    info = Info(name if name is not None else hub.assigned_name(exchange.address))
    kind = exchange.header("content-type")
    if exchange.header("content-encoding").lower() not in ("", "identity"):
        raise HTTPError(415, "only bodies without Content-Encoding are read", [("Accept-Encoding", "identity")])
    body = exchange.body()
    if not body:
        raise HTTPError(400, "the body is empty: it is what is published")
    if media_type(kind) == "application/x-ndjson":
        Bulk(exchange, channel, info, body).start()
        return
    check_size(len(body), hub.settings.max_message)
    data = Data.of_json(body) if media_type(kind) == "application/json" else _text(body, kind)
    wait = hub.post_wait(exchange.host, data.size)
    if wait:
        raise HTTPError(
            429, str(CommandError(TOO_MANY_REQUESTS)), [("Retry-After", str(math.ceil(wait)))], TOO_MANY_REQUESTS.code
        )

    def published(result: Position | CommandError) -> None:
        if isinstance(result, CommandError):
            exchange.fail(result)
        else:
            exchange.json(200, {"epoch": result.epoch, "offset": result.offset})

    exchange.watch()
    hub.publish(channel, data, info, published, exchange.host)


def _text(body: bytes, content_type: str) -> Data:
    """A body of any other type, or none, is text if it is UTF-8 and says nothing else of itself."""
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        charset = value.strip().strip('"').lower()
        if name.strip().lower() == "charset" and charset not in ("utf-8", "utf8", "us-ascii", "ascii"):
            raise HTTPError(415, "text is published as UTF-8 only")
    try:
        return Data.of_text(body.decode(), len(body))
    except UnicodeDecodeError:
        raise HTTPError(415, "the body is neither UTF-8 text nor declared as JSON") from None


class Bulk:
    """Lines of JSON (application/x-ndjson): checked whole, then published in order.

    Each is published when the one before was, at the rate that its address may publish,
    and never so many in one turn that subscribers could not be sent to meanwhile. It
    ends when the client goes: nobody is left to be told how far it came.
    """

    def __init__(self, exchange: HTTPExchange, channel: str, info: Info, body: bytes) -> None:
        self._exchange = exchange
        self._channel = channel
        self._info = info
        self._checking = self._check(body)
        self._waiting: list[Data] = []
        self._accepted = 0
        self._position: Position | None = None
        # A publication that the broker has not answered yet, and whether it did within the call.
        self._asking = False
        self._call: Call | None = None

    def start(self) -> None:
        self._exchange.watch(self._stop)
        self._check_some()

    def _later(self, delay: float, action: str) -> None:
        self._call = self._exchange.hub.clock.callLater(delay, getattr(self, action))

    def _stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._waiting.clear()

    # Checking.

    def _check(self, body: bytes) -> Iterator[None]:
        limit = self._exchange.hub.settings.max_message
        start = number = unchecked = 0
        while start < len(body):
            end = body.find(b"\n", start)
            line = body[start:] if end < 0 else body[start:end]
            start += len(line) + 1
            number += 1
            if line.strip(b" \t\r"):
                if len(self._waiting) == MAX_LINES:
                    raise HTTPError(413, f"more than {MAX_LINES} lines in one request", line=number)
                self._waiting.append(_line(line, number, limit))
            unchecked += len(line) + 100  # an empty line costs something too
            if unchecked > _CHECKED:
                unchecked = 0
                yield

    def _check_some(self) -> None:
        self._call = None
        try:
            for _ in self._checking:
                return self._later(0, "_check_some")
            if not self._waiting:
                raise HTTPError(400, "the body has no line")
        except HTTPError as error:
            return self._exchange.fail(error)
        self._waiting.reverse()  # the next is the last: popped at no cost
        self._publish_some()
        return None

    # Publishing.

    def _publish_some(self) -> None:
        self._call = None
        hub = self._exchange.hub
        size = count = 0
        while self._waiting and not self._asking:
            data = self._waiting[-1]
            if size and (size + data.size > _PUBLISHED or count >= _PUBLISHED_LINES):
                return self._later(_PAUSE, "_publish_some")
            wait = hub.post_wait(self._exchange.host, data.size)
            if wait:
                return self._later(wait, "_publish_some")
            self._waiting.pop()
            size += data.size
            count += 1
            if not self._ask(data):
                return None
        if not self._waiting and not self._asking:
            self._answer()
        return None

    def _ask(self, data: Data) -> bool:
        """Publish one. False if it was refused, or is not answered yet and goes on from there."""
        exchange = self._exchange
        self._asking = True
        within = True
        refusal: list[CommandError] = []

        def published(result: Position | CommandError) -> None:
            self._asking = False
            if isinstance(result, CommandError):
                refusal.append(result)
            else:
                self._accepted += 1
                self._position = result
            if not within and not exchange.lost:
                if refusal:
                    self._fail(refusal[0])
                else:
                    self._publish_some()

        try:
            exchange.hub.publish(self._channel, data, self._info, published, exchange.host)
        except CommandError as error:
            self._asking = False
            refusal.append(error)
        within = False
        if refusal:
            self._fail(refusal[0])
        return not self._asking and not refusal

    def _fail(self, error: CommandError) -> None:
        self._waiting.clear()
        self._exchange.fail(error, count=self._accepted)

    def _answer(self) -> None:
        last = self._position
        if last is not None:
            self._exchange.json(200, {"epoch": last.epoch, "offset": last.offset, "count": self._accepted})


def _line(line: bytes, number: int, limit: int) -> Data:
    try:
        check_size(len(line), limit)
        return Data.of_json(line)
    except CommandError as error:
        what = "JSON" if error.reason is BAD_DATA else str(error)
        prefix = f"line {number} is not valid JSON" if what == "JSON" else f"line {number}: {what}"
        answer = as_http_error(error)
        raise HTTPError(answer.status, prefix, code=answer.code, line=number) from None
