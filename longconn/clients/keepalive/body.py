"""The body of a response while it comes: read in pieces, with the connection read no faster than they are taken.

A connection serves the next request only once the body is read to its end. So one that nobody
wants is read on and thrown away, if that is little and comes soon; else the connection is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from longconn.clients.errors import ClientError, Closed, ConnectionFailed

#: Bytes that wait for the reader before the connection is paused. A body of less leaves the
#: connection free for the next request, whether somebody reads it or not.
HIGH_WATER = 65536
#: What of an unwanted body is read, in bytes and in seconds, to keep the connection.
DRAIN_BYTES = 65536
DRAIN_SECONDS = 2.0


class Body(Protocol):
    """Receives a body. `drop` breaks the connection; `on_end` is called once, when the connection is free or gone.

    `length` in bytes, None where it is not known ahead. `read_timeout` in seconds: how long no byte may come while
    the connection is read.
    """

    transport: Any

    def __init__(
        self,
        reactor: Any,
        length: int | None,
        read_timeout: float,
        drop: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._left = length
        self._read_timeout = read_timeout
        self._drop = drop
        self._on_end = on_end
        self._pieces: list[bytes] = []
        self._size = 0
        self._paused = False
        self._unwanted = False
        self._error: ClientError | None = None
        self._waiting: Deferred[bytes] | None = None
        self._timer: Any = None
        self.ended = False
        #: when the last byte came, in the reactor's seconds
        self.last_byte: float = reactor.seconds()

    # What the connection tells.

    def connectionMade(self) -> None:
        self._expect(self._read_timeout)

    def dataReceived(self, data: bytes) -> None:
        self.last_byte = self._reactor.seconds()
        self._size += len(data)
        if self._left is not None:
            self._left -= len(data)
        if self._unwanted:
            if self._size > DRAIN_BYTES:
                self._drop()
            return
        self._expect(self._read_timeout)
        self._pieces.append(data)
        if self._waiting is not None:
            self._hand_over()
        elif self._size > HIGH_WATER and not self._paused:
            self._paused = True
            self._expect(None)
            self.transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._expect(None)
        self.ended = True
        # Without a length and not chunked, a body lasts until the connection ends (RFC 9112, section 6.3).
        if self._error is None and not reason.check(ResponseDone, PotentialDataLoss):
            self._error = ConnectionFailed("the connection was lost in the middle of a response")
        if self._waiting is not None:
            self._hand_over()
        self._on_end()

    # What the reader wants.

    def read(self) -> Deferred[bytes]:
        """What has come, or the next that comes; empty at the end. Fails with ClientError if the connection is lost."""
        waiting: Deferred[bytes] = Deferred(self._forget)
        if self._waiting is not None:
            raise RuntimeError("one read at a time")
        self._waiting = waiting
        if self._pieces or self.ended or self._unwanted:
            self._hand_over()
        elif self._paused:
            self._resume()
        return waiting

    def close(self) -> None:
        """Nobody reads on. What is left is read and thrown away, or the connection dropped."""
        if self._unwanted:
            return
        self._unwanted = True
        self._pieces.clear()
        self._size = 0
        if self._error is None:
            self._error = Closed("the response was closed")
        if self._waiting is not None:
            self._hand_over()
        if self.ended:
            return
        if (self._left or 0) > DRAIN_BYTES:
            self._drop()
        else:
            self._expect(min(self._read_timeout, DRAIN_SECONDS))
            self._resume()

    def abort(self) -> None:
        """Break the connection off."""
        self.close()
        if not self.ended:
            self._drop()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            if not self._unwanted:
                self._expect(self._read_timeout)
            self.transport.resumeProducing()

    def _hand_over(self) -> None:
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

    def _forget(self, waiting: Deferred[bytes]) -> None:
        self._waiting = None

    def _expect(self, seconds: float | None) -> None:
        """A byte is to come in so many seconds; None: none need to."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._reactor.callLater(seconds, self._too_late)

    def _too_late(self) -> None:
        self._timer = None
        if self._error is None:
            self._error = ConnectionFailed(f"no byte of a response for {self._read_timeout:g} s")
        self._drop()
