"""Chat lines: `parse` reads a line, `ChatFormat` writes events as lines.

Lines are UTF-8. LF or CRLF ends them when they are read, CRLF when they are written: telnet,
Twisted's LineReceiver and every reader of lines understand that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from longconn.core.publication import Counts, Event, Join, Leave, Publication, Rename
from longconn.wire.chat_texts import Texts

#: Commands by their verb, and how they are used.
COMMANDS = {
    "login": "/login NAME",
    "nick": "/nick NAME",
    "join": "/join CHANNEL",
    "who": "/who",
    "channels": "/channels",
    "history": "/history [N]",
    "json": "/json VALUE",
    "help": "/help",
    "quit": "/quit",
}

#: `ping` once or more without a line end, after a BOM or none, and the seconds after which it is answered.
PINGS = re.compile(rb"(?:\xef\xbb\xbf)?(?:ping){1,64}")
PING_PAUSE = 0.2

_LINE_ENDS = re.compile(r"\r\n|\r|\n")
# C0 but tab, DEL, C1, the line and paragraph separators, and the bidi controls (UAX 9, table 1, and
# the marks): they could move a terminal's cursor, break a line or reorder the text of others.
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_REPLACEMENT = "\ufffd"
#: Line ends of one publication that start a new line; further ones become U+FFFD. Each line repeats the
#: name, so that many short lines would grow to a multiple of the publisher's bytes.
_MOST_LINES = 200


def parse(line: str) -> tuple[str, str]:
    """The request of a line: a verb and its argument.

    Verbs are `say`, `ping`, `leave` (an empty line), the keys of `COMMANDS`, and
    `unknown`, with the command as its argument. A byte order mark before the line is left out.
    """
    if line.startswith("\ufeff"):
        line = line[1:]
    if line.startswith("/"):
        if line.startswith("//"):
            return "say", line[1:]
        verb, _, argument = line[1:].partition(" ")
        if verb not in COMMANDS:
            return "unknown", "/" + verb
        return verb, argument.strip()
    if line == "ping":
        return "ping", ""
    return ("say", line) if line else ("leave", "")


def safe(text: str) -> str:
    """`text` without anything that a terminal would obey. One line stays one line."""
    # isprintable is a fast test in C. It is true for most text, and never where _UNSAFE matches.
    return text if text.isprintable() else _UNSAFE.sub(_REPLACEMENT, text)


def crlf(lines: Iterable[str]) -> bytes:
    """Lines as they go over TCP."""
    return ("\r\n".join(lines) + "\r\n").encode()


@dataclass(frozen=True)
class ChatFormat:
    """Events as chat lines in one language.

    `frame` turns lines into bytes of the connection: `crlf` or `longconn.wire.websocket.text_frames`. Equal
    formats share one encoding.
    """

    texts: Texts
    frame: Callable[[list[str]], bytes]
    tells_own_join: ClassVar[bool] = False

    def encode(self, channel: str, events: Sequence[Event]) -> bytes:
        lines: list[str] = []
        texts = self.texts
        for event in events:
            if isinstance(event, Publication):
                self.say(event, lines)
            elif isinstance(event, Join | Leave):
                if event.info.chat:
                    template = texts.joined if isinstance(event, Join) else texts.left
                    lines.append(template.format(name=safe(event.info.name)))
            elif isinstance(event, Rename):
                if event.info.chat:
                    lines.append(texts.renamed.format(old=safe(event.old), name=safe(event.info.name)))
            else:
                lines.append(self._counts(event))
        return self.frame(lines) if lines else b""

    def say(self, publication: Publication, lines: list[str]) -> None:
        """Append a publication's lines. Each begins with the name, so that none can pass for another client's."""
        text = publication.data.text
        if text is None:
            text = publication.data.json.decode()
        start = (safe(publication.info.name) or self.texts.server) + self.texts.said
        if text.isprintable():
            lines.append(start + text)
        else:
            lines.extend(start + _UNSAFE.sub(_REPLACEMENT, each) for each in _LINE_ENDS.split(text, _MOST_LINES))

    def _counts(self, event: Counts) -> str:
        texts = self.texts
        parts = []
        if event.joined:
            parts.append(texts.counts_joined.format(n=event.joined))
        if event.left:
            parts.append(texts.counts_left.format(n=event.left))
        return texts.counts.format(parts=", ".join(parts))
