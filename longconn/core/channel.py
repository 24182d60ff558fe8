"""A channel on this hub: its subscribers, and the events that came back in this turn of the reactor.

Events from the broker are collected until the end of the turn, or until 64 KiB. Then each wire format
that has subscribers encodes the batch once, and all subscribers of that format are sent the same bytes object.
A subscriber that joined within the turn, or may not see an event of it, has an override. A batch that takes long to
send, since it is large or has many subscribers, is sent in several turns: other channels are served in between.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from longconn.core.broker import Broker, PresenceStore
from longconn.core.client import Client, Format, Subscription
from longconn.core.counters import Counters
from longconn.core.errors import CommandError
from longconn.core.publication import Announcement, Counts, Event, History, Info, Join, Leave, Position, Publication
from longconn.core.sending import Override, Sending
from longconn.core.timers import Clock
from longconn.core.turn import Turn

#: Bytes of data at which a batch is flushed before the turn ends.
BATCH_BYTES = 64 * 1024
#: Bytes that a publication adds to its data in a batch: a name, a frame.
_FRAMING = 40
#: Microseconds for which one channel sends in a turn.
_SENDING = 20_000
#: Batches that may be on their way. With one more, all are sent at once: publishers have to wait for that.
_MOST_SENDING = 16
#: Above this number of subscribers, joins and leaves are summed up, at most once a second.
NAMED_SUBSCRIBERS = 100


class Watcher(Protocol):
    """Learns that something was published, without being a subscriber: a long poll."""

    def on_ready(self, error: CommandError | None) -> None:
        """The broker brings publications here from now on; with an error it does not."""

    def on_news(self) -> None:
        """Something was published. A second call may come before the first has any effect."""


class Channel:
    """The subscribers of one channel on this hub.

    `clients` are the hub's, by id. `on_unused` is called when neither subscribers nor watchers are left, `on_broken`
    with a client to which writing raised. `presence` is told of the subscribers where there are other hubs.
    """

    # There may be a hundred thousand of them, most of them quiet: each has no more containers than it needs.
    __slots__ = (
        "_asked", "_batch", "_broker", "_clients", "_clock", "_count", "_counters", "_furthest", "_groups",
        "_joined", "_left", "_newcomers", "_number", "_on_broken", "_on_occupancy", "_on_unused", "_overrides",
        "_pending", "_presence", "_ready", "_sending", "_size", "_summary", "_summed_up", "_turn", "_watchers", "dirty",
        "name", "publications",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        broker: Broker,
        turn: Turn,
        clock: Clock,
        clients: Mapping[str, Client],
        on_unused: Callable[[Channel], None],
        on_broken: Callable[[Client], None],
        on_occupancy: Callable[[str, bool], None],
        counters: Counters,
        presence: PresenceStore | None,
    ) -> None:
        self.name = name
        self._broker = broker
        self._presence = presence
        self._turn = turn
        self._clock = clock
        self._clients = clients
        self._on_unused = on_unused
        self._on_broken = on_broken
        self._on_occupancy = on_occupancy
        self._counters = counters
        # Dicts keep order: subscribers are sent to in the order in which they came.
        self._groups: dict[Format, dict[Subscription, None]] = {}
        self._count = 0
        #: publications that were sent to subscribers
        self.publications = 0
        self._batch: list[Event] = []
        # The turn in which its first event came.
        self._number = 0
        self._size = 0
        self._overrides: dict[Subscription, Override] = {}
        # Batches that were flushed and are not sent to all yet.
        self._sending: list[Sending] = []
        #: whether the turn knows that there is a batch
        self.dirty = False
        # The furthest position that a backlog was given up to, until something comes back from beyond it.
        self._furthest: Position | None = None
        # Subscribes under way, with the publications that came back since they began.
        self._pending: dict[Subscription, list[Publication]] = {}
        # Whether the broker was asked to bring publications, and whether it does.
        self._asked = False
        self._ready = False
        self._watchers: dict[Watcher, None] = {}
        # Joins and leaves to sum up, the joiners that are still here, and the delayed call that sums up.
        self._joined = 0
        self._left = 0
        self._newcomers: dict[Subscription, None] = {}
        self._summary: Any = None
        self._summed_up = 0.0

    def __len__(self) -> int:
        return self._count

    @property
    def unused(self) -> bool:
        """Whether it has neither subscribers nor watchers."""
        return not (self._count or self._pending or self._watchers)

    def infos(self) -> list[Info]:
        """The subscribers, in the order in which they came within each wire format."""
        return [each.info for group in self._groups.values() for each in group]

    # Subscribers and watchers.

    def add(self, subscription: Subscription) -> None:
        """Start a subscribe. Its `done` is called with the backlog, before any live publication is sent."""
        self._pending[subscription] = []
        if self._ready:
            self._fetch_backlog(subscription)
        else:
            self._ask()

    def watch(self, watcher: Watcher) -> None:
        """Tell `watcher` of publications until `unwatch`. A watcher is not in the channel's presence."""
        self._watchers[watcher] = None
        if self._ready:
            watcher.on_ready(None)
        else:
            self._ask()

    def unwatch(self, watcher: Watcher) -> None:
        """Tell `watcher` nothing more. A second call has no effect."""
        self._watchers.pop(watcher, None)
        if self.unused:
            self._on_unused(self)

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._broker.subscribe(self.name, self._on_subscribed)

    def _on_subscribed(self, result: CommandError | None) -> None:
        if result is None:
            self._ready = True
            for each in tuple(self._pending):
                self._fetch_backlog(each)
        else:
            self._asked = False
            for each in tuple(self._pending):
                self._fail(each, result)
        for watcher in tuple(self._watchers):
            watcher.on_ready(result)

    def _fetch_backlog(self, subscription: Subscription) -> None:
        # Without a position there is no backlog, but the answer still says where the channel stands.
        def fetched(result: History | CommandError) -> None:
            self._complete(subscription, result)

        limit = 0 if subscription.since is None else -1
        self._broker.history(self.name, subscription.since, limit, False, fetched)

    def _complete(self, subscription: Subscription, result: History | CommandError) -> None:
        if subscription not in self._pending:
            return  # the client has left
        if isinstance(result, CommandError):
            self._fail(subscription, result)
            return
        meanwhile = self._pending.pop(subscription)
        top = result.position
        # Publications that came back since then follow by offset; those that the answer already has are left out.
        for publication in meanwhile:
            if publication.offset > top.offset or publication.epoch != top.epoch:
                # Without a position the client learns where live publications start: after these.
                if subscription.since is not None:
                    result.publications.append(publication)
                top = Position(publication.epoch, publication.offset)
        result.position = subscription.position = top
        if self._furthest is None or self._furthest.epoch != top.epoch or self._furthest.offset < top.offset:
            self._furthest = top
        if self._batch:
            # The batch so far is older than this subscriber, or is in its backlog.
            self._override(subscription).start = len(self._batch)
        self._groups.setdefault(subscription.format, {})[subscription] = None
        self._count += 1
        if self._presence is not None:
            self._presence.add(self.name, subscription.info)
        if self._count == 1:
            self._on_occupancy(self.name, True)
        done, subscription.done = subscription.done, None
        if done is not None:
            done(result)

    def _fail(self, subscription: Subscription, error: CommandError) -> None:
        done, subscription.done = subscription.done, None
        subscription.client.subscriptions.pop(self.name, None)
        self.remove(subscription)
        if done is not None:
            done(error)

    def remove(self, subscription: Subscription, *, finish: bool = False) -> None:
        """Take a subscription out. With `finish` its client still gets the events that came back until now."""
        self._pending.pop(subscription, None)
        self._newcomers.pop(subscription, None)
        group = self._groups.get(subscription.format)
        if group is not None and subscription in group:
            del group[subscription]
            self._count -= 1
            if self._presence is not None:
                self._presence.remove(self.name, subscription.client.id)
            if not self._count:
                self._on_occupancy(self.name, False)
            if not group:
                del self._groups[subscription.format]
            if finish and (self._batch or self._sending):
                self._turn.write_first()
                for each in self._sending:
                    each.send_now(subscription)
                override = self._overrides.get(subscription)
                events = self._batch if override is None else override.events(self._batch)
                data = subscription.format.encode(self.name, events) if events else b""
                if data:
                    subscription.write(data)
        self._overrides.pop(subscription, None)
        if self.unused:
            self._on_unused(self)

    def stop(self) -> None:
        """Leave the broker, and no delayed call behind."""
        if self._asked:
            self._broker.unsubscribe(self.name)
        if self._summary is not None:
            self._summary.cancel()
            self._summary = None

    def on_lost(self) -> list[Client]:
        """Publications are lost. The clients whose subscriptions have a gap now: they are sent nothing after it."""
        for meanwhile in self._pending.values():
            meanwhile.clear()
        self._furthest = None
        self.flush(everything=True)
        for watcher in tuple(self._watchers):
            watcher.on_news()
        lost = [each for group in self._groups.values() for each in group]
        for each in lost:
            self.remove(each)
        return [each.client for each in lost]

    # Events that come back from the broker.

    def on_publication(self, publication: Publication) -> None:
        """A publication came back."""
        for meanwhile in self._pending.values():
            meanwhile.append(publication)
        self._collect(publication)
        if self._furthest is not None:
            self._hide_from_backlogs(publication, self._furthest)
        self._grow(publication.data.size + _FRAMING)

    def on_publications(self, publications: Sequence[Publication]) -> None:
        """Publications came back."""
        if self._pending or self._furthest is not None:
            for each in publications:
                self.on_publication(each)
            return
        self._collect(publications[0])
        self._batch += publications[1:]
        self._grow(sum([each.data.size for each in publications]) + len(publications) * _FRAMING)

    def _grow(self, size: int) -> None:
        """The batch has `size` bytes more. A large one does not wait for the end of the turn."""
        self._size += size
        if self._size >= BATCH_BYTES:
            self._take_batch()
            self.flush(everything=len(self._sending) > _MOST_SENDING)

    def _hide_from_backlogs(self, publication: Publication, furthest: Position) -> None:
        """Hide a publication from subscribers whose backlog already contained it.

        A broker may deliver it after it answered the history request.
        """
        if publication.epoch != furthest.epoch or publication.offset > furthest.offset:
            self._furthest = None
        elif publication.offset:  # a publication that is not kept is in no backlog
            for subscription in (each for group in self._groups.values() for each in group):
                position = subscription.position
                if position is None or position.epoch != publication.epoch:
                    continue
                if position.offset >= publication.offset:
                    self._override(subscription).replaced[len(self._batch) - 1] = None

    def on_announcement(self, announcement: Announcement) -> None:
        """A join, leave or rename came back."""
        own = self._subscription_of(announcement.info.client)
        if self._count > NAMED_SUBSCRIBERS and isinstance(announcement, Join | Leave) and announcement.info.chat:
            if isinstance(announcement, Join):
                self._joined += 1
                if own is not None:
                    self._newcomers[own] = None
            else:
                self._left += 1
            if self._summary is None:
                wait = max(0.0, self._summed_up + 1 - self._clock.seconds())
                self._summary = self._clock.callLater(wait, self._sum_up)
            return
        self._collect(announcement)
        if own is not None and isinstance(announcement, Join) and not own.format.tells_own_join:
            # A joiner in chat is not sent its own join.
            self._override(own).replaced[len(self._batch) - 1] = None

    def _subscription_of(self, id: str) -> Subscription | None:
        client = self._clients.get(id)
        subscription = client.subscriptions.get(self.name) if client is not None else None
        return subscription if subscription is not None and subscription.complete else None

    def _sum_up(self) -> None:
        self._summary = None
        self._summed_up = self._clock.seconds()
        counts = Counts(self._joined, self._left)
        newcomers, self._newcomers = self._newcomers, {}
        self._joined = self._left = 0
        self._collect(counts)
        index = len(self._batch) - 1
        # A joiner is not counted to itself.
        others = Counts(counts.joined - 1, counts.left)
        for each in newcomers:
            self._override(each).replaced[index] = others if others.joined or others.left else None

    # The batch.

    def _override(self, subscription: Subscription) -> Override:
        override = self._overrides.get(subscription)
        if override is None:
            override = self._overrides[subscription] = Override()
        return override

    def _collect(self, event: Event) -> None:
        if not self._batch:
            self._number = self._turn.number
        self._batch.append(event)
        if not self.dirty:
            self.dirty = True
            self._turn.flush_later(self)

    @property
    def oldest(self) -> int | None:
        """The number of the turn of the oldest event that was not sent to all; None if all were."""
        if self._sending:
            return self._sending[0].number
        return self._number if self._batch else None

    def flush(self, everything: bool = False) -> bool:
        """Send what is left of earlier batches, and then the batch: for a bounded time, unless `everything` is sent.

        Whether nothing is left. A batch goes on growing while an earlier one is sent.
        """
        room = sys.maxsize if everything else _SENDING
        taken = False
        while True:
            if not self._sending:
                if taken or not self._batch:  # what came while it was sent is for the next turn
                    return not self._batch
                self._take_batch()
                taken = True
            sending = self._sending[0]
            room = sending.send(room, None if taken else self._groups)
            if sending.groups:
                return False
            del self._sending[0]

    def _take_batch(self) -> None:
        batch, self._batch = self._batch, []
        overrides, self._overrides = self._overrides, {}
        self._size = 0
        sending = Sending(self.name, self._number, batch, overrides, self._groups, self._on_broken, self._counters)
        self.publications += sending.publications
        self._sending.append(sending)
        self._turn.write_first()
        if self._watchers and any(isinstance(each, Publication) for each in batch):
            for watcher in tuple(self._watchers):
                watcher.on_news()
