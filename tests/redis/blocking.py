"""A link to a real Redis for tests on a fake clock: what is sent in a turn is answered in the next."""

import os
import socket
from collections.abc import Sequence
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, succeed

from longconn.core.settings import Settings
from longconn.redis.broker import RedisBroker
from longconn.redis.connection import RedisConnection
from longconn.redis.errors import LinkLostError, RedisError
from longconn.redis.link import Answered, Listener, Words
from longconn.redis.scripts import SCRIPTS, Script
from longconn.testing import FakeClock
from tests.redis.server import shared_server

_numbers = count(1)


class _Transport:
    """Sends at once."""

    def __init__(self, handle: socket.socket) -> None:
        self._handle = handle

    def write(self, data: bytes) -> None:
        self._handle.sendall(data)

    def abortConnection(self) -> None:
        raise AssertionError("the connection is aborted")


class BlockingLink:
    """Speaks to the server that all tests share. Links with one `clock` hear of each other's messages."""

    problem = ""
    up = False

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._call: Any = None
        self._others: list[BlockingLink] = clock.__dict__.setdefault("links", [])
        self._others.append(self)
        #: commands that were sent
        self.sent = 0

    def start(self, listener: Listener) -> None:
        self._listener = listener
        self.connect()

    def connect(self, generation: str = "first") -> None:
        """Connect, and tell the listener in the next turn."""
        self._handle = socket.socket(socket.AF_UNIX)
        self._handle.connect(shared_server().path)
        self._connection = RedisConnection(lambda connection: None, self._on_push, lambda error: None)
        self._connection.makeConnection(_Transport(self._handle))  # type: ignore[arg-type]
        self.up = True
        self.command("HELLO", 3, done=_check)
        for each in SCRIPTS:
            self.command("SCRIPT", "LOAD", each.source, done=_check)
        self._clock.callLater(0, self._on_up, generation)

    def _on_up(self, generation: str) -> None:
        self.problem = ""
        self._listener.on_up(generation)
        self._listener.on_beat()

    def cut(self) -> None:
        """The connection is lost: what was sent may be done, and is not answered."""
        self.up = False
        self._handle.close()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._connection._open = False
        waiting, self._connection._waiting = self._connection._waiting, type(self._connection._waiting)()
        error = LinkLostError("cut", sent=True)
        for each in waiting:
            each(error)
        self._listener.on_down(error)

    def call(self, script: Script, keys: Sequence[str], arguments: Words, done: Answered) -> None:
        self.command("EVALSHA", script.digest, len(keys), *keys, *arguments, done=done)

    def command(self, *words: bytes | str | int, done: Answered | None = None) -> None:
        if not self.up:
            if done is not None:
                done(LinkLostError("cut", sent=False))
            return
        self.sent += 1
        self._connection.send(words, done)
        for each in self._others:
            each.look_later()

    def look_later(self) -> None:
        if self._call is None and self.up:
            self._call = self._clock.callLater(0, self._look)

    def _look(self) -> None:
        """Read until the answer to a command that is sent now: all that was published before is read then."""
        self._call = None
        answered: list[Any] = []
        self._connection.send(("PING",), answered.append)
        while not answered:
            self._connection.dataReceived(self._handle.recv(1024 * 1024))

    def _on_push(self, push: list[Any]) -> None:
        if push[0] == b"message":
            self._listener.on_message(push[1], push[2])

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
        if self.up:
            self._handle.close()
        self._others.remove(self)
        self.up = False

    def closed(self) -> Deferred[None]:
        return succeed(None)


def _check(reply: Any) -> None:
    assert not isinstance(reply, RedisError), reply


def redis_broker(clock: FakeClock, settings: Settings, prefix: str = "") -> RedisBroker:
    """A broker on a `BlockingLink`; with a prefix of its own unless one is given."""
    return RedisBroker(clock, [(BlockingLink(clock), prefix or new_prefix())], settings)


def new_prefix() -> str:
    return f"t{os.getpid()}-{next(_numbers)}"


class OverRedis:
    """For the behaviour suite: over a broker in Redis."""

    may_refuse = True
    #: eight answers that may be large are under way at once, and all of them come in one turn
    most_for_one = 8 * 310_000

    def broker(self, clock: FakeClock, settings: Settings) -> RedisBroker:
        return redis_broker(clock, settings)

    def serve(self, **settings: Any) -> None:
        super().serve(**settings)  # type: ignore[misc]
        self.server.hub.broker.start()  # type: ignore[attr-defined]
        self.server.settle()  # type: ignore[attr-defined]
