"""Centrifugo's client protocol over HTTP: objects come down in one endless response, commands go up by POSTs.

POST /connection/http_stream   body: connect             down: an object a line
GET  /connection/sse           ?cf_connect=connect       down: server-sent events (WHATWG HTML, section 9.2)
POST /emulation                {"session", "node", "data"}: 204, or 404 if there is no such session
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, cast
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
#: Bytes that are read of a response which is not a stream.
_MOST_OTHER = 4096
#: Seconds: the longest wait that a server's `retry` can ask for.
_LONGEST_RETRY = 300.0


def transports(address: Address) -> list[TransportFactory]:
    """HTTP streaming, then server-sent events if that does not get through; or the one that the path names."""
    path, _, _ = address.path.partition("?")
    stream, events = (partial(HTTPStreamTransport, is_sse=each) for each in (False, True))
    if path.endswith(STREAM):
        return [stream]
    return [events] if path.endswith(EVENTS) else [stream, events]


class HTTPStreamTransport:
    """http:// and https://: an endless response, and POSTs beside it. `is_sse`: server-sent events, not JSON lines."""

    def __init__(
        self, address: Address, configuration: TransportConfiguration, listener: TransportListener, *, is_sse: bool
    ) -> None:
        self._is_sse = is_sse
        self._address = address
        self._listener = listener
        self._connections = HTTPConnections(configuration)
        path, _, query = address.path.partition("?")
        for each in (STREAM, EVENTS):
            path = path.removesuffix(each)
        self._base = f"{address.scheme}://{address.netloc}{path.rstrip('/')}"
        self._query = query
        self._emulation = Emulation(self._connections, self._url("/emulation"), configuration, self.fail)
        self._agent = Agent.usingEndpointFactory(configuration.reactor, self._connections)
        self._asking: Deferred[Any] | None = None
        self._body: Any = None
        self._error: ClientError | None = None
        # All connections are gone; and `on_lost` was called.
        self._gone = self._over = False
        self._retry_after = 0.0
        self._started = False

    def _url(self, path: str, *parameters: str) -> bytes:
        """The URL of one of the protocol's paths, with the parameters of the program's URL."""
        query = "&".join([*parameters, *([self._query] if self._query else [])])
        return f"{self._base}{path}{'?' if query else ''}{query}".encode()

    # The interface of transports.

    def open(self, first: Sequence[JSONObject]) -> None:
        body = write_frame(first)
        if self._is_sse:
            url = self._url(EVENTS, f"cf_connect={quote(body, safe='')}")
            self._asking = self._agent.request(b"GET", url, Headers({b"Accept": [b"text/event-stream"]}))
        else:
            headers = Headers({b"Content-Type": [b"application/json"]})
            self._asking = self._agent.request(b"POST", self._url(STREAM), headers, cast(Any, RequestBody(body)))
        self._asking.addCallbacks(self._on_response, self._on_failure)

    def send(self, objects: Sequence[JSONObject]) -> None:
        if self._error is None:
            self._emulation.send(objects)

    def pause(self) -> None:
        if self._body is not None:
            self._body.transport.pauseProducing()

    def resume(self) -> None:
        if self._body is not None:
            self._body.transport.resumeProducing()

    def close(self) -> None:
        # HTTP has no cleaner way to end a response that goes on.
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
        if response.code == 200 and kind == ("text/event-stream" if self._is_sse else "application/json"):
            self._body = _StreamBody(self)
        else:
            self._body = _OtherBody(self, response.code, kind)
        response.deliverBody(self._body)

    def _on_failure(self, failure: Failure) -> None:
        self._asking = None
        self.fail(explain(failure.value, self._address))
        self._finish()

    def on_lines(self, lines: list[bytes]) -> None:
        try:
            objects = read_lines(self._read_events(lines) if self._is_sse else lines)
            if objects and not self._started:
                self._started = True
                result = member(objects[0], "connect", dict, {})
                self._emulation.start(member(result, "session", str, ""), member(result, "node", str, ""))
        except NotLongconn as error:
            self.fail(error)
        else:
            self._listener.on_objects(objects)

    def _read_events(self, lines: list[bytes]) -> list[bytes]:
        """The `data` of server-sent events. Each `data` line is an object."""
        found = []
        for line in lines:
            name, _, value = line.rstrip(b"\r").partition(b":")
            if name == b"data":
                found.append(value)
            elif name == b"retry" and value.strip().isdigit():
                self._retry_after = min(int(value.strip()[:12]) / 1000, _LONGEST_RETRY)
        return found

    def on_other(self, status: int, kind: str, body: bytes) -> None:
        """The response is not a stream; `body` is its start."""
        where = self._address.netloc
        try:
            refusal = json.loads(body)["error"]
            error: ClientError = Refused(int(refusal["code"]), str(refusal["message"]), status in (429, 503))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            error = status_error(status, where)
            if status == 200:
                error = NotLongconn(f"this is no longconn server: {where} answered with {kind or 'nothing'}")
        self.fail(error)

    def on_end(self, failure: Failure) -> None:
        self._body = None
        self.fail(explain(failure.value, self._address))
        self._finish()

    # The end.

    def fail(self, error: ClientError) -> None:
        """Abort everything. `on_lost` is called when all connections are gone."""
        if self._error is not None:
            return
        self._error = error
        self._emulation.stop()
        if self._asking is not None:
            self._asking.cancel()
        self._connections.abort().addCallback(self._on_gone)

    def _on_gone(self, _: Any) -> None:
        self._gone = True
        self._finish()

    def _finish(self) -> None:
        """Call `on_lost` once, when the request, the response and all connections have ended."""
        error = self._error
        if self._gone and self._asking is None and self._body is None and not self._over and error is not None:
            self._over = True
            self._listener.on_lost(error, self._retry_after)


class _StreamBody(Protocol):
    """The body of a stream."""

    def __init__(self, stream: HTTPStreamTransport) -> None:
        self._stream = stream
        self._lines = Lines()

    def dataReceived(self, data: bytes) -> None:
        try:
            lines = self._lines.feed(data)
        except NotLongconn as error:
            self._stream.fail(error)
        else:
            self._stream.on_lines(lines)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stream.on_end(reason)


class _OtherBody(Protocol):
    """The body of another response."""

    def __init__(self, stream: HTTPStreamTransport, status: int, kind: str) -> None:
        self._stream = stream
        self._status = status
        self._kind = kind
        self._start = b""

    def dataReceived(self, data: bytes) -> None:
        self._start += data
        if len(self._start) > _MOST_OTHER:
            self._stream.on_other(self._status, self._kind, self._start)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stream.on_other(self._status, self._kind, self._start)
        self._stream.on_end(reason)
