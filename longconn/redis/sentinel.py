"""Asks Sentinels where the master is (redis.io, "Sentinel client spec")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from longconn.redis.address import RedisAddress
from longconn.redis.connection import QuietFactory, RedisConnection, text
from longconn.redis.errors import RedisError

#: Seconds for an answer.
_TIMEOUT = 3.0


def ask_for_master(
    reactor: Any, address: RedisAddress, endpoint: Callable[[tuple[str, int]], Any]
) -> Deferred[tuple[str, int]]:
    """Host and port of the master that the first Sentinel knows which answers. Fails with RedisError."""
    return _ask_next(reactor, address, endpoint, 0, "no Sentinel knows the master")


def _ask_next(reactor: Any, address: RedisAddress, endpoint: Any, index: int, reason: str) -> Deferred[tuple[str, int]]:
    if index == len(address.hosts):
        raise RedisError(reason)
    question = _Question(reactor, address)
    connected: Deferred[Any] = endpoint(address.hosts[index]).connect(QuietFactory(question.connection))
    connected.addCallbacks(lambda _: question.answer, lambda failure: failure)

    def failed(failure: Failure) -> Deferred[tuple[str, int]]:
        return _ask_next(reactor, address, endpoint, index + 1, failure.getErrorMessage().rstrip("."))

    connected.addErrback(failed)
    return connected


class _Question:
    """One question to one Sentinel."""

    def __init__(self, reactor: Any, address: RedisAddress) -> None:
        self._address = address
        self._reactor = reactor
        self.answer: Deferred[tuple[str, int]] = Deferred(lambda _: self.connection.transport.abortConnection())
        self.connection = RedisConnection(self._ask, lambda push: None, self._lost)
        self._call: Any = None

    def _ask(self, connection: RedisConnection) -> None:
        address = self._address
        self._call = self._reactor.callLater(_TIMEOUT, connection.abort, RedisError("a Sentinel does not answer"))
        if address.sentinel_user or address.sentinel_password:
            login = ("AUTH", address.sentinel_user or "default", address.sentinel_password)
            connection.send(login, self._logged_in)
        connection.send(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.master), self._answered)

    def _logged_in(self, reply: Any) -> None:
        if isinstance(reply, RedisError):
            self._end(reply)

    def _answered(self, reply: Any) -> None:
        if isinstance(reply, RedisError):
            self._end(reply)
        elif not reply:
            self._end(RedisError(f"a Sentinel does not know {self._address.master}"))
        else:
            self._end((text(reply[0]), int(reply[1])))

    def _lost(self, error: RedisError) -> None:
        self._end(error)

    def _end(self, result: Any) -> None:
        if self._call is not None:
            if self._call.active():
                self._call.cancel()
            self._call = None
        self.connection.transport.loseConnection()
        if not self.answer.called:
            if isinstance(result, RedisError):
                self.answer.errback(result)
            else:
                self.answer.callback(result)
