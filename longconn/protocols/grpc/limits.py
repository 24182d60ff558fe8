"""What a peer may not do too often on one connection: frames that cost us something and say nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from longconn.core.timers import Bucket
from longconn.wire import http2
from longconn.wire.http2 import ErrorCode, HTTP2Error

#: Streams that may be open at once (RFC 9113, section 5.1.2).
MAX_STREAMS: Final = 1_024
#: Streams that a peer resets, or makes us reset, a second, and at once: all that may be open, twice. (CVE-2023-44487)
_RESETS: Final = (100.0, 2 * MAX_STREAMS)
#: Settings a second, and at once: each is answered.
_SETTINGS: Final = (1.0, 50)
#: Frames without content, or that we need not know, a second and at once; each frame of data that was
#: sent allows some more (WINDOW_UPDATE).
_IDLE: Final = (1_000.0, 10_000)
_PER_SENT: Final = 4
#: Seconds that should be between two pings while nothing is sent to the peer. The libraries of gRPC allow
#: ten and more to be set (`doc/keepalive.md`); so many that came too early are forgiven.
_PING_INTERVAL: Final = 5.0
_PING_STRIKES: Final = 2


class FrameLimits:
    """Counts the frames of one connection; `now` is a clock's seconds.

    `check` raises HTTP2Error(ENHANCE_YOUR_CALM) for one too many. `resets` is told of streams that were
    reset, `sent` of anything that was sent to the peer and is no answer to a ping.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        at = now()
        self._resets = Bucket(*_RESETS, at)
        self._settings = Bucket(*_SETTINGS, at)
        self._idle = Bucket(*_IDLE, at)
        self._pinged = 0.0
        self._strikes = 0

    def check(self, kind: int, flags: int, length: int) -> None:
        """One frame that came; `length` is that of its payload."""
        if kind == http2.SETTINGS:
            self._spend(self._idle if flags & http2.ACK else self._settings, "settings")
        elif kind == http2.PING:
            if flags & http2.ACK:
                self._spend(self._idle, "pings")
            else:
                self._ping()
        elif kind == http2.RST_STREAM:
            self.reset()
        elif kind == http2.HEADERS or (kind == http2.DATA and (length or flags & http2.END_STREAM)):
            return
        else:
            self._spend(self._idle, "frames without content")

    def reset(self) -> None:
        """A stream was reset, by the peer or for a fault of it."""
        self._spend(self._resets, "resets")

    def sent(self, frames: int) -> None:
        """Frames that were sent, of data for the most part: the peer may answer them (`doc/keepalive.md`)."""
        self._strikes = 0
        self._pinged = 0.0
        self._idle.spend(-_PER_SENT * frames)

    def _ping(self) -> None:
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
