"""The interface between a session and a codec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from longconn.core.client import Format
from longconn.core.commands import Command, Push, Result
from longconn.core.errors import CommandError


class Codec(Protocol):
    """Turns the items that a carrier receives into commands, and results and pushes into messages that it sends.

    It refuses a command of more than `max_message` bytes itself, and leaves publications out of the result of a
    subscribe that has not recovered. A command that it cannot name is a MalformedCommandError, which closes the
    connection; one that it can name and not read is a RefusedCommand, which is answered.
    """

    #: the message that asks for a pong
    ping: bytes
    #: seconds for which an expired connection or subscription may still bring a new token
    expiry_grace: float
    #: whether a valid token of a subscribe for another channel, user or client ends the connection, and not only the
    #: command
    closes_on_mismatch: bool

    def split(self, frame: bytes) -> list[Any]:
        """The items of a frame of commands. Carriers that find the items themselves do not call it."""

    def read(self, item: Any) -> Command | None:
        """One command; None for a pong, or for nothing. Raises MalformedCommandError."""

    def reply(self, id: int, result: Result) -> bytes:
        """The reply to a command."""

    def refusal(self, id: int, error: CommandError) -> bytes:
        """The reply to a command that is refused."""

    def push(self, push: Push) -> bytes:
        """A push about the session; publications, joins and leaves are the format's."""

    def frame(self, messages: Sequence[bytes]) -> bytes:
        """Messages as the outlet takes them."""

    def format(self, join_leave: bool) -> Format:
        """The wire format of a channel's events; with or without joins and leaves."""
