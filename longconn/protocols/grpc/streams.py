"""The streams of one connection: what comes on them is for calls, and what calls ask goes out on them.

The rules are those of `doc/PROTOCOL-HTTP2.md` in grpc/grpc, whose sections are named in quotes.
"""

from __future__ import annotations

from typing import Any

from h2 import events

from longconn.core.hub import log
from longconn.protocols.grpc.call import GrpcCall
from longconn.protocols.grpc.http2_connection import HTTP2Connection
from longconn.protocols.grpc.limits import MAX_STREAMS
from longconn.wire.grpc import ACCEPT_ENCODING, trailers, write_metadata
from longconn.wire.grpc_request import NotGRPC, read_request
from longconn.wire.grpc_status import Metadata, StatusCode, StatusError
from longconn.wire.http2 import ErrorCode
from longconn.wire.http2_fields import HeaderError, check_request, check_trailers, content_length

_OK = (b":status", b"200")
_TYPE = (b"content-type", b"application/grpc")
_ACCEPTED = (b"grpc-accept-encoding", ACCEPT_ENCODING)
#: Bytes of headers that the calls of one connection may have: compressed, a few bytes may stand for a thousand.
_MOST_HEADS = 4 * 1024 * 1024
#: Of the room for messages that are received, the part of one connection.
_SHARE = 4
#: Characters of a path that are told back.
_LONGEST_PATH = 200


class Streams(HTTP2Connection):
    """A connection, but for the reading of frames (`longconn.protocols.grpc.connection.GrpcProtocol`)."""

    # What the library tells.

    def _take(self, frame: bytes) -> None:
        """Give the library a whole frame, and act on what that means."""
        for event in self._library.receive_data(frame):
            act = _ACTIONS.get(type(event))
            if act is not None:
                act(self, event)
        self._pass_on()

    def _on_request(self, event: Any) -> None:
        stream_id: int = event.stream_id
        ended = event.stream_ended is not None
        if len(self.calls) >= MAX_STREAMS or (self._last is not None and stream_id > self._last):
            self._break(stream_id, ErrorCode.REFUSED_STREAM)
            return
        try:
            check_request(event.headers)
            length = content_length(self._library.lengths)
            _check_length(length, ended)
            request = read_request(event.headers)
            handler = self.factory.services.get(request.path)
            if handler is None:
                raise StatusError(StatusCode.UNIMPLEMENTED, f"there is no method {request.path[:_LONGEST_PATH]}")
            head_size = sum([len(name) + len(value) for name, value in event.headers])
            if self._heads + head_size > _MOST_HEADS:
                raise StatusError(StatusCode.RESOURCE_EXHAUSTED, "the calls under way have too much metadata")
        except HeaderError as error:
            self._on_malformed(stream_id, error)
        except NotGRPC as error:
            headers = [(b":status", b"%d" % error.status), *error.headers, (b"content-type", b"text/plain")]
            self._refuse(stream_id, headers, event)
        except StatusError as error:
            self._refuse(stream_id, [_OK, _TYPE, _ACCEPTED, *trailers(error.code, error.message)], event)
        else:
            self._heads += head_size
            call = GrpcCall(self, request, stream_id, self._library.streams[stream_id], ended, head_size)
            call.to_come = length
            self.calls[stream_id] = call
            call.run(handler)

    def _refuse(self, stream_id: int, headers: list[tuple[bytes, bytes]], event: Any) -> None:
        """Answer a request of which there is no call."""
        self._library.send_headers(stream_id, headers, end_stream=True)
        if event.stream_ended is None:
            self._library.reset_stream(stream_id, ErrorCode.NO_ERROR)

    def _on_trailers(self, event: Any) -> None:
        """gRPC has none in a request; what they say is not asked (RFC 9113, section 8.1)."""
        call = self.calls.get(event.stream_id)
        try:
            check_trailers(event.headers)
            if call is not None:
                _check_length(call.to_come, ended=True)
        except HeaderError as error:
            self._on_malformed(event.stream_id, error)

    def _on_malformed(self, stream_id: int, error: HeaderError) -> None:
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
        if call is None:
            return
        ended = event.stream_ended is not None
        if call.to_come is not None:
            call.to_come -= len(event.data)
            try:
                _check_length(call.to_come, ended)
            except HeaderError as error:
                self._on_malformed(event.stream_id, error)
                return
        call.on_data(event.data, size, ended)

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

    def send_headers(self, call: GrpcCall, metadata: Metadata) -> None:
        """The response's headers ("Response-Headers")."""
        headers = [_OK, _TYPE, _ACCEPTED]
        if call.compresses:
            headers.append((b"grpc-encoding", b"gzip"))
        self._library.send_headers(call.stream_id, headers + write_metadata(metadata))
        self.sender.sent_frames += 1
        self._pass_on()

    def send_trailers(self, call: GrpcCall, error: StatusError) -> None:
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

    def reset(self, call: GrpcCall, code: ErrorCode) -> None:
        """End a stream in the middle of a message."""
        self._library.reset_stream(call.stream_id, code)
        self._pass_on()
        self._forget(call)


def _check_length(to_come: int | None, ended: bool) -> None:
    """Raises HeaderError for a body that is not what its `content-length` says (RFC 9113, section 8.1.1)."""
    if to_come is not None and (to_come < 0 or (ended and to_come)):
        raise HeaderError("the body is not as long as content-length says")


_ACTIONS: dict[type, Any] = {
    events.RequestReceived: Streams._on_request,
    events.TrailersReceived: Streams._on_trailers,
    events.DataReceived: Streams._on_data,
    events.StreamEnded: Streams._on_end,
    events.StreamReset: Streams._on_reset,
    events.WindowUpdated: Streams._on_window,
    events.RemoteSettingsChanged: Streams._on_settings,
    events.PingAckReceived: Streams._on_pong,
}
