"""The hub: one set of clients and channels, whatever the clients are connected with."""

from __future__ import annotations

import logging
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from longconn.core.broker import Broker, Done
from longconn.core.channel import Channel
from longconn.core.client import Client, Outlet
from longconn.core.disconnects import SERVER_ERROR, SLOW
from longconn.core.errors import LIMIT_EXCEEDED, NAME_TAKEN, NOT_AVAILABLE, TOO_MANY_REQUESTS, CommandError
from longconn.core.memory_broker import MemoryBroker
from longconn.core.names import check_channel, check_name, fold
from longconn.core.namespaces import Action, ChannelOptions, may
from longconn.core.publication import Announcement, Data, History, Info, Position, Publication
from longconn.core.settings import CHANNEL_BURST, Settings
from longconn.core.timers import Buckets, Clock, Wheel
from longconn.core.tokens import Verifier
from longconn.core.turn import Turn
from longconn.server_api.operations import API

log = logging.getLogger("longconn")


#: Connections beyond `max_connections`, so that those who are too many can be told so.
_GUESTS = 50


class Waiting(Protocol):
    """An outlet in which something waits to be sent."""

    @property
    def queued(self) -> int: ...

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
        #: the options of channels
        self.namespaces = settings.namespaces.under(settings)
        #: reads the tokens of structured clients (`longconn.auth.jwt.JWTVerifier`); without one they are refused
        self.verifier: Verifier | None = None
        self.wheel = Wheel(clock)
        self.broker: Broker = broker or MemoryBroker(clock, settings)
        self.broker.attach(self)
        self._ready = True
        #: called when `ready` has changed
        self.ready_watchers: set[Callable[[], None]] = set()
        #: live clients by id, and channels with subscribers here by name
        self.clients: dict[str, Client] = {}
        self.channels: dict[str, Channel] = {}
        #: those of `clients` who have a user, by that
        self.users: dict[str, set[Client]] = {}
        #: since the start: clients that came, publications made here, sends that could not go directly to the kernel
        self.total_clients = 0
        self.total_publications = 0
        self.indirect_sends = 0
        #: sessions of the structured protocol by their secret, and what an embedding program does for them
        self.node = secrets.token_urlsafe(8)
        self.sessions: dict[str, Any] = {}
        self.rpc: dict[str, Callable[[Client, Any, Done[Any]], None]] = {}
        self.on_send: Callable[[Client, Any], None] | None = None
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
        #: what is sent when this turn of the reactor ends
        self.turn = Turn(clock, self.wheel)
        #: what a back end may ask for (`longconn.server_api.operations`)
        self.api = API(self)
        # Outlets in which something waits, and how much in all.
        self.waiting: set[Waiting] = set()
        self._queued = 0

    @property
    def ready(self) -> bool:
        """Whether new work is welcome: False while draining."""
        return self._ready

    @ready.setter
    def ready(self, ready: bool) -> None:
        if ready != self._ready:
            self._ready = ready
            for each in tuple(self.ready_watchers):
                each()

    def stop(self) -> None:
        """Leave no delayed call behind. Clients are closed before, by whoever owns their connections."""
        for channel in list(self.channels.values()):
            self.drop(channel)
        self.api.stop()
        self.broker.stop()
        self.wheel.stop()
        self.turn.stop()

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
        self.total_clients += 1
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
        self.identify(client, "")
        key = fold(client.name)
        if self._names.get(key) is client:
            del self._names[key]
        if client.host in self._hosts:
            self._hosts[client.host] -= 1
            if self._hosts[client.host] <= 0:
                del self._hosts[client.host]
        log.info("%s client %s from %s left", client.protocol, client.name, client.address)

    def identify(self, client: Client, user: str) -> None:
        """A client is that of `user`; empty: of nobody, or gone."""
        old = self.users.get(client.user)
        if old is not None:
            old.discard(client)
            if not old:
                del self.users[client.user]
        if user:
            self.users.setdefault(user, set()).add(client)

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

    def check(self, action: Action, name: str, client: Client | None = None, granted: bool = False) -> ChannelOptions:
        """The options of a channel, if `client` (None: somebody anonymous without one) may do `action` there.

        Raises CommandError(UNKNOWN_CHANNEL) or (PERMISSION_DENIED). What the hub itself is asked for
        by `publish`, `presence` and `history` is not checked: programs and the server API may do all.
        """
        options = self.namespaces.options(name)
        if client is None:
            may(action, name, options, granted=granted)
        else:
            may(action, name, options, client.user, name in client.subscriptions, granted)
        return options

    def announce(self, name: str, announcement: Announcement) -> None:
        """Tell subscribers of a coming, a going or a new name, where the channel's options want that."""
        if self.namespaces.options(name).join_leave:
            self.broker.announce(name, announcement)

    def visit(self, name: str, host: str | None) -> None:
        """Count a channel that was not met lately against the address that names it; None: it is trusted.

        Raises CommandError: UNKNOWN_CHANNEL for an undefined namespace, LIMIT_EXCEEDED at
        `max_channels` with subscribers here, TOO_MANY_REQUESTS over `channel_rate`.
        """
        if name in self._known:
            self._known.move_to_end(name)
            return
        self.namespaces.options(name)
        limit = self.settings.max_channels
        if limit and len(self.channels) >= limit:
            raise CommandError(LIMIT_EXCEEDED, what="channels")
        if host is not None:
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
        """Who is subscribed to a channel now.

        Raises CommandError: BAD_CHANNEL, UNKNOWN_CHANNEL, NOT_AVAILABLE if the channel's presence is off.
        """
        if not self.namespaces.options(check_channel(name)).presence:
            raise CommandError(NOT_AVAILABLE, what="presence")
        channel = self.channels.get(name)
        return channel.infos() if channel is not None else []

    def history(
        self, name: str, done: Done[History], since: Position | None = None, limit: int = -1, host: str | None = ""
    ) -> None:
        """What is kept of a channel: see `Broker.history`. Raises CommandError for a bad or refused channel."""
        self.visit(check_channel(name), host)
        self.broker.history(name, since, limit, False, done)

    def publish(
        self, name: str, data: Data, info: Info, done: Done[Position], host: str | None = "", keep: bool = True
    ) -> None:
        """Publish; `done` gets the position. Raises CommandError for a bad or refused channel.

        `host` is who names the channel, None somebody trusted; for `keep` see `Broker.publish`.
        """
        self.visit(check_channel(name), host)
        self.total_publications += 1
        if keep:
            self.broker.publish(name, data, info, done)
        else:
            self.broker.publish(name, data, info, done, keep=False)

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
