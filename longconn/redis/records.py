"""How publications, announcements and members are written in Redis: as arrays of MessagePack.

A message of Pub/Sub begins with a letter. `P` is followed by EPOCH:OFFSET:TIME: and the publications from that offset
on, each as LENGTH:RECORD; TIME is in milliseconds since 1970. `V` is a publication that is not kept: TIME:RECORD. `A`
is an announcement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import DecodeError, Struct, ValidationError
from msgspec.msgpack import Decoder, Encoder

from longconn.core.publication import Announcement, Data, Info, Join, Leave, Publication, Rename
from longconn.redis.errors import BadRecordError


class _MemberRecord(Struct, array_like=True):
    """An `Info`."""

    name: str
    client: str
    user: str
    conn_info: bytes
    chan_info: bytes
    chat: bool


class _Record(Struct, array_like=True):
    """A publication: text, or JSON as it was written; its size; the publisher."""

    text: str | None
    json: bytes
    size: int
    member: _MemberRecord


class _Announced(Struct, array_like=True):
    """A join, leave or rename."""

    kind: str
    old: str
    member: _MemberRecord


_write = Encoder().encode
_read_record = Decoder(_Record).decode
_read_announced = Decoder(_Announced).decode
_read_member = Decoder(_MemberRecord).decode


def _member(info: Info) -> _MemberRecord:
    return _MemberRecord(info.name, info.client, info.user, info.conn_info, info.chan_info, info.chat)


def _info(member: _MemberRecord) -> Info:
    return Info(member.name, member.client, member.user, member.conn_info, member.chan_info, member.chat)


def write_member(info: Info) -> bytes:
    """A member of a channel's presence."""
    return _write(_member(info))


def read_member(record: bytes) -> Info:
    """The inverse of `write_member`. Raises BadRecordError."""
    return _info(_checked(_read_member, record))


def write_publication(data: Data, info: Info) -> bytes:
    """A publication without its position and its time."""
    return _write(_Record(data.text, b"" if data.text is not None else data.json, data.size, _member(info)))


def read_publication(channel: str, epoch: str, offset: int, record: bytes, time: float) -> Publication:
    """The inverse of `write_publication`; `time` is in seconds since 1970. Raises BadRecordError."""
    found = _checked(_read_record, record)
    data = Data(found.text, None if found.text is not None else found.json, found.size)
    return Publication(channel, epoch, offset, data, _info(found.member), time)


_KINDS: dict[str, type[Join] | type[Leave]] = {"join": Join, "leave": Leave}


def write_announcement(announcement: Announcement) -> bytes:
    """A message of Pub/Sub for a join, leave or rename."""
    if isinstance(announcement, Rename):
        found = _Announced("rename", announcement.old, _member(announcement.info))
    else:
        found = _Announced("join" if isinstance(announcement, Join) else "leave", "", _member(announcement.info))
    return b"A" + _write(found)


def read_announcement(message: bytes) -> Announcement:
    """The inverse of `write_announcement`. Raises BadRecordError."""
    found = _checked(_read_announced, message[1:])
    info = _info(found.member)
    if found.kind == "rename":
        return Rename(found.old, info)
    if found.kind not in _KINDS:
        raise BadRecordError("an announcement of an unknown kind")
    return _KINDS[found.kind](info)


def write_unkept(time: float, record: bytes) -> bytes:
    """A message of Pub/Sub for a publication that is not kept."""
    return b"V%d:%b" % (time * 1000, record)


def read_unkept(channel: str, epoch: str, message: bytes) -> Publication:
    """The inverse of `write_unkept`. Raises BadRecordError."""
    time, _, record = message[1:].partition(b":")
    return read_publication(channel, epoch, 0, record, _number(time) / 1000)


def read_publications(channel: str, message: bytes) -> list[Publication]:
    """The publications of a message of Pub/Sub that begins with `P`. Raises BadRecordError."""
    parts = message[1:].split(b":", 3)
    if len(parts) != 4:
        raise BadRecordError("a message without a position")
    epoch, rest = parts[0].decode("ascii", "replace"), parts[3]
    offset, time = _number(parts[1]), _number(parts[2]) / 1000
    publications = []
    start = 0
    while start < len(rest):
        colon = rest.find(b":", start)
        end = colon + 1 + _number(rest[start:colon])
        if colon < 0 or end > len(rest):
            raise BadRecordError("a message that is cut off")
        publications.append(read_publication(channel, epoch, offset, rest[colon + 1 : end], time))
        offset += 1
        start = end
    return publications


def _number(text: bytes) -> int:
    if not text.isdigit():
        raise BadRecordError("a number is missing")
    return int(text)


def _checked(read: Callable[[bytes], Any], record: bytes) -> Any:
    try:
        return read(record)
    except (DecodeError, ValidationError, UnicodeDecodeError) as error:
        raise BadRecordError(str(error)) from None
