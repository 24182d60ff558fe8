"""Header fields that came, held against the rules of HTTP/2 (RFC 9113, sections 8.1.1 to 8.3).

The `h2` library would end the whole connection, with all its calls, for one request that breaks a rule; and
it knows rules that gRPC has not: there `:authority` is optional, and a value that has white space around it is
to be taken without ("Custom-Metadata" in `doc/PROTOCOL-HTTP2.md` of grpc/grpc). Stock clients send such values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from longconn.core.errors import LongConnError

#: no upper case, no control characters, a colon at the start alone
_NAME: Final = re.compile(rb":?[!-9;-@\[-~]+")
_NOT_IN_VALUES: Final = re.compile(rb"[\0\r\n]")
_PSEUDO: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
#: "Connection-Specific Header Fields" (section 8.2.2)
_OF_CONNECTIONS: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"),
)
#: of a `content-length`: more than anybody sends, and few enough for `int`
_DIGITS: Final = 18


class HeaderError(LongConnError):
    """A request that breaks a rule: its stream is reset, and nothing else (section 8.1.1)."""


def check_request(fields: Sequence[tuple[bytes, bytes]]) -> None:
    """Raises HeaderError for the fields of a request that cannot be."""
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
    """Raises HeaderError for the fields after a request that cannot be."""
    for name, value in fields:
        if name.startswith(b":"):
            raise HeaderError(f"{name!r} in trailers")
        _check(name, value)


def content_length(values: Sequence[bytes]) -> int | None:
    """What the fields `content-length` of a request say, None if there are none (RFC 9110, section 8.6).

    Raises HeaderError for what is no number, or several.
    """
    found = {value.strip(b" \t") for value in values}
    if not found:
        return None
    value = found.pop()
    if found or not value.isdigit() or len(value) > _DIGITS:
        raise HeaderError("the content-length is no number")
    return int(value)


def _check(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise HeaderError(f"a field is called {name!r}")
    if _NOT_IN_VALUES.search(value):
        raise HeaderError(f"the value of {name!r} has a line end, or NUL")
    if name in _OF_CONNECTIONS or (name == b"te" and value.strip().lower() != b"trailers"):
        raise HeaderError(f"{name!r} is of HTTP/1")
