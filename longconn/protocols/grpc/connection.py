"""One HTTP/2 connection that carries calls of gRPC (RFC 9113; `doc/PROTOCOL-HTTP2.md` in grpc/grpc).

The `h2` library has the states of streams, the settings and the compression of headers. Frames are
cut, counted and in part written by `longconn.wire.http2`: what the library has no form for (a GOAWAY
after which calls go on), and what it would be slow at (DATA).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from h2 import events
from h2.exceptions import ProtocolError
from hpack.exceptions import HPACKError

from longconn.core.hub import log
from longconn.protocols.grpc.call import Call
from longconn.protocols.grpc.lifetime import Lifetime
from longconn.protocols.grpc.limits import MAX_STREAMS
from longconn.wire import http2
from longconn.wire.grpc import ACCEPT_ENCODING, Metadata, StatusCode, StatusError, trailers, write_metadata
from longconn.wire.grpc_request import NotGRPC, read_request
from longconn.wire.http2 import ErrorCode, HTTP2Error
from longconn.wire.http2_fields import MalformedError, check_request, check_trailers

if TYPE_CHECKING:
    from longconn.protocols.grpc.factory import GrpcFactory

_OK = (b":status", b"200")
_TYPE = (b"content-type", b"application/grpc")
_ACCEPTED = (b"grpc-accept-encoding", ACCEPT_ENCODING)
#: Bytes of headers that the calls of one connection may have: compressed, a few bytes may stand for a thousand.
_MOST_HEADS = 4 * 1024 * 1024
#: Of the room for messages that are received, the part of one connection.
_SHARE = 4
#: Characters of a path that are told back.
_LONGEST_PATH = 200
#: What is read in one turn of the reactor, so that others have theirs: some milliseconds' work. A frame counts as
#: one; of data, that somebody may act on, as more; one that may begin a call by the size of its headers.
_SLICE = 512
_OF_DATA = 4
_OF_HEADERS, _HEADERS_BYTES = 16, 4


class GrpcProtocol(Lifetime):
    """The server's side of a connection."""

    factory: GrpcFactory

    # Reading.

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        self._heard = self.hub.clock.seconds()
        self._frames.feed(data)
        if not self._resting:
            self._read()

    def _read(self) -> None:
        """Act on what came, up to a limit."""
        self.sender.hold()
        self._allow_for_sent()
        left = _SLICE
        try:
            for kind, flags, stream, frame in self._frames:
                self._on_frame(kind, flags, stream, frame)
                if self._over:
                    return
                left -= _cost(kind, len(frame))
                if left <= 0:
                    self._rest()
                    break
        except HTTP2Error as error:
            self._fail(error.code, str(error))
        except ProtocolError as error:
            code = ErrorCode(error.error_code)
            if isinstance(error.__context__, HPACKError) and code is ErrorCode.PROTOCOL_ERROR:
                code = ErrorCode.COMPRESSION_ERROR  # RFC 9113, section 4.3
            self._fail(code, str(error), "HTTP/2 does not allow that")
        except Exception:  # of the library, for what nobody thought of
            log.exception("what came from %s could not be read as HTTP/2", self.address)
            self._fail(ErrorCode.INTERNAL_ERROR, "internal error")
        else:
            self.sender.flush()

    def _rest(self) -> None:
        """Read no further until others had their turn."""
        transport: Any = self.transport
        self._resting = True
        transport.pauseProducing()
        self.factory.turns.soon(self._go_on)

    def _go_on(self) -> None:
        self._resting = False
        if not self._over:
            self._read()
        if not self._resting:
            transport: Any = self.transport
            transport.resumeProducing()

    def _allow_for_sent(self) -> None:
        sent, self.sender.sent_frames = self.sender.sent_frames, 0
        if sent:
            self._limits.sent(sent)

    def _on_frame(self, kind: int, flags: int, stream: int, frame: bytes) -> None:
        if kind >= 0:
            self._limits.check(kind, flags, len(frame) - http2.HEAD)
            if not self._settled:
                if kind != http2.SETTINGS or flags & http2.ACK:
                    raise HTTP2Error(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
                self._is_settled()
            if kind == http2.SETTINGS and flags & http2.ACK and len(frame) > http2.HEAD:
                raise HTTP2Error(ErrorCode.FRAME_SIZE_ERROR, "settings in an acknowledgement")  # section 6.5
            if kind == http2.GOAWAY:
                _check_goaway(stream, len(frame) - http2.HEAD, self._frames.in_block)
                # The peer opens no further streams, and wants none from us. The library would end those that are open.
                return
            if kind in (http2.SETTINGS, http2.WINDOW_UPDATE):
                frame = http2.cleaned(kind, frame)
        for event in self._library.receive_data(frame):
            act = _ACTIONS.get(type(event))
            if act is not None:
                act(self, event)
        self._pass_on()

    # What the library tells.

    def _on_request(self, event: Any) -> None:
        stream_id: int = event.stream_id
        if len(self.calls) >= MAX_STREAMS or (self._last is not None and stream_id > self._last):
            self._break(stream_id, ErrorCode.REFUSED_STREAM)
            return
        try:
            check_request(event.headers)
            request = read_request(event.headers)
            handler = self.factory.services.get(request.path)
            if handler is None:
                raise StatusError(StatusCode.UNIMPLEMENTED, f"there is no method {request.path[:_LONGEST_PATH]}")
            head_size = sum([len(name) + len(value) for name, value in event.headers])
            if self._heads + head_size > _MOST_HEADS:
                raise StatusError(StatusCode.RESOURCE_EXHAUSTED, "the calls under way have too much metadata")
        except MalformedError as error:
            self._on_malformed(stream_id, error)
        except NotGRPC as error:
            headers = [(b":status", b"%d" % error.status), *error.headers, (b"content-type", b"text/plain")]
            self._refuse(stream_id, headers, event)
        except StatusError as error:
            self._refuse(stream_id, [_OK, _TYPE, _ACCEPTED, *trailers(error.code, error.message)], event)
        else:
            ended = event.stream_ended is not None
            self._heads += head_size
            call = Call(self, request, stream_id, self._library.streams[stream_id], ended, head_size)
            self.calls[stream_id] = call
            call.run(handler)

    def _refuse(self, stream_id: int, headers: list[tuple[bytes, bytes]], event: Any) -> None:
        """Answer a request of which there is no call."""
        self._library.send_headers(stream_id, headers, end_stream=True)
        if event.stream_ended is None:
            self._library.reset_stream(stream_id, ErrorCode.NO_ERROR)

    def _on_trailers(self, event: Any) -> None:
        """gRPC has none in a request; what they say is not asked (RFC 9113, section 8.1)."""
        try:
            check_trailers(event.headers)
        except MalformedError as error:
            self._on_malformed(event.stream_id, error)

    def _on_malformed(self, stream_id: int, error: MalformedError) -> None:
        log.debug("a request from %s is malformed: %.200s", self.address, error)
        self._break(stream_id, ErrorCode.PROTOCOL_ERROR)
        call = self.calls.get(stream_id)
        if call is not None:
            self._forget(call)
            call.lost()

    def _break(self, stream_id: int, code: ErrorCode) -> None:
        """Reset a stream for what the peer did."""
        self._limits.reset()
        self._library.reset_stream(stream_id, code)

    def _on_data(self, event: Any) -> None:
        size: int = event.flow_controlled_length
        self._credit.received(size)
        call = self.calls.get(event.stream_id)
        if call is not None:
            call.on_data(event.data, size, event.stream_ended is not None)

    def _on_end(self, event: Any) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            call.on_half_close()

    def _on_reset(self, event: Any) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            self._forget(call)
            call.lost()
        if not event.remote_reset:
            # The library has, for a fault of the peer's (CVE-2025-8671).
            self._limits.reset()

    def _on_window(self, event: Any) -> None:
        call = self.calls.get(event.stream_id)
        if call is not None:
            call.outlet.wake()

    def _on_settings(self, event: Any) -> None:
        for call in list(self.calls.values()):  # the windows of all may have changed
            call.outlet.wake()

    # What calls ask.

    def open_window(self, stream_id: int, amount: int) -> None:
        """A call's sender may send `amount` bytes more."""
        self._library.increment_flow_control_window(amount, stream_id)
        self.sender.sent_frames += 1
        self._pass_on()

    def keep(self, amount: int) -> bool:
        """Bytes more that are kept for a call, or fewer; False if that is too much."""
        self._kept += amount
        budget = self.factory.budget
        return budget.keep(amount) and self._kept <= max(budget.limit // _SHARE, self.max_receive)

    def hold(self, amount: int) -> None:
        """Bytes more that wait for a handler, or fewer."""
        self._credit.hold(amount)

    def send_headers(self, call: Call, metadata: Metadata) -> None:
        """The response's headers ("Response-Headers")."""
        headers = [_OK, _TYPE, _ACCEPTED]
        if call.compresses:
            headers.append((b"grpc-encoding", b"gzip"))
        self._library.send_headers(call.stream_id, headers + write_metadata(metadata))
        self.sender.sent_frames += 1
        self._pass_on()

    def send_trailers(self, call: Call, error: StatusError) -> None:
        """The status ("Trailers", or "Trailers-Only"), and the end of the stream."""
        try:
            headers = trailers(error.code, error.message, (*error.metadata, *call.trailing))
        except ValueError as wrong:
            log.error("the trailing metadata of %s: %s", call.path, wrong)
            headers = trailers(StatusCode.UNKNOWN, "internal error")
        if not call.outlet.started:
            headers = [_OK, _TYPE, _ACCEPTED, *headers]
        self._library.send_headers(call.stream_id, headers, end_stream=True)
        if not call.half_closed:
            # "Early Server Closure": the client need not send the rest.
            self._library.reset_stream(call.stream_id, ErrorCode.NO_ERROR)
        self._pass_on()
        self._forget(call)

    def reset(self, call: Call, code: ErrorCode) -> None:
        """End a stream in the middle of a message."""
        self._library.reset_stream(call.stream_id, code)
        self._pass_on()
        self._forget(call)


def _cost(kind: int, size: int) -> int:
    """What a frame counts against `_SLICE`."""
    if kind in (http2.HEADERS, http2.CONTINUATION):
        return _OF_HEADERS + size // _HEADERS_BYTES
    return _OF_DATA if kind == http2.DATA else 1


def _check_goaway(stream: int, length: int, in_block: bool) -> None:
    """Raises HTTP2Error for one that cannot be (RFC 9113, sections 4.3 and 6.8)."""
    if in_block:
        raise HTTP2Error(ErrorCode.PROTOCOL_ERROR, "GOAWAY within a block of headers")
    if stream:
        raise HTTP2Error(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
    if length < 8:
        raise HTTP2Error(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is too short")


_ACTIONS: dict[type, Any] = {
    events.RequestReceived: GrpcProtocol._on_request,
    events.TrailersReceived: GrpcProtocol._on_trailers,
    events.DataReceived: GrpcProtocol._on_data,
    events.StreamEnded: GrpcProtocol._on_end,
    events.StreamReset: GrpcProtocol._on_reset,
    events.WindowUpdated: GrpcProtocol._on_window,
    events.RemoteSettingsChanged: GrpcProtocol._on_settings,
    events.PingAckReceived: GrpcProtocol._on_pong,
}
