"""What the hub asks of a broker, and what a broker tells the hub.

A broker orders and keeps publications. Every answer comes by calling `done` once, with
a result or a `CommandError`: within the call for the embedded broker, turns later for
one over a network. What is published and announced, by whatever hub, comes back to each
hub that subscribed to the channel through `Receiver`, in the channel's order; there is
no shortcut for a hub's own. A channel's answers and publications may interleave freely:
the hub joins them by offset.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from longconn.core.errors import CommandError
from longconn.core.publication import Announcement, Data, History, Info, Position, Publication

_T = TypeVar("_T")
Done = Callable[[_T | CommandError], None]


class Receiver(Protocol):
    """The hub, as a broker sees it."""

    def on_publication(self, publication: Publication) -> None: ...

    def on_announcement(self, channel: str, announcement: Announcement) -> None: ...


class Broker(Protocol):
    """Orders and keeps the publications of channels. Errors that pass are `temporary`."""

    def attach(self, receiver: Receiver) -> None:
        """Tell `receiver` from now on what comes back. Called once."""

    def subscribe(self, channel: str, done: Done[None]) -> None:
        """Let what is published in `channel` after `done` come back here."""

    def unsubscribe(self, channel: str) -> None: ...

    def publish(self, channel: str, data: Data, info: Info, done: Done[Position], keep: bool = True) -> None:
        """Give a publication its offset, keep it, bring it back; answers with its position.

        Without `keep` it only comes back, with the offset 0; the position is Position("", 0).
        """

    def announce(self, channel: str, announcement: Announcement) -> None:
        """Bring back a join, leave or rename; it has no offset and is not kept. Best effort."""

    def history(self, channel: str, since: Position | None, limit: int, reverse: bool, done: Done[History]) -> None:
        """What is kept after `since` (all without), at most `limit` publications (0: none, only
        the position; -1: all). Without `since`, a limit takes the newest, still in order.
        An empty epoch of `since` is whatever the epoch is."""

    def remove_history(self, channel: str, done: Done[None]) -> None:
        """Forget what is kept of a channel, but not where it stands."""

    def stop(self) -> None:
        """Leave nothing behind: no delayed call, no connection."""
