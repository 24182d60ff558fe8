"""Centrifugo's client protocol from the client's side, for one connection: objects in, objects out, no I/O.

    command   {"id": 1, "subscribe": {"channel": "c"}}
    reply     {"id": 1, "subscribe": {…}}  or  {"id": 1, "error": {"code", "message", "temporary"}}
    push      {"push": {"channel": "c", "pub": {"data": …, "offset": 8, "info": {…}}}}
    ping      {}, answered by {} where the answer to `connect` says `pong`

Zero fields are left out, unknown ones ignored. The definitions are `definitions/client.proto` in the public
repository centrifugal/protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from longconn.clients.errors import ClientError, NotLongconn, Refused
from longconn.clients.events import JSONObject

_T = TypeVar("_T")

#: Kinds of pushes that are acted on; others are ignored, as the protocol asks.
_KINDS = ("pub", "join", "leave", "unsubscribe", "disconnect", "refresh")
#: Error replies that came before anything was done (centrifugal/centrifuge, `errors.go`).
TOO_MANY_REQUESTS = 111
UNRECOVERABLE = 112
TOKEN_EXPIRED = 109
ALREADY_SUBSCRIBED = 105


@dataclass(eq=False, slots=True)
class Command:
    """A command that waits for its answer. `repeatable`: doing it twice is as doing it once."""

    method: str
    body: JSONObject
    on_answer: Callable[[JSONObject | ClientError], None]
    repeatable: bool = False
    #: until when it waits for a connection, by the reactor's clock
    deadline: float = 0.0
    #: when it was sent
    sent_at: float = 0.0
    #: nobody waits for it any more
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A command's reply."""

    command: Command
    result: JSONObject | Refused


@dataclass(frozen=True, slots=True)
class Push:
    """What the server says of its own accord. `channel` is empty for what concerns the connection."""

    channel: str
    kind: str
    value: JSONObject


@dataclass(frozen=True, slots=True)
class Ping:
    """The server asks for a sign of life, or gives one."""


Received: TypeAlias = Answer | Push | Ping


class ReplyMatcher:
    """Numbers commands, and tells what objects mean."""

    def __init__(self) -> None:
        self._last = 0
        #: commands that wait for their answers, in the order in which they were sent
        self.pending: dict[int, Command] = {}

    def say(self, command: Command) -> JSONObject:
        """The object that sends a command."""
        self._last += 1
        self.pending[self._last] = command
        return {"id": self._last, command.method: command.body}

    def hear(self, value: JSONObject) -> Received | None:
        """What an object of the server means; None for what is to be ignored. Raises NotLongconn."""
        if not value:
            return Ping()
        number = value.get("id")
        if number:
            command = self.pending.get(number) if isinstance(number, int) else None
            if command is None:
                return None
            if command.body and value == {"id": number, command.method: command.body}:
                raise NotLongconn("this is no longconn server: it sends back what it gets")
            answer = Answer(command, _result(value, command.method))
            del self.pending[number]  # only now: what is no answer leaves it waiting
            return answer
        push = value.get("push")
        if not isinstance(push, dict):
            raise NotLongconn("this is no longconn server: its answer is neither a reply nor a push")
        for kind in _KINDS:
            if kind in push:
                return Push(member(push, "channel", str, ""), kind, member(push, kind, dict, {}))
        return None


def _result(value: JSONObject, method: str) -> JSONObject | Refused:
    error = value.get("error")
    if isinstance(error, dict):
        return Refused(
            member(error, "code", int, 0), member(error, "message", str, ""), member(error, "temporary", bool, False)
        )
    return member(value, method, dict, {})


def member(value: JSONObject, name: str, kind: type[_T], absent: _T) -> _T:
    """A member of an object of the server's. Raises NotLongconn if it is of another kind."""
    found: Any = value.get(name)
    if found is None:
        return absent
    if not isinstance(found, kind):
        raise NotLongconn(f"this is no longconn server: {name} in its answer is no {kind.__name__}")
    return found
