"""What a chat shows and what is typed into it, whatever it runs in: lines, and what they mean."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred

from longconn.clients import Publication
from longconn.commands.messages import speaker, texts
from longconn.wire.chat import safe

#: The commands, how they are written, and what they do.
COMMANDS = {
    "nick": ("/nick NAME", "take another name"),
    "join": ("/join CHANNEL", "leave this channel for another"),
    "who": ("/who", "who is here"),
    "history": ("/history [N]", "the last N messages, 20 if N is not given, at most 100"),
    "json": ("/json VALUE", "publish a JSON value"),
    "help": ("/help", "this text; //text says /text"),
    "quit": ("/quit", "leave; so does quit alone"),
}
_NEEDS_ARGUMENT = {"nick", "join", "json"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line for people. `name` says whose it is: then it is what was said, and else a mark and a text."""

    text: str
    name: str = ""
    mark: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.text}" if self.name else f"{self.mark} {self.text}"


def told(text: str) -> Line:
    """Information."""
    return Line(safe(text), mark="*")


def wrong(text: str) -> Line:
    """What does not work."""
    return Line(safe(text), mark="!")


def said(publication: Publication) -> list[Line]:
    """What was published, each line under the name."""
    return [Line(each, name=speaker(publication)) for each in texts(publication)]


class Screen(Protocol):
    """What a chat is shown on."""

    def show(self, line: Line) -> Deferred[None]:
        """Show a line. Fires when there is room for more."""

    def refresh(self) -> None:
        """What a screen may show beside the lines has changed: the channel, the name, who is here, the connection."""


def understood(line: str) -> tuple[str, str]:
    """What a typed line asks for: `say` and a text, a command and its argument, or `wrong` and why. "" for nothing."""
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
        return "wrong", f"unknown command /{verb}; /help lists them"
    argument = argument.strip()
    if verb in _NEEDS_ARGUMENT and not argument:
        return "wrong", f"usage: {COMMANDS[verb][0]}"
    return verb, argument


def colour_of(name: str, colours: int) -> int:
    """A number below `colours`, always the same for a name."""
    return zlib.crc32(name.encode("utf-8", "replace")) % colours
