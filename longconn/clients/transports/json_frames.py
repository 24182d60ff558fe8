"""JSON objects as bytes: UTF-8, one object a line.

Published data stay as they were written: they are a `msgspec.Raw` in received objects (`data` of a publication and of
an rpc's result) and in sent ones. Members that clients do not use are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypedDict

import msgspec

from longconn.clients.errors import ClientError, NotLongconn
from longconn.clients.events import JSONObject, JSONText, JSONValue
from longconn.core.errors import CommandError
from longconn.core.json_text import JSONError, WrongTypeError, read
from longconn.core.publication import Data

#: Bytes of a line or message at most. The longest are answers with the whole history of a channel.
MOST = 64 * 1024 * 1024
#: Bytes of a foreign answer that an error's text quotes.
_QUOTED = 40


# The members of the server's objects that clients use. `Any` is for values that are looked at later.


class _InfoObject(TypedDict, total=False):
    client: Any
    user: Any
    chat: Any
    conn_info: msgspec.Raw


class _PublicationObject(TypedDict, total=False):
    data: msgspec.Raw
    info: _InfoObject | None
    offset: Any
    time: Any


class _PresenceObject(TypedDict, total=False):
    info: _InfoObject | None


class _PushObject(TypedDict, total=False):
    channel: Any
    pub: _PublicationObject | None
    join: _PresenceObject | None
    leave: _PresenceObject | None
    unsubscribe: Any
    disconnect: Any
    refresh: Any


class _ResultObject(TypedDict, total=False):
    """The results of all commands in one. `channel` and `method` are not in results: an echo server sends them back."""

    channel: Any
    method: Any
    client: Any
    session: Any
    node: Any
    ping: Any
    pong: Any
    expires: Any
    ttl: Any
    recoverable: Any
    positioned: Any
    recovered: Any
    epoch: Any
    offset: Any
    publications: list[_PublicationObject] | None
    presence: dict[str, _InfoObject] | None
    data: msgspec.Raw


class _ServerObject(TypedDict, total=False):
    id: Any
    error: Any
    push: _PushObject | None
    connect: _ResultObject | None
    subscribe: _ResultObject | None
    unsubscribe: _ResultObject | None
    publish: _ResultObject | None
    presence: _ResultObject | None
    history: _ResultObject | None
    rpc: _ResultObject | None
    ping: _ResultObject | None
    refresh: _ResultObject | None
    sub_refresh: _ResultObject | None


_OBJECT: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_ServerObject)


def raw_json(value: JSONValue) -> msgspec.Raw:
    """A value as compact JSON, to stand in an object that is sent. Raises ClientError if it has no JSON form."""
    try:
        if isinstance(value, JSONText):
            return msgspec.Raw(Data.of_json(str(value)).json)
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return msgspec.Raw(text.encode())
    except UnicodeEncodeError:  # a lone surrogate can only be written as an escape
        return msgspec.Raw(json.dumps(value, separators=(",", ":")).encode())
    except (CommandError, TypeError, ValueError, RecursionError) as error:
        raise ClientError(f"that is no JSON value: {error}") from error


def write_json(value: JSONObject) -> bytes:
    """An object as compact JSON. Its values are strings, numbers that are whole, booleans, objects, and `Raw`."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # a lone surrogate can only be written as an escape; servers refuse it
        return json.dumps(value, separators=(",", ":"), default=_read_raw).encode()


def _read_raw(raw: msgspec.Raw) -> JSONValue:
    return json.loads(bytes(raw))


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
            value: JSONObject = read(_OBJECT, line)
        except WrongTypeError as error:
            if not line.lstrip().startswith(b"{"):
                raise not_longconn(line) from error
            raise NotLongconn(f"this is no longconn server: in its answer {error}") from error
        except JSONError as error:
            raise not_longconn(line) from error
        # Only an empty object is a ping: one without a member that clients know must not pass for it.
        objects.append(value if value or b'"' not in line else {"push": None})
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
