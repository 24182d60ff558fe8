"""One HTTP/2 connection that carries calls of gRPC (RFC 9113): its frames are read by slices, and within limits.

The `h2` library has the states of streams, the settings and the compression of headers. Frames are
cut, counted and in part written by `longconn.wire.http2`: what the library has no form for (a GOAWAY
after which calls go on), and what it would be slow at (DATA).
"""

from __future__ import annotations

from typing import Any

from h2.exceptions import ProtocolError

from longconn.core.hub import log
from longconn.protocols.grpc.h2_adapter import explained
from longconn.protocols.grpc.streams import Streams
from longconn.wire import http2
from longconn.wire.http2 import ErrorCode, HTTP2Error

#: What is read in one turn of the reactor, so that others have theirs: some milliseconds' work. A frame counts as
#: one; of data, that somebody may act on, as more; one that may begin a call as more still, by its size.
_SLICE = 512
_OF_DATA = 4
_OF_HEADERS = 16
_BYTES_FOR_ONE = 4


class GrpcProtocol(Streams):
    """The server's side of a connection."""

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
            self._fail(*explained(error), "HTTP/2 does not allow that")
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
        self.hub.turn.soon(self._go_on)

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
            self._limits.check(kind, flags, len(frame) - http2.FRAME_HEADER_SIZE)
            if not self._settled:
                if kind != http2.SETTINGS or flags & http2.ACK:
                    raise HTTP2Error(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
                self._is_settled()
            if kind == http2.SETTINGS and flags & http2.ACK and len(frame) > http2.FRAME_HEADER_SIZE:
                raise HTTP2Error(ErrorCode.FRAME_SIZE_ERROR, "settings in an acknowledgement")  # section 6.5
            if kind == http2.GOAWAY:
                _check_goaway(stream, len(frame) - http2.FRAME_HEADER_SIZE, self._frames.in_block)
                # The peer opens no further streams, and wants none from us. The library would end those that are open.
                return
            if kind in (http2.SETTINGS, http2.WINDOW_UPDATE):
                frame = http2.without_ignored(kind, frame)
        self._take(frame)


def _cost(kind: int, size: int) -> int:
    """What a frame counts against `_SLICE`."""
    if kind in (http2.HEADERS, http2.CONTINUATION):
        return _OF_HEADERS + size // _BYTES_FOR_ONE
    return _OF_DATA if kind == http2.DATA else 1


def _check_goaway(stream: int, length: int, in_block: bool) -> None:
    """Raises HTTP2Error for one that cannot be (RFC 9113, sections 4.3 and 6.8)."""
    if in_block:
        raise HTTP2Error(ErrorCode.PROTOCOL_ERROR, "GOAWAY within a block of headers")
    if stream:
        raise HTTP2Error(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
    if length < 8:
        raise HTTP2Error(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is too short")
