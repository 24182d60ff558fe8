"""A response and its body. The connection is read no faster than the body.

A connection serves the next request only when the body before was read to its end. So the rest of an unwanted body is
read and thrown away if it is short and comes soon; otherwise the connection is aborted.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from longconn.clients.errors import ClientError, Closed, ConnectionFailed

#: Bytes that wait for the reader before the connection is paused. A shorter body frees the connection without a reader.
HIGH_WATER = 65536
#: How much of an unwanted body is read to keep the connection, in bytes and in seconds.
DRAIN_BYTES = 65536
DRAIN_SECONDS = 2.0


class BodyTooLarge(ClientError):
    """A body has more bytes than the caller wants."""


class Body(Protocol):
    """Receives a body. `abort` aborts the connection; `on_end` is called once, when the connection is free or gone.

    `length` in bytes, None if it is not known ahead. `read_timeout`: seconds without a byte after which the
    connection is aborted, except while it is paused.
    """

    transport: Any

    def __init__(
        self,
        reactor: Any,
        length: int | None,
        read_timeout: float,
        abort: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._left = length
        self._read_timeout = read_timeout
        self._abort = abort
        self._on_end = on_end
        self._pieces: list[bytes] = []
        # Bytes that wait, or bytes that were thrown away.
        self._size = 0
        self._paused = False
        self._unwanted = False
        self._error: ClientError | None = None
        self._waiting: Deferred[bytes] | None = None
        self._timeout_call: Any = None
        self._ended = False
        #: when the last byte came, by the reactor's clock
        self.last_byte: float = reactor.seconds()

    # Called by Twisted.

    def connectionMade(self) -> None:
        self._set_timeout(self._read_timeout)

    def dataReceived(self, data: bytes) -> None:
        self.last_byte = self._reactor.seconds()
        self._size += len(data)
        if self._left is not None:
            self._left -= len(data)
        if self._unwanted:
            if self._size > DRAIN_BYTES:
                self._abort()
            return
        self._set_timeout(self._read_timeout)
        self._pieces.append(data)
        if self._waiting is not None:
            self._answer_reader()
        elif self._size > HIGH_WATER and not self._paused:
            self._paused = True
            self._set_timeout(None)
            self.transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._set_timeout(None)
        self._ended = True
        # A body with neither a length nor chunks lasts until the connection ends (RFC 9112, section 6.3).
        if self._error is None and not reason.check(ResponseDone, PotentialDataLoss):
            self._error = ConnectionFailed("the connection was lost in the middle of a response")
        if self._waiting is not None:
            self._answer_reader()
        self._on_end()

    def _set_timeout(self, seconds: float | None) -> None:
        """A byte has to come within so many seconds; None: at any time."""
        if self._timeout_call is not None:
            self._timeout_call.cancel()
        self._timeout_call = None if seconds is None else self._reactor.callLater(seconds, self._on_timeout)

    def _on_timeout(self) -> None:
        self._timeout_call = None
        if self._error is None:
            self._error = ConnectionFailed(f"no byte of a response for {self._read_timeout:g} s")
        self._abort()

    # Called by the reader.

    def read(self) -> Deferred[bytes]:
        """The bytes that wait, or those that come next; empty at the end. Fails with ClientError on a loss."""
        if self._waiting is not None:
            raise RuntimeError("one read at a time")
        waiting = self._waiting = Deferred(self._forget_reader)
        if self._pieces or self._ended or self._unwanted:
            self._answer_reader()
        elif self._paused:
            self._set_timeout(self._read_timeout)
            self._resume()
        return waiting

    def close(self) -> None:
        """Throw the rest away, or abort the connection."""
        if self._unwanted:
            return
        self._unwanted = True
        self._pieces.clear()
        self._size = 0
        if self._error is None:
            self._error = Closed("the response was closed")
        if self._waiting is not None:
            self._answer_reader()
        if self._ended:
            return
        if (self._left or 0) > DRAIN_BYTES:
            self._abort()
        else:
            self._set_timeout(min(self._read_timeout, DRAIN_SECONDS))
            self._resume()

    def break_off(self) -> None:
        """Close, and abort the connection in any case."""
        self.close()
        if not self._ended:
            self._abort()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self.transport.resumeProducing()

    def _answer_reader(self) -> None:
        waiting, self._waiting = self._waiting, None
        assert waiting is not None
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            waiting.callback(data)
        elif self._error is not None:
            waiting.errback(Failure(self._error))
        else:
            waiting.callback(b"")

    def _forget_reader(self, waiting: Deferred[bytes]) -> None:
        self._waiting = None


class Response:
    """A response. Its body is an asynchronous iterator of bytes, in pieces as they come.

    `headers` are Twisted's. `source_port` is the port of this end, `reused` whether an earlier request used the same
    connection. A response frees its connection when it is read to its end, closed, or garbage-collected.
    """

    def __init__(
        self, status: int, headers: Headers, body: Body, source_port: int, *, reused: bool, started: float
    ) -> None:
        self.status = status
        self.headers = headers
        self.source_port = source_port
        self.reused = reused
        self._started = started
        self._body = body
        weakref.finalize(self, body.close).atexit = False

    @property
    def seconds(self) -> float:
        """From the request for a connection to the last byte so far."""
        return self._body.last_byte - self._started

    def __aiter__(self) -> Response:
        return self

    async def __anext__(self) -> bytes:
        """Raises ClientError if the connection is lost before the end."""
        piece = await self._body.read()
        if not piece:
            raise StopAsyncIteration
        return piece

    def collect(self, limit: int = 1024 * 1024) -> Deferred[bytes]:
        """The rest of the body as a whole. Fails with BodyTooLarge above `limit` bytes, and with ClientError."""
        return Deferred.fromCoroutine(self._collect(limit))

    async def _collect(self, limit: int) -> bytes:
        pieces = []
        size = 0
        async for piece in self:
            size += len(piece)
            if size > limit:
                self.close()
                raise BodyTooLarge(f"a body of more than {limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Drop the rest of the body. May be called at any time, repeatedly."""
        self._body.close()

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(self, *reason: object) -> None:
        self.close()
