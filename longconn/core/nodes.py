"""Requests between the hubs of one broker, each of which is a node.

A request is a method and a body. It goes to one node, or to all others, as a message of the broker; each answers by
another. A node that does not answer in time is reckoned as one that refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import msgspec

from longconn.core.broker import Broker, Done
from longconn.core.errors import BROKER_UNAVAILABLE, INTERNAL, NOT_AVAILABLE, CommandError
from longconn.core.timers import Call, Clock

#: Seconds in which a node has to answer.
TIMEOUT = 2.0
_ALL = "all"


class _NodeRequest(msgspec.Struct, array_like=True, tag="q"):
    number: int
    node: str
    method: str
    body: bytes


class _NodeResponse(msgspec.Struct, array_like=True, tag="r"):
    """`refused` is the text of an error; empty if there is none."""

    number: int
    node: str
    body: bytes
    refused: str = ""


_read = msgspec.msgpack.Decoder(_NodeRequest | _NodeResponse).decode
_write = msgspec.msgpack.Encoder().encode


class _Gathering:
    """A request that is under way: the answers, the number that is expected, and what to do then."""

    __slots__ = ("answers", "call", "done", "expected")

    def __init__(self, done: Callable[[list[bytes | CommandError]], None]) -> None:
        self.done = done
        self.answers: list[bytes | CommandError] = []
        self.expected: int | None = None
        self.call: Call | None = None


class Nodes:
    """What one hub asks of the others, and they of it. `node` names it."""

    def __init__(self, clock: Clock, broker: Broker, node: str) -> None:
        self._clock = clock
        self._broker = broker
        self._node = node
        self._numbers = count(1)
        self._gathering: dict[int, _Gathering] = {}
        #: what answers the requests of other nodes, by method
        self.handlers: dict[str, Callable[[bytes, Done[bytes]], None]] = {}
        broker.listen(_ALL, self._on_message)
        broker.listen(node, self._on_message)

    def ask(self, node: str, method: str, body: bytes, done: Done[bytes]) -> None:
        """Ask one other node. NOT_AVAILABLE if there is no such node."""

        def answered(answers: list[bytes | CommandError]) -> None:
            done(answers[0] if answers else CommandError(NOT_AVAILABLE, what="the node"))

        self._ask(node, 0, method, body, answered)

    def ask_others(self, method: str, body: bytes, done: Callable[[list[bytes | CommandError]], None]) -> None:
        """Ask all other nodes; `done` gets an answer of each, an error for one that does not answer in time."""
        self._ask(_ALL, 1, method, body, done)

    def stop(self) -> None:
        """Leave no delayed call behind."""
        for each in self._gathering.values():
            if each.call is not None:
                each.call.cancel()
        self._gathering.clear()

    def _ask(
        self, topic: str, own: int, method: str, body: bytes, done: Callable[[list[bytes | CommandError]], None]
    ) -> None:
        number = next(self._numbers)
        gathering = self._gathering[number] = _Gathering(done)

        def sent(receivers: int | None) -> None:
            if number not in self._gathering:
                return
            if receivers is None:
                del self._gathering[number]
                done([CommandError(BROKER_UNAVAILABLE)])
                return
            gathering.expected = receivers - own
            self._end_if_complete(number, gathering)
            if number in self._gathering:
                gathering.call = self._clock.callLater(TIMEOUT, partial(self._on_timeout, number, gathering))

        self._broker.tell(topic, _write(_NodeRequest(number, self._node, method, body)), sent)

    def _end_if_complete(self, number: int, gathering: _Gathering) -> None:
        if gathering.expected is not None and len(gathering.answers) >= gathering.expected:
            del self._gathering[number]
            if gathering.call is not None:
                gathering.call.cancel()
            gathering.done(gathering.answers)

    def _on_timeout(self, number: int, gathering: _Gathering) -> None:
        del self._gathering[number]
        missing = (gathering.expected or 0) - len(gathering.answers)
        gathering.done(gathering.answers + [CommandError(INTERNAL)] * missing)

    def _on_message(self, message: bytes) -> None:
        try:
            found = _read(message)
        except msgspec.DecodeError:
            return
        if isinstance(found, _NodeResponse):
            gathering = self._gathering.get(found.number)
            if gathering is not None:
                gathering.answers.append(CommandError(INTERNAL) if found.refused else found.body)
                self._end_if_complete(found.number, gathering)
        elif found.node != self._node:
            self._answer(found)

    def _answer(self, request: _NodeRequest) -> None:
        def done(result: bytes | CommandError) -> None:
            refused = isinstance(result, CommandError)
            body = b"" if isinstance(result, CommandError) else result
            response = _NodeResponse(request.number, self._node, body, str(result) if refused else "")
            self._broker.tell(request.node, _write(response), _ignore)

        handler = self.handlers.get(request.method)
        if handler is None:
            done(CommandError(NOT_AVAILABLE, what=request.method))
            return
        try:
            handler(request.body, done)
        except CommandError as error:
            done(error)


def _ignore(receivers: Any) -> None:
    """A node that is gone misses no answer."""
