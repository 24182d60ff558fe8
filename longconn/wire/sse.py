"""Publications as JSON, as server-sent events and as lines of JSON; HTTP/1.1's chunks; positions as text.

A publication is written `{"channel","offset","epoch","data","name","time"}`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from longconn.core.disconnects import Disconnect
from longconn.core.json_text import write
from longconn.core.publication import Counts, Event, Join, Leave, Position, Publication, Rename

_POSITION = re.compile(r"([A-Za-z0-9_-]{1,64}):(\d{1,18})")


def write_position(position: Position) -> str:
    """EPOCH:OFFSET."""
    return f"{position.epoch}:{position.offset}"


def read_position(text: str) -> Position | None:
    """A position from EPOCH:OFFSET; None if the text has another form."""
    match = _POSITION.fullmatch(text) if text.isascii() else None
    return Position(match[1], int(match[2])) if match else None


def publication_json(publication: Publication, channel: bytes, end: bytes = b"") -> bytes:
    """A publication as compact JSON. `channel` is its channel's name, already a JSON string."""
    name = write(publication.info.name)
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
    """A channel's name as a JSON string."""
    return write(channel)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(frozen=True)
class StreamFormat:
    """Publications as JSON, one a line. Joins and leaves are not written.

    Subscribers whose formats are equal share one encoding. `chunked` frames the bytes as chunks.
    """

    chunked: bool
    tells_own_join: ClassVar[bool] = False
    content_type: ClassVar[str] = "application/x-ndjson"

    @property
    def heartbeat(self) -> bytes:
        """Is written after an interval in which nothing else was."""
        return b"\n"

    def frame(self, data: bytes) -> bytes:
        """Bytes of the body as they are sent on the connection."""
        return chunk(data) if self.chunked and data else data

    def encode(self, channel: str, events: Sequence[Event]) -> bytes:
        """A batch of a channel's events, framed."""
        name = quoted(channel)
        return self.frame(b"".join([self.write(each, name) for each in events]))

    def opening(self, channel: str, start: Position, recovered: bool, retry: int, name: str = "") -> bytes:
        """The first bytes of a body: from which position it goes on, and whether something before that is missing.

        `retry` is the number of milliseconds after which a client should reconnect, `name` the reader's name.
        """
        return b"" if recovered else b'{"channel":%b,"recovered":false,%b}\n' % (quoted(channel), _members(start))

    def farewell(self, disconnect: Disconnect, retry: int) -> bytes:
        """The last bytes of a body that the server ends; `retry` as in `opening`."""
        return b""

    def write(self, event: Event, channel: bytes) -> bytes:
        return publication_json(event, channel, b"\n") if isinstance(event, Publication) else b""


class EventFormat(StreamFormat):
    """Server-sent events (WHATWG HTML, section 9.2): `message` for publications, `join` and `leave`.

    The first event, `position`, and publications have an `id`, so that a browser resumes after the last one that it
    received. A rename is a leave and a join. Where many clients come at once, their number is written instead of their
    names.
    """

    content_type = "text/event-stream; charset=utf-8"

    @property
    def heartbeat(self) -> bytes:
        return b":\n\n"

    def write(self, event: Event, channel: bytes) -> bytes:
        if isinstance(event, Publication):
            # A publication that is not kept has no position to resume from.
            position = b"id: %b:%d\n" % (event.epoch.encode(), event.offset) if event.offset else b""
            return b"%bdata: %b\n\n" % (position, publication_json(event, channel))
        if isinstance(event, Join | Leave):
            kind = b"join" if isinstance(event, Join) else b"leave"
            return _named(kind, channel, event.info.name) if event.info.chat else b""
        if isinstance(event, Rename):
            if not event.info.chat:
                return b""
            return _named(b"leave", channel, event.old) + _named(b"join", channel, event.info.name)
        return _counted(event, channel)

    def opening(self, channel: str, start: Position, recovered: bool, retry: int, name: str = "") -> bytes:
        # The event has data: npm's `eventsource` takes no id from one without. A browser would.
        data = b'{"channel":%b,%b}' % (quoted(channel), _members(start))
        named = data[:-1] + b',"name":%b}' % write(name) if name else data
        written = b":ok\nretry: %d\nid: %b\nevent: position\ndata: %b\n\n" % (
            retry, write_position(start).encode(), named,
        )  # fmt: skip
        return written if recovered else written + b"event: unrecovered\ndata: %b\n\n" % data

    def farewell(self, disconnect: Disconnect, retry: int) -> bytes:
        data = {"code": disconnect.code, "reason": disconnect.text, "reconnect": disconnect.reconnect}
        head = b"retry: %d\n" % retry if disconnect.reconnect else b""
        return b"%bevent: disconnect\ndata: %b\n\n" % (head, write(data))


def _members(position: Position) -> bytes:
    return b'"epoch":"%b","offset":%d' % (position.epoch.encode(), position.offset)


def _named(kind: bytes, channel: bytes, name: str) -> bytes:
    return b'event: %b\ndata: {"channel":%b,"name":%b}\n\n' % (
        kind, channel, write(name),
    )  # fmt: skip


def _counted(event: Counts, channel: bytes) -> bytes:
    return b"".join(
        b'event: %b\ndata: {"channel":%b,"count":%d}\n\n' % (kind, channel, count)
        for kind, count in ((b"join", event.joined), (b"leave", event.left))
        if count
    )
