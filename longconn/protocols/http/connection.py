"""One HTTP/1.1 connection (RFC 9112): twisted.web's, with the limits that it does not have.

A head is collected here until it is whole, within its size and its time. Only then does twisted.web
parse it. A bad head or body is refused by an answer that reaches the client: this side closes its half of
the connection, and for a while reads and drops further bytes of the client. A reset would destroy the
answer on its way (RFC 9112, section 9.6).

    IDLE ─first byte→ HEAD ─whole→ BODY ─whole→ BUSY ─answered→ IDLE …
      any of them ─refused, or answered for the last time→ ENDING
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers
from zope.interface import implementer

from longconn.core.command_queue import InputMeter
from longconn.core.hub import Hub
from longconn.core.slices import CHUNK_LINE, REQUEST
from longconn.protocols.connection.peer import counted_host
from longconn.protocols.connection.set_up import log_given_way, notice_dead_peer
from longconn.protocols.http.chunks import ChunkedBody
from longconn.protocols.http.errors import HTTPError, answer_of
from longconn.protocols.http.request import MAX_HEADERS, api_key, body_limit, check_lines, find_head

#: Seconds without a byte of a body; and the lowest rate of a body in bytes a second, after a grace in seconds.
BODY_IDLE = 30.0
BODY_GRACE = 60.0
BODY_RATE = 4096
_BODY_CHECK = 5.0
#: Seconds and bytes for which a client that was refused is still read, so that it gets the answer.
LINGER = 10.0
LINGER_BYTES = 32 * 1024 * 1024
#: Seconds for the last answer on an idle connection whose place is needed.
_LAST_SECOND = 1.0
#: Seconds for an answer to a client that sends no more: a little longer than the longest poll.
LAST_ANSWER = 65.0
#: Seconds after the end of the input until the client is asked whether it is there, and between two such questions.
ASK_AFTER = 1.0
_QUESTIONS = 2
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: The bodies of one address may have this part of `max_body_total` (1 / _SHARE). Another part of it is for those of the
#: server API alone (1 / _API_FLOOR).
_SHARE = 4
_API_FLOOR = 8
#: Bytes of further requests that are read while one is under way.
READ_AHEAD = 16 * 1024
#: Bytes of a chunked body that are decoded at a time: they may hold a thousand chunks.
_CHUNKED_PART = 2048


class Phase(enum.Enum):
    """The part of a request or answer that a connection waits for."""

    IDLE = "a request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    BUSY = "our answer"
    ENDING = "the end"


@dataclass(eq=False, slots=True)
class SiteState:
    """The state that the connections of a site share."""

    hub: Hub
    #: connections on which no request is under way
    idle: set[HTTPConnection] = field(default_factory=set)
    #: bytes of the bodies of requests that are under way: of all, and of those by the host of the peer
    bodies: int = 0
    bodies_of: Counter[str] = field(default_factory=Counter)


@implementer(IHalfCloseableProtocol)
class HTTPConnection(HTTPChannel):
    """The connection. While a request is under way only its transport refers to it: no timer runs, and it is not
    among the site's idle ones. So an upgrade can take the transport away."""

    requests: list[Any]
    transport: Any
    _networkProducer: Any
    #: the second at which its timer ends (`Timed` in core/timers.py)
    due = 0

    def __init__(self, state: SiteState) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._state = state
        self._hub = state.hub
        self.phase = Phase.IDLE
        self._received = bytearray()
        self._searched = 0
        self._reading = False
        self._ignoring_input = False
        self._output_paused = False
        self._input_ended = False
        self._questions = 0
        self._is_api = False
        self._body = self._limit = self._discarded = 0
        self._body_began_at = self._last_byte_at = 0.0
        # Counts requests and chunks; further ones wait while it holds the connection.
        self._meter: InputMeter | None = None

    def connectionMade(self) -> None:
        self._host = counted_host(self._hub.proxies, self.transport.getPeer())
        self.count()
        self.totalHeadersSize = self._hub.settings.max_head
        notice_dead_peer(self.transport, self._hub.settings)
        self.maxHeaders = MAX_HEADERS
        super().connectionMade()  # type: ignore[no-untyped-call]
        self._enter(Phase.IDLE, self._hub.settings.http_idle_timeout)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.leave()
        self._end()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        # Both refer to this object: a reference cycle, if the transport is one of TLS.
        self._transferDecoder = None
        self.transport.unregisterProducer()

    def count(self) -> None:
        """Count the connection among those that are no client."""
        self._hub.places.add(self, self._host)

    def leave(self) -> None:
        """Stop counting the connection: it is lost, another protocol took it over, or a client streams on it."""
        if self._meter is not None:
            self._meter.stop()
            self._meter = None
        self._hub.places.remove(self)

    # Phases and their timers.

    def _enter(self, phase: Phase, timeout: float = 0) -> None:
        wheel = self._hub.wheel
        self.phase = phase
        if phase is Phase.IDLE:
            self._state.idle.add(self)
        else:
            self._state.idle.discard(self)
        if phase in (Phase.BODY, Phase.BUSY):
            self._hub.places.works(self)
        else:
            self._hub.places.waits(self)
        if timeout:
            wheel.set(self, timeout)
        else:
            wheel.clear(self)

    def _end(self) -> None:
        self._enter(Phase.ENDING)
        self._forget_body()
        self.clearLineBuffer()

    def on_due(self, now: float) -> None:
        """The timer ended: the client took too long for this phase."""
        if self.phase is Phase.IDLE:
            self.close_idle()
        elif self.phase is Phase.HEAD:
            self.refuse(HTTPError(408, f"the head took more than {self._hub.settings.head_timeout:g} seconds"))
        elif self.phase is Phase.BODY:
            longest = BODY_GRACE + self._body / BODY_RATE
            if now - self._last_byte_at >= BODY_IDLE or now - self._body_began_at >= longest:
                self.refuse(HTTPError(408, "the body came too slowly"))
            else:
                self._enter(Phase.BODY, _BODY_CHECK)
        elif self.phase is Phase.BUSY and self._questions:
            self._questions -= 1
            if not self.requests[0].startedWriting:
                self.transport.write(_CONTINUE)
            self._await_last_answer()
        else:
            self.transport.abortConnection()

    def give_way(self) -> None:
        """For the hub's places. A request that is under way gets no answer."""
        log_given_way(self.transport.getPeer())
        if self.phase is Phase.IDLE and not self._output_paused:
            self._close(_LAST_SECOND)
        else:
            self.transport.abortConnection()

    def close_idle(self) -> None:
        """Close, if no request is under way. The client gets some seconds to read the last answer."""
        if self.phase is Phase.IDLE:
            self._close()

    def _close(self, linger: float = LINGER) -> None:
        self._end()
        self._enter(Phase.ENDING, linger)
        self.loseConnection()  # type: ignore[no-untyped-call]

    # Reading.

    def readConnectionLost(self) -> None:
        """The client sends no more, but may still read the answers to its requests (`nc -N`)."""
        self._input_ended = True
        if self.phase is Phase.ENDING:  # the client has read the refusal
            self.transport.loseConnection()
        elif self._ignoring_input:  # a stream ends when its client ends its side
            self._close()
        elif self.phase is Phase.BUSY:
            self._await_last_answer()
        else:
            self._close_if_all_is_answered()

    def _await_last_answer(self) -> None:
        self._enter(Phase.BUSY, ASK_AFTER if self._questions else LAST_ANSWER)

    def ask_at_end(self) -> None:
        """If the client sends no more before the answer to its request, send it 100 twice (RFC 9110, section 15.2.1).

        A client that has closed the connection looks like one that has closed one direction of it. The kernel of the
        former answers the first bytes with a reset. The reactor, which does not read any more, notices that when it
        writes the second ones. The latter ignores the status.
        """
        if self.requests[0].clientproto == b"HTTP/1.1" and self.phase is Phase.BUSY:
            self._questions = _QUESTIONS
            if self._input_ended:
                self._await_last_answer()

    def _close_if_all_is_answered(self) -> None:
        """After the end of the input: close, unless a request is under way or waits for earlier answers to go out."""
        waits = self._reading or ((self._output_paused or self._held) and self._received)
        if not waits and self.phase not in (Phase.BUSY, Phase.ENDING):
            self._close()

    def writeConnectionLost(self) -> None:
        """Nothing to do: this side closes its half only to end (`refuse`)."""

    def dataReceived(self, data: bytes) -> None:
        if self.phase is Phase.ENDING:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.transport.loseConnection()
            return
        if self._ignoring_input:
            return
        self._received += data
        if self._meter is not None:
            self._meter.on_read()
        if not self._reading:
            self._read()

    def _read(self) -> None:
        self._reading = True
        try:
            while self._received and self._advance():
                pass
        finally:
            self._reading = False

    def _advance(self) -> bool:
        """Process a part of the received bytes; False if more must come first."""
        if "dataReceived" in vars(self):
            # Another protocol took the connection over in the middle of this read and gets the rest.
            self.dataReceived(self.clearLineBuffer())
            return False
        if self._held:
            if len(self._received) > READ_AHEAD:
                self._networkProducer.pauseProducing()  # an answer's end may have resumed it
            return False
        if self.phase is Phase.BODY:
            self._last_byte_at = self._hub.clock.seconds()
            self._hub.places.works(self)
            self.rawDataReceived(self._take_body())
            return True
        if self.phase is Phase.BUSY or (self.phase is Phase.IDLE and self._output_paused):
            if len(self._received) > READ_AHEAD:
                self._networkProducer.pauseProducing()
            return False
        return self.phase is not Phase.ENDING and self._take_head()

    def _take_body(self) -> bytes:
        """What is decoded next. Of a chunked body it is a part, since chunks cost more than their bytes."""
        if self.length is not None:
            return self.clearLineBuffer()
        part = bytes(self._received[:_CHUNKED_PART])
        del self._received[:_CHUNKED_PART]
        self._count(CHUNK_LINE * part.count(b"\n"))
        return part

    @property
    def _held(self) -> bool:
        return self._meter is not None and self._meter.held

    def _count(self, cost: int) -> None:
        """Count what was read. Over the connection's share of a turn, nothing is processed until the next one."""
        self._make_meter().count(cost)

    def _take_request(self) -> bool:
        """Whether this turn has room for a request, which is counted; otherwise it waits."""
        if self._meter is None and self._hub.slices.take(REQUEST):
            return True
        if self._make_meter().take(REQUEST):
            return True
        self._hub.wheel.clear(self)
        self._hub.places.works(self)
        return False

    def _make_meter(self) -> InputMeter:
        if self._meter is None:
            hub = self._hub
            self._meter = InputMeter(hub.clock, None, hub.slices, self._host, self, self._go_on)
        return self._meter

    @property
    def input_waits(self) -> bool:
        """For the meter."""
        return self._held

    def pause_reading(self) -> None:
        """For the meter."""
        self._networkProducer.pauseProducing()

    def resume_reading(self) -> None:
        """For the meter."""
        self._networkProducer.resumeProducing()

    def pauseProducing(self) -> None:
        """The client does not read its answers: no further request is processed for now."""
        self._output_paused = True
        super().pauseProducing()  # type: ignore[no-untyped-call]

    def resumeProducing(self) -> None:
        self._output_paused = False
        super().resumeProducing()  # type: ignore[no-untyped-call]
        self._go_on()

    def _go_on(self) -> None:
        """Process the bytes that waited for the end of an answer, or for the client to read."""
        if self._received and not self._reading:
            self._read()
        if self._input_ended:
            self._close_if_all_is_answered()

    def clearLineBuffer(self) -> bytes:
        """Return the bytes that were received and not processed yet, and forget them."""
        data = bytes(self._received)
        self._received.clear()
        self._searched = 0
        return data

    def discard_input(self) -> None:
        """The answer under way is the last: drop further input, but read it, so that its end is noticed."""
        self._ignoring_input = True
        if self._input_ended:
            self._close()
        self._received.clear()
        self._networkProducer.resumeProducing()

    # The head.

    def _take_head(self) -> bool:
        received = self._received
        settings = self._hub.settings
        if self.phase is Phase.IDLE:
            while received.startswith(b"\r\n"):  # RFC 9112, section 2.2
                del received[:2]
            if not received or (len(received) == 1 and received[0] == 0x0D):
                return False
            self._enter(Phase.HEAD, settings.head_timeout)
        try:
            end = find_head(received, self._searched, settings.max_head)
            if end is None:
                self._searched = max(0, len(received) - 3)
                return False
            if not self._take_request():
                return False
            lines = bytes(received[:end]).split(b"\r\n")
            check_lines(lines)
        except HTTPError as error:
            self.refuse(error)
            return False
        del received[: end + 4]
        self._searched = 0
        for line in (*lines, b""):
            self.lineReceived(line)  # type: ignore[no-untyped-call]
            if self._refused:
                break
        return True

    @property
    def _refused(self) -> bool:
        return self.phase is Phase.ENDING

    def allHeadersReceived(self) -> None:
        request = self.requests[-1]
        settings = self._hub.settings
        # By names in bytes: for others twisted.web decodes the values, which need not be UTF-8.
        self._limit = body_limit(settings, (request.getHeader(b"content-type") or b"").decode("latin-1"))
        if self._version == b"HTTP/1.1" and len(request.requestHeaders.getRawHeaders(b"host") or ()) != 1:
            # RFC 9112, section 3.2. It is not served, so its body is not waited for.
            self.refuse(HTTPError(400, "a request has one Host header"))
            return
        codings = request.requestHeaders.getRawHeaders(b"transfer-encoding")
        if codings and (self._version != b"HTTP/1.1" or [each.lower() for each in codings] != [b"chunked"]):
            # RFC 9112, section 6.1: anything else could be read differently by a proxy before us.
            self.refuse(HTTPError(400, "Transfer-Encoding is `chunked` or absent"))
            return
        key = settings.api_key.encode("utf-8", "surrogateescape")
        path: Any = self._path  # the target of the request line
        self._is_api = bool(key) and path.startswith(b"/api/") and compare_digest(key, _api_key(request))
        if self._admit(self.length or 0, self.length or 0):
            if codings:
                self._transferDecoder = ChunkedBody(
                    request.handleContentChunk, self._finishRequestBody, self._admit_chunk
                )
            super().allHeadersReceived()  # type: ignore[no-untyped-call]
            if self.length != 0:
                self._body_began_at = self._last_byte_at = self._hub.clock.seconds()
                self._enter(Phase.BODY, _BODY_CHECK)

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        """Whether the connection stays open after the answer (RFC 9112, section 9.3): not where it is one too many."""
        values = request.requestHeaders.getRawHeaders(b"connection") or []
        options = {each.strip().lower() for value in values for each in value.split(b",")}
        closes = b"close" in options or self._hub.places.is_crowded(self._host)
        if version == b"HTTP/1.1" and closes:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return version == b"HTTP/1.1" and not closes

    # The body.

    def count_body(self, size: int) -> bool:
        """Count `size` bytes of a body; False if the request is refused and they are to be dropped."""
        if self.phase is Phase.ENDING:
            return False
        self._body += size
        self._state.bodies += size
        self._state.bodies_of[self._host] += size
        return self._admit(self._body)

    def _admit_chunk(self, size: int) -> bool:
        """Whether a chunk of `size` bytes may follow."""
        return self._body + size <= self._limit or self._admit(self._body + size)

    def _admit(self, size: int, further: int = 0) -> bool:
        """Whether the limits allow a body of `size` bytes, of which `further` are not counted yet; else refuse."""
        if size > self._limit:
            self.refuse(HTTPError(413, f"the body is larger than {self._limit} bytes"))
        elif size and not self._has_room(size, further):
            self.refuse(HTTPError(503, "too many large requests at once; try again"))
        else:
            return True
        return False

    def _has_room(self, size: int, further: int) -> bool:
        """Whether `max_body_total` has room. An address may have one body that is larger than its share."""
        settings, state = self._hub.settings, self._state
        total, of_address = state.bodies + further, state.bodies_of[self._host] + further
        room = settings.max_body_total
        if self._is_api:
            return total <= room
        if settings.api_key:
            room -= room // _API_FLOOR
        return total <= room and (not self._host or of_address == size or of_address <= room // _SHARE)

    def _forget_body(self) -> None:
        if self._body:
            self._state.bodies -= self._body
            self._state.bodies_of[self._host] -= self._body
            if not self._state.bodies_of[self._host]:
                del self._state.bodies_of[self._host]
            self._body = 0

    def _finishRequestBody(self, data: bytes) -> None:
        self._received[:0] = data
        self.allContentReceived()

    # The answer.

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Write a head in one piece; twisted.web writes each name and value by itself."""
        lines = [b"%b %b %b" % (version, code, reason)]
        lines += [b"%b: %b" % (name, value) for name, values in headers.getAllRawHeaders() for value in values]
        self.transport.write(b"\r\n".join([*lines, b"", b""]))

    def allContentReceived(self) -> None:
        if self.phase is not Phase.ENDING:
            self._enter(Phase.BUSY, LAST_ANSWER if self._input_ended else 0)
            self._questions = 0
            super().allContentReceived()  # type: ignore[no-untyped-call]

    def requestDone(self, request: Any) -> None:
        self._forget_body()
        if self.persistent:
            self._enter(Phase.IDLE, self._hub.settings.http_idle_timeout)
        else:
            self._enter(Phase.ENDING, LINGER)
        super().requestDone(request)  # type: ignore[no-untyped-call]
        self._go_on()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(HTTPError(400, "this is not HTTP/1.1 as RFC 9112 has it"))

    def refuse(self, error: HTTPError) -> None:
        """Answer instead of the site, and end the connection in a way that lets the client read the answer."""
        if self.phase is Phase.ENDING:
            return
        answer = answer_of(error, with_body=getattr(self, "_command", b"") != b"HEAD")
        self._end()
        self._networkProducer.resumeProducing()
        self._networkProducer.unregisterProducer()
        self.transport.write(answer)
        if isinstance(self.transport, tcp.Connection) and not self.transport.TLS:
            self.transport.loseWriteConnection()
        else:  # TLS goes on reading until the peer has sent its close_notify
            self.transport.loseConnection()
        self._enter(Phase.ENDING, LINGER)


def _api_key(request: Any) -> bytes:
    own, authorization = (request.getHeader(each) or b"" for each in (b"x-api-key", b"authorization"))
    return api_key(own.decode("utf-8", "replace"), authorization.decode("utf-8", "replace"))
