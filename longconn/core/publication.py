"""What travels through a channel: publications, and the comings and goings of clients."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from longconn.core.errors import BAD_DATA, BAD_REQUEST, UNRECOVERABLE, CommandError

# White space between the tokens of a JSON text; the first branch steps over strings.
_INSIGNIFICANT = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")|[ \t\r\n]+')


class Data:
    """A JSON value as it was published: kept as it was written, never parsed and written anew.

    `text` is the string, if the value is a string (a chat line), else None. `json` is
    the value as compact JSON in UTF-8, without a line end.
    """

    __slots__ = ("_json", "size", "text")

    def __init__(self, text: str | None, encoded: bytes | None, size: int) -> None:
        self.text = text
        self._json = encoded
        #: bytes: what counts against limits
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
    def of_json(cls, raw: bytes | str) -> Data:
        """A JSON value from its text (RFC 8259, UTF-8).

        Raises CommandError(BAD_DATA) if it is none, nests deeper than the parser goes, or is
        a string that has no UTF-8 form.
        """
        try:
            written = raw if isinstance(raw, str) else raw.decode()
            # Numbers are only checked, so that long ones neither cost time nor lose digits.
            value = json.loads(written, parse_int=str, parse_float=str, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise CommandError(BAD_DATA, what="JSON") from None
        written = written.strip(" \t\r\n")
        if written.startswith('"'):
            return cls.of_text(value)
        encoded = _INSIGNIFICANT.sub(r"\1", written).encode()
        return cls(None, encoded, len(encoded))

    @property
    def json(self) -> bytes:
        if self._json is None:
            self._json = json.dumps(self.text, ensure_ascii=False).encode()
        return self._json


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


@dataclass(frozen=True, slots=True)
class Info:
    """Who published, joined or left: the client's name, its id, its user.

    `conn_info` and `chan_info` are what tokens say of it, as JSON; empty for none. `chat` says that it is
    somebody of the chat: its readers are told of its comings and goings, and everybody is told its name.
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
    """Somebody came."""

    info: Info


@dataclass(frozen=True, slots=True)
class Leave:
    """Somebody went."""

    info: Info


@dataclass(frozen=True, slots=True)
class Rename:
    """A client that was called `old` is now called `info.name`."""

    old: str
    info: Info


@dataclass(frozen=True, slots=True)
class Counts:
    """So many joins and leaves, where there are too many subscribers to name each."""

    joined: int
    left: int


Announcement = Join | Leave | Rename
Event = Publication | Join | Leave | Rename | Counts


@dataclass(slots=True)
class History:
    """An answer about a channel's past.

    `publications` are in order (newest first if reversed); `position` is where the
    channel stands now. `recovered` says that nothing is missing between the position
    that was asked for and the first of them; without one it is True.
    """

    publications: list[Publication]
    position: Position
    recovered: bool = True

    def page(self, since: Position | None, limit: int, reverse: bool) -> History | CommandError:
        """Of a channel's whole history, what is asked for, as Centrifugo has it.

        At most `limit` publications (-1: all) after `since`, or with `reverse` before it, the newest first. A
        gap is no error, an epoch that is not this one is; an empty one is any.
        """
        found = self.publications
        if since is not None:
            if since.epoch not in ("", self.position.epoch):
                return CommandError(UNRECOVERABLE)
            if reverse and not since.offset:
                return CommandError(BAD_REQUEST, what="there is nothing before offset 0")
            found = [each for each in found if (each.offset < since.offset if reverse else each.offset > since.offset)]
        if reverse:
            found = found[::-1]
        return History(found[:limit] if limit >= 0 else found, self.position)
