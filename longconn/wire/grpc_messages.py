"""The wire formats of a channel's subscribers over gRPC: messages of `longconn/v1/longconn.proto` in their frames.

The messages are encoded here by the rules of protobuf (protobuf.dev/programming-guides/encoding), because the library
takes half as long again: most fields are text that is already there as bytes, and need only a tag and a length. Tests
compare each message with the library's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import ClassVar

from longconn.core.publication import Counts, Event, History, Info, Join, Publication, Rename

_DOUBLE = Struct("<d").pack

# Tags: the number of a field, shifted by three, and its wire type: 0 varint, 1 double, 2 with a length.
_OFFSET = b"\x10"
_TIME = b"\x41"
_FIRST = b"\x0a"
_SECOND = b"\x12"
#: Bytes of a backlog that are encoded at once.
_SLICE = 64 * 1024
#: Clients or publications of an answer that are encoded at once: some tenths of a millisecond.
_ITEMS = 200
# The tags of publications, joins and leaves in the `event` of a ConnectResponse.
#: The tags of presence and history there.
PRESENCE, HISTORY = b"\x32", b"\x3a"
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
    """Return a field of the type string or bytes; an empty one is left out."""
    return b"%b%b%b" % (tag, _length(len(value)), value) if value else b""


def _framed(tag: bytes, body: bytes) -> bytes:
    """Return, in its gRPC frame, a message whose only field is the message `body` (`longconn.wire.grpc.frame`)."""
    length = _length(len(body))
    return b"\0%b%b%b%b" % ((1 + len(length) + len(body)).to_bytes(4, "big"), tag, length, body)


def _publication(publication: Publication, channel: bytes) -> bytes:
    """Return a Publication. `channel` is its first field, encoded."""
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
    """Return a Join or a Leave in its frame. `channel` is its first field, encoded."""
    return _framed(tag, channel + _field(_SECOND, _client_info(info)))


def answer(id: int, tag: bytes, parts: Iterable[bytes]) -> bytes:
    """Return a ConnectResponse with the answer to the command `id`."""
    body = b"".join(parts)
    return b"%b%b%b%b" % (b"\x08" + _length(id) if id else b"", tag, _length(len(body)), body)


def presence_parts(infos: Sequence[Info]) -> Iterator[bytes]:
    """Yield a PresenceResponse in parts of `_ITEMS` clients."""
    for at in range(0, len(infos), _ITEMS):
        bodies = map(_client_info, infos[at : at + _ITEMS])
        yield b"".join([b"%b%b%b" % (_FIRST, _length(len(each)), each) for each in bodies])


def history_parts(history: History) -> Iterator[bytes]:
    """Yield a HistoryResponse in parts of about `_SLICE` bytes, and at most `_ITEMS` publications."""
    parts: list[bytes] = []
    size = 0
    for each in history.publications:
        body = _publication(each, _field(_FIRST, each.channel.encode()))
        parts += (_FIRST, _length(len(body)), body)
        size += len(body)
        if size >= _SLICE or len(parts) >= 3 * _ITEMS:
            yield b"".join(parts)
            parts.clear()
            size = 0
    offset = history.position.offset
    position = _field(_FIRST, history.position.epoch.encode()) + (_OFFSET + _length(offset) if offset else b"")
    recovered = b"\x18\x01" if history.recovered else b""
    yield b"".join((*parts, _SECOND, _length(len(position)), position, recovered))


@dataclass(frozen=True)
class MessageFormat:
    """Writes a channel's publications as messages of `Subscribe`."""

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
    """Writes a channel's events as messages of `Connect`; joins and leaves only with `join_leave`."""

    join_leave: bool
    publication: ClassVar[bytes] = _PUBLICATION
    tells_own_join: ClassVar[bool] = True

    def write(self, event: Event, channel: bytes) -> bytes:
        if isinstance(event, Publication):
            return super().write(event, channel)
        if not self.join_leave or isinstance(event, Counts):
            return b""  # the messages have no form for counts; Presence has the clients
        if isinstance(event, Rename):
            return _change(_LEAVE, channel, event.before) + _change(_JOIN, channel, event.info)
        return _change(_JOIN if isinstance(event, Join) else _LEAVE, channel, event.info)


#: The formats. Subscribers of the same format share the encoded bytes.
MESSAGES = MessageFormat()
PUSHES = {join_leave: PushFormat(join_leave) for join_leave in (False, True)}


def backlog(format: MessageFormat, channel: str, publications: Sequence[Publication]) -> Iterator[bytes]:
    """Yield the publications that a subscriber missed, encoded in parts of about `_SLICE` bytes."""
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
