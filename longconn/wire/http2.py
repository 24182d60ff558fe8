"""HTTP/2 frames as bytes (RFC 9113): what the `h2` library does not do, or not fast enough.

What comes in is cut into whole frames here, so that a limit is known before a frame is kept, and `h2`
gets them one by one. What goes out as DATA, GOAWAY, PING and WINDOW_UPDATE is written here.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from longconn.core.errors import LongConnError

#: What a client says first (section 3.4).
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Bytes of a frame's header (section 4.1).
FRAME_HEADER_SIZE: Final = 9
#: What a frame may carry unless a SETTINGS frame says otherwise (section 4.2); we never do.
MAX_FRAME_SIZE: Final = 16_384
#: A window, of a connection or a stream, unless told otherwise (section 6.9.2).
DEFAULT_WINDOW: Final = 65_535
#: The largest identifier of a stream, and the largest window.
MAX_STREAM_ID: Final = 2**31 - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4


class ErrorCode(enum.IntEnum):
    """Section 7."""

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
    """The peer broke a rule or a limit: the connection ends with GOAWAY, `code` and the text."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


_pack = struct.Struct(">IBI").pack
_unpack = struct.Struct(">IBI").unpack_from


def frame_header(length: int, kind: int, flags: int, stream: int) -> bytes:
    """The header of a frame (section 4.1)."""
    return _pack(length << 8 | kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A whole frame."""
    return _pack(len(payload) << 8 | kind, flags, stream) + payload


def goaway(last: int, code: ErrorCode, debug: str = "") -> bytes:
    """Section 6.8; `debug` is for people."""
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code) + debug.encode())


def ping(payload: bytes, ack: bool = False) -> bytes:
    """Section 6.7; `payload` has eight bytes."""
    return frame(PING, ACK if ack else 0, 0, payload)


def window_update(stream: int, amount: int) -> bytes:
    """Section 6.9; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, amount.to_bytes(4, "big"))


def settings(values: dict[int, int]) -> bytes:
    """Section 6.5."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *each) for each in values.items()))


def encode_headers(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A header block without any state (RFC 7541, section 6.2.2: literals without indexing).

    Nothing of it is remembered by either side, so equal headers are equal bytes, for every
    connection; that saves more than compressing would.
    """
    parts: list[bytes] = []
    for name, value in headers:
        parts += (b"\0", _length(len(name)), name, _length(len(value)), value)
    return b"".join(parts)


def _length(number: int) -> bytes:
    """An integer with a prefix of seven bits, no Huffman code (RFC 7541, section 5.1)."""
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
    """A frame without what is to be ignored (sections 6.5.2 and 6.9).

    The library keeps settings that nobody knows for as long as the connection lasts, and it would have them all.
    """
    length = len(frame) - FRAME_HEADER_SIZE
    if kind == SETTINGS and not length % 6:
        parts = [
            frame[at : at + 6]
            for at in range(FRAME_HEADER_SIZE, len(frame), 6)
            if 1 <= frame[at] << 8 | frame[at + 1] <= 6
        ]
        payload = b"".join(parts)
        return len(payload).to_bytes(3, "big") + frame[3:FRAME_HEADER_SIZE] + payload
    if kind == WINDOW_UPDATE and length == 4 and frame[FRAME_HEADER_SIZE] & 0x80:
        return frame[:FRAME_HEADER_SIZE] + bytes((frame[FRAME_HEADER_SIZE] & 0x7F,)) + frame[FRAME_HEADER_SIZE + 1 :]
    return frame


class FrameReader:
    """Cuts what comes in into whole frames. At most one frame, of `MAX_FRAME_SIZE` bytes, waits for its end.

    A block of headers has at most `max_block` bytes, over all its CONTINUATION frames, and at most
    `_MAX_CONTINUATIONS` of these. Iterating raises HTTP2Error for what is over a limit; it may be left,
    and goes on where it was.
    """

    _MAX_CONTINUATIONS: Final = 32

    def __init__(self, max_block: int) -> None:
        #: a block of headers has begun: nothing but its rest may come (section 4.3)
        self.in_block = False
        self._max_block = max_block
        self._data = b""
        self._at = 0
        self._begun = False
        self._block = 0
        self._continuations = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Something came."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0
        return iter(self)

    def __iter__(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yields kind, flags, stream and the whole frame as bytes; the preface is one of kind -1."""
        if not self._begun:
            known = self._data[: len(PREFACE)]
            if not PREFACE.startswith(known):
                raise HTTP2Error(ErrorCode.PROTOCOL_ERROR, "not the preface of HTTP/2")
            if len(known) < len(PREFACE):
                return
            self._begun = True
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
                self._count(kind, length)
                self.in_block = not flags & END_HEADERS
            self._at = after
            yield kind, flags, stream & MAX_STREAM_ID, self._data[at:after]

    def _count(self, kind: int, length: int) -> None:
        """A block of headers has begun, or goes on."""
        if kind == HEADERS:
            self._block = self._continuations = 0
        else:
            self._continuations += 1
        self._block += length
        if self._block > self._max_block or self._continuations > self._MAX_CONTINUATIONS:
            raise HTTP2Error(ErrorCode.ENHANCE_YOUR_CALM, "too many headers")
