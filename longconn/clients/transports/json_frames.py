"""JSON objects as bytes: UTF-8, one object a line."""

from __future__ import annotations

import json
from collections.abc import Sequence

from longconn.clients.errors import ClientError, NotLongconn
from longconn.clients.events import JSONObject, JSONValue

#: Bytes of a line or message at most. The longest are answers with the whole history of a channel.
MOST = 64 * 1024 * 1024
#: Bytes of a foreign answer that an error's text quotes.
_QUOTED = 40


def write_json(value: JSONValue) -> bytes:
    """A value as JSON. Raises TypeError, ValueError or RecursionError if it has no JSON form."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate can only be written as an escape
        return json.dumps(value, separators=(",", ":")).encode()


def check_json(value: JSONValue) -> None:
    """Raises ClientError if a value has no JSON form."""
    try:
        write_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ClientError(f"that is no JSON value: {error}") from error


def write_frame(objects: Sequence[JSONObject]) -> bytes:
    """Objects joined by line feeds."""
    return b"\n".join([write_json(each) for each in objects])


def read_frame(data: bytes) -> list[JSONObject]:
    """The objects of a frame. Raises NotLongconn."""
    return read_lines(data.split(b"\n"))


def read_lines(lines: Sequence[bytes]) -> list[JSONObject]:
    """The object of each line that is not blank. Raises NotLongconn."""
    objects = []
    for line in lines:
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise not_longconn(line) from error
        if not isinstance(value, dict):
            raise not_longconn(line)
        objects.append(value)
    return objects


def not_longconn(data: bytes) -> NotLongconn:
    """The error for bytes of another protocol; it quotes their first line."""
    line = data.lstrip().splitlines()[:1] or [b""]
    quoted = line[0][:_QUOTED].decode("latin-1").strip()
    more = "…" if len(line[0]) > _QUOTED else ""
    return NotLongconn(f"this is no longconn server: it answered {quoted!a}{more}")


class Lines:
    """Splits bytes into lines. The time grows with the number of bytes, however they are cut."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends. Raises NotLongconn for a line over `MOST` bytes."""
        first, *rest = data.split(b"\n")
        self._parts.append(first)
        self._size += len(first)
        if self._size > MOST:
            raise NotLongconn("this is no longconn server: it answered with a line that does not end")
        if not rest:
            return []
        last = rest.pop()
        lines = [b"".join(self._parts), *rest]
        self._parts, self._size = [last], len(last)
        return lines

    @property
    def unfinished(self) -> bytes:
        """The first bytes of the line that is not complete yet."""
        return self._parts[0] if self._parts else b""
