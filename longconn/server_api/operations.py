"""What a back end may ask of a hub: the operations of the server API, without HTTP.

They are `Hub.api`, for programs that embed the hub too. Who asks is trusted: neither the rights of
namespaces nor rates apply. What cannot be, a bad name or an undefined namespace, is refused. Names of
operations and what they do are those of Centrifugo's server API (centrifugal/centrifugo,
`internal/apiproto/api.proto`). Operations raise CommandError, or tell it to their `done`.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import longconn
from longconn.core.broker import Done
from longconn.core.client import Client
from longconn.core.disconnects import EXPIRED, FORCE_DISCONNECT, Disconnect
from longconn.core.errors import ALREADY_SUBSCRIBED, NOT_AVAILABLE, CommandError
from longconn.core.names import check_channel
from longconn.core.paced_batch import PacedBatch
from longconn.core.publication import Data, History, Info, Position
from longconn.core.tokens import SubscriptionToken
from longconn.server_api.idempotency import IdempotencyCache

if TYPE_CHECKING:
    from longconn.core.hub import Hub

_T = TypeVar("_T")

#: The unsubscribe that a client is told of when the server ends a subscription for good.
UNSUBSCRIBE_CODE, UNSUBSCRIBE_REASON = 2000, "server unsubscribe"
#: Who speaks by this API: nobody that could be answered to.
SERVER = Info("")


class ProgramSession(Protocol):
    """What a server can make a client do that speaks the structured protocol, or over gRPC (`Client.session`)."""

    id: str
    connected: bool

    def subscribe_for_server(self, granted: SubscriptionToken, done: Done[None]) -> None: ...

    def unsubscribe(self, channel: str, code: int, reason: str) -> None: ...

    def refresh_for_server(self, expires_at: float | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Target:
    """Whose connections are meant: those of `user` (empty: of all who have none), or only some of them."""

    user: str
    client: str = ""
    session: str = ""


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What a hub has and did. `uptime` in seconds; `items` are counted since the start."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_channels: int
    num_subs: int
    uptime: int
    items: dict[str, float] = field(default_factory=dict)


class API:
    """The operations. Nothing here may be called from another thread than the reactor's."""

    def __init__(self, hub: Hub) -> None:
        #: whose channels and clients they are about
        self.hub = hub
        self._once = IdempotencyCache(hub.clock)
        self._since = hub.clock.seconds()
        self._running: set[PacedBatch[Any]] = set()
        #: calls that came over the network since the start, by method, and how many were refused
        self.calls: Counter[str] = Counter()
        self.refused = 0

    def stop(self) -> None:
        """Leave no delayed call behind."""
        for each in tuple(self._running):
            each.stop()
        self._running.clear()

    def many(
        self,
        calls: Sequence[tuple[int, Callable[[Done[_T]], None]]],
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
        """Publish. With an `idempotency_key` it is done once in 5 minutes for a channel, and answered the same.

        With `skip_history` only those are sent it who are subscribed now: it has no offset, and is not kept.
        """
        publish = partial(self.hub.publish, check_channel(channel), data, SERVER, host=None, keep=not skip_history)
        if idempotency_key:
            self._once.publish(channel, idempotency_key, lambda once: publish(once), done)
        else:
            publish(done)

    def broadcast(
        self,
        channels: Sequence[str],
        data: Data,
        done: Callable[[list[Position | CommandError]], None],
        skip_history: bool = False,
        idempotency_key: str = "",
    ) -> None:
        """Publish the same in many channels; `done` gets for each what `publish` would have told."""

        def call(channel: str) -> tuple[int, Callable[[Done[Position]], None]]:
            return data.size, lambda one: self.publish(channel, data, one, skip_history, idempotency_key)

        self.many([call(each) for each in channels], done, parallel=True)

    # Connections.

    def subscribe(self, granted: SubscriptionToken, target: Target, done: Done[None]) -> None:
        """Subscribe connections to a channel, whatever its rights: those of the structured protocol and of gRPC.

        `granted` says to which channel, with what data and info, and until when. Where one is refused, `done`
        gets its error, after all are through. To be subscribed already is none.
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
        """End the subscriptions of connections to a channel; they are told, and do not come back by themselves."""
        self._check(channel)
        for session in self._sessions(target):
            session.unsubscribe(channel, UNSUBSCRIBE_CODE, UNSUBSCRIBE_REASON)

    def disconnect(
        self, target: Target, disconnect: Disconnect = FORCE_DISCONNECT, whitelist: Collection[str] = ()
    ) -> None:
        """Close connections of any kind but those of the clients with the ids in `whitelist`."""
        for client in self._clients(target):
            if client.id not in whitelist:
                client.close(disconnect)

    def refresh(
        self, target: Target, expires_at: float | None = None, expired: bool = False, info: bytes = b""
    ) -> None:
        """Let connections expire at another time (None: never), or now; `info` is their new conn_info, JSON."""
        if expired or (expires_at is not None and expires_at <= self.hub.clock.seconds()):
            self.disconnect(target, EXPIRED)
            return
        for client in self._clients(target):
            session: ProgramSession | None = client.session
            if session is not None and session.connected:
                if info:
                    client.identify(client.user, info)
                session.refresh_for_server(expires_at)

    def _clients(self, target: Target) -> Iterator[Client]:
        """Those that are meant, as they are now: closing one may end it within the call."""
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

    def presence(self, channel: str) -> list[Info]:
        """Who is subscribed to a channel now. NOT_AVAILABLE if its presence is off."""
        return self.hub.presence(channel)

    def history(
        self, channel: str, done: Done[History], since: Position | None = None, limit: int = 0, reverse: bool = False
    ) -> None:
        """What is kept of a channel: see `History.page`. NOT_AVAILABLE if it keeps nothing."""
        self._keeps(channel)

        def known(result: History | CommandError) -> None:
            done(result if isinstance(result, CommandError) else result.page(since, limit, reverse))

        self.hub.history(channel, known, None, -1 if limit else 0, host=None)

    def remove_history(self, channel: str, done: Done[None]) -> None:
        """Forget what is kept of a channel; its position stays. NOT_AVAILABLE if it keeps nothing."""
        self._keeps(channel)
        self.hub.broker.remove_history(channel, done)

    def channels(self, pattern: str = "") -> dict[str, int]:
        """Channels with subscribers here that fit a pattern (all without), each with their number.

        `*` stands for any characters, `?` for one, `[abc]` and `[!abc]` for one of those.
        """
        if any(each in pattern for each in "{\\"):
            # To Centrifugo they are alternatives and escapes: taken for themselves they would find something else.
            raise CommandError(NOT_AVAILABLE, what="patterns with { or \\")
        fits = re.compile(fnmatch.translate(pattern or "*")).match
        return {name: len(channel) for name, channel in self.hub.channels.items() if len(channel) and fits(name)}

    def _check(self, channel: str) -> None:
        self.hub.namespaces.options(check_channel(channel))

    def _keeps(self, channel: str) -> None:
        if not self.hub.namespaces.options(check_channel(channel)).keeps:
            raise CommandError(NOT_AVAILABLE, what="history")

    # This node.

    def info(self) -> NodeInfo:
        """What this hub has and did."""
        hub = self.hub
        sizes = [len(each) for each in hub.channels.values()]
        identified = sum(map(len, hub.users.values()))
        items: dict[str, float] = {
            "connections": hub.total_clients,
            "publications": hub.total_publications,
            "indirect_sends": hub.indirect_sends,
            "api_calls": self.calls.total(),
            "api_refused": self.refused,
        }
        items |= {f"api_calls_{method}": count for method, count in sorted(self.calls.items())}
        return NodeInfo(
            uid=hub.node,
            name="longconn",
            version=longconn.__version__,
            num_clients=len(hub.clients),
            # Those without an id are together one more.
            num_users=len(hub.users) + (len(hub.clients) > identified),
            num_channels=len(sizes) - sizes.count(0),
            num_subs=sum(sizes),
            uptime=int(hub.clock.seconds() - self._since),
            items=items,
        )
