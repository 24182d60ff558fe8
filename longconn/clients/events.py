"""The values that a client gives its program: events of channels, and the state of the connection."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

from longconn.clients.errors import ClientError

#: A value as `json.loads` gives it. A number that Python's `int` or `float` cannot hold is a Decimal.
JSONValue: TypeAlias = Any
JSONObject: TypeAlias = dict[str, Any]


class JSONText(str):
    """A JSON value as its text. `Client.publish` sends it as it is written, where another `str` is sent as a string."""

    __slots__ = ()

    def value(self) -> JSONValue:
        """The value. Raises ValueError, and RecursionError if it is nested too deep for the interpreter."""
        try:
            return _VALUES.decode(self)
        except json.JSONDecodeError:
            raise
        except ValueError:  # a whole number of more digits than `sys.get_int_max_str_digits()`
            return _LONG_NUMBERS.decode(self)


def _float(text: str) -> float | Decimal:
    value = float(text)
    return _decimal(text) if value in (float("inf"), float("-inf")) else value


def _int(text: str) -> int | float | Decimal:
    try:
        return int(text)
    except ValueError:
        return _decimal(text)


def _decimal(text: str) -> float | Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # its exponent has more than 18 digits
        return float(text)


def _refuse_constant(name: str) -> JSONValue:
    """NaN and Infinity are not JSON (RFC 8259, section 6)."""
    raise json.JSONDecodeError(f"{name} is no value of JSON", "", 0)


_VALUES = json.JSONDecoder(parse_float=_float, parse_constant=_refuse_constant)
_LONG_NUMBERS = json.JSONDecoder(parse_float=_float, parse_int=_int, parse_constant=_refuse_constant)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a subscriber stands in a channel: `offset` counts within `epoch`. An empty epoch means no position."""

    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class Member:
    """A subscriber: its client's id, its user ("" for none), its name.

    `name` is what others read over every protocol. `named` is false for a client that is not in the chat: people are
    not told when it comes and goes. Over gRPC it is false for every client whose name the server made (HOST:PORT or
    guest-N).
    """

    client: str
    user: str
    name: str
    named: bool


@dataclass(frozen=True, slots=True)
class Publication:
    """One message. `name` is the publisher's ("" for the server), `client` its client's id.

    `time` is in seconds since 1970; None if the server does not send it. `offset` is 0 in a channel without history.
    `json` is the text of `data` as it was published: `data` may have less of it (`1.50` is 1.5 there, and of a member
    that stands twice it has the last).
    """

    channel: str
    offset: int
    epoch: str
    data: JSONValue
    name: str
    client: str
    time: float | None = None
    json: JSONText = field(default=JSONText("null"), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Joined:
    """A client subscribed. Comes if `join_leave` was asked for."""

    channel: str
    member: Member


@dataclass(frozen=True, slots=True)
class Left:
    """A client is no longer subscribed. Comes if `join_leave` was asked for."""

    channel: str
    member: Member


@dataclass(frozen=True, slots=True)
class Lost:
    """The publications after `position` cannot be recovered; those after `resumed` follow.

    Both are empty in a channel without history. The event then only says that the connection was lost.
    """

    channel: str
    position: Position
    resumed: Position


Event: TypeAlias = Publication | Joined | Left | Lost


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Publications of a channel's history, and the channel's position."""

    publications: list[Publication]
    position: Position


class ConnectionState(enum.Enum):
    """CONNECTING: an attempt is under way. RECONNECTING: waits for the next attempt. CLOSED: ended for good."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class State:
    """The state of the connection.

    `reason` says in one line why there is no connection; it is empty if there is one. `code` is the number of a
    disconnect or of an error reply, or 0. `retry_in` are the seconds until the next attempt, or 0. `error` is the
    exception whose text is `reason`; None if the program closed the client.
    """

    state: ConnectionState
    reason: str = ""
    code: int = 0
    retry_in: float = 0.0
    error: ClientError | None = field(default=None, compare=False)
