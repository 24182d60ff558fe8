"""POST /channels/NAME: one publication, or many as lines of JSON."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

from longconn.core.broker import Done
from longconn.core.client import Caller
from longconn.core.errors import BAD_DATA, TOO_LARGE, CommandError
from longconn.core.namespaces import Action
from longconn.core.paced_batch import PacedBatch
from longconn.core.publication import Data, Position
from longconn.core.slices import WaitingWork
from longconn.protocols.http.errors import HTTPError, as_http_error
from longconn.protocols.http.exchange import HTTPExchange
from longconn.protocols.http.request import media_type

#: Publications of one request: all are checked before the first is published.
MAX_LINES = 100_000
#: Bytes that are checked in one step, the microseconds that a step takes at most, and those that a line takes.
_CHECKED = 64 * 1024
_STEP_COST = 1_000
_LINE_COST = 2
#: Lines that are published together by all requests, and the bytes of those of one.
_TOGETHER = 200
_BYTES_TOGETHER = 16 * 1024
#: Bytes that a line counts beside its own in a turn's share.
_LINE_WEIGHT = 60
#: What a line may have that counts as empty.
_BLANK = b" \t\r"


def publish(exchange: HTTPExchange, channel: str, batches: set[PacedBatch[Any]]) -> None:
    """Publish the body of a request, and answer when the broker has answered.

    `batches` are those of all requests with many lines: they share the time to publish in one turn. Raises CommandError
    or HTTPError.
    """
    hub = exchange.hub
    kind = exchange.header("content-type")
    bulk = media_type(kind) == "application/x-ndjson"
    label, resume = exchange.name_request() or (None, "")
    identity = exchange.caller.identity
    caller = hub.request(exchange.host, exchange.address, label, waits=bulk, identity=identity, resume=resume)
    caller.headers = exchange.caller.headers
    if exchange.header("content-encoding").lower() not in ("", "identity"):
        raise HTTPError(415, "only bodies without Content-Encoding are read", [("Accept-Encoding", "identity")])
    body = exchange.body()
    if not body:
        raise HTTPError(400, "the body is empty: it is what is published")
    exchange.watch()
    if bulk:

        def checked(result: object) -> None:
            if isinstance(result, CommandError):
                exchange.fail(result)
            else:
                BulkPublish(exchange, channel, caller, body, batches).start()

        hub.door.check(caller, Action.PUBLISH, channel, checked)
        return
    data = Data.of_json(body) if media_type(kind) == "application/json" else _text(body, kind)

    def published(result: Position | CommandError) -> None:
        if isinstance(result, CommandError):
            exchange.fail(result)
        else:
            exchange.json(200, {"epoch": result.epoch, "offset": result.offset})

    hub.door.publish(caller, channel, data, published)


def _text(body: bytes, content_type: str) -> Data:
    """A body of any other type, or of none, is text. It must be UTF-8 and must not declare another charset."""
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        charset = value.strip().strip('"').lower()
        if name.strip().lower() == "charset" and charset not in ("utf-8", "utf8", "us-ascii", "ascii"):
            raise HTTPError(415, "text is published as UTF-8 only")
    try:
        return Data.of_text(body.decode(), len(body))
    except UnicodeDecodeError:
        raise HTTPError(415, "the body is neither UTF-8 text nor declared as JSON") from None


class BulkPublish:
    """Publishes lines of JSON (application/x-ndjson): all are checked before the first is published.

    They are published in order, at the rate of the client's address. A refusal ends it, and is answered with the
    number of lines that were published. It ends, too, when the client goes: the client could not be told how far
    it came. A line is read again when it is published: objects for all lines would take many times the body's memory.
    """

    def __init__(
        self, exchange: HTTPExchange, channel: str, caller: Caller, body: bytes, batches: set[PacedBatch[Any]]
    ) -> None:
        self._exchange = exchange
        self._channel = channel
        self._caller = caller
        self._body = body
        self._batches = batches
        self._checks = self._check()
        self._waiting: WaitingWork | None = None
        self._batch: PacedBatch[Position] | None = None
        self._published = 0
        self._position: Position | None = None

    def start(self) -> None:
        self._exchange.watch(self._stop)
        self._exchange.notice_end()
        self._check_some()

    def _stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if self._batch is not None:
            self._batch.stop()
        self._let_go()

    def _let_go(self) -> None:
        """Break the reference cycles: they hold the body."""
        self._batch = None
        self._checks.close()

    # Checking.

    def _check(self) -> Generator[None, None, None]:
        """Read the lines, in steps. Raises HTTPError for the first that cannot be published."""
        limit = self._exchange.hub.settings.max_message
        count = unchecked = 0
        for number, line in enumerate(_split(self._body), 1):
            if line.strip(_BLANK):
                if count == MAX_LINES:
                    raise HTTPError(413, f"more than {MAX_LINES} lines in one request", line=number)
                count += 1
                _check_line(line, number, limit)
            unchecked += len(line) + 100  # an empty line costs something too
            if unchecked > _CHECKED:
                unchecked = 0
                yield
        if not count:
            raise HTTPError(400, "the body has no line")

    def _check_some(self) -> None:
        exchange = self._exchange
        hub = exchange.hub
        cost = min(_STEP_COST, _LINE_COST * self._body.count(b"\n"))
        try:
            while self._waiting is not None or hub.slices.take(cost):
                self._waiting = None
                if next(self._checks, self._checks) is self._checks:
                    break
            else:
                self._waiting = hub.slices.wait(exchange.host, cost, self._check_some)
                return
        except HTTPError as error:
            self._let_go()
            exchange.fail(error)
            return
        self._batch = PacedBatch(hub.clock, self._calls(), self._on_result, self._on_end, under_way=self._batches)
        self._batch.go()

    # Publishing.

    def _calls(self) -> Iterator[tuple[int, Callable[[Done[Position]], float]]]:
        lines = (each for each in _split(self._body) if each.strip(_BLANK))
        waiting: list[Data] = []
        while True:
            most = max(10, _TOGETHER // (len(self._batches) or 1))
            size = sum([each.size + _LINE_WEIGHT for each in waiting])
            while len(waiting) < most and size < _BYTES_TOGETHER and (line := next(lines, None)) is not None:
                waiting.append(Data.of_json(line))
                size += waiting[-1].size + _LINE_WEIGHT
            if not waiting:
                return
            yield size, partial(self._publish, waiting)

    def _publish(self, waiting: list[Data], done: Done[Position]) -> float:
        """Publish the first of `waiting`, as many as the rate allows, and take them out; or return the time to wait."""
        door, channel, caller = self._exchange.hub.door, self._channel, self._caller

        def published(count: int, result: Position | CommandError) -> None:
            if not isinstance(result, CommandError):
                self._published += count
            done(result)

        count = door.publish_many(caller, channel, waiting, published) if len(waiting) > 1 else 0
        if not count:
            wait = door.publish(caller, channel, waiting[0], partial(published, 1))
            if wait:
                return wait
            count = 1
        del waiting[:count]
        return 0.0

    def _on_result(self, index: int, result: Position | CommandError) -> None:
        if isinstance(result, CommandError):
            self._stop()
            self._exchange.fail(result, count=self._published)
        else:
            self._position = result

    def _on_end(self) -> None:
        self._let_go()
        last = self._position
        if last is not None:
            self._exchange.json(200, {"epoch": last.epoch, "offset": last.offset, "count": self._published})


def _split(body: bytes) -> Iterator[bytes]:
    """The lines of a body, one after the other, the empty ones too."""
    start = 0
    while start < len(body):
        end = body.find(b"\n", start)
        line = body[start:] if end < 0 else body[start:end]
        yield line
        start += len(line) + 1


def _check_line(line: bytes, number: int, limit: int) -> None:
    """Check a line. Raises HTTPError if it cannot be published."""
    try:
        if len(line) > limit:
            raise CommandError(TOO_LARGE, limit=limit)
        Data.of_json(line)
    except CommandError as error:
        text = f"line {number} is not valid JSON" if error.reason is BAD_DATA else f"line {number}: {error}"
        answer = as_http_error(error)
        raise HTTPError(answer.status, text, code=answer.code, line=number) from None
