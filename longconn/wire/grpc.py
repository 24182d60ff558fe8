"""gRPC's wire format above HTTP/2: framed messages, metadata, deadlines, response headers and trailers.

The sections named are those of `doc/PROTOCOL-HTTP2.md` in grpc/grpc; `doc/compression.md` has the encodings. The
statuses are in `longconn.wire.grpc_status`.
"""

from __future__ import annotations

import re
import zlib
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable
from urllib.parse import quote

from longconn.wire.grpc_status import PUSHBACK, Metadata, StatusCode, StatusError

# Messages ("Length-Prefixed-Message").

#: Bytes in front of a message: a flag and its length.
PREFIX = 5
#: The message encodings that are understood (`doc/compression.md`).
ENCODINGS = ("identity", "gzip")
#: Bytes below which compressing a message is not worth the time.
_MIN_GZIP = 256
#: How many times as large a message may be when it is inflated, and bytes that it may have whatever the ratio is.
#: Text is seldom more than twenty times as large; deflate allows a thousand.
_MAX_RATIO = 100
_ANY_RATIO = 512 * 1024


def frame(message: bytes, gzip: bool = False) -> bytes:
    """Return a message in its frame; with `gzip` compressed, if that makes it smaller."""
    if gzip and len(message) >= _MIN_GZIP:
        compressor = zlib.compressobj(wbits=31)
        small = compressor.compress(message) + compressor.flush()
        if len(small) < len(message):
            return b"\1%b%b" % (len(small).to_bytes(4, "big"), small)
    return b"\0%b%b" % (len(message).to_bytes(4, "big"), message)


class Compressed:
    """A message that is compressed by gzip. It may have `limit` bytes when it is inflated.

    `size` is the number of these bytes, or one more than may be.
    """

    __slots__ = ("_bound", "_data", "_limit", "size")

    def __init__(self, data: bytes, limit: int) -> None:
        self._data = data
        self._limit = limit
        self._bound = min(limit, max(_ANY_RATIO, _MAX_RATIO * len(data)))
        # The last bytes announce the size (RFC 1952, section 2.3.1, ISIZE). zlib compares it with the inflated size.
        self.size = min(int.from_bytes(data[-4:], "little"), self._bound + 1)

    def __len__(self) -> int:
        """Bytes that it takes as it is."""
        return len(self._data)

    def inflate(self) -> bytes:
        """Return the message. Not more than one byte over `size` is inflated.

        Raises StatusError: INTERNAL if it is not gzip, RESOURCE_EXHAUSTED if it is too large.
        """
        unzip = zlib.decompressobj(wbits=31)
        try:
            plain = unzip.decompress(self._data, self.size + 1)
        except zlib.error as error:
            raise StatusError(StatusCode.INTERNAL, f"a message is not gzip: {error}") from None
        if len(plain) > self._limit:
            raise _too_large("that is larger when decompressed", self._limit)
        if len(plain) > self._bound:
            text = f"a message is more than {_MAX_RATIO} times as large when decompressed"
            raise StatusError(StatusCode.RESOURCE_EXHAUSTED, text)
        if not unzip.eof or unzip.unused_data:
            raise StatusError(StatusCode.INTERNAL, "a message is not one whole gzip stream")
        return plain


class MessageReader:
    """Cuts the bytes of one stream into messages of at most `limit` bytes, before and after decompression.

    A message that is compressed may be `_MAX_RATIO` times as large when it is inflated, or have `_ANY_RATIO` bytes.

    `take` raises StatusError: INTERNAL for a malformed frame, RESOURCE_EXHAUSTED for a message over the limit, as soon
    as its length is known.
    """

    __slots__ = ("_data", "_encoding", "_limit")

    def __init__(self, limit: int, encoding: str = "identity") -> None:
        self._limit = limit
        self._encoding = encoding
        self._data = bytearray()

    def __len__(self) -> int:
        """Bytes that are kept."""
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Add bytes that came."""
        self._data += data

    @property
    def wanted(self) -> int:
        """Bytes of the next message and its prefix; 0 until the prefix has come."""
        return PREFIX + int.from_bytes(self._data[1:PREFIX], "big") if len(self._data) >= PREFIX else 0

    def take(self) -> bytes | Compressed | None:
        """Return the next message, or None if it is not complete."""
        data = self._data
        if len(data) < PREFIX:
            return None
        flag = data[0]
        length = int.from_bytes(data[1:PREFIX], "big")
        if flag > 1:
            raise StatusError(StatusCode.INTERNAL, f"a message has the flag {flag}")
        if flag and self._encoding == "identity":
            raise StatusError(StatusCode.INTERNAL, "a message is compressed, and grpc-encoding does not say how")
        if length > self._limit:
            raise _too_large(f"of {length} bytes", self._limit)
        end = PREFIX + length
        if len(data) < end:
            return None
        message = bytes(memoryview(data)[PREFIX:end])
        del data[:end]
        return Compressed(message, self._limit) if flag else message


def _too_large(what: str, limit: int) -> StatusError:
    return StatusError(StatusCode.RESOURCE_EXHAUSTED, f"a message {what}; at most {limit} are received")


# Deadlines and texts.

#: Seconds for each unit ("TimeoutUnit").
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])", re.ASCII)
#: Printable ASCII, except "%".
_UNQUOTED = bytes(range(0x20, 0x7F)).replace(b"%", b"")


def read_timeout(text: str) -> float | None:
    """Return the seconds of a `grpc-timeout` ("Timeout"); None if it is malformed."""
    match = _TIMEOUT.fullmatch(text)
    return int(match[1]) * _UNITS[match[2]] if match else None


def percent_encoded(text: str) -> bytes:
    """Return a text as the value of `grpc-message` ("Percent-Encoded")."""
    return quote(text, _UNQUOTED, errors="replace").encode()


# Metadata ("Custom-Metadata").

_NAME = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")
#: Headers that belong to HTTP. Names that start with `grpc-` are reserved as well.
_HTTP_NAMES = frozenset(("te", "content-type", "content-length", "host"))


def is_reserved(name: str) -> bool:
    """Whether applications may not use a name."""
    return name in _HTTP_NAMES or (name.startswith(("grpc-", ":")) and name != PUSHBACK)


def read_metadata(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str | bytes], ...]:
    """Return the metadata among the headers of a request or a response; values of `-bin` names are decoded.

    Fields that HTTP allows and gRPC does not ("ASCII-Value") are left out, so that `write_metadata` accepts the result.
    Raises StatusError(INTERNAL) for a `-bin` value that is not base64.
    """
    found: list[tuple[str, str | bytes]] = []
    for raw, value in headers:
        name = raw.decode("ascii", "replace")
        if is_reserved(name) or not _NAME.fullmatch(name):
            continue
        if name.endswith("-bin"):
            # A proxy may have joined several values; padding is optional.
            found += [(name, _base64(each.strip())) for each in value.split(b",")]
        else:
            text = value.decode("latin-1").strip()
            if _VALUE.fullmatch(text):
                found.append((name, text))
    return tuple(found)


def _base64(value: bytes) -> bytes:
    try:
        return b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except Base64Error:
        raise StatusError(StatusCode.INTERNAL, "binary metadata is not base64") from None


def write_metadata(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """Return metadata as headers. Raises ValueError for a name or a value that is not allowed."""
    headers = []
    for name, value in metadata:
        if not _NAME.fullmatch(name) or is_reserved(name):
            raise ValueError(f"metadata cannot be called {name!r}")
        if name.endswith("-bin"):
            if not isinstance(value, bytes):
                raise ValueError(f"{name}: the value of a -bin name is bytes")
            headers.append((name.encode(), b64encode(value).rstrip(b"=")))
        elif isinstance(value, str) and _VALUE.fullmatch(value):
            headers.append((name.encode(), value.encode()))
        else:
            raise ValueError(f"{name}: a value is printable ASCII, or bytes with a name that ends in -bin")
    return headers


# Responses.


_RESPONSE = (
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", ",".join(ENCODINGS).encode()),
)


def response_headers(gzip: bool = False, metadata: Metadata = ()) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response ("Response-Headers"). Raises ValueError as `write_metadata`."""
    encoding = [(b"grpc-encoding", b"gzip")] if gzip else []
    return [*_RESPONSE, *encoding, *write_metadata(metadata)]


def trailers(code: StatusCode, message: str = "", metadata: Metadata = ()) -> list[tuple[bytes, bytes]]:
    """Return the trailers of a response ("Trailers"). Raises ValueError as `write_metadata`."""
    headers = [(b"grpc-status", b"%d" % code)]
    if message:
        headers.append((b"grpc-message", percent_encoded(message)))
    return headers + write_metadata(metadata)
