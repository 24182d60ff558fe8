"""Header fields that came, held against the rules of HTTP/2 (RFC 9113, sections 8.2 and 8.3).

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


class MalformedError(LongConnError):
    """A request that breaks a rule: its stream is reset, and nothing else (section 8.1.1)."""


def check_request(fields: Sequence[tuple[bytes, bytes]]) -> None:
    """Raises MalformedError for the fields of a request that cannot be."""
    pseudo: dict[bytes, bytes] = {}
    others = False
    for name, value in fields:
        if not name.startswith(b":"):
            others = True
        elif others or name in pseudo or name not in _PSEUDO:
            raise MalformedError(f"{name!r} where it cannot be")
        else:
            pseudo[name] = value
        _check(name, value)
    if not all(pseudo.get(name) for name in (b":method", b":scheme", b":path")):
        raise MalformedError("a method, a scheme or a path is missing")


def check_trailers(fields: Sequence[tuple[bytes, bytes]]) -> None:
    """Raises MalformedError for the fields after a request that cannot be."""
    for name, value in fields:
        if name.startswith(b":"):
            raise MalformedError(f"{name!r} in trailers")
        _check(name, value)


def _check(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise MalformedError(f"a field is called {name!r}")
    if _NOT_IN_VALUES.search(value):
        raise MalformedError(f"the value of {name!r} has a line end, or NUL")
    if name in _OF_CONNECTIONS or (name == b"te" and value.strip().lower() != b"trailers"):
        raise MalformedError(f"{name!r} is of HTTP/1")
