"""The streams of one connection: each request becomes a call, and the frames of its stream reach that call.

The rules are those of `doc/PROTOCOL-HTTP2.md` in grpc/grpc and of RFC 9113.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from h2 import events

from longconn.core.client import Caller
from longconn.core.errors import CommandError
from longconn.core.hub import Hub
from longconn.core.log import about, log
from longconn.protocols.grpc.call import CallContext, GrpcCall, Services
from longconn.protocols.grpc.limits import MAX_STREAMS, FrameLimits
from longconn.protocols.grpc.receiving import ConnectionWindow
from longconn.protocols.grpc.sending import Sender
from longconn.wire.grpc import response_headers, trailers
from longconn.wire.grpc_request import NotGRPC, read_request
from longconn.wire.grpc_status import StatusCode, StatusError, status_of_error
from longconn.wire.http2 import ErrorCode
from longconn.wire.http2_fields import HeaderError, check_body_left, check_request, check_trailers, content_length

#: Bytes of headers that the calls of one connection may have. Compressed, a few bytes may stand for a thousand.
_MAX_HEADS = 4 * 1024 * 1024
#: Characters of an unknown path that the answer repeats.
_MAX_PATH = 200


class GrpcStreams:
    """The calls that are under way on one connection.

    `peer` is the host and the address of the peer. `on_client` is called with 1 when a call becomes a client of the
    hub and with -1 when it ceases to be one; `on_empty` whenever the last call has ended.
    """

    def __init__(
        self,
        hub: Hub,
        peer: tuple[str, str, str],
        services: Services,
        sender: Sender,
        window: ConnectionWindow,
        limits: FrameLimits,
        on_client: Callable[[int], None],
        on_empty: Callable[[], None],
    ) -> None:
        #: the calls by the number of their stream
        self.calls: dict[int, GrpcCall] = {}
        #: the last stream that is served; None while new streams are accepted
        self.last_stream: int | None = None
        self._h2 = sender.h2
        self._services = services
        self._limits = limits
        self._sender = sender
        self._window = window
        self._address = peer[1]
        host, address, certificate = peer
        self._context = CallContext(hub, host, address, certificate, sender, window, on_client, self._on_sent)
        self._on_empty = on_empty
        # Bytes of headers of the calls under way.
        self._heads = 0

    def refuse_new(self) -> int:
        """Accept no further streams. Returns the number of the last one that is served."""
        self.last_stream = self._h2.highest_inbound_stream_id
        return self.last_stream

    def receive(self, frame: bytes) -> None:
        """Act on one whole frame. Raises the library's ProtocolError, and HTTP2Error for too many resets."""
        received: list[Any] = self._h2.receive_data(frame)
        for event in received:
            kind = type(event)
            if kind is events.DataReceived:
                self._on_data(event)
            elif kind is events.RequestReceived:
                self._on_request(event)
            elif kind is events.RemoteSettingsChanged:
                for call in list(self.calls.values()):  # the windows of all streams may have changed
                    call.outlet.on_window()
            elif kind is events.StreamReset:
                self._lose(event.stream_id)
                if not event.remote_reset:
                    # The library has reset the stream, for a fault of the peer (CVE-2025-8671).
                    self._limits.count_reset()
            elif kind is events.TrailersReceived:
                self._on_trailers(event)
            elif kind is events.StreamEnded:
                if event.stream_id in self.calls:
                    self.calls[event.stream_id].on_half_close()
            elif kind is events.WindowUpdated and event.stream_id in self.calls:
                self.calls[event.stream_id].outlet.on_window()
        self._sender.append_pending()

    def _on_request(self, event: Any) -> None:
        stream_id: int = event.stream_id
        ended = event.stream_ended is not None
        if len(self.calls) >= MAX_STREAMS or (self.last_stream is not None and stream_id > self.last_stream):
            self._reset(stream_id, ErrorCode.REFUSED_STREAM)
            return
        try:
            check_request(event.headers)
            body_left = content_length(self._h2.content_lengths)
            check_body_left(body_left, ended)
            request = read_request(event.headers)
            handler = self._services.get(request.path)
            if handler is None:
                self._context.hub.rates.count_request(Caller(self._context.host, self._address, ""))
                raise StatusError(StatusCode.UNIMPLEMENTED, f"there is no method {request.path[:_MAX_PATH]}")
            head_size = sum([len(name) + len(value) for name, value in event.headers])
            if self._heads + head_size > _MAX_HEADS:
                raise StatusError(StatusCode.RESOURCE_EXHAUSTED, "the calls under way have too much metadata")
        except HeaderError as error:
            self._reset_malformed(stream_id, error)
        except NotGRPC as error:
            headers = [(b":status", b"%d" % error.status), *error.headers, (b"content-type", b"text/plain")]
            is_head = (b":method", b"HEAD") in event.headers
            self._refuse(stream_id, headers, ended, b"" if is_head else b"%s\n" % str(error).encode())
        except (StatusError, CommandError) as error:
            status = status_of_error(error) if isinstance(error, CommandError) else error
            headers = response_headers() + trailers(status.code, status.message, status.metadata)
            self._refuse(stream_id, headers, ended)
        else:
            self._heads += head_size
            call = GrpcCall(self._context, request, self._h2.streams[stream_id], ended, head_size, body_left)
            self.calls[stream_id] = call
            call.run(handler)

    def _refuse(self, stream_id: int, headers: list[tuple[bytes, bytes]], ended: bool, body: bytes = b"") -> None:
        """Answer a request without a call. The body is left out if the peer's window has no room for it."""
        fits = 0 < len(body) <= self._h2.local_flow_control_window(stream_id)
        self._h2.send_headers(stream_id, headers, end_stream=not fits)
        if fits:
            self._h2.send_data(stream_id, body, end_stream=True)
        if not ended:
            self._h2.reset_stream(stream_id, ErrorCode.NO_ERROR)

    def _on_data(self, event: Any) -> None:
        size: int = event.flow_controlled_length
        self._window.on_received(size)
        call = self.calls.get(event.stream_id)
        if call is None:
            return
        ended = event.stream_ended is not None
        if call.body_left is not None:
            call.body_left -= len(event.data)
            try:
                check_body_left(call.body_left, ended)
            except HeaderError as error:
                self._reset_malformed(event.stream_id, error)
                return
        call.on_data(event.data, ended)

    def _on_trailers(self, event: Any) -> None:
        """Check trailers of a request. gRPC has none, and their content is ignored (RFC 9113, section 8.1)."""
        call = self.calls.get(event.stream_id)
        try:
            check_trailers(event.headers)
            if call is not None:
                check_body_left(call.body_left, ended=True)
        except HeaderError as error:
            self._reset_malformed(event.stream_id, error)

    def _reset_malformed(self, stream_id: int, error: HeaderError) -> None:
        log.debug(
            "a request from %s is malformed: %.200s",
            self._address,
            error,
            extra=about("bad_request", address=self._address, protocol="grpc"),
        )
        self._reset(stream_id, ErrorCode.PROTOCOL_ERROR)
        self._lose(stream_id)

    def _reset(self, stream_id: int, code: ErrorCode) -> None:
        """Reset a stream for the peer's fault."""
        self._limits.count_reset()
        self._h2.reset_stream(stream_id, code)

    # The end of calls.

    def _lose(self, stream_id: int) -> None:
        """A stream was reset: its call, if there is one, ends without a status."""
        call = self.calls.get(stream_id)
        if call is not None:
            self._on_sent(call)
            call.lost()

    def _on_sent(self, call: GrpcCall) -> None:
        """The last frame of a call was sent."""
        if self.calls.pop(call.stream_id, None) is not None:
            self._heads -= call.head_size
        if not self.calls:
            self._on_empty()

    def lose_all(self) -> None:
        """The connection is lost, or is closed for a reason of its own."""
        calls = list(self.calls.values())
        self.calls.clear()
        for call in calls:
            call.lost()
