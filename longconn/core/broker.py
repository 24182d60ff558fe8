"""The interface between the hub and a broker.

A broker orders and keeps publications. Every answer comes by calling `done` once, with a result or a
`CommandError`: within the call for the embedded broker, turns later for one over a network. Publications and
announcements of every hub come back through `Receiver` to each hub that subscribed to the channel, in the
channel's order. There is no shortcut for a hub's own. Answers and publications of a channel may interleave
freely: the hub joins them by offset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from longconn.core.counters import BrokerCounters
from longconn.core.errors import CommandError
from longconn.core.publication import Announcement, Data, History, Info, Position, Publication

_T = TypeVar("_T")
Done = Callable[[_T | CommandError], None]


class Receiver(Protocol):
    """The hub, as a broker sees it."""

    def on_publication(self, publication: Publication) -> None:
        """A publication came back."""

    def on_publications(self, channel: str, publications: Sequence[Publication]) -> None:
        """Several publications in a channel came back, in its order."""

    def on_announcement(self, channel: str, announcement: Announcement) -> None:
        """A join, leave or rename came back."""

    def on_lost(self, channel: str) -> None:
        """Publications in a channel are lost: they will not come back, and cannot be asked for."""

    def on_broker_change(self) -> None:
        """`Broker.problem` is another now."""


class PresenceStore(Protocol):
    """The members of channels on all hubs of a broker. A member is an `Info`, by its client."""

    def add(self, channel: str, info: Info) -> None:
        """A client is in a channel, or its info is another now."""

    def remove(self, channel: str, client: str) -> None:
        """A client is no longer in a channel."""

    def get(self, channel: str, done: Done[list[Info]]) -> None:
        """All members of a channel."""


class Broker(Protocol):
    """Orders and keeps the publications of channels. Errors that are worth a retry are `temporary`."""

    @property
    def kept_bytes(self) -> int:
        """Bytes of history in this process."""

    @property
    def problem(self) -> str:
        """Why publications are not taken; empty if they are."""

    @property
    def counters(self) -> BrokerCounters | None:
        """Numbers for operators; None for a broker that is in this process."""

    @property
    def presence(self) -> PresenceStore | None:
        """The members of channels; None where the hub's own subscribers are all there are."""

    def attach(self, receiver: Receiver) -> None:
        """From now on, call `receiver` with each event that comes back. Called once."""

    def subscribe(self, channel: str, done: Done[None]) -> None:
        """Bring back the publications in `channel` after `done` is called."""

    def unsubscribe(self, channel: str) -> None:
        """Bring back nothing more of `channel`."""

    def publish(
        self, channel: str, data: Data, info: Info, done: Done[Position], keep: bool = True, once: str = ""
    ) -> None:
        """Give a publication its offset, keep it, and bring it back. The answer is its position.

        Without `keep` it only comes back, with the offset 0, and the position is Position("", 0). With `once` that is
        done once in 5 minutes for a channel and this key; repeats get the same answer.
        """

    def publish_many(self, channel: str, data: Sequence[Data], info: Info, done: Done[Position]) -> None:
        """As `publish` for each of `data`, in order. The answer is the position of the last; or none is published."""

    def announce(self, channel: str, announcement: Announcement) -> None:
        """Bring back a join, leave or rename. It has no offset and is not kept; it may be lost."""

    def history(self, channel: str, since: Position | None, limit: int, reverse: bool, done: Done[History]) -> None:
        """The publications after `since` in order, or with `reverse` those before it, the newest first.

        Without `since` there is no such bound. At most `limit` publications (0: none, only the position; -1: all). An
        empty epoch of `since` is any. For a lost position it has all that is kept, and `recovered` is False.
        """

    def remove_history(self, channel: str, done: Done[None]) -> None:
        """Forget a channel's history, but not its position."""

    def listen(self, topic: str, on_message: Callable[[bytes], None]) -> None:
        """Call `on_message` with each message that hubs send each other on `topic`."""

    def tell(self, topic: str, message: bytes, done: Callable[[int | None], None]) -> None:
        """Send a message to the hubs that listen to `topic`. `done` gets their number, or None if they are away."""

    def stop(self) -> None:
        """Leave nothing behind: no delayed call, no connection."""
