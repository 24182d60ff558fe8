"""Callers: clients, which stay connected, and requests, which are answered once; and a client's subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol

from longconn.core.broker import Done
from longconn.core.command_queue import CommandQueue
from longconn.core.disconnects import Disconnect
from longconn.core.hooks import Decisions
from longconn.core.identity import ANONYMOUS, Granted, Identity
from longconn.core.ids import new_id
from longconn.core.names import with_name
from longconn.core.namespaces import Action
from longconn.core.publication import Event, History, Info, Position
from longconn.core.timers import Bucket


class Outlet(Protocol):
    """The writable end of one connection, as the core sees it."""

    #: the client that it belongs to
    client: Client | None

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""

    def write(self, data: bytes) -> None:
        """Send `data`, or queue it within the bound. Never raises for the state of the connection."""

    def write_backlog(self, source: Iterator[bytes]) -> None:
        """Send the bytes that `source` yields, and ask it for more as the connection takes them."""

    def close(self, disconnect: Disconnect) -> None:
        """End the connection, and tell the reason where the protocol can."""


class Format(Protocol):
    """A wire format: how events are written for one kind of connection.

    Equal formats are one key: the channel encodes a batch once for all subscribers whose formats are equal.
    """

    @property
    def tells_own_join(self) -> bool:
        """Whether a subscriber gets its own join."""

    def encode(self, channel: str, events: Sequence[Event]) -> Any:
        """The events as the outlet takes them: bytes. Empty if it writes none of these events."""


_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Caller:
    """Asks for something at the door: publish, subscribe, presence, history.

    This class is a request that is answered once and makes no client (a POST, a unary call). `Client` is a
    caller that stays. `host` is the address that limits are counted by, empty for peers without one.
    """

    __slots__ = (
        "address", "certificate", "conn_info", "decisions", "grants", "headers", "host", "identity", "name",
        "publications", "published_bytes", "user", "waits",
    )  # fmt: skip

    #: whether it may do everything, as the program that embeds the hub and the server API may
    trusted = False
    #: whether `max_message` bounds its publications
    bounded = True
    #: the id of a client; a request has none
    id = ""
    #: how it is connected
    protocol = "http"
    #: subscriptions by channel; a request has none
    subscriptions: Mapping[str, Subscription] = MappingProxyType({})

    def __init__(self, host: str, address: str, name: str, waits: bool = False) -> None:
        self.host = host
        self.address = address
        #: the name that others read
        self.name = name
        #: who it is; the next three are of this
        self.identity = ANONYMOUS
        #: empty if it is anonymous
        self.user = ""
        #: what others may read about it, as JSON
        self.conn_info = b""
        #: the channels that its token grants, by name
        self.grants: Mapping[str, Granted] = ANONYMOUS.subs
        #: over its rate: True if it waits, False if it is refused
        self.waits = waits
        #: the user that its TLS certificate names
        self.certificate = ""
        #: the headers of its request that hooks get
        self.headers: Mapping[str, str] = _NO_HEADERS
        #: what waits for decisions of the application; the first one makes it
        self.decisions: Decisions | None = None
        #: rates; the door makes them at the first publication, since most clients only read
        self.publications: Bucket | None = None
        self.published_bytes: Bucket | None = None

    def identify(self, identity: Identity) -> None:
        """It is this user. For clients `Hub.identify` is the caller, which keeps the clients of each user."""
        self.identity = identity
        self.user, self.conn_info, self.grants = identity.user, identity.info, identity.subs

    def has_capability(self, action: Action, channel: str) -> bool:
        """Whether its token gives the right to `action` in `channel`, whatever the channel's options say."""
        return any(each.allows(action, channel) for each in self.identity.capabilities)

    def info_in(self, channel: str) -> Info:
        """How others see it in `channel`."""
        granted = self.grants.get(channel)
        info = with_name(self.conn_info, self.name)
        return Info(self.name, "", self.user, info, granted.info if granted is not None else b"")


class TrustedCaller(Caller):
    """Rights and rates do not apply to it."""

    __slots__ = ("bounded",)

    trusted = True

    def __init__(self, bounded: bool) -> None:
        super().__init__("", "", "")
        self.bounded = bounded


#: The program that embeds the hub.
PROGRAM = TrustedCaller(bounded=False)
#: A back end that calls the server API.
BACK_END = TrustedCaller(bounded=True)


class Client(Caller):
    """One conversation with the hub. `Hub.connect` makes it, `gone` ends it.

    `protocol` is how it is connected (`tcp`, `websocket`, `sse`, `stream`, …), `address` is HOST:PORT. `id` is
    unguessable and new for each client.
    """

    __slots__ = (
        "_info", "_on_gone", "announced", "chat", "closed_for", "connected_at", "has_chosen_name", "id", "live",
        "observed", "outlet", "protocol", "queue", "resume", "session", "subscriptions",
    )  # fmt: skip

    def __init__(
        self, outlet: Outlet, protocol: str, host: str, address: str, on_gone: Callable[[Client], None]
    ) -> None:
        super().__init__(host, address, address, waits=True)
        self._on_gone = on_gone
        self.outlet = outlet
        self.protocol = protocol
        self.id = new_id(15)
        #: whether its joins and leaves are announced to others
        self.announced = False
        #: whether it is a chat client: people are told when it comes and goes (see `Info`)
        self.chat = True
        #: whether it asked for its name, and the secret by which it gets the name back after a cut
        self.has_chosen_name = False
        self.resume = ""
        self.live = True
        #: when it came, by the hub's clock, in seconds
        self.connected_at = 0.0
        #: why the server closed it; None if it ended by itself
        self.closed_for: Disconnect | None = None
        #: whether the hub's observer was told of it
        self.observed = False
        #: its commands, if it sends any; what it looks at and what it announces counts as further ones
        self.queue: CommandQueue[Any] | None = None
        #: the session of a program (`longconn.core.session.Session`), by which the server can act on the client
        self.session: Any = None
        self.subscriptions: dict[str, Subscription] = {}
        self._info: Info | None = None

    @property
    def keeps_time(self) -> bool:
        """Whether its session sees to the end of its token and of its subscriptions."""
        return self.session is not None and bool(self.session.keeps_time)

    @property
    def info(self) -> Info:
        """How others see it."""
        if self._info is None:
            info = with_name(self.conn_info, self.name)
            self._info = Info(self.name, self.id, self.user, info, chat=self.chat)
        return self._info

    def info_in(self, channel: str) -> Info:
        subscription = self.subscriptions.get(channel)
        return self.info if subscription is None else subscription.info

    def identify(self, identity: Identity) -> None:
        super().identify(identity)
        self._info = None
        for each in self.subscriptions.values():
            each.may_publish = None

    def rename(self, name: str) -> None:
        """Change the name that others read. `Hub.rename` is the caller, which keeps the names."""
        self.name = name
        self._info = None

    def close(self, disconnect: Disconnect) -> None:
        """Close the connection for a numbered reason."""
        self.closing(disconnect)
        self.outlet.close(disconnect)

    def closing(self, disconnect: Disconnect) -> None:
        """Its outlet closes the connection, for this reason unless there was one before."""
        if self.closed_for is None and self.live:
            self.closed_for = disconnect

    def gone(self) -> None:
        """The connection ended: leave every channel. A second call has no effect."""
        if self.live:
            self.live = False
            self._on_gone(self)


class TrustedClient(Client):
    """A client that the embedding program runs itself: rights, rates and its number of channels are not checked."""

    __slots__ = ()

    trusted = True
    bounded = False

    def __init__(
        self, outlet: Outlet, protocol: str, host: str, address: str, on_gone: Callable[[Client], None]
    ) -> None:
        super().__init__(outlet, protocol, host, address, on_gone)
        self.waits = False


class Subscription:
    """One client in one channel, with the wire format that it reads."""

    __slots__ = (
        "chan_info", "channel", "client", "data", "done", "expires_at", "format", "may_publish", "position", "since",
        "write",
    )  # fmt: skip

    def __init__(
        self,
        client: Client,
        channel: str,
        format: Format,
        since: Position | None,
        done: Done[History],
        chan_info: bytes,
        data: bytes = b"",
        expires_at: float | None = None,
    ) -> None:
        self.client = client
        self.channel = channel
        self.format = format
        #: information for others about the client in this channel, from a token or the server API, as JSON
        self.chan_info = chan_info
        #: JSON for the subscriber itself, and when the subscription expires, in seconds since 1970
        self.data = data
        self.expires_at = expires_at
        #: the outlet's `write`, bound once because every batch calls it
        self.write: Callable[[bytes], Any] = client.outlet.write
        #: the position to recover from
        self.since = since
        #: called with the backlog when the subscribe is complete; then None
        self.done: Done[History] | None = done
        #: where its live publications start; None while the subscribe is under way
        self.position: Position | None = None
        #: whether the client may publish here; None until the door looks it up, and again when the user changes
        self.may_publish: bool | None = None

    @property
    def complete(self) -> bool:
        """Whether the subscribe is complete."""
        return self.position is not None

    @property
    def current(self) -> bool:
        """Whether the client is still in the channel by this subscription."""
        return self.client.subscriptions.get(self.channel) is self

    @property
    def info(self) -> Info:
        """How others see the client in this channel."""
        info = self.client.info
        return replace(info, chan_info=self.chan_info) if self.chan_info else info
