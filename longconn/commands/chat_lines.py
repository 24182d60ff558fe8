"""The lines that a chat shows, and the parsing and completion of the lines that are typed into it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred

from longconn.clients import Publication
from longconn.commands.messages import speaker, texts
from longconn.wire.chat import safe

#: The commands, with their usage and a description.
COMMANDS = {
    "nick": ("/nick NAME", "take another name"),
    "join": ("/join CHANNEL", "leave this channel for another"),
    "who": ("/who", "who is here"),
    "channels": ("/channels", "the channels that there are"),
    "history": ("/history [N]", "the last N messages, 20 if N is not given, at most 100"),
    "json": ("/json VALUE", "publish a JSON value"),
    "help": ("/help", "this text; //text says /text"),
    "quit": ("/quit", "leave; so does quit alone"),
}
_NEEDS_ARGUMENT = {"nick", "join", "json"}
#: A command that is being typed, and one whose argument is a channel.
_COMMAND = re.compile(r"/\w*")
_JOIN = re.compile(r"/join +(\S*)")
_WORD = re.compile(r"\S*$")


@dataclass(frozen=True, slots=True)
class Line:
    """A line to show: with a `name`, a line of a message; otherwise a notice that starts with `mark`.

    `time` is in seconds since 1970; None for a line that continues another, and for what a command prints.
    """

    text: str
    name: str = ""
    mark: str = ""
    time: float | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.text}" if self.name else f"{self.mark} {self.text}"


def notice(text: str) -> Line:
    """A line of information."""
    return Line(safe(text), mark="*")


def event_line(text: str) -> Line:
    """A line about what happens now."""
    return Line(safe(text), mark="*", time=time.time())


def error_line(text: str) -> Line:
    """A line about an error."""
    return Line(safe(text), mark="!", time=time.time())


def message_lines(publication: Publication) -> list[Line]:
    """The lines of a publication, each with the name, the first with the time."""
    first, *others = texts(publication)
    name = speaker(publication)
    said_at = time.time() if publication.time is None else publication.time
    return [Line(first, name=name, time=said_at), *(Line(each, name=name) for each in others)]


class Screen(Protocol):
    """Shows a chat."""

    def show(self, line: Line) -> Deferred[None]:
        """Show a line. Fires when there is room for the next one."""

    def refresh(self) -> None:
        """The channel, the name, the members or the connection changed."""


def parse_input(line: str) -> tuple[str, str]:
    """A typed line as a verb and its argument: a command, `say` with a text, `error` with a reason, or "" for none."""
    if line.strip() in ("quit", "/quit"):
        return "quit", ""
    if not line.strip():
        return "", ""
    if not line.startswith("/"):
        return "say", line
    if line.startswith("//"):
        return "say", line[1:]
    verb, _, argument = line[1:].partition(" ")
    if verb not in COMMANDS:
        return "error", f"unknown command /{verb}; /help lists them"
    argument = argument.strip()
    if verb in _NEEDS_ARGUMENT and not argument:
        return "error", f"usage: {COMMANDS[verb][0]}"
    return verb, argument


def completions(text: str, names: Iterable[str], channels: Iterable[str]) -> tuple[int, list[str]]:
    """What may complete `text`, up to the cursor: how many of its last characters are replaced, and by which texts.

    Commands at the start, channels after /join, names elsewhere. A name at the start addresses its bearer: `mia: `.
    """
    if _COMMAND.fullmatch(text):
        found = [
            f"/{verb}" + " " * (" " in usage) for verb, (usage, _) in COMMANDS.items() if f"/{verb}".startswith(text)
        ]
        return len(text), found
    join = _JOIN.fullmatch(text)
    if join is not None:
        return len(join[1]), [each for each in channels if each.startswith(join[1])]
    match = _WORD.search(text)
    word = match[0] if match is not None else ""
    start, end = ("@", " ") if word.startswith("@") else ("", ": " if word == text else " ")
    wanted = word.removeprefix("@").casefold()
    return len(word), [f"{start}{each}{end}" for each in names if each.casefold().startswith(wanted)]


def hint(text: str) -> str:
    """The commands that a typed text may become; with its meaning if it is only one. "" if it is no command."""
    if not text.startswith("/") or text.startswith("//"):
        return ""
    verb, space, _ = text.partition(" ")
    found = [each for name, each in COMMANDS.items() if (f"/{name}" == verb if space else f"/{name}".startswith(verb))]
    if len(found) == 1:
        return ": ".join(found[0])
    return "  ".join(usage for usage, _ in found) or f"{verb}: there is no such command"
