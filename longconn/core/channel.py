"""A channel on this hub: who is subscribed here, and what came back in this turn.

Everything that comes back from the broker is collected until the end of the reactor's
turn, or until 64 KiB. Then each wire format that has subscribers encodes the batch once,
and every subscriber of that format is sent the same bytes object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from longconn.core.broker import Done
from longconn.core.errors import CommandError
from longconn.core.publication import (
    Announcement,
    Counts,
    Event,
    History,
    Info,
    Join,
    Leave,
    Position,
    Publication,
)

if TYPE_CHECKING:
    from longconn.core.client import Client
    from longconn.core.hub import Hub

#: Bytes of data at which a batch is flushed before the turn ends.
BATCH_BYTES = 64 * 1024
#: What a publication adds to its data in a batch: a name, a frame.
_FRAMING = 40
#: Above so many subscribers, joins and leaves are summed up, at most once a second.
NAMED_SUBSCRIBERS = 100


class Format(Protocol):
    """A wire format: how events are written for one kind of connection. Hashable; one object a kind."""

    @property
    def tells_own_join(self) -> bool:
        """Whether a subscriber is told of its own join."""

    def encode(self, channel: str, events: Sequence[Event]) -> bytes:
        """The events as bytes, ready for the outlet; nothing where the format has no form for them."""


class Watcher(Protocol):
    """Somebody who wants to know that something was published, without being a subscriber."""

    def on_ready(self, error: CommandError | None) -> None:
        """The broker brings publications here from now on, or it cannot."""

    def on_news(self) -> None:
        """Something was published; may be called again before anything else."""


class Subscription:
    """One client in one channel, with the wire format that it reads."""

    __slots__ = ("chan_info", "channel", "client", "done", "format", "held", "since", "write")

    def __init__(
        self,
        client: Client,
        channel: Channel,
        format: Format,
        since: Position | None,
        done: Done[History],
        chan_info: bytes = b"",
    ) -> None:
        self.client = client
        self.channel = channel
        self.format = format
        #: what a token, or the server, says of the client in this channel, as JSON
        self.chan_info = chan_info
        #: the outlet's, bound once: it is called for every batch
        self.write: Callable[[bytes], Any] = client.outlet.write
        #: the position that was asked from; and once the subscribe is complete, that which it was told
        self.since = since
        self.done: Done[History] | None = done
        #: while the subscribe is under way: what came back meanwhile; afterwards None
        self.held: list[Publication] | None = []

    @property
    def info(self) -> Info:
        """Who the client is in this channel."""
        info = self.client.info
        return replace(info, chan_info=self.chan_info) if self.chan_info else info


class _View:
    """What one subscriber sees of a batch, if not all: from `start`, with some events replaced or hidden."""

    __slots__ = ("instead", "start")

    def __init__(self) -> None:
        self.start = 0
        self.instead: dict[int, Event | None] = {}

    def of(self, batch: list[Event]) -> list[Event]:
        seen = []
        for index in range(self.start, len(batch)):
            event = self.instead.get(index, batch[index])
            if event is not None:
                seen.append(event)
        return seen


class Channel:
    """The subscribers of one channel on this hub."""

    def __init__(self, name: str, hub: Hub) -> None:
        self.name = name
        self._hub = hub
        # Dicts for their order: subscribers are sent to in the order in which they came.
        self._groups: dict[Format, dict[Subscription, None]] = {}
        self._count = 0
        self._batch: list[Event] = []
        self._size = 0
        self._views: dict[Subscription, _View] = {}
        self.dirty = False
        # The furthest position that a subscriber was told, until something comes back from beyond it.
        self._told: Position | None = None
        # Subscriptions under way; and whether the broker knows that we want this channel.
        self._coming: dict[Subscription, None] = {}
        self._asked = False
        self._ready = False
        self._watchers: dict[Watcher, None] = {}
        # Joins and leaves to sum up, who of the joiners is here, and the call that will.
        self._joined = 0
        self._left = 0
        self._newcomers: set[Subscription] = set()
        self._summary: Any = None
        self._summed_up = 0.0

    def __len__(self) -> int:
        return self._count

    @property
    def unused(self) -> bool:
        return not (self._count or self._coming or self._watchers)

    def infos(self) -> list[Info]:
        """Who is subscribed here, in the order of their coming within each wire format."""
        return [each.info for group in self._groups.values() for each in group]

    # Coming and going.

    def add(self, subscription: Subscription) -> None:
        """Start a subscribe; its `done` is called with the backlog when it is complete."""
        self._coming[subscription] = None
        if self._ready:
            self._fetch(subscription)
        else:
            self._ask()

    def watch(self, watcher: Watcher) -> None:
        """Tell `watcher` of publications until `unwatch`; it is in nobody's presence."""
        self._watchers[watcher] = None
        if self._ready:
            watcher.on_ready(None)
        else:
            self._ask()

    def unwatch(self, watcher: Watcher) -> None:
        self._watchers.pop(watcher, None)
        if self.unused:
            self._hub.drop(self)

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._hub.broker.subscribe(self.name, self._on_subscribed)

    def _on_subscribed(self, result: CommandError | None) -> None:
        if result is not None:
            self._asked = False
            for each in tuple(self._coming):
                self._fail(each, result)
            for watcher in tuple(self._watchers):
                watcher.on_ready(result)
            return
        self._ready = True
        for each in tuple(self._coming):
            self._fetch(each)
        for watcher in tuple(self._watchers):
            watcher.on_ready(None)

    def _fetch(self, subscription: Subscription) -> None:
        # Without a position there is no backlog, but the answer still says where the channel stands.
        def fetched(result: History | CommandError) -> None:
            self._complete(subscription, result)

        limit = 0 if subscription.since is None else -1
        self._hub.broker.history(self.name, subscription.since, limit, False, fetched)

    def _complete(self, subscription: Subscription, result: History | CommandError) -> None:
        if subscription not in self._coming:
            return  # it was given up meanwhile
        if isinstance(result, CommandError):
            self._fail(subscription, result)
            return
        del self._coming[subscription]
        held, subscription.held = subscription.held or [], None
        top = result.position
        # What came back while we asked follows by offset; what the answer has already is not doubled.
        for publication in held:
            if publication.offset > top.offset or publication.epoch != top.epoch:
                # Who asked for no backlog is told where the live ones start, and that is after these.
                if subscription.since is not None:
                    result.publications.append(publication)
                top = Position(publication.epoch, publication.offset)
        result.position = subscription.since = top
        if self._told is None or self._told.epoch != top.epoch or self._told.offset < top.offset:
            self._told = top
        if self._batch:
            # The batch so far is older than this subscriber, or was held for it.
            self._view(subscription).start = len(self._batch)
        self._groups.setdefault(subscription.format, {})[subscription] = None
        self._count += 1
        done, subscription.done = subscription.done, None
        if done is not None:
            done(result)

    def _fail(self, subscription: Subscription, error: CommandError) -> None:
        done, subscription.done = subscription.done, None
        subscription.client.forget(self)
        self.remove(subscription)
        if done is not None:
            done(error)

    def remove(self, subscription: Subscription, *, finish: bool = False) -> None:
        """Take a subscription out; with `finish` its client is still sent what came until now."""
        self._coming.pop(subscription, None)
        self._newcomers.discard(subscription)
        group = self._groups.get(subscription.format)
        if group is not None and subscription in group:
            del group[subscription]
            self._count -= 1
            if not group:
                del self._groups[subscription.format]
            if finish and self._batch:
                view = self._views.get(subscription)
                self._hub.turn.write_first()
                events = self._batch if view is None else view.of(self._batch)
                data = subscription.format.encode(self.name, events) if events else b""
                if data:
                    subscription.write(data)
        self._views.pop(subscription, None)
        if self.unused:
            self._hub.drop(self)

    def stop(self) -> None:
        """Nobody is here: leave the broker, and nothing behind."""
        if self._asked:
            self._hub.broker.unsubscribe(self.name)
        if self._summary is not None:
            self._summary.cancel()
            self._summary = None

    # What comes back from the broker.

    def on_publication(self, publication: Publication) -> None:
        for each in self._coming:
            if each.held is not None:
                each.held.append(publication)
        self._collect(publication)
        if self._told is not None:
            self._hide_told(publication, self._told)
        self._size += publication.data.size + _FRAMING
        if self._size >= BATCH_BYTES:
            self.flush()

    def _hide_told(self, publication: Publication, told: Position) -> None:
        """Keep what just came back from those who had it with their backlog: it may take longer than an answer."""
        if publication.epoch != told.epoch or publication.offset > told.offset:
            self._told = None
        elif publication.offset:  # what is not kept is in no backlog
            for subscription in (each for group in self._groups.values() for each in group):
                has = subscription.since
                if has is not None and has.epoch == publication.epoch and has.offset >= publication.offset:
                    self._view(subscription).instead[len(self._batch) - 1] = None

    def on_announcement(self, announcement: Announcement) -> None:
        own = self._own(announcement)
        if self._count > NAMED_SUBSCRIBERS and isinstance(announcement, Join | Leave) and announcement.info.chat:
            if isinstance(announcement, Join):
                self._joined += 1
                if own is not None:
                    self._newcomers.add(own)
            else:
                self._left += 1
            self._sum_up_later()
            return
        self._collect(announcement)
        if own is not None and isinstance(announcement, Join) and not own.format.tells_own_join:
            # A joiner in chat is sent nothing of its own coming.
            self._view(own).instead[len(self._batch) - 1] = None

    def _own(self, announcement: Announcement) -> Subscription | None:
        client = self._hub.clients.get(announcement.info.client)
        subscription = client.subscriptions.get(self.name) if client is not None else None
        return subscription if subscription is not None and subscription.held is None else None

    def _sum_up_later(self) -> None:
        if self._summary is None:
            wait = max(0.0, self._summed_up + 1 - self._hub.clock.seconds())
            self._summary = self._hub.clock.callLater(wait, self._sum_up)

    def _sum_up(self) -> None:
        self._summary = None
        self._summed_up = self._hub.clock.seconds()
        counts = Counts(self._joined, self._left)
        newcomers, self._newcomers = self._newcomers, set()
        self._joined = self._left = 0
        self._collect(counts)
        index = len(self._batch) - 1
        others = Counts(counts.joined - 1, counts.left)
        for each in newcomers:
            self._view(each).instead[index] = others if others.joined or others.left else None

    def _view(self, subscription: Subscription) -> _View:
        view = self._views.get(subscription)
        if view is None:
            view = self._views[subscription] = _View()
        return view

    def _collect(self, event: Event) -> None:
        self._batch.append(event)
        if not self.dirty:
            self.dirty = True
            self._hub.turn.flush_later(self)

    def flush(self) -> None:
        """Send the batch: one encoding a wire format, and one for each view that differs."""
        batch, self._batch = self._batch, []
        views, self._views = self._views, {}
        self._size = 0
        if not batch:
            return
        self._hub.turn.write_first()
        for format, group in tuple(self._groups.items()):
            shared: bytes | None = None
            by_start: dict[int, bytes] = {}
            # A copy: a subscriber that is closed by what is written to it leaves the group.
            for subscription in tuple(group):
                try:
                    if views and subscription in views:
                        data = self._encode_view(format, batch, views[subscription], by_start)
                    else:
                        if shared is None:
                            shared = format.encode(self.name, batch)
                        data = shared
                    if data:
                        subscription.write(data)
                except Exception:  # one broken client, or wire format, must not keep the batch from the others
                    self._hub.on_broken(subscription.client)
        if self._watchers and any(isinstance(each, Publication) for each in batch):
            for watcher in tuple(self._watchers):
                watcher.on_news()

    def _encode_view(self, format: Format, batch: list[Event], view: _View, by_start: dict[int, bytes]) -> bytes:
        if not view.instead and view.start in by_start:
            return by_start[view.start]
        events = view.of(batch)
        data = format.encode(self.name, events) if events else b""
        if not view.instead:
            by_start[view.start] = data
        return data
