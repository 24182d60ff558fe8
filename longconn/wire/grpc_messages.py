"""What a channel's subscribers over gRPC are sent: messages of `longconn/v1/longconn.proto` in their frames.

They are put together here by the encoding's few rules (protobuf.dev/programming-guides/encoding): it
takes two thirds of the time that the library takes, and a tag and a length are all that is around text
that is at hand as bytes. A test holds each against the library.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from struct import Struct
from typing import ClassVar

from longconn.core.publication import Counts, Event, Info, Join, Publication, Rename

_DOUBLE = Struct("<d").pack

# Tags: a field's number, shifted by three, and its wire type: 0 for numbers, 1 for doubles, 2 for what has a length.
_OFFSET = b"\x10"
_TIME = b"\x41"
_FIRST = b"\x0a"
_SECOND = b"\x12"
#: Bytes of a backlog that are encoded at once.
_SLICE = 64 * 1024
#: Of publications, joins and leaves in ConnectResponse's `event`.
_PUBLICATION, _JOIN, _LEAVE = b"\x52", b"\x5a", b"\x62"


def _varint(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)


_VARINTS = tuple(map(_varint, range(16 * 1024)))
_KNOWN = len(_VARINTS)


def _length(value: int) -> bytes:
    return _VARINTS[value] if value < _KNOWN else _varint(value)


def _field(tag: bytes, value: bytes) -> bytes:
    """A string or bytes; empty ones are left out."""
    return b"%b%b%b" % (tag, _length(len(value)), value) if value else b""


def _framed(tag: bytes, body: bytes) -> bytes:
    """A message whose one field `tag` is a message, in gRPC's frame (PROTOCOL-HTTP2, Length-Prefixed-Message)."""
    length = _length(len(body))
    return b"\0%b%b%b%b" % ((1 + len(length) + len(body)).to_bytes(4, "big"), tag, length, body)


def _publication(publication: Publication, channel: bytes) -> bytes:
    """A Publication. `channel` is its first field as it is written."""
    info = publication.info
    offset = publication.offset
    return b"%b%b%b%b%b%b%b%b%b" % (
        channel,
        b"%b%b" % (_OFFSET, _length(offset)) if offset else b"",
        _field(b"\x1a", publication.epoch.encode()),
        _field(b"\x22", publication.data.json),
        _field(b"\x2a", info.name.encode()),
        _field(b"\x32", info.client.encode()),
        _field(b"\x3a", info.user.encode("utf-8", "replace")),
        _TIME,
        _DOUBLE(publication.time),
    )


def _client_info(info: Info) -> bytes:
    return b"%b%b%b%b%b" % (
        _field(_FIRST, info.name.encode()),
        _field(_SECOND, info.client.encode()),
        _field(b"\x1a", info.user.encode("utf-8", "replace")),
        _field(b"\x22", info.conn_info),
        _field(b"\x2a", info.chan_info),
    )


def _change(tag: bytes, channel: bytes, info: Info) -> bytes:
    """A Join or a Leave."""
    return _framed(tag, channel + _field(_SECOND, _client_info(info)))


@dataclass(frozen=True)
class MessageFormat:
    """A channel's publications, each a message of `Subscribe`."""

    #: the tag of a publication in the message
    publication: ClassVar[bytes] = b"\x12"
    tells_own_join: ClassVar[bool] = False

    def encode(self, channel: str, events: Sequence[Event]) -> bytes:
        name = _field(_FIRST, channel.encode())
        return b"".join([self.write(each, name) for each in events])

    def write(self, event: Event, channel: bytes) -> bytes:
        return _framed(self.publication, _publication(event, channel)) if isinstance(event, Publication) else b""


@dataclass(frozen=True)
class PushFormat(MessageFormat):
    """A channel's events, each a message of `Connect`; comings and goings only where they were asked for."""

    join_leave: bool
    publication: ClassVar[bytes] = _PUBLICATION
    tells_own_join: ClassVar[bool] = True

    def write(self, event: Event, channel: bytes) -> bytes:
        if isinstance(event, Publication):
            return super().write(event, channel)
        if not self.join_leave or isinstance(event, Counts):
            return b""  # counts have no form: Presence tells
        if isinstance(event, Rename):
            old = replace(event.info, name=event.old)
            return _change(_LEAVE, channel, old) + _change(_JOIN, channel, event.info)
        return _change(_JOIN if isinstance(event, Join) else _LEAVE, channel, event.info)


#: The formats, made once: subscribers of equal ones share their bytes.
MESSAGES = MessageFormat()
PUSHES = {join_leave: PushFormat(join_leave) for join_leave in (False, True)}


def backlog(format: MessageFormat, channel: str, publications: Sequence[Publication]) -> Iterator[bytes]:
    """What a subscriber missed, a part at a time."""
    name = _field(_FIRST, channel.encode())
    parts: list[bytes] = []
    size = 0
    for each in publications:
        parts.append(format.write(each, name))
        size += len(parts[-1])
        if size >= _SLICE:
            yield b"".join(parts)
            parts.clear()
            size = 0
    if parts:
        yield b"".join(parts)
