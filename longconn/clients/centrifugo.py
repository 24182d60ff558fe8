"""Centrifugo's client protocol in JSON, from the client's side and without I/O: decoded objects in, objects out.

    command   {"id": 1, "subscribe": {"channel": "c"}}
    reply     {"id": 1, "subscribe": {…}}  or  {"id": 1, "error": {"code", "message", "temporary"}}
    push      {"push": {"channel": "c", "pub": {"data": …, "offset": 8, "info": {…}}}}
    ping      {}, answered by {} where the reply to `connect` has `pong`

Servers leave out members that are zero, and clients ignore members that they do not know. The protocol's definition
is `definitions/client.proto` in the public repository centrifugal/protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from longconn.clients.errors import ClientError, NotLongconn, Refused
from longconn.clients.events import JSONObject

_T = TypeVar("_T")

#: Kinds of pushes that are acted on. The protocol says to ignore the others.
_KINDS = ("pub", "join", "leave", "unsubscribe", "disconnect", "refresh")
#: Members of commands that no result has.
_ONLY_IN_COMMANDS = ("channel", "method")
# Codes of error replies (centrifugal/centrifuge, `errors.go`). The server has done nothing when it sends one of these.
ALREADY_SUBSCRIBED = 105
TOKEN_EXPIRED = 109
TOO_MANY_REQUESTS = 111
UNRECOVERABLE = 112


@dataclass(eq=False, slots=True)
class PendingCommand:
    """A command and its callback. `repeatable`: sending it twice does no harm."""

    method: str
    body: JSONObject
    on_answer: Callable[[JSONObject | ClientError], None]
    repeatable: bool = False
    #: how long it waits for a connection, as a time of the reactor's clock
    deadline: float = 0.0
    #: when it was sent
    sent_at: float = 0.0
    #: the caller does not want the answer any more
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class ReceivedReply:
    """The reply to a command."""

    command: PendingCommand
    result: JSONObject | Refused


@dataclass(frozen=True, slots=True)
class ReceivedPush:
    """A message that no command asked for. `channel` is empty if it is about the connection."""

    channel: str
    kind: str
    value: JSONObject


@dataclass(frozen=True, slots=True)
class ReceivedPing:
    """A ping of the server."""


Received: TypeAlias = ReceivedReply | ReceivedPush | ReceivedPing


class ReplyMatcher:
    """Numbers the commands of one connection, and finds the command that a reply answers."""

    def __init__(self) -> None:
        self._last = 0
        #: commands without an answer yet by number, in the order in which they were sent
        self.pending: dict[int, PendingCommand] = {}

    def add(self, command: PendingCommand) -> JSONObject:
        """Number a command; returns the object to send."""
        self._last += 1
        self.pending[self._last] = command
        return {"id": self._last, command.method: command.body}

    def read(self, value: JSONObject) -> Received | None:
        """Read an object of the server; None if it is to be ignored. Raises NotLongconn."""
        if not value:
            return ReceivedPing()
        number = value.get("id")
        if number:
            command = self.pending.get(number) if isinstance(number, int) else None
            if command is None:
                return None
            result = _result(value, command.method)
            if isinstance(result, dict) and any(name in result for name in _ONLY_IN_COMMANDS):
                raise NotLongconn("this is no longconn server: it sends back what it gets")
            answer = ReceivedReply(command, result)
            del self.pending[number]  # after _result: a malformed answer leaves the command pending
            return answer
        push = value.get("push")
        if not isinstance(push, dict):
            raise NotLongconn("this is no longconn server: its answer is neither a reply nor a push")
        for kind in _KINDS:
            if kind in push:
                return ReceivedPush(member(push, "channel", str, ""), kind, member(push, kind, dict, {}))
        return None


def _result(value: JSONObject, method: str) -> JSONObject | Refused:
    error = value.get("error")
    if isinstance(error, dict):
        return Refused(
            member(error, "code", int, 0), member(error, "message", str, ""), member(error, "temporary", bool, False)
        )
    return member(value, method, dict, {})


def member(value: JSONObject, name: str, kind: type[_T], absent: _T) -> _T:
    """A member of an object of the server; `absent` if it is missing or null. Raises NotLongconn for another type."""
    found: Any = value.get(name)
    if found is None:
        return absent
    if not isinstance(found, kind):
        raise NotLongconn(f"this is no longconn server: {name} in its answer is no {kind.__name__}")
    return found
