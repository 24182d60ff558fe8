"""Publications as JSON, as server-sent events and as lines of JSON; and HTTP/1.1's chunks.

A publication is written `{"channel","offset","epoch","data","name","time"}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from longconn.core.publication import Counts, Event, Join, Leave, Position, Publication, Rename

_POSITION = re.compile(r"([A-Za-z0-9_-]{1,64}):(\d{1,18})")


def write_position(position: Position) -> str:
    """EPOCH:OFFSET."""
    return f"{position.epoch}:{position.offset}"


def read_position(text: str) -> Position | None:
    """A position from EPOCH:OFFSET; None if it is none."""
    match = _POSITION.fullmatch(text) if text.isascii() else None
    return Position(match[1], int(match[2])) if match else None


def publication_json(publication: Publication, channel: bytes, end: bytes = b"") -> bytes:
    """A publication as compact JSON. `channel` is its channel's name, already a JSON string."""
    name = json.dumps(publication.info.name, ensure_ascii=False).encode()
    return b'{"channel":%b,"offset":%d,"epoch":"%b","data":%b,"name":%b,"time":%.3f}%b' % (
        channel,
        publication.offset,
        publication.epoch.encode(),
        publication.data.json,
        name,
        publication.time,
        end,
    )


def quoted(channel: str) -> bytes:
    return json.dumps(channel, ensure_ascii=False).encode()


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(frozen=True)
class StreamFormat:
    """Publications as JSON, one a line; comings and goings have no form. Equal formats are one."""

    chunked: bool
    tells_own_join: ClassVar[bool] = False

    @property
    def heartbeat(self) -> bytes:
        """What is written when nothing else was for a while."""
        return b"\n"

    def frame(self, data: bytes) -> bytes:
        """The bytes of a body as they go over the connection."""
        return chunk(data) if self.chunked and data else data

    def encode(self, channel: str, events: Sequence[Event]) -> bytes:
        name = quoted(channel)
        return self.frame(b"".join([self.write(each, name) for each in events]))

    def write(self, event: Event, channel: bytes) -> bytes:
        return publication_json(event, channel, b"\n") if isinstance(event, Publication) else b""


class EventFormat(StreamFormat):
    """Server-sent events (WHATWG HTML, section 9.2): `message` for publications, `join` and `leave`.

    Only publications have an `id`, so that a browser resumes from the last it saw. A rename
    is a leave and a join. Where many come at once their number stands for their names.
    """

    @property
    def heartbeat(self) -> bytes:
        return b":\n\n"

    def write(self, event: Event, channel: bytes) -> bytes:
        if isinstance(event, Publication):
            # What is not kept has no place that one could resume from.
            place = b"id: %b:%d\n" % (event.epoch.encode(), event.offset) if event.offset else b""
            return b"%bdata: %b\n\n" % (place, publication_json(event, channel))
        if isinstance(event, Join | Leave):
            kind = b"join" if isinstance(event, Join) else b"leave"
            return _named(kind, channel, event.info.name) if event.info.chat else b""
        if isinstance(event, Rename):
            return _named(b"leave", channel, event.old) + _named(b"join", channel, event.info.name)
        return _counted(event, channel)


def _named(kind: bytes, channel: bytes, name: str) -> bytes:
    return b'event: %b\ndata: {"channel":%b,"name":%b}\n\n' % (
        kind, channel, json.dumps(name, ensure_ascii=False).encode(),
    )  # fmt: skip


def _counted(event: Counts, channel: bytes) -> bytes:
    return b"".join(
        b'event: %b\ndata: {"channel":%b,"count":%d}\n\n' % (kind, channel, count)
        for kind, count in ((b"join", event.joined), (b"leave", event.left))
        if count
    )
