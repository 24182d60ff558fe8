"""The events of a channel: publications, joins, leaves and new names; and positions and history."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from itertools import accumulate

import msgspec

from longconn.core.errors import BAD_DATA, BAD_REQUEST, UNRECOVERABLE, CommandError
from longconn.core.json_text import BOM, read
from longconn.core.names import with_name

_STRING = msgspec.json.Decoder(str)
_VALUE = msgspec.json.Decoder(msgspec.Raw)
#: Arrays and objects within each other. Readers of other languages and programs have limits of their own, most from 512
#: on, and that of msgspec and of Python's `json` depends on the interpreter's stack.
MAX_DEPTH = 500
_HAS_SPACE = re.compile(rb"[ \t\r\n]")
# White space between the tokens of a JSON text; the first branch steps over strings.
_INSIGNIFICANT = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")|[ \t\r\n]+')

_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ALIKE = bytes.maketrans(b"{}", b"[]")
_OPENS = ord("[")


class Data:
    """A JSON value as it was published: kept as it was written, without the white space between its tokens.

    `text` is the string, if the value is a string (a chat line), else None. `json` is the value as compact JSON in
    UTF-8. `size` in bytes counts against limits.
    """

    __slots__ = ("_json", "size", "text")

    def __init__(self, text: str | None, encoded: bytes | None, size: int) -> None:
        self.text = text
        self._json = encoded
        self.size = size

    @classmethod
    def of_text(cls, text: str, size: int | None = None) -> Data:
        """A string. `size` is its length in bytes of UTF-8, where the caller knows it."""
        if size is None:
            try:
                size = len(text.encode())
            except UnicodeEncodeError:
                raise CommandError(BAD_DATA, what="text with a lone surrogate") from None
        return cls(text, None, size)

    @classmethod
    def of_json(cls, written: bytes | str) -> Data:
        """A JSON value from its text (RFC 8259, UTF-8), without regard to a BOM before it.

        Raises CommandError(BAD_DATA) if it is none, nests deeper than MAX_DEPTH, or has a string that has no form in
        UTF-8.
        """
        try:
            raw = (written.encode() if isinstance(written, str) else written).strip(b" \t\r\n")
            if raw.startswith(BOM):  # subscribers get the value in the middle of a text, where a BOM is not allowed
                raw = raw[len(BOM) :].lstrip(b" \t\r\n")
                if raw.startswith(BOM):
                    raise ValueError("two byte order marks")
            if raw.startswith(b'"'):
                return cls(read(_STRING, raw), None, len(raw))
            read(_VALUE, raw)
        except ValueError:  # UnicodeEncodeError too
            raise CommandError(BAD_DATA, what="JSON") from None
        if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(raw) > MAX_DEPTH:
            raise CommandError(BAD_DATA, what=f"JSON of more than {MAX_DEPTH} levels")
        if _HAS_SPACE.search(raw) is not None:
            raw = _INSIGNIFICANT.sub(rb"\1", raw)
        return cls(None, raw, len(raw))

    @classmethod
    def of_value(cls, value: object) -> Data:
        """A JSON value from a Python value, as `json.dumps` writes it.

        Raises CommandError(BAD_DATA) for a value that JSON cannot express: a set, NaN, text with a lone surrogate.
        """
        try:
            written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError):
            raise CommandError(BAD_DATA, what="JSON") from None
        return cls.of_json(written)

    @property
    def json(self) -> bytes:
        """The value as compact JSON in UTF-8."""
        if self._json is None:
            self._json = msgspec.json.encode(self.text)
        return self._json


def _depth(text: bytes) -> int:
    """How deep the arrays and objects of a JSON text are nested."""
    brackets = _STRINGS.sub(b"", text).translate(_ALIKE, _NO_BRACKETS)
    return max(accumulate([1 if each == _OPENS else -1 for each in brackets]), default=0)


@dataclass(frozen=True, slots=True)
class Info:
    """The publisher, or the client that joined or left: its name, its id, its user.

    `conn_info` and `chan_info` are claims of its tokens, as JSON; empty for none. `chat` says that it is a chat
    client: people are told of its joins and leaves.
    """

    name: str
    client: str = ""
    user: str = ""
    conn_info: bytes = b""
    chan_info: bytes = b""
    chat: bool = True


@dataclass(frozen=True, slots=True)
class Position:
    """Where in a channel a subscriber stands: `offset` counts within `epoch`."""

    epoch: str
    offset: int


@dataclass(slots=True)
class Publication:
    """One message in a channel. `time` is in seconds since 1970."""

    channel: str
    epoch: str
    offset: int
    data: Data
    info: Info
    time: float


@dataclass(frozen=True, slots=True)
class Join:
    """A client subscribed."""

    info: Info


@dataclass(frozen=True, slots=True)
class Leave:
    """A client left."""

    info: Info


@dataclass(frozen=True, slots=True)
class Rename:
    """A client that was called `old` is now called `info.name`."""

    old: str
    info: Info

    @property
    def before(self) -> Info:
        """How others saw the client until now."""
        return replace(self.info, name=self.old, conn_info=with_name(self.info.conn_info, self.old))


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of joins and leaves, where there are too many subscribers to name each."""

    joined: int
    left: int


Announcement = Join | Leave | Rename
Event = Publication | Join | Leave | Rename | Counts


@dataclass(slots=True)
class History:
    """The kept publications of a channel.

    `publications` are in order, or the newest first if that was asked for; `position` is where the channel stands
    now. `recovered` says that nothing is missing between the position that was asked for and the first of them;
    without one it is True.
    """

    publications: list[Publication]
    position: Position
    recovered: bool = True

    def since(self, since: Position | None, reverse: bool) -> History | CommandError:
        """The broker's answer for `since` and `reverse`, as Centrifugo's client protocol has it.

        There a lost position is no error, but an epoch that is not the channel's is UNRECOVERABLE.
        """
        if since is None:
            return self
        if since.epoch not in ("", self.position.epoch):
            return CommandError(UNRECOVERABLE)
        if reverse and not since.offset:
            return CommandError(BAD_REQUEST, what="there is nothing before offset 0")
        found = [
            each
            for each in self.publications
            if (each.offset < since.offset) is reverse and each.offset != since.offset
        ]
        return History(found, self.position)
