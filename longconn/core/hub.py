"""The hub: one set of clients and channels, whatever the clients are connected with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from heapq import nlargest
from itertools import count
from typing import Any

from longconn.core.broker import Broker, Done
from longconn.core.client import PROGRAM, Caller, Client, Outlet
from longconn.core.client_names import ClientNames
from longconn.core.counters import Counters
from longconn.core.disconnects import EXPIRED, INSUFFICIENT_STATE, SERVER_ERROR, SLOW
from longconn.core.door import Door
from longconn.core.errors import CommandError
from longconn.core.expiry import Expiry
from longconn.core.gate import Gate
from longconn.core.guesses import Guesses
from longconn.core.hooks import Hooks
from longconn.core.identity import ANONYMOUS, Identity
from longconn.core.ids import new_id
from longconn.core.log import about, log
from longconn.core.memory_broker import MemoryBroker
from longconn.core.names import check_resume
from longconn.core.nodes import Nodes
from longconn.core.observer import Observer
from longconn.core.places import Places
from longconn.core.proxies import TrustedProxies
from longconn.core.publication import Announcement, Data, History, Info, Position, Publication, Rename
from longconn.core.rates import Rates
from longconn.core.settings import Settings
from longconn.core.slices import LEAVING, Slices
from longconn.core.timers import ClientBuckets, Clock, Wheel, keep_steady, wall_time
from longconn.core.turn import Turn

#: Queues that are looked up together when they are over their total.
_LARGEST = 200


class Hub:
    """Clients, names and channels: the state that all protocols of one service share.

    `clock` has `seconds()` and `callLater` as a Twisted reactor has. A reactor that follows the wall clock measures
    time steadily from then on (`longconn.core.timers.keep_steady`). `broker` is the embedded one unless given. `node`
    names this hub among those of a broker. Hubs share nothing else, so a process may have several. Every call must
    come from the reactor's thread.
    """

    def __init__(
        self, clock: Clock, settings: Settings | None = None, broker: Broker | None = None, node: str = ""
    ) -> None:
        keep_steady(clock)
        self.clock = clock
        #: the time that people and tokens see, in seconds since 1970; it jumps when the system's clock is set
        self.wall_time = wall_time(clock)
        self.settings = settings = settings or Settings()
        #: the options of channels
        self.namespaces = settings.effective_namespaces()
        #: the proxies in front
        self.proxies = TrustedProxies(settings.trusted_proxy)
        #: decides who a peer is
        self.gate = Gate(clock, self.wall_time, settings)
        self.wheel = Wheel(clock)
        self.broker: Broker = broker or MemoryBroker(clock, settings)
        self.broker.attach(self)
        self._draining = False
        self._was_ready = not self.broker.problem
        #: called when `ready` has changed
        self.ready_watchers: set[Callable[[], None]] = set()
        #: called by `stop`
        self.stop_watchers: set[Callable[[], None]] = set()
        #: live clients by id, and those that have a user, by user
        self.clients: dict[str, Client] = {}
        self.users: dict[str, set[Client]] = {}
        #: is told of clients and channels
        self.observer: Observer | None = None
        #: what is counted, for operators
        self.counters = Counters()
        #: names this process to clients; sessions of programs by their secret
        self.node = node or new_id()
        self.sessions: dict[str, Any] = {}
        #: the other hubs of the broker
        self.nodes = Nodes(clock, self.broker, self.node)
        #: functions of an embedding program for `rpc`, by method, and for `send`
        self.rpc: dict[str, Callable[[Client, Any, Done[Any]], None]] = {}
        self.on_send: Callable[[Client, Any], None] | None = None
        #: how many clients and other connections there may be
        self.places = Places(settings, self.clients, self.clock.seconds)
        #: the names of clients
        self.names = ClientNames(settings, self._call)
        #: for peers without an address of their own: unix:N
        self.numbers = count(1)
        #: the publications and replies that are written when this turn of the reactor ends
        self.turn = Turn(clock, self.wheel, self.counters)
        #: shares out each turn among work that takes long
        self.slices = Slices(self.turn)
        #: wrong keys of the server API, by address
        self.guesses = Guesses(clock)
        #: the rates of clients' commands
        self.command_rates = ClientBuckets(settings.publish_rate, settings.publish_burst)
        #: how often callers may publish and ask
        self.rates = Rates(clock, settings)
        #: the only way to the channels
        self.door = Door(
            clock,
            settings,
            self.namespaces,
            self.broker,
            self.turn,
            self.wheel,
            self.slices,
            self.rates,
            self.clients,
            self._on_broken,
            self._on_occupancy,
            self.counters,
        )
        #: channels with subscribers here, by name
        self.channels = self.door.channels
        # Outlets in which something waits, and how much in all.
        self.waiting: set[Outlet] = set()
        self._queued = 0
        # In a turn in which the queues are over their total: those that were the largest, the largest last.
        self._largest: list[Outlet] = []

    @property
    def ready(self) -> bool:
        """Whether new work is welcome: False while draining, and while the broker is away."""
        return not self.not_ready

    @ready.setter
    def ready(self, ready: bool) -> None:
        self._draining = not ready
        self.on_broker_change()

    @property
    def not_ready(self) -> str:
        """Why new work is not welcome; empty if it is."""
        return "draining" if self._draining else self.broker.problem

    def on_broker_change(self) -> None:
        """The broker may have another problem now."""
        ready = self.ready
        if ready != self._was_ready:
            self._was_ready = ready
            for each in tuple(self.ready_watchers):
                each()

    def stop(self) -> None:
        """Leave no delayed call behind. Clients are closed before, by the owner of their connections."""
        self.door.stop()
        for each in tuple(self.stop_watchers):
            each()
        self.nodes.stop()
        self.broker.stop()
        self.wheel.stop()
        self.turn.stop()

    # Clients and names.

    def connect(
        self,
        outlet: Outlet,
        protocol: str,
        host: str,
        address: str,
        name: str | None = None,
        kind: type[Client] = Client,
        user: str = "",
        resume: str = "",
    ) -> Client:
        """A new client, called `name` (HOST:PORT or guest-N without one). `kind` is its class, `user` will be its user.

        With the secret `resume` it gets the name of a client that had the same secret. Raises CommandError:
        LIMIT_EXCEEDED where there are too many, BAD_NAME, NAME_TAKEN, BAD_REQUEST for the secret.
        """
        self.places.check(host)
        client = kind(outlet, protocol, host, address, self._on_gone)
        client.resume = check_resume(resume)
        if name is not None:
            self.names.claim(name, client, user)
            client.name = name
        else:
            client.name = self.names.assign(host, address)
        client.connected_at = self.clock.seconds()
        self.clients[client.id] = client
        self.counters.clients[protocol] += 1
        self.places.add_client(host)
        if self.settings.log_clients:
            log.info(
                "%s client %s from %s came",
                client.protocol, client.name, client.address,
                extra=about("client_connected", client),
            )  # fmt: skip
        return client

    def request(
        self,
        host: str,
        address: str,
        name: str | None = None,
        waits: bool = False,
        identity: Identity = ANONYMOUS,
        resume: str = "",
    ) -> Caller:
        """A caller without a connection. It speaks as `name`; without one as its user, or HOST:PORT or guest-N.

        Several may have one name at the same time, but not that of a client. `waits` says that it waits over its rate,
        and is not refused. Raises CommandError(BAD_NAME) or (NAME_TAKEN).
        """
        if name is not None:
            self.claim(name, identity.user, resume)
        else:
            name = self.names.of_identity(identity) or self.names.assign(host, address)
        caller = Caller(host, address, name, waits)
        caller.identify(identity)
        return caller

    def claim(self, name: str, user: str = "", resume: str = "") -> None:
        """Check that a client of `user`, or with the secret `resume`, may be called `name`.

        Raises CommandError(BAD_NAME) or (NAME_TAKEN).
        """
        self.names.check(name, user, resume)

    def label(self, client: Client, name: str) -> None:
        """Let a client speak as `name`, which others may do at the same time; but it is not that of another client.

        Raises CommandError(BAD_NAME) or (NAME_TAKEN).
        """
        self.names.check(name, client.user, client.resume)
        self.names.let_go(client)
        client.has_chosen_name = True
        self._call(client, name)

    def rename(self, client: Client, name: str) -> None:
        """Give a client another name, and tell its channels. It is a chat client from then on.

        Raises CommandError(BAD_NAME) or (NAME_TAKEN).
        """
        self.names.claim(name, client, client.user)
        client.chat = True
        self._call(client, name)

    def _call(self, client: Client, name: str) -> None:
        old = client.name
        client.rename(name)
        if name != old:
            self.door.update(client)
        if client.announced and name != old:
            for channel, subscription in client.subscriptions.items():
                if subscription.complete:
                    self.door.announce(client, channel, Rename(old, subscription.info))

    def identify(self, client: Client, identity: Identity) -> None:
        """A client is this user. Unless it has a session that sees to that, it is closed when `identity` expires."""
        self._forget_user(client)
        if identity.user and client.live:
            self.users.setdefault(identity.user, set()).add(client)
        client.identify(identity)
        self.names.use_identity(client)
        self.door.update(client)
        if self.observer is not None and not client.observed and client.live:
            client.observed = True
            self.observer.client_connected(client)
        if identity.expires_at is not None and not client.keeps_time:
            Expiry(self.wheel, self.wall_time, client, identity.expires_at, self._renew)

    @property
    def hooks(self) -> Hooks:
        """The application's decisions. Set them before the first client comes."""
        return self.gate.hooks

    @hooks.setter
    def hooks(self, hooks: Hooks) -> None:
        self.gate.hooks = self.door.hooks = hooks

    def _renew(self, client: Client) -> bool:
        def renewed(identity: Identity | CommandError) -> None:
            if not client.live:
                return
            if isinstance(identity, CommandError):
                client.close(EXPIRED)
            else:
                self.identify(client, identity)

        return self.gate.renew(client, renewed)

    def _forget_user(self, client: Client) -> None:
        clients = self.users.get(client.user)
        if clients is not None:
            clients.discard(client)
            if not clients:
                del self.users[client.user]

    def _on_gone(self, client: Client) -> None:
        # Thousands may be gone in one turn. Nothing is written to them any more.
        self.slices.do(client.host, LEAVING, partial(self._forget, client))

    def _forget(self, client: Client) -> None:
        self.door.leave_all(client)
        if self.clients.pop(client.id, None) is None:
            return
        self._forget_user(client)
        self.names.let_go(client)
        self.places.remove_client(client.host)
        if self.observer is not None and client.observed:
            self.observer.client_disconnected(client)
        code = client.closed_for.code if client.closed_for is not None else 0
        self.counters.disconnects[code] += 1
        if self.settings.log_clients:
            log.info(
                "%s client %s from %s left",
                client.protocol, client.name, client.address,
                extra=about("client_disconnected", client, code=code),
            )  # fmt: skip

    def _on_occupancy(self, channel: str, occupied: bool) -> None:
        if self.observer is not None:
            tell = self.observer.channel_occupied if occupied else self.observer.channel_vacated
            tell(channel)

    def _on_broken(self, client: Client) -> None:
        """Writing to a client raised: it is closed, and the others are served."""
        log.exception(
            "could not send to %s client %s from %s",
            client.protocol,
            client.name,
            client.address,
            extra=about("internal_error", client),
        )
        client.close(SERVER_ERROR)

    # For the program that embeds the hub, which may do everything.

    def publish(
        self, channel: str, data: Data, info: Info, done: Done[Position], keep: bool = True, once: str = ""
    ) -> None:
        """Publish as `info`; `done` gets the position, or a CommandError. See `Broker.publish`."""
        self.door.publish(PROGRAM, channel, data, done, info, keep, once)

    def presence(self, channel: str) -> list[Info]:
        """The subscribers of a channel on this hub now; `Door.presence` has those on all hubs. Raises CommandError."""
        return self.door.subscribers_here(PROGRAM, channel)

    def history(
        self, channel: str, done: Done[History], since: Position | None = None, limit: int = -1, reverse: bool = False
    ) -> None:
        """A channel's history, see `Broker.history`; `done` gets it, or a CommandError."""
        self.door.history(PROGRAM, channel, done, since, limit, reverse)

    # Events that come back from the broker.

    def on_publication(self, publication: Publication) -> None:
        """A publication of any hub, in a channel that has subscribers here."""
        channel = self.channels.get(publication.channel)
        if channel is not None:
            channel.on_publication(publication)

    def on_publications(self, channel: str, publications: Sequence[Publication]) -> None:
        """Publications of any hub, in a channel that has subscribers here."""
        target = self.channels.get(channel)
        if target is not None:
            target.on_publications(publications)

    def on_announcement(self, channel: str, announcement: Announcement) -> None:
        """A join, leave or rename of any hub, in a channel that has subscribers here."""
        target = self.channels.get(channel)
        if target is not None:
            target.on_announcement(announcement)

    def on_lost(self, channel: str) -> None:
        """Publications in a channel are lost: its subscribers are closed, and learn that when they come back."""
        target = self.channels.get(channel)
        if target is not None:
            log.warning("%r lost publications", channel, extra=about("publications_lost", channel=channel))
            for client in target.on_lost():
                self.slices.do(client.host, LEAVING, partial(client.close, INSUFFICIENT_STATE))

    # The bytes that wait to be sent, of all clients.

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent, in all outlets."""
        return self._queued

    def on_queued(self, outlet: Outlet, amount: int) -> None:
        """`amount` bytes more (or fewer, if negative) wait in `outlet`; over the total the largest queue is closed."""
        self._queued += amount
        total = self.settings.send_queue_total
        while total and self._queued > total:
            largest = self._largest_queue()
            if largest is None:
                break
            largest.close(SLOW)

    def _largest_queue(self) -> Outlet | None:
        """The outlet with the largest queue. One batch may close thousands, so many are looked up together."""
        if not self._largest:
            self._largest = nlargest(_LARGEST, self.waiting, key=lambda each: each.queued)[::-1]
            self.turn.soon(self._largest.clear)
        while self._largest:
            found = self._largest.pop()
            if found in self.waiting and found.queued:
                return found
        return None
