"""Objects as bytes: JSON in UTF-8, a line each."""

from __future__ import annotations

import json
from collections.abc import Sequence

from longconn.clients.errors import ClientError, NotLongconn
from longconn.clients.events import JSONObject, JSONValue

#: Bytes of a line or message at most. The longest are answers with a channel's whole history.
MOST = 64 * 1024 * 1024
#: Bytes that are shown of what is none of this protocol.
_SHOWN = 40


def write_json(value: JSONValue) -> bytes:
    """A value as JSON. Raises TypeError, ValueError or RecursionError where it is none."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a character has a form as an escape alone
        return json.dumps(value, separators=(",", ":")).encode()


def check_json(value: JSONValue) -> None:
    """Raises ClientError if a value has no form as JSON."""
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
            raise foreign(line) from error
        if not isinstance(value, dict):
            raise foreign(line)
        objects.append(value)
    return objects


def foreign(data: bytes) -> NotLongconn:
    """What was answered is none of this protocol."""
    line = data.lstrip().splitlines()[:1] or [b""]
    shown = line[0][:_SHOWN].decode("latin-1").strip()
    more = "…" if len(line[0]) > _SHOWN else ""
    return NotLongconn(f"this is no longconn server: it answered {shown!a}{more}")


class Lines:
    """Splits what comes into lines, in time that grows with its length alone."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends. Raises NotLongconn for one that never ends."""
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
        """The start of the line that is not complete yet."""
        return self._parts[0] if self._parts else b""
