"""HTTP/2 frames by `hyperframe` and `hpack`, gRPC messages by `struct`: nothing here is the server's own code."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterable

from hpack import Encoder, NeverIndexedHeaderTuple
from hyperframe import frame as hyperframe

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
#: bytes of a frame's header
HEAD = 9


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of any kind, with any flags and any payload, whether RFC 9113 allows them or not."""
    made = hyperframe.ExtensionFrame(kind, stream, flags, payload)
    made.body_len = len(payload)
    return bytes(made.serialize())


def head(length: int, kind: int, flags: int, stream: int) -> bytes:
    """The header alone of a frame whose payload has so many bytes."""
    return frame(kind, flags, stream, bytes(length))[:HEAD]


def settings(values: dict[int, int]) -> bytes:
    """By hand: hyperframe writes the low byte alone of a setting's identifier."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *each) for each in values.items()))


def ping(payload: bytes) -> bytes:
    return bytes(hyperframe.PingFrame(opaque_data=payload).serialize())


def goaway(last: int, code: int) -> bytes:
    return bytes(hyperframe.GoAwayFrame(last_stream_id=last, error_code=code).serialize())


def window_update(stream: int, amount: int) -> bytes:
    """`amount` may be one that is not allowed."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", amount))


def encode_headers(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A header block that depends on no earlier one: nothing of it enters the decoder's table."""
    return bytes(Encoder().encode([NeverIndexedHeaderTuple(*each) for each in headers], huffman=False))


def read(data: bytes) -> tuple[list[tuple[hyperframe.Frame, bytes]], bytes]:
    """The whole frames at the start of what a server sent, each with its bytes, and the rest."""
    frames, at = [], 0
    while len(data) - at >= HEAD:
        each, length = hyperframe.Frame.parse_frame_header(memoryview(data[at : at + HEAD]))
        end = at + HEAD + length
        if end > len(data):
            break
        each.parse_body(memoryview(data[at + HEAD : end]))
        frames.append((each, data[at:end]))
        at = end
    return frames, data[at:]


def prefixed(data: bytes, compressed: bool = False) -> bytes:
    """A Length-Prefixed-Message of gRPC (PROTOCOL-HTTP2.md)."""
    return struct.pack(">BI", compressed, len(data)) + data


def messages(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole messages at the start of a response's data, and the rest; what is compressed is so by gzip."""
    found, at = [], 0
    while len(data) - at >= 5:
        compressed, length = struct.unpack_from(">BI", data, at)
        if len(data) - at - 5 < length:
            break
        at += 5 + length
        found.append(gzip.decompress(data[at - length : at]) if compressed else data[at - length : at])
    return found, data[at:]
