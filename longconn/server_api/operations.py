"""The operations of the server API on a hub, without HTTP.

The caller is trusted: neither the rights of namespaces nor rates apply. A bad name and an undefined namespace are
refused. The names and the effects of operations are those of Centrifugo's server API (centrifugal/centrifugo,
`internal/apiproto/api.proto`). Operations raise CommandError, or pass it to their `done`.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import nlargest
from typing import Any, Protocol, TypeVar

import longconn
from longconn.core.broker import Done
from longconn.core.channel import Channel
from longconn.core.client import BACK_END, Client
from longconn.core.disconnects import EXPIRED, FORCE_DISCONNECT, INVALID_TOKEN, Disconnect
from longconn.core.errors import ALREADY_SUBSCRIBED, NOT_AVAILABLE, CommandError
from longconn.core.hub import Hub
from longconn.core.names import check_channel
from longconn.core.paced_batch import PacedBatch
from longconn.core.publication import Data, History, Info, Position
from longconn.core.revocations import Revocation
from longconn.core.tokens import SubscriptionToken
from longconn.server_api.overview import (
    CHANNEL_ORDERS,
    CLIENT_ORDERS,
    ChannelInfo,
    ClientInfo,
    Recent,
    check_limit,
    is_meant,
    rank_of,
)

_T = TypeVar("_T")

#: Revocations that are listed.
_LISTED = 100

#: The code and reason that a client is sent when the server ends a subscription for good.
UNSUBSCRIBE_CODE, UNSUBSCRIBE_REASON = 2000, "server unsubscribe"


class ProgramSession(Protocol):
    """`Client.session` of a client of Centrifugo's client protocol or gRPC: the requests that the server makes."""

    id: str
    connected: bool

    def subscribe_for_server(self, granted: SubscriptionToken, done: Done[None]) -> None: ...

    def unsubscribe(self, channel: str, code: int, reason: str) -> None: ...

    def refresh_for_server(self, expires_at: float | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Target:
    """Which connections are meant: those of `user` (empty: all without a user), or only one of them."""

    user: str
    client: str = ""
    session: str = ""


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """Numbers of a hub. `uptime` is in seconds; `items` are counted since the start."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_channels: int
    num_subs: int
    uptime: int
    items: dict[str, float] = field(default_factory=dict)
    revocations: Sequence[Revocation] = ()


class ServerAPI:
    """The operations of the server API on `hub`, for HTTP and for the program that embeds the hub.

    The caller is trusted: neither the rights of namespaces nor rates apply. A bad name and an undefined namespace
    are refused. Operations raise CommandError, or pass it to their `done`. Every call must come from the reactor's
    thread. `recent` has the numbers of the last minutes.
    """

    def __init__(self, hub: Hub, recent: Recent | None = None) -> None:
        self.hub = hub
        self._recent = recent
        self._since = hub.clock.seconds()
        self._running: set[PacedBatch[Any]] = set()
        hub.stop_watchers.add(self.stop)
        #: calls over the network since the start, by method, and the number of refused ones
        self.calls: Counter[str] = Counter()
        self.refused = 0

    def stop(self) -> None:
        """Leave no delayed call behind."""
        for each in tuple(self._running):
            each.stop()
        self._running.clear()

    def many(
        self,
        calls: Sequence[tuple[int, Callable[[Done[_T]], float | None]]],
        done: Callable[[list[_T | CommandError]], None],
        parallel: bool = False,
    ) -> None:
        """Make many calls, a bounded share in each turn (`PacedBatch`); `done` gets their results in order."""
        results: dict[int, _T | CommandError] = {}

        def ended() -> None:
            self._running.discard(batch)
            done([results[index] for index in range(len(calls))])

        batch = PacedBatch(self.hub.clock, calls, results.__setitem__, ended, parallel=parallel)
        self._running.add(batch)
        batch.go()

    # Publishing.

    def publish(
        self, channel: str, data: Data, done: Done[Position], skip_history: bool = False, idempotency_key: str = ""
    ) -> None:
        """Publish. With an `idempotency_key` that is done once in 5 minutes for a channel; repeats get the same answer.

        With `skip_history` only clients that are subscribed now get the publication: it has no offset and is not kept.
        """
        self.hub.door.publish(BACK_END, channel, data, done, keep=not skip_history, once=idempotency_key)

    def broadcast(
        self,
        channels: Sequence[str],
        data: Data,
        done: Callable[[list[Position | CommandError]], None],
        skip_history: bool = False,
        idempotency_key: str = "",
    ) -> None:
        """Publish the same data in many channels; `done` gets a result of `publish` for each."""

        def call(channel: str) -> tuple[int, Callable[[Done[Position]], None]]:
            return data.size, lambda one: self.publish(channel, data, one, skip_history, idempotency_key)

        self.many([call(each) for each in channels], done, parallel=True)

    # Connections.

    def subscribe(self, granted: SubscriptionToken, target: Target, done: Done[None]) -> None:
        """Subscribe connections of Centrifugo's client protocol and of gRPC to a channel, whatever its rights.

        `granted` has the channel, the data and info, and the time of expiry. `done` is called after all are
        answered, with the first error. A client that is subscribed already is no error.
        """
        self._check(granted.channel)
        missing = 1
        first: list[CommandError] = []

        def one_done(result: CommandError | None) -> None:
            nonlocal missing
            missing -= 1
            if result is not None and result.reason is not ALREADY_SUBSCRIBED:
                first.append(result)
            if not missing:
                done(first[0] if first else None)

        for session in self._sessions(target):
            missing += 1
            try:
                session.subscribe_for_server(granted, one_done)
            except CommandError as error:
                one_done(error)
        one_done(None)

    def unsubscribe(self, channel: str, target: Target) -> None:
        """End the subscriptions of connections to a channel; the clients get a push, and do not subscribe again."""
        self._check(channel)
        for session in self._sessions(target):
            session.unsubscribe(channel, UNSUBSCRIBE_CODE, UNSUBSCRIBE_REASON)

    def disconnect(
        self, target: Target, disconnect: Disconnect = FORCE_DISCONNECT, whitelist: Collection[str] = ()
    ) -> None:
        """Close connections of any kind, except those of clients whose ids are in `whitelist`."""
        for client in self._clients(target):
            if client.id not in whitelist:
                client.close(disconnect)

    def refresh(
        self, target: Target, expires_at: float | None = None, expired: bool = False, info: bytes = b""
    ) -> None:
        """Let connections expire at another time (None: never), or now; `info` is their new conn_info, JSON."""
        if expired or (expires_at is not None and expires_at <= self.hub.wall_time()):
            self.disconnect(target, EXPIRED)
            return
        for client in self._clients(target):
            session: ProgramSession | None = client.session
            if session is not None and session.connected:
                if info:
                    self.hub.identify(client, replace(client.identity, info=info))
                session.refresh_for_server(expires_at)

    def revoke(self, revocation: Revocation) -> int:
        """Refuse tokens from now on, and close the clients that they let in; the number of these.

        Raises CommandError(LIMIT_EXCEEDED) if there are too many revocations.
        """
        hub = self.hub
        hub.gate.revocations.add(revocation, hub.wall_time())
        found: Iterable[Client] = hub.users.get(revocation.user, ()) if revocation.user else hub.clients.values()
        closed = [each for each in found if revocation.covers(each.identity)]
        for each in closed:
            each.close(INVALID_TOKEN)
        return len(closed)

    def _clients(self, target: Target) -> Iterator[Client]:
        """The clients that are meant, from a copy: closing one may remove it within the call."""
        hub = self.hub
        found: Iterable[Client] = hub.users.get(target.user, ()) if target.user else hub.clients.values()
        if target.client:
            client = hub.clients.get(target.client)
            found = () if client is None else (client,)
        for each in tuple(found):
            session: ProgramSession | None = each.session
            if each.user == target.user and (not target.session or (session and session.id == target.session)):
                yield each

    def _sessions(self, target: Target) -> Iterator[ProgramSession]:
        for client in self._clients(target):
            session: ProgramSession | None = client.session
            if session is not None and session.connected:
                yield session

    # Channels.

    def presence(self, channel: str, done: Done[list[Info]]) -> None:
        """The subscribers of a channel. CommandError(NOT_AVAILABLE) if the channel has no presence."""
        self.hub.door.presence(BACK_END, channel, done)

    def history(
        self, channel: str, done: Done[History], since: Position | None = None, limit: int = 0, reverse: bool = False
    ) -> None:
        """A page of a channel's history: see `Broker.history`. CommandError(NOT_AVAILABLE) if nothing is kept."""

        def known(result: History | CommandError) -> None:
            done(result if isinstance(result, CommandError) else result.since(since, reverse))

        self.hub.door.history(BACK_END, channel, known, since, limit, reverse, needs_history=True)

    def remove_history(self, channel: str, done: Done[None]) -> None:
        """Forget a channel's history; its position stays. CommandError(NOT_AVAILABLE) if nothing is kept."""
        self.hub.door.remove_history(BACK_END, channel, done)

    def channels(self, pattern: str, done: Done[dict[str, int]]) -> None:
        """Channels with subscribers that match a pattern (all if it is empty), each with its number of subscribers.

        There may be many: they are looked at in several turns of the reactor.
        `*` matches any characters, `?` one, `[abc]` and `[!abc]` one of these and one of all others.
        """
        if any(each in pattern for each in "{\\"):
            # For Centrifugo these begin alternatives and escapes. As plain characters they would match other channels.
            raise CommandError(NOT_AVAILABLE, what="patterns with { or \\")
        matches = re.compile(fnmatch.translate(pattern or "*")).match
        found: dict[str, int] = {}

        def look(channel: Channel) -> None:
            if len(channel) and matches(channel.name):
                found[channel.name] = len(channel)

        self.hub.slices.look_at("", tuple(self.hub.channels.values()), look, lambda: done(found))

    def _check(self, channel: str) -> None:
        self.hub.namespaces.options(check_channel(channel))

    # For operators.

    def busiest_channels(self, pattern: str, order: str, limit: int, done: Done[tuple[int, list[ChannelInfo]]]) -> None:
        """The number of channels with subscribers that match a pattern, and the first `limit` of them.

        `order` is one of `CHANNEL_ORDERS`. See `channels` for patterns.
        """
        rank = rank_of(CHANNEL_ORDERS, order)
        check_limit(limit)

        def found(channels: dict[str, int] | CommandError) -> None:
            if isinstance(channels, CommandError):
                done(channels)
                return
            there = [each for name in channels if (each := self.hub.channels.get(name)) is not None]
            first = nlargest(limit, there, key=rank)
            done((len(there), [ChannelInfo(each.name, len(each), each.publications) for each in first]))

        self.channels(pattern, found)

    def clients(self, match: str, order: str, limit: int, done: Done[tuple[int, list[ClientInfo]]]) -> None:
        """The number of clients that have `match` in their id, name, user, address, protocol or a channel (all if it
        is empty), and the first `limit` of them.

        There may be many: they are looked at in several turns of the reactor. `order` is one of `CLIENT_ORDERS`.
        """
        rank = rank_of(CLIENT_ORDERS, order)
        check_limit(limit)
        found: list[Client] = []

        def look(client: Client) -> None:
            if client.live and (not match or is_meant(client, match)):
                found.append(client)

        def looked() -> None:
            now = self.hub.clock.seconds()
            done((len(found), [ClientInfo.of(each, now) for each in nlargest(limit, found, key=rank)]))

        self.hub.slices.look_at("", tuple(self.hub.clients.values()), look, looked)

    def recent(self) -> dict[str, Any]:
        """The numbers of the last minutes: see `Recent.columns`. CommandError(NOT_AVAILABLE) if none are kept."""
        if self._recent is None:
            raise CommandError(NOT_AVAILABLE, what="recent numbers")
        return self._recent.columns()

    # This node.

    def info(self) -> NodeInfo:
        """The numbers of this hub."""
        hub = self.hub
        sizes = [len(each) for each in hub.channels.values()]
        identified = sum(map(len, hub.users.values()))
        items: dict[str, float] = {
            "connections": hub.counters.clients.total(),
            "publications": hub.counters.publications,
            "indirect_sends": hub.counters.indirect_sends,
            "api_calls": self.calls.total(),
            "api_refused": self.refused,
            "revocations": len(hub.gate.revocations.in_force(hub.wall_time())),
        }
        items |= {f"api_calls_{method}": count for method, count in sorted(self.calls.items())}
        return NodeInfo(
            uid=hub.node,
            name="longconn",
            version=longconn.__version__,
            num_clients=len(hub.clients),
            # All clients without a user count as one user.
            num_users=len(hub.users) + (len(hub.clients) > identified),
            num_channels=len(sizes) - sizes.count(0),
            num_subs=sum(sizes),
            uptime=int(hub.clock.seconds() - self._since),
            items=items,
            revocations=tuple(hub.gate.revocations)[:_LISTED],
        )
