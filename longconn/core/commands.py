"""The commands that programs send, their results and the pushes to them, whatever the codec.

Their names and members are those of Centrifugo's client protocol (centrifugal/protocol, `definitions/client.proto`).
A codec (`longconn.core.codec.Codec`) turns bytes into commands, and results and pushes into bytes. An `id` names a
command in its reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from longconn.core.disconnects import Disconnect
from longconn.core.errors import CommandError, LongConnError
from longconn.core.publication import Data, History, Info, Position


class MalformedCommandError(LongConnError):
    """An item is no command. The connection is closed for it, and the text says why."""


# Commands.


@dataclass(slots=True)
class Subscribe:
    """Subscribe to a channel; with `since`, recover the publications after that position.

    `refuses_loss` says that an error is better than a subscription that has missed something. `unsupported` names
    a requested feature that is not offered here.
    """

    id: int
    channel: str
    token: str = ""
    since: Position | None = None
    join_leave: bool = False
    refuses_loss: bool = False
    unsupported: str = ""


@dataclass(slots=True)
class Connect:
    """The first command. `name` makes it a chat client; `label` is a name to speak under, and no more.

    By the secret `resume` it gets the name back from a connection that was cut.
    `subs` are the positions of subscriptions that the server makes; None if the codec has no form for such
    subscriptions. `heartbeat` is the number of seconds between two pings that need no pong (0: none); None for the
    server's pings.
    """

    id: int
    token: str = ""
    name: str | None = None
    subs: Mapping[str, Subscribe] | None = None
    heartbeat: float | None = None
    #: what the program passes on to the application's hook, as JSON
    data: bytes = b""
    #: a name and a password, in place of a token
    login: tuple[str, str] | None = field(default=None, repr=False)
    resume: str = field(default="", repr=False)
    label: str | None = None


@dataclass(slots=True)
class Unsubscribe:
    """Leave a channel."""

    id: int
    channel: str


@dataclass(slots=True)
class Publish:
    """Publish in a channel, subscribed to it or not."""

    id: int
    channel: str
    data: Data


@dataclass(slots=True)
class Presence:
    """Ask for the subscribers of a channel."""

    id: int
    channel: str


@dataclass(slots=True)
class PresenceStats:
    """Ask for their number."""

    id: int
    channel: str


@dataclass(slots=True)
class ReadHistory:
    """Ask for a channel's history: see `Broker.history`.

    `strict` is Centrifugo's way: an epoch that is not the channel's and a channel that keeps nothing are errors.
    """

    id: int
    channel: str
    since: Position | None = None
    limit: int = 0
    reverse: bool = False
    strict: bool = True


@dataclass(slots=True)
class Refresh:
    """A new token for the connection."""

    id: int
    token: str


@dataclass(slots=True)
class SubRefresh:
    """A new token for a subscription."""

    id: int
    channel: str
    token: str


@dataclass(slots=True)
class Ping:
    """Ask for a reply."""

    id: int


@dataclass(slots=True)
class Send:
    """A message for the program that embeds the hub, as JSON; it has no reply."""

    data: bytes
    id: int = 0


@dataclass(slots=True)
class RPC:
    """A call of a method of the program that embeds the hub; `data` is JSON."""

    id: int
    method: str
    data: bytes


@dataclass(slots=True)
class RefusedCommand:
    """A command that the codec could name (`method`), but not read."""

    id: int
    error: CommandError
    method: str


Command = (
    Connect | Subscribe | Unsubscribe | Publish | Presence | PresenceStats | ReadHistory | Refresh | SubRefresh | Ping
    | Send | RPC | RefusedCommand
)  # fmt: skip

# Results. `ttl` is the number of seconds until something expires; None if it does not.


@dataclass(slots=True)
class SubscribeResult:
    """The subscription: `history` has the publications after `since`, and the position where live ones start."""

    channel: str
    history: History
    since: Position | None
    recoverable: bool
    positioned: bool
    data: bytes
    ttl: int | None

    @property
    def position(self) -> Position:
        """The position before the publications of the answer; without a recovery the position of the channel.

        Clients count on from each publication that they handle. Centrifuge does the same (`client.go`, `res.Offset`).
        """
        now = self.history.position
        return Position(now.epoch, self.since.offset) if self.since is not None and self.history.recovered else now


@dataclass(slots=True)
class ConnectResult:
    """The connection: `ping` is the number of seconds between two pings (0: none), `pong` whether they are answered.

    `session` and `node` name it to `/emulation`.
    """

    client: str
    name: str
    version: str
    ttl: int | None
    subs: Sequence[SubscribeResult]
    ping: int
    pong: bool
    session: str
    node: str
    data: bytes = b""


@dataclass(slots=True)
class UnsubscribeResult:
    """The client is not in the channel."""

    channel: str


@dataclass(slots=True)
class PublishResult:
    """Where the publication is."""

    position: Position


@dataclass(slots=True)
class PresenceResult:
    """The subscribers."""

    infos: Sequence[Info]


@dataclass(slots=True)
class PresenceStatsResult:
    """The numbers of clients, and of users among them."""

    clients: int
    users: int


@dataclass(slots=True)
class HistoryResult:
    """The publications of a channel's history."""

    history: History


@dataclass(slots=True)
class RefreshResult:
    """The connection has a new token."""

    client: str
    version: str
    ttl: int | None


@dataclass(slots=True)
class SubRefreshResult:
    """The subscription has a new token."""

    ttl: int | None


@dataclass(slots=True)
class PingResult:
    """The reply to a ping."""


@dataclass(slots=True)
class RPCResult:
    """The value that the method returned, as JSON."""

    data: bytes


Result = (
    ConnectResult | SubscribeResult | UnsubscribeResult | PublishResult | PresenceResult | PresenceStatsResult
    | HistoryResult | RefreshResult | SubRefreshResult | PingResult | RPCResult
)  # fmt: skip

# Pushes.


@dataclass(slots=True)
class SubscribePush:
    """The server subscribed the client."""

    result: SubscribeResult


@dataclass(slots=True)
class UnsubscribePush:
    """The server ended a subscription. A code from 2500 on advises to subscribe again."""

    channel: str
    code: int
    reason: str


@dataclass(slots=True)
class RefreshPush:
    """The connection expires at another time."""

    ttl: int | None


@dataclass(slots=True)
class DisconnectPush:
    """The connection ends: for carriers without a close frame."""

    disconnect: Disconnect


Push = SubscribePush | UnsubscribePush | RefreshPush | DisconnectPush
