"""Rules and limits for the frames of one connection that the `h2` library does not check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from longconn.core.timers import Bucket
from longconn.wire import http2
from longconn.wire.http2 import ACK, FRAME_HEADER_SIZE, ErrorCode, HTTP2Error

#: Streams that may be open at once (RFC 9113, section 5.1.2).
MAX_STREAMS: Final = 1_024
#: Resets of streams a second, and in a burst, whether the peer resets them or makes the server do so
#: (CVE-2023-44487). The burst is twice the number of streams that may be open.
_RESETS: Final = (100.0, 2 * MAX_STREAMS)
#: SETTINGS frames a second, and in a burst: each one is answered.
_SETTINGS: Final = (1.0, 50)
#: Frames without content and frames of unknown types a second, and in a burst. Each frame that the server sends
#: allows some more, because the peer may answer it with WINDOW_UPDATE.
_IDLE: Final = (1_000.0, 10_000)
_IDLE_PER_SENT: Final = 4
#: Seconds that must lie between two pings while nothing is sent to the peer, and the pings that may come too early.
#: The libraries of gRPC ping every ten seconds at most (`doc/keepalive.md` in grpc/grpc).
_PING_INTERVAL: Final = 5.0
_PING_STRIKES: Final = 2


class FrameLimits:
    """Checks and counts the frames of one connection; `now` returns the clock's seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        at = now()
        self._resets = Bucket(*_RESETS, at)
        self._settings = Bucket(*_SETTINGS, at)
        self._idle = Bucket(*_IDLE, at)
        self._pinged = 0.0
        self._strikes = 0
        #: whether the peer's first frame, its SETTINGS, has come
        self.settled = False

    def check(self, kind: int, flags: int, stream: int, frame: bytes, in_block: bool) -> None:
        """Check one whole frame. `in_block` is true inside a header block.

        Raises HTTP2Error for a frame that breaks a rule or is over a limit.
        """
        length = len(frame) - FRAME_HEADER_SIZE
        ack = flags & ACK
        if kind == http2.SETTINGS:
            self._spend(self._idle if ack else self._settings, "settings")
            if ack and length:
                raise HTTP2Error(ErrorCode.FRAME_SIZE_ERROR, "settings in an acknowledgement")  # section 6.5
        elif kind == http2.PING and not ack:
            self._count_ping()
        elif kind == http2.RST_STREAM:
            self.count_reset()
        elif kind == http2.GOAWAY:
            _check_goaway(stream, length, in_block)
            self._spend(self._idle, "frames without content")
        elif kind != http2.HEADERS and not (kind == http2.DATA and (length or flags & http2.END_STREAM)):
            self._spend(self._idle, "pings" if kind == http2.PING else "frames without content")
        if not self.settled:
            if kind != http2.SETTINGS or ack:
                raise HTTP2Error(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self.settled = True

    def count_reset(self) -> None:
        """Count a stream that the peer has reset, or that was reset for the peer's fault. Raises as `check`."""
        self._spend(self._resets, "resets")

    def allow_for(self, sent_frames: int) -> None:
        """Allow the peer its answers to frames of DATA or HEADERS that were sent to it (`doc/keepalive.md`)."""
        self._strikes = 0
        self._pinged = 0.0
        self._idle.spend(-_IDLE_PER_SENT * sent_frames)

    def _count_ping(self) -> None:
        now = self._now()
        if now - self._pinged < _PING_INTERVAL:
            self._strikes += 1
            if self._strikes > _PING_STRIKES:
                raise HTTP2Error(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")
        self._pinged = now

    def _spend(self, bucket: Bucket, what: str) -> None:
        if bucket.wait(self._now()):
            raise HTTP2Error(ErrorCode.ENHANCE_YOUR_CALM, f"too many {what}")
        bucket.spend(1)


def _check_goaway(stream: int, length: int, in_block: bool) -> None:
    """Raises HTTP2Error for a GOAWAY that is not valid (RFC 9113, sections 4.3 and 6.8)."""
    if in_block:
        raise HTTP2Error(ErrorCode.PROTOCOL_ERROR, "GOAWAY within a block of headers")
    if stream:
        raise HTTP2Error(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
    if length < 8:
        raise HTTP2Error(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is too short")
