"""Connections in memory for the keep-alive client, and responses as bytes."""

from collections.abc import Coroutine
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from longconn.clients.keepalive import KeepAliveClient, Response

URL = "http://127.0.0.1:80/x"


def head(length: int | str, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def answer(body: bytes = b"ok") -> bytes:
    return head(len(body)) + body


class Wire(StringTransportWithDisconnection):
    """One connection as its server sees it."""

    reactor: Any
    paused = property(lambda self: self.producerState == "paused")

    def loseConnection(self) -> None:
        # As sockets do: not at once.
        if self.connected:
            self.connected = False
            self.reactor.callLater(0, self.protocol.connectionLost, Failure(ConnectionDone()))

    abortConnection = loseConnection

    def says(self, data: bytes) -> None:
        assert not self.paused
        self.protocol.dataReceived(data)

    def asked(self) -> bytes:
        found: bytes = self.value()
        self.clear()
        return found

    def lose(self, reason: Exception) -> None:
        self.connected = False
        self.protocol.connectionLost(Failure(reason))


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.taken = 0
        self.client = self.make()

    def make(self, **options: Any) -> KeepAliveClient:
        self.client = KeepAliveClient(self.reactor, **{"connections": 1, "read_timeout": 30.0} | options)
        return self.client

    def ask(self, method: str = "GET", url: str = URL, **options: Any) -> Deferred[Response]:
        return self.client.request(method, url, **options)

    def accept(self) -> Wire:
        """The next connection that the client opened."""
        host, port, factory, *_ = self.reactor.tcpClients[self.taken]
        self.taken += 1
        wire = Wire(
            peerAddress=IPv4Address("TCP", host, port), hostAddress=IPv4Address("TCP", host, 50000 + self.taken)
        )
        wire.reactor = self.reactor
        wire.protocol = factory.buildProtocol(None)
        wire.protocol.makeConnection(wire)
        return wire

    @property
    def attempts(self) -> int:
        return len(self.reactor.tcpClients) - self.taken

    def run_now(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def read(self, response: Response) -> Deferred[bytes]:
        """The next piece."""
        return Deferred.fromCoroutine(response.__anext__())

    def first(self, data: bytes) -> tuple[Wire, Response]:
        """A response on a new connection, after `data` came."""
        asked = self.ask()
        wire = self.accept()
        wire.says(data)
        return wire, self.successResultOf(asked)

    def assert_goes_over(self, wire: Wire) -> None:
        """The next request uses this connection, and gets its own answer."""
        wire.clear()
        asked = self.ask(url=URL + "/next")
        self.assertTrue(wire.value().startswith(b"GET /x/next HTTP/1.1\r\n"), wire.value())
        wire.says(answer(b"its own"))
        response = self.successResultOf(asked)
        self.assertTrue(response.reused)
        self.assertEqual(self.successResultOf(response.collect()), b"its own")

    def assert_goes_elsewhere(self, wire: Wire) -> None:
        """The connection was dropped, and the next request gets a new one."""
        self.assertFalse(wire.connected)
        self.reactor.advance(0)
        asked = self.ask()
        self.accept().says(answer(b"new"))
        response = self.successResultOf(asked)
        self.assertFalse(response.reused)
        self.assertEqual(self.successResultOf(response.collect()), b"new")
