"""The structured protocol over HTTP: objects down one response that goes on, commands up by POSTs.

POST /connection/http_stream   body: connect             down: an object a line
GET  /connection/sse           ?cf_connect=connect       down: server-sent events (WHATWG HTML, section 9.2)
POST /emulation                {"session", "node", "data"}: 204, or 404 where there is no such session
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent
from twisted.web.http_headers import Headers

from longconn.clients.address import Address
from longconn.clients.centrifugo import member
from longconn.clients.endpoints import explain
from longconn.clients.errors import ClientError, ConnectionFailed, NotLongconn, Refused
from longconn.clients.events import JSONObject
from longconn.clients.http_connections import HTTPConnections, RequestBody
from longconn.clients.transports.base import TransportConfiguration, TransportFactory, TransportListener
from longconn.clients.transports.emulation import Emulation
from longconn.clients.transports.json_frames import Lines, read_lines, write_frame
from longconn.clients.transports.sockets import status_error

STREAM = "/connection/http_stream"
EVENTS = "/connection/sse"
#: Bytes that are read of an answer which is none of the protocol.
_MOST_TOLD = 4096
#: Seconds: longer than that nobody is kept away by a server's `retry`.
_LONGEST_RETRY = 300.0


def transports(address: Address) -> list[TransportFactory]:
    """HTTP streaming, and server-sent events if that does not get through; or the one that the path names."""
    path, _, _ = address.path.partition("?")
    if path.endswith(STREAM):
        return [HTTPStream]
    return [EventStream] if path.endswith(EVENTS) else [HTTPStream, EventStream]


class _Down(ABC):
    """A response whose body goes on, and POSTs beside it."""

    #: of the response
    content_type = ""

    @abstractmethod
    def ask(self, agent: Agent, first: bytes) -> Deferred[Any]:
        """Make the request that carries the first objects."""

    @abstractmethod
    def lines_of(self, lines: list[bytes]) -> list[bytes]:
        """The objects in lines that came, as JSON."""

    def __init__(self, address: Address, configuration: TransportConfiguration, listener: TransportListener) -> None:
        self._address = address
        self._listener = listener
        self._connections = HTTPConnections(address, configuration)
        path, _, query = address.path.partition("?")
        for each in (STREAM, EVENTS):
            path = path.removesuffix(each)
        self._base = f"{address.scheme.removesuffix('s') + 's' * address.secure}://{address.netloc}{path.rstrip('/')}"
        self._query = query
        self._up = Emulation(self._connections, self.url("/emulation"), configuration, self.fail)
        self._agent = Agent.usingEndpointFactory(configuration.reactor, self._connections)
        self._asking: Deferred[Any] | None = None
        self._body: Any = None
        self._error: ClientError | None = None
        # Whether all connections are gone; and whether that was told.
        self._gone = self._over = False
        self._retry_after = 0.0
        self._started = False

    def url(self, path: str, *parameters: str) -> bytes:
        """The URL of one of the protocol's paths. Parameters of the URL that the program gave stay there."""
        query = "&".join([*parameters, *([self._query] if self._query else [])])
        return f"{self._base}{path}{'?' if query else ''}{query}".encode()

    # Transport.

    def open(self, first: Sequence[JSONObject]) -> None:
        self._asking = self.ask(self._agent, write_frame(first))
        self._asking.addCallbacks(self._on_response, self._on_failure)

    def send(self, objects: Sequence[JSONObject]) -> None:
        if self._error is None:
            self._up.send(objects)

    def pause(self) -> None:
        if self._body is not None:
            self._body.transport.pauseProducing()

    def resume(self) -> None:
        if self._body is not None:
            self._body.transport.resumeProducing()

    def close(self) -> None:
        # A request that is under way has no cleaner end than its connection's.
        self.abort()

    def abort(self) -> None:
        self.fail(ConnectionFailed("given up"))

    # The response.

    def _on_response(self, response: Any) -> None:
        self._asking = None
        if self._error is not None:
            return
        kind = response.headers.getRawHeaders("content-type", [""])[0].partition(";")[0].strip().lower()
        retry = response.headers.getRawHeaders("retry-after", [""])[0]
        if retry.isdecimal() and len(retry) < 6:
            self._retry_after = float(retry)
        right = response.code == 200 and kind == self.content_type
        self._body = _Body(self, None if right else (response.code, kind))
        response.deliverBody(self._body)

    def _on_failure(self, failure: Failure) -> None:
        self._asking = None
        self.fail(explain(failure.value, self._address))
        self._look_over()

    def on_lines(self, lines: list[bytes]) -> None:
        try:
            objects = read_lines(self.lines_of(lines))
            if objects and not self._started:
                self._started = True
                result = member(objects[0], "connect", dict, {})
                self._up.start(member(result, "session", str, ""), member(result, "node", str, ""))
        except NotLongconn as error:
            self.fail(error)
        else:
            self._listener.on_objects(objects)

    def on_retry(self, seconds: float) -> None:
        self._retry_after = seconds

    def on_other(self, status: int, kind: str, told: bytes) -> None:
        """The answer was another one than a stream; `told` is its start."""
        where = self._address.netloc
        try:
            refusal = json.loads(told)["error"]
            error: ClientError = Refused(int(refusal["code"]), str(refusal["message"]), status in (429, 503))
        except (ValueError, TypeError, KeyError, RecursionError):
            error = status_error(status, where)
            if status == 200:
                error = NotLongconn(f"this is no longconn server: {where} answered with {kind or 'nothing'}")
        self.fail(error)

    def on_end(self, failure: Failure) -> None:
        self._body = None
        self.fail(explain(failure.value, self._address))
        self._look_over()

    # The end.

    def fail(self, error: ClientError) -> None:
        """Break off all that there is; the listener is told when it is gone."""
        if self._error is not None:
            return
        self._error = error
        self._up.stop()
        if self._asking is not None:
            self._asking.cancel()
        self._connections.abort().addCallback(self._on_gone)

    def _on_gone(self, _: Any) -> None:
        self._gone = True
        self._look_over()

    def _look_over(self) -> None:
        if self._gone and self._asking is None and self._body is None and not self._over and self._error is not None:
            self._over = True
            self._listener.on_lost(self._error, self._retry_after)


class HTTPStream(_Down):
    """Objects, a line each."""

    content_type = "application/json"

    def ask(self, agent: Agent, first: bytes) -> Deferred[Any]:
        headers = Headers({b"Content-Type": [b"application/json"]})
        return agent.request(b"POST", self.url(STREAM), headers, RequestBody(first).as_producer())

    def lines_of(self, lines: list[bytes]) -> list[bytes]:
        return lines


class EventStream(_Down):
    """Server-sent events (WHATWG HTML, section 9.2): each line of data is an object."""

    content_type = "text/event-stream"

    def ask(self, agent: Agent, first: bytes) -> Deferred[Any]:
        headers = Headers({b"Accept": [b"text/event-stream"]})
        return agent.request(b"GET", self.url(EVENTS, f"cf_connect={quote(first, safe='')}"), headers)

    def lines_of(self, lines: list[bytes]) -> list[bytes]:
        found = []
        for line in lines:
            name, _, value = line.rstrip(b"\r").partition(b":")
            if name == b"data":
                found.append(value)
            elif name == b"retry" and value.strip().isdigit():
                self.on_retry(min(int(value[:12]) / 1000, _LONGEST_RETRY))
        return found


class _Body(Protocol):
    """A response's body in pieces. `other` are status and type of an answer that is no stream."""

    def __init__(self, down: _Down, other: tuple[int, str] | None) -> None:
        self._down = down
        self._other = other
        self._lines = Lines()
        self._told = b""

    def dataReceived(self, data: bytes) -> None:
        if self._other is not None:
            self._told += data
            if len(self._told) > _MOST_TOLD:
                self._down.on_other(*self._other, self._told)
            return
        try:
            lines = self._lines.feed(data)
        except NotLongconn as error:
            self._down.fail(error)
        else:
            self._down.on_lines(lines)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._other is not None:
            self._down.on_other(*self._other, self._told)
        self._down.on_end(reason)
