"""One connection to a Redis server: RESP3 by hiredis, over a Twisted transport.

The protocol is in redis/redis-specifications, `protocol/RESP3.md`. With RESP3 one connection carries commands, replies
and messages of Pub/Sub, so that they have one order.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from longconn.redis.errors import LinkLostError, RedisError, RefusedError
from longconn.redis.link import Answered, Words

with suppress(ImportError):  # an extra; `longconn.redis.server` says so
    import hiredis

_NOTHING = object()
#: Milliseconds for which sent bytes may stay without an acknowledgement (TCP_USER_TIMEOUT, RFC 5482).
_USER_TIMEOUT = 10_000
_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", 18)


class RedisConnection(Protocol):
    """Sends commands, and passes replies and pushes on.

    `on_open` is called when there is a connection, `on_push` with each push, `on_lost` once with the reason.
    """

    transport: Any

    def __init__(
        self,
        on_open: Callable[[RedisConnection], None],
        on_push: Callable[[list[Any]], None],
        on_lost: Callable[[RedisError], None],
    ) -> None:
        self._on_open = on_open
        self._on_push = on_push
        self._on_lost = on_lost
        self._reader = hiredis.Reader(replyError=RefusedError, protocolError=_Nonsense, notEnoughData=_NOTHING)
        self._waiting: deque[Answered] = deque()
        self._reason: RedisError | None = None
        self._open = False
        #: bytes that came since the start
        self.received = 0

    @property
    def waiting(self) -> int:
        """Commands that are not answered yet."""
        return len(self._waiting)

    def send(self, words: Words, done: Answered | None) -> None:
        """Send a command. Without `done` it is one that is answered by pushes."""
        if not self._open:
            if done is not None:
                done(LinkLostError("there is no connection", sent=False))
            return
        if done is not None:
            self._waiting.append(done)
        command: Any = tuple(words)
        self.transport.write(hiredis.pack_command(command))

    def abort(self, reason: RedisError) -> None:
        """Close the connection at once."""
        if self._reason is None:
            self._reason = reason
        self.transport.abortConnection()

    def connectionMade(self) -> None:
        self._open = True
        handle = self.transport.getHandle() if hasattr(self.transport, "getHandle") else None
        if isinstance(handle, socket.socket) and handle.family in (socket.AF_INET, socket.AF_INET6):
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            handle.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, _USER_TIMEOUT)
        self._on_open(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        self._reader.feed(data)
        while self._open:
            try:
                reply = self._reader.gets()
            except (_Nonsense, ValueError) as error:
                self.abort(RedisError(f"the answer is no answer of Redis: {error}"))
                return
            if reply is _NOTHING:
                return
            if isinstance(reply, hiredis.PushNotification):
                self._on_push(reply)
            elif self._waiting:
                self._waiting.popleft()(reply)
            else:
                self.abort(RedisError("there is an answer without a command"))
                return

    def connectionLost(self, reason: Failure = Failure(RedisError())) -> None:  # noqa: B008
        self._open = False
        why = self._reason or RedisError(reason.getErrorMessage().rstrip("."))
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            each(LinkLostError(str(why), sent=True))
        self._on_lost(why)


class QuietFactory(Factory):
    """Makes one connection's protocol, and logs nothing about itself."""

    noisy = False

    def __init__(self, protocol: RedisConnection) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> RedisConnection:
        return self._protocol


class _Nonsense(Exception):
    """hiredis cannot read a reply."""


def text(value: Any) -> str:
    """A reply that is text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def fields(reply: bytes) -> dict[str, str]:
    """The lines NAME:VALUE of an answer to INFO."""
    pairs = (line.partition(":") for line in text(reply).splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}


def words_of(reply: Sequence[Any] | dict[Any, Any]) -> dict[str, str]:
    """The pairs of an answer to CONFIG GET: a map in RESP3, a list in RESP2."""
    if isinstance(reply, dict):
        return {text(name): text(value) for name, value in reply.items()}
    return {text(name): text(value) for name, value in zip(reply[::2], reply[1::2], strict=False)}
