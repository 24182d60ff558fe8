"""The hub: one set of clients and channels, whatever the clients are connected with."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from longconn.core.broker import Broker, Done
from longconn.core.channel import Channel
from longconn.core.client import Client, Outlet
from longconn.core.disconnects import SERVER_ERROR, SLOW
from longconn.core.errors import LIMIT_EXCEEDED, NAME_TAKEN, TOO_MANY_REQUESTS, CommandError
from longconn.core.memory import MemoryBroker
from longconn.core.names import check_channel, check_name, fold
from longconn.core.publication import Announcement, Data, History, Info, Position, Publication
from longconn.core.settings import CHANNEL_BURST, Settings
from longconn.core.timers import Buckets, Clock, Wheel

log = logging.getLogger("longconn")


#: Connections beyond `max_connections`, so that those who are too many can be told so.
_GUESTS = 50


class Waiting(Protocol):
    """An outlet in which something waits to be sent."""

    queued: int
    client: Client | None

    def close(self, disconnect: Any) -> None: ...


class Hub:
    """Clients, names and channels; what the protocols of one service share.

    `clock` has `seconds()` (since 1970) and `callLater` as a Twisted reactor has; `broker`
    is the embedded one unless given. Hubs share nothing, so a process may have several.
    Nothing here may be called from another thread than the reactor's.
    """

    def __init__(self, clock: Clock, settings: Settings | None = None, broker: Broker | None = None) -> None:
        self.clock = clock
        self.settings = settings = settings or Settings()
        self.wheel = Wheel(clock)
        self.broker: Broker = broker or MemoryBroker(clock, settings)
        self.broker.attach(self)
        #: whether new work is welcome: False while draining
        self.ready = True
        #: live clients by id, and channels with subscribers here by name
        self.clients: dict[str, Client] = {}
        self.channels: dict[str, Channel] = {}
        #: sends that could not go directly to the kernel, since the start
        self.indirect_sends = 0
        #: connections that are no client yet, or between two: undecided ones, kept HTTP ones
        self.guests = 0
        self._hosts: Counter[str] = Counter()
        self._names: dict[str, Client] = {}
        self._guests = 0
        #: for peers without an address of their own: unix:N
        self.numbers = count(1)
        # Channels met lately: others are new to the address that names them.
        self._known: OrderedDict[str, None] = OrderedDict()
        self._new_channels = Buckets(settings.channel_rate, CHANNEL_BURST)
        self._posts = Buckets(settings.publish_rate, settings.publish_burst)
        self._posted_bytes = Buckets(settings.publish_bytes, 2 * settings.publish_bytes)
        # This turn's: channels to flush, then answers to write.
        self._dirty: list[Channel] = []
        self._answers: list[Callable[[], None]] = []
        self._turn: Any = None
        # Outlets in which something waits, and how much in all.
        self.waiting: set[Waiting] = set()
        self._queued = 0

    def stop(self) -> None:
        """Leave no delayed call behind. Clients are closed before, by whoever owns their connections."""
        for channel in list(self.channels.values()):
            self.drop(channel)
        self.broker.stop()
        self.wheel.stop()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    # Clients and names.

    def connect(self, outlet: Outlet, protocol: str, host: str, address: str, name: str | None = None) -> Client:
        """A new client, called `name` (HOST:PORT or guest-N without one).

        Raises CommandError: LIMIT_EXCEEDED where there are too many, BAD_NAME, NAME_TAKEN.
        """
        self.check_room(host)
        client = Client(self, outlet, protocol, host, address, address)
        if name is not None:
            self.claim(name, client)
            client.name = name
        else:
            client.name = self.assigned_name(address)
        self.clients[client.id] = client
        if self.settings.max_connections_per_ip:
            self._hosts[host] += 1
        log.info("%s client %s from %s came", client.protocol, client.name, client.address)
        return client

    def check_room(self, host: str) -> None:
        """Raises CommandError(LIMIT_EXCEEDED) if there are too many clients, or too many of `host`."""
        settings = self.settings
        if settings.max_connections and len(self.clients) >= settings.max_connections:
            raise CommandError(LIMIT_EXCEEDED, what="connections")
        per_ip = settings.max_connections_per_ip
        if per_ip and host and self._hosts[host] >= per_ip:
            raise CommandError(LIMIT_EXCEEDED, what="connections of one address")

    def assigned_name(self, address: str) -> str:
        """How somebody at `address` without a name of its own is called: HOST:PORT, or guest-N."""
        if self.settings.names != "guest":
            return address
        self._guests += 1
        return f"guest-{self._guests}"

    @property
    def full(self) -> bool:
        """Whether a further connection is closed at once: all clients are there, and as many wait as may
        be told that by their protocol."""
        limit = self.settings.max_connections
        return bool(limit) and len(self.clients) + self.guests >= limit + _GUESTS

    def forget(self, client: Client) -> None:
        """A client is gone."""
        if self.clients.pop(client.id, None) is None:
            return
        key = fold(client.name)
        if self._names.get(key) is client:
            del self._names[key]
        if client.host in self._hosts:
            self._hosts[client.host] -= 1
            if self._hosts[client.host] <= 0:
                del self._hosts[client.host]
        log.info("%s client %s from %s left", client.protocol, client.name, client.address)

    def claim(self, name: str, client: Client | None = None) -> None:
        """Give `name` to `client`, in place of its old one; without a client only check that it is free.

        Raises CommandError(BAD_NAME) or (NAME_TAKEN).
        """
        key = fold(check_name(name))
        owner = self._names.get(key)
        if owner is not None and owner is not client:
            raise CommandError(NAME_TAKEN, name=name)
        if client is not None:
            old = fold(client.name)
            if self._names.get(old) is client:
                del self._names[old]
            self._names[key] = client

    # Channels.

    def visit(self, name: str, host: str) -> None:
        """Count a channel that was not met lately against the address that names it.

        Raises CommandError: LIMIT_EXCEEDED at `max_channels` with subscribers here,
        TOO_MANY_REQUESTS over `channel_rate`.
        """
        if name in self._known:
            self._known.move_to_end(name)
            return
        limit = self.settings.max_channels
        if limit and len(self.channels) >= limit:
            raise CommandError(LIMIT_EXCEEDED, what="channels")
        if self._new_channels.wait(host, self.clock.seconds()):
            raise CommandError(TOO_MANY_REQUESTS)
        self._new_channels.spend(host, 1)
        self._known[name] = None
        if len(self._known) > (limit or 100_000):
            self._known.popitem(last=False)

    def channel(self, name: str) -> Channel:
        """The channel on this hub, made if nobody is in it yet."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name, self)
        return channel

    def drop(self, channel: Channel) -> None:
        """Nobody is in the channel any more."""
        if self.channels.get(channel.name) is channel:
            del self.channels[channel.name]
            channel.stop()

    def presence(self, name: str) -> list[Info]:
        """Who is subscribed to a channel now."""
        channel = self.channels.get(check_channel(name))
        return channel.infos() if channel is not None else []

    def history(
        self, name: str, done: Done[History], since: Position | None = None, limit: int = -1, host: str = ""
    ) -> None:
        """What is kept of a channel: see `Broker.history`. Raises CommandError for a bad or refused channel."""
        self.visit(check_channel(name), host)
        self.broker.history(name, since, limit, False, done)

    def publish(self, name: str, data: Data, info: Info, done: Done[Position], host: str = "") -> None:
        """Publish; `done` gets the position. Raises CommandError for a bad or refused channel."""
        self.visit(check_channel(name), host)
        self.broker.publish(name, data, info, done)

    def post_wait(self, host: str, size: int) -> float:
        """Count a publication of an address that has no client: 0, or seconds until it may be made."""
        now = self.clock.seconds()
        wait = max(self._posts.wait(host, now), self._posted_bytes.wait(host, now))
        if not wait:
            self._posts.spend(host, 1)
            self._posted_bytes.spend(host, size)
        return wait

    # What comes back from the broker.

    def on_publication(self, publication: Publication) -> None:
        channel = self.channels.get(publication.channel)
        if channel is not None:
            channel.on_publication(publication)

    def on_announcement(self, channel: str, announcement: Announcement) -> None:
        target = self.channels.get(channel)
        if target is not None:
            target.on_announcement(announcement)

    # The end of a reactor turn.

    def flush_later(self, channel: Channel) -> None:
        """Flush `channel` when this turn of the reactor ends."""
        self._dirty.append(channel)
        self._end_turn()

    def answer(self, write: Callable[[], None]) -> None:
        """Write an answer, after the publications that came back before it."""
        if self._dirty or self._answers:
            self._answers.append(write)
            self._end_turn()
        else:
            write()

    def _end_turn(self) -> None:
        if self._turn is None:
            self._turn = self.clock.callLater(0, self.flush)

    def flush(self) -> None:
        """Send what this turn collected."""
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        self._turn = None
        self.wheel.now = self.clock.seconds()
        dirty, self._dirty = self._dirty, []
        answers, self._answers = self._answers, []
        for channel in dirty:
            channel.dirty = False
            channel.flush()
        for write in answers:
            write()

    def on_broken(self, client: Client) -> None:
        """Writing to a client raised: it is closed, and the others are served."""
        log.exception("could not send to %s client %s from %s", client.protocol, client.name, client.address)
        client.close(SERVER_ERROR)

    # What waits to be sent, in all.

    def on_queued(self, outlet: Waiting, amount: int) -> None:
        """`amount` bytes more (or fewer, if negative) wait in `outlet`; over the total the largest goes."""
        self._queued += amount
        total = self.settings.send_queue_total
        while total and self._queued > total and self.waiting:
            largest = max(self.waiting, key=lambda each: each.queued)
            if not largest.queued:
                break
            largest.close(SLOW)
