"""Checks header fields that came against the rules of HTTP/2 (RFC 9113, sections 8.1.1 to 8.3).

The `h2` library would end the whole connection, with all its calls, for one request that breaks a rule. It also has
rules that gRPC does not have: in gRPC `:authority` is optional, and white space around a value is removed
("Custom-Metadata" in `doc/PROTOCOL-HTTP2.md` of grpc/grpc). Stock clients send such values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from longconn.core.errors import LongConnError

#: no upper case, no control characters, a colon only at the start
_NAME: Final = re.compile(rb":?[!-9;-@\[-~]+")
_NOT_IN_VALUES: Final = re.compile(rb"[\0\r\n]")
_PSEUDO: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
#: "Connection-Specific Header Fields" (section 8.2.2)
_CONNECTION_SPECIFIC: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"),
)
#: Digits of a `content-length`. `int` takes quadratic time for very many.
_MAX_DIGITS: Final = 18


class HeaderError(LongConnError):
    """A request breaks a rule: its stream is reset, and nothing else ends (section 8.1.1)."""


def check_request(fields: Sequence[tuple[bytes, bytes]]) -> None:
    """Check the header fields of a request. Raises HeaderError."""
    pseudo: dict[bytes, bytes] = {}
    others = False
    for name, value in fields:
        if not name.startswith(b":"):
            others = True
        elif others or name in pseudo or name not in _PSEUDO:
            raise HeaderError(f"{name!r} where it cannot be")
        else:
            pseudo[name] = value
        _check(name, value)
    if not all(pseudo.get(name) for name in (b":method", b":scheme", b":path")):
        raise HeaderError("a method, a scheme or a path is missing")


def check_trailers(fields: Sequence[tuple[bytes, bytes]]) -> None:
    """Check the trailer fields of a request. Raises HeaderError."""
    for name, value in fields:
        if name.startswith(b":"):
            raise HeaderError(f"{name!r} in trailers")
        _check(name, value)


def content_length(values: Sequence[bytes]) -> int | None:
    """Return the bytes that the `content-length` fields of a request announce; None without such a field.

    Raises HeaderError for a value that is no number, or for different values (RFC 9110, section 8.6).
    """
    found = {value.strip(b" \t") for value in values}
    if not found:
        return None
    value = found.pop()
    if found or not value.isdigit() or len(value) > _MAX_DIGITS:
        raise HeaderError("the content-length is no number")
    return int(value)


def check_body_left(left: int | None, ended: bool) -> None:
    """Check a body against its `content-length` (section 8.1.1). Raises HeaderError.

    `left` is the number of announced bytes that have not come, or None without a `content-length`; `ended` is true if
    no more bytes follow.
    """
    if left is not None and (left < 0 or (ended and left)):
        raise HeaderError("the body is not as long as content-length says")


def _check(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise HeaderError(f"a field is called {name!r}")
    if _NOT_IN_VALUES.search(value):
        raise HeaderError(f"the value of {name!r} has a line end, or NUL")
    if name in _CONNECTION_SPECIFIC or (name == b"te" and value.strip().lower() != b"trailers"):
        raise HeaderError(f"{name!r} is of HTTP/1")
