"""What a client tells its program: events of channels, and the state of the connection."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, TypeAlias

#: A value as `json.loads` gives it.
JSONValue: TypeAlias = Any
JSONObject: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Position:
    """Where in a channel a subscriber stands: `offset` counts within `epoch`. An empty epoch is none."""

    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class Member:
    """Who is subscribed: the client's id, its user ("" for none), its name.

    `named` is false for one without a name of its own: `name` is its client's id then, or over gRPC what the server
    calls it (HOST:PORT or guest-N).
    """

    client: str
    user: str
    name: str
    named: bool


@dataclass(frozen=True, slots=True)
class Publication:
    """One message. `name` is who published ("" for the server itself), `client` its id; `time` in seconds since 1970.

    `offset` is 0 in a channel without history. `time` is None where the server does not tell it.
    """

    channel: str
    offset: int
    epoch: str
    data: JSONValue
    name: str
    client: str
    time: float | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """A client subscribed. Told where `join_leave` was asked for."""

    channel: str
    member: Member


@dataclass(frozen=True, slots=True)
class Left:
    """A client is no longer subscribed. Told where `join_leave` was asked for."""

    channel: str
    member: Member


@dataclass(frozen=True, slots=True)
class Lost:
    """What followed `position` cannot be had any more; publications go on after `resumed`.

    Both are empty in a channel without history: then it is only known that the connection was lost.
    """

    channel: str
    position: Position
    resumed: Position


Event: TypeAlias = Publication | Joined | Left | Lost


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Publications of a channel's history, and where the channel stands."""

    publications: list[Publication]
    position: Position


class ConnectionState(enum.Enum):
    """CONNECTING: an attempt is under way. RECONNECTING: waits for the next one. CLOSED: for good."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class State:
    """How the connection is.

    `reason` says why it is not there, in one line, empty when it is; `code` is a disconnect's or an error reply's
    number, 0 without; `retry_in` are seconds until the next attempt, 0 where there is none. `error` is what `reason`
    tells, as it is raised; None when the program closed the client itself.
    """

    state: ConnectionState
    reason: str = ""
    code: int = 0
    retry_in: float = 0.0
    error: Exception | None = field(default=None, compare=False)
