"""HTTP/2 frames as bytes (RFC 9113): the parts that the `h2` library lacks, or does too slowly.

`FrameReader` cuts inbound bytes into whole frames before `h2` sees them, so that limits apply before a frame is kept.
The functions write frames of DATA, GOAWAY, PING, SETTINGS and WINDOW_UPDATE, and header blocks.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from longconn.core.errors import LongConnError

#: The first bytes that a client sends (section 3.4).
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Bytes of a frame's header (section 4.1).
FRAME_HEADER_SIZE: Final = 9
#: Bytes of a frame's payload, unless SETTINGS allow more (section 4.2). longconn never allows more.
MAX_FRAME_SIZE: Final = 16_384
#: The flow-control window of a connection or a stream at its start (section 6.9.2).
DEFAULT_WINDOW: Final = 65_535
#: The largest number of a stream (section 5.1.1), and the largest flow-control window (section 6.9.1).
MAX_STREAM_ID: Final = 2**31 - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4


class ErrorCode(enum.IntEnum):
    """The error codes of RST_STREAM and GOAWAY (section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class HTTP2Error(LongConnError):
    """The peer broke a rule or is over a limit. The connection ends with a GOAWAY that has `code` and the text."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


_pack = struct.Struct(">IBI").pack
_unpack = struct.Struct(">IBI").unpack_from


def frame_header(length: int, kind: int, flags: int, stream: int) -> bytes:
    """Return the header of a frame (section 4.1)."""
    return _pack(length << 8 | kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a whole frame."""
    return _pack(len(payload) << 8 | kind, flags, stream) + payload


def goaway(last: int, code: ErrorCode, debug: str = "") -> bytes:
    """Return a GOAWAY frame (section 6.8). `last` is the last stream that is served; `debug` is a text for people."""
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code) + debug.encode())


def ping(payload: bytes, ack: bool = False) -> bytes:
    """Return a PING frame (section 6.7). `payload` has eight bytes."""
    return frame(PING, ACK if ack else 0, 0, payload)


def window_update(stream: int, amount: int) -> bytes:
    """Return a WINDOW_UPDATE frame (section 6.9). Stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, amount.to_bytes(4, "big"))


def settings(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame (section 6.5)."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *each) for each in values.items()))


def encode_headers(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a header block that changes no state (RFC 7541, section 6.2.2: literals without indexing).

    Equal headers are equal bytes on every connection. That saves more time than compression saves bytes.
    """
    parts: list[bytes] = []
    for name, value in headers:
        parts += (b"\0", _length(len(name)), name, _length(len(value)), value)
    return b"".join(parts)


def _length(number: int) -> bytes:
    """Return an integer with a prefix of seven bits, for a string without Huffman code (RFC 7541, section 5.1)."""
    if number < 127:
        return bytes((number,))
    parts = bytearray((127,))
    number -= 127
    while number >= 128:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def without_ignored(kind: int, frame: bytes) -> bytes:
    """Return a frame without the parts that a receiver has to ignore (sections 6.5.2 and 6.9).

    The `h2` library would keep unknown settings for as long as the connection lasts.
    """
    payload = frame[FRAME_HEADER_SIZE:]
    if kind == SETTINGS and not len(payload) % 6:
        entries = [payload[at : at + 6] for at in range(0, len(payload), 6)]
        known = b"".join([each for each in entries if 1 <= each[0] << 8 | each[1] <= 6])
        return len(known).to_bytes(3, "big") + frame[3:FRAME_HEADER_SIZE] + known
    if kind == WINDOW_UPDATE and len(payload) == 4 and payload[0] & 0x80:  # a reserved bit
        return frame[:FRAME_HEADER_SIZE] + bytes((payload[0] & 0x7F,)) + payload[1:]
    return frame


class FrameReader:
    """Cuts inbound bytes into whole frames. At most one incomplete frame, of `MAX_FRAME_SIZE` bytes, is kept.

    A header block has at most `max_block` bytes, with all its CONTINUATION frames, and at most `_MAX_CONTINUATIONS` of
    these. Iterating raises HTTP2Error over a limit. An iteration that was left goes on with the next frame.
    """

    _MAX_CONTINUATIONS: Final = 32

    def __init__(self, max_block: int) -> None:
        #: whether a header block has begun: only its CONTINUATION frames may follow (section 4.3)
        self.in_block = False
        self._max_block = max_block
        self._data = b""
        self._at = 0
        self._preface_read = False
        self._block_size = 0
        self._continuations = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Add bytes that came. Returns an iterator as `iter` does."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0
        return iter(self)

    def __iter__(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield type, flags, stream and the bytes of each whole frame. The preface comes first, with the type -1."""
        if not self._preface_read:
            start = self._data[: len(PREFACE)]
            if not PREFACE.startswith(start):
                raise HTTP2Error(ErrorCode.PROTOCOL_ERROR, "not the preface of HTTP/2")
            if len(start) < len(PREFACE):
                return
            self._preface_read = True
            self._at = len(PREFACE)
            yield -1, 0, 0, PREFACE
        while len(self._data) - self._at >= FRAME_HEADER_SIZE:
            at = self._at
            word, flags, stream = _unpack(self._data, at)
            length, kind = word >> 8, word & 0xFF
            if length > MAX_FRAME_SIZE:
                raise HTTP2Error(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            after = at + FRAME_HEADER_SIZE + length
            if after > len(self._data):
                return
            if kind in (HEADERS, CONTINUATION):
                self._count_block(kind, length)
                self.in_block = not flags & END_HEADERS
            self._at = after
            yield kind, flags, stream & MAX_STREAM_ID, self._data[at:after]

    def _count_block(self, kind: int, length: int) -> None:
        """Count a frame of a header block."""
        if kind == HEADERS:
            self._block_size = self._continuations = 0
        else:
            self._continuations += 1
        self._block_size += length
        if self._block_size > self._max_block or self._continuations > self._MAX_CONTINUATIONS:
            raise HTTP2Error(ErrorCode.ENHANCE_YOUR_CALM, "too many headers")
