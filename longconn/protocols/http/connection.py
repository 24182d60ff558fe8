"""One HTTP/1.1 connection (RFC 9112): twisted.web's, with the limits that it does not have.

A head is collected here until it is whole, within its size and its time, and only then
parsed by twisted.web. What is wrong with it, or with the body, gets an answer that reaches
the client: the connection is closed to it, and what it still sends is read and thrown
away for a while, because a reset would destroy the answer on its way (RFC 9112, 9.6).

    IDLE ─first byte→ HEAD ─whole→ BODY ─whole→ BUSY ─answered→ IDLE …
      any of them ─refused, or answered for the last time→ ENDING
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from zope.interface import implementer

from longconn.core.hub import Hub
from longconn.protocols.http.errors import HTTPError, answer_of
from longconn.protocols.http.request import body_limit, check_lines, find_head

#: Seconds without a byte of a body; and the least of it that has to come, in bytes a second, after a grace.
BODY_IDLE = 30.0
BODY_GRACE = 60.0
BODY_RATE = 4096
_BODY_CHECK = 5.0
#: Seconds and bytes for which a client that was refused is still read, so that it gets the answer.
LINGER = 10.0
LINGER_BYTES = 32 * 1024 * 1024
#: Seconds for an answer to a client that sends no more: a little longer than the longest poll.
LAST_ANSWER = 65.0
#: Bytes of further requests that are read while one is under way.
READ_AHEAD = 16 * 1024


class Phase(enum.Enum):
    """What a connection is waiting for."""

    IDLE = "a request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    BUSY = "our answer"
    ENDING = "the end"


@dataclass(eq=False, slots=True)
class SiteState:
    """What the connections of a site share."""

    hub: Hub
    #: connections on which no request is under way
    idle: set[HTTPConnection] = field(default_factory=set)
    #: bytes of the bodies of requests that are under way
    bodies: int = 0


@implementer(IHalfCloseableProtocol)
class HTTPConnection(HTTPChannel):
    """The connection. While a request is under way nothing refers to it but its transport, so that
    an upgrade may take the transport away: no timer runs, and it is not among the site's idle ones."""

    requests: list[Any]
    transport: Any
    _networkProducer: Any
    #: the wheel's
    due = 0

    def __init__(self, state: SiteState) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._state = state
        self._hub = state.hub
        self.phase = Phase.IDLE
        self._inbox = bytearray()
        self._searched = 0
        self._reading = False
        self._deaf = False
        self._full = False
        self._input_ended = False
        self._body = self._limit = self._discarded = 0
        self._began = self._heard = 0.0
        self._counted = False

    def connectionMade(self) -> None:
        self._hub.guests += 1
        self._counted = True
        self.totalHeadersSize = self._hub.settings.max_head
        super().connectionMade()  # type: ignore[no-untyped-call]
        self._wait_for_request()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.leave()
        self._end()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def leave(self) -> None:
        """The connection is lost, or somebody else's."""
        if self._counted:
            self._counted = False
            self._hub.guests -= 1

    # Phases and their timers.

    def _enter(self, phase: Phase, timeout: float = 0) -> None:
        wheel = self._hub.wheel
        self.phase = phase
        if phase is Phase.IDLE:
            self._state.idle.add(self)
        else:
            self._state.idle.discard(self)
        if timeout:
            wheel.set(self, timeout)
        else:
            wheel.clear(self)

    def _wait_for_request(self) -> None:
        self._enter(Phase.IDLE, self._hub.settings.http_idle_timeout)

    def _end(self) -> None:
        self._enter(Phase.ENDING)
        self._forget_body()
        self.clearLineBuffer()

    def on_due(self, now: float) -> None:
        """What was waited for did not come in time."""
        if self.phase is Phase.IDLE:
            self.close_idle()
        elif self.phase is Phase.HEAD:
            self.refuse(HTTPError(408, f"the head took more than {self._hub.settings.head_timeout:g} seconds"))
        elif self.phase is Phase.BODY:
            self._check_pace(now)
        else:
            self.transport.abortConnection()

    def _check_pace(self, now: float) -> None:
        if now - self._heard >= BODY_IDLE or now - self._began >= BODY_GRACE + self._body / BODY_RATE:
            self.refuse(HTTPError(408, "the body came too slowly"))
        else:
            self._enter(Phase.BODY, _BODY_CHECK)

    def close_idle(self) -> None:
        """Close, if no request is under way. What the client has not yet taken gets some seconds."""
        if self.phase is Phase.IDLE:
            self._close()

    def _close(self) -> None:
        self._end()
        self._enter(Phase.ENDING, LINGER)
        self.loseConnection()  # type: ignore[no-untyped-call]

    # Reading.

    def readConnectionLost(self) -> None:
        """The client will send no more, but may still read the answers to what it sent (`nc -N`)."""
        self._input_ended = True
        if self._deaf:  # a stream has no end: this is how its client goes
            self._close()
        elif self.phase is Phase.BUSY:
            self._enter(Phase.BUSY, LAST_ANSWER)
        else:
            self._close_if_all_is_answered()

    def _close_if_all_is_answered(self) -> None:
        """Nothing more comes: the end, unless a request is under way or waits for the answers before it to go out."""
        if self._reading or (self._full and self._inbox) or self.phase in (Phase.BUSY, Phase.ENDING):
            return
        self._close()

    def writeConnectionLost(self) -> None:
        """This side closes its half only to end (`refuse`)."""

    def dataReceived(self, data: bytes) -> None:
        if self.phase is Phase.ENDING:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.transport.loseConnection()
            return
        if self._deaf:
            return
        self._inbox += data
        if not self._reading:
            self._read()

    def _read(self) -> None:
        self._reading = True
        try:
            while self._inbox and self._advance():
                pass
        finally:
            self._reading = False

    def _advance(self) -> bool:
        """Take what can be taken from what came in; False if more must come first."""
        if "dataReceived" in vars(self):
            # Somebody took the connection over in the middle of this read: the rest is theirs.
            self.dataReceived(self.clearLineBuffer())
            return False
        if self.phase is Phase.BODY:
            self._heard = self._hub.clock.seconds()
            self.rawDataReceived(self.clearLineBuffer())
            return True
        if self.phase is Phase.BUSY or (self.phase is Phase.IDLE and self._full):
            if len(self._inbox) > READ_AHEAD:
                self._networkProducer.pauseProducing()
            return False
        return self.phase is not Phase.ENDING and self._take_head()

    def pauseProducing(self) -> None:
        """The client does not read its answers: it gets no more of them for now."""
        self._full = True
        super().pauseProducing()  # type: ignore[no-untyped-call]

    def resumeProducing(self) -> None:
        self._full = False
        super().resumeProducing()  # type: ignore[no-untyped-call]
        if self._inbox and not self._reading:
            self._read()
        if self._input_ended:
            self._close_if_all_is_answered()

    def clearLineBuffer(self) -> bytes:
        """What came in and was not taken yet; it is forgotten here."""
        data = bytes(self._inbox)
        self._inbox.clear()
        self._searched = 0
        return data

    def discard_input(self) -> None:
        """The answer under way is the last: what else comes is dropped, so that an end is always noticed."""
        self._deaf = True
        if self._input_ended:
            self._close()
        self._inbox.clear()
        self._networkProducer.resumeProducing()

    # The head.

    def _take_head(self) -> bool:
        inbox = self._inbox
        settings = self._hub.settings
        if self.phase is Phase.IDLE:
            while inbox.startswith(b"\r\n"):  # RFC 9112, section 2.2
                del inbox[:2]
            if not inbox or (len(inbox) == 1 and inbox[0] == 0x0D):
                return False
            self._enter(Phase.HEAD, settings.head_timeout)
        try:
            end = find_head(inbox, self._searched, settings.max_head)
            if end is None:
                self._searched = max(0, len(inbox) - 3)
                return False
            lines = bytes(inbox[:end]).split(b"\r\n")
            check_lines(lines)
        except HTTPError as error:
            self.refuse(error)
            return False
        del inbox[: end + 4]
        self._searched = 0
        for line in (*lines, b""):
            self.lineReceived(line)  # type: ignore[no-untyped-call]
            if self._ended:
                break
        return True

    @property
    def _ended(self) -> bool:
        return self.phase is Phase.ENDING

    def allHeadersReceived(self) -> None:
        request = self.requests[-1]
        settings = self._hub.settings
        # By names in bytes: for others twisted.web decodes the values, which need not be UTF-8.
        self._limit = body_limit(settings, (request.getHeader(b"content-type") or b"").decode("latin-1"))
        codings = request.requestHeaders.getRawHeaders(b"transfer-encoding")
        if codings and (self._version != b"HTTP/1.1" or [each.lower() for each in codings] != [b"chunked"]):
            # RFC 9112, section 6.1: anything else could be read differently by a proxy before us.
            self.refuse(HTTPError(400, "Transfer-Encoding is `chunked` or absent"))
        elif self.length and self.length > self._limit:
            self.refuse(self._too_large())
        elif self.length and self._state.bodies + self.length > settings.max_body_total:
            self.refuse(self._too_many())
        else:
            super().allHeadersReceived()  # type: ignore[no-untyped-call]
            if self.length != 0:
                self._began = self._heard = self._hub.clock.seconds()
                self._enter(Phase.BODY, _BODY_CHECK)
            return

    # The body.

    def body_came(self, size: int) -> bool:
        """Count `size` bytes of a body; False if they are to be dropped."""
        if self.phase is Phase.ENDING:
            return False
        self._body += size
        self._state.bodies += size
        if self._body > self._limit:
            self.refuse(self._too_large())
            return False
        if self._state.bodies > self._hub.settings.max_body_total:
            self.refuse(self._too_many())
            return False
        return True

    def _too_large(self) -> HTTPError:
        return HTTPError(413, f"the body is larger than {self._limit} bytes")

    def _too_many(self) -> HTTPError:
        return HTTPError(503, "too many large requests at once; try again")

    def _forget_body(self) -> None:
        self._state.bodies -= self._body
        self._body = 0

    def _finishRequestBody(self, data: bytes) -> None:
        self._inbox[:0] = data
        self.allContentReceived()

    # The answer.

    def allContentReceived(self) -> None:
        if self.phase is not Phase.ENDING:
            self._enter(Phase.BUSY, LAST_ANSWER if self._input_ended else 0)
            super().allContentReceived()  # type: ignore[no-untyped-call]

    def requestDone(self, request: Any) -> None:
        self._forget_body()
        if self.persistent:
            self._wait_for_request()
        else:
            self._enter(Phase.ENDING, LINGER)
        super().requestDone(request)  # type: ignore[no-untyped-call]
        if self._inbox and not self._reading:
            self._read()
        if self._input_ended:
            self._close_if_all_is_answered()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(HTTPError(400, "this is not HTTP/1.1 as RFC 9112 has it"))

    def refuse(self, error: HTTPError) -> None:
        """Answer instead of the site, and end the connection so that the client gets to read it."""
        if self.phase is Phase.ENDING:
            return
        answer = answer_of(error, with_body=getattr(self, "_command", b"") != b"HEAD")
        self._end()
        self._networkProducer.resumeProducing()
        self._networkProducer.unregisterProducer()
        self.transport.write(answer)
        if isinstance(self.transport, tcp.Connection) and not self.transport.TLS:
            self.transport.loseWriteConnection()
        else:  # TLS goes on reading until the peer has said goodbye too
            self.transport.loseConnection()
        self._enter(Phase.ENDING, LINGER)
