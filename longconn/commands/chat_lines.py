"""The lines that a chat shows, and the parsing of the lines that are typed into it."""

from __future__ import annotations

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
    "history": ("/history [N]", "the last N messages, 20 if N is not given, at most 100"),
    "json": ("/json VALUE", "publish a JSON value"),
    "help": ("/help", "this text; //text says /text"),
    "quit": ("/quit", "leave; so does quit alone"),
}
_NEEDS_ARGUMENT = {"nick", "join", "json"}


@dataclass(frozen=True, slots=True)
class Line:
    """A line to show: with a `name`, a line of a message; otherwise a notice that starts with `mark`."""

    text: str
    name: str = ""
    mark: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.text}" if self.name else f"{self.mark} {self.text}"


def notice(text: str) -> Line:
    """A line of information."""
    return Line(safe(text), mark="*")


def error_line(text: str) -> Line:
    """A line about an error."""
    return Line(safe(text), mark="!")


def message_lines(publication: Publication) -> list[Line]:
    """The lines of a publication, each with the name."""
    return [Line(each, name=speaker(publication)) for each in texts(publication)]


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
