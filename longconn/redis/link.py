"""What a shard needs of its server, and what the server tells a shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from longconn.redis.errors import RedisError
from longconn.redis.scripts import Script

#: Words of a command.
Words = Sequence[bytes | str | int]
#: Gets the answer to a command: a reply as hiredis reads it, or an error.
Answered = Callable[[Any], None]


class Listener(Protocol):
    """A shard, as its link sees it."""

    def on_up(self, generation: str) -> None:
        """There is a connection. The server's data are of this generation."""

    def on_down(self, error: RedisError) -> None:
        """The connection was lost, or could not be made. Each command that was not answered got its error before."""

    def on_refused(self) -> None:
        """The server takes no writes, see `Link.problem`."""

    def on_message(self, channel: bytes, message: bytes) -> None:
        """A message of Pub/Sub came."""

    def on_beat(self) -> None:
        """The server took a write."""


class Link(Protocol):
    """One connection to a server, made again when it is lost.

    Commands are executed in order. A message of Pub/Sub that was published before a command was executed comes before
    the answer to that command.
    """

    @property
    def up(self) -> bool:
        """Whether there is a connection."""

    @property
    def problem(self) -> str:
        """Why publications are not taken; empty if they are."""

    def start(self, listener: Listener) -> None:
        """Connect."""

    def call(self, script: Script, keys: Sequence[str], arguments: Words, done: Answered) -> None:
        """Run a script. `done` is called once, within the call only with a `LinkLostError`."""

    def command(self, *words: bytes | str | int, done: Answered | None = None) -> None:
        """Run another command. A command of Pub/Sub has no `done`."""

    def stop(self) -> None:
        """Send what waits, and close."""

    def closed(self) -> Deferred[None]:
        """Comes true when there is no connection any more, after `stop`."""
