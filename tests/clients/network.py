"""A reactor on a fake clock whose connections lead to servers in memory."""

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, ConnectionRefusedError, UserError
from twisted.internet.interfaces import IReactorTCP, IReactorTime, ITCPTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from longconn import ChatFactory, Hub, Settings, SharedPortFactory
from longconn.clients import Client, Subscription, connect
from longconn.service.embedding import LiveSite
from longconn.testing import FakeClock, HTTPClient, MemoryConnection


@implementer(ITCPTransport)
class Transport:
    """The client's end of a connection: the transport of a Twisted protocol."""

    TLS = False
    disconnecting = False

    def __init__(self, network: "Network", connection: MemoryConnection, protocol: Any) -> None:
        self._network = network
        self.connection = connection
        self.protocol = protocol
        self.written = b""
        self.reading = True
        self._lost = False
        self._held = b""
        self._call: Any = None
        connection.on_data = self._read
        connection.on_closed = lambda: self.lose(ConnectionDone())

    def getPeer(self) -> Any:
        return IPv4Address("TCP", "127.0.0.1", 9999)

    def getHost(self) -> Any:
        return self.connection.local

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is none to set."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """There is none to set."""

    def write(self, data: bytes) -> None:
        if not self._lost and not self.disconnecting:
            self.written += data
            self._later()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def _later(self) -> None:
        if self._call is None:
            self._call = self._network.callLater(0, self._send)

    def _send(self) -> None:
        self._call = None
        data, self.written = self.written, b""
        if data and not self._network.dead:
            self._network.sent.append(data)
            self.connection.send(data)
        if self.disconnecting:
            self.connection.close()
            self.lose(ConnectionDone())

    def _read(self, data: bytes) -> None:
        if not self._network.dead and not self._lost:
            self.protocol.dataReceived(data)

    def pauseProducing(self) -> None:
        self.reading = False
        self.connection.stop_reading()

    def resumeProducing(self) -> None:
        self.reading = True
        self._network.callLater(0, lambda: self.reading and self.connection.start_reading())

    def stopProducing(self) -> None:
        self.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Nothing that is written here waits."""

    def unregisterProducer(self) -> None:
        """Nothing that is written here waits."""

    def loseConnection(self) -> None:
        if not self._lost:
            self.disconnecting = True
            self._later()

    def abortConnection(self) -> None:
        if not self._lost:
            self.connection.reset()
            self.lose(ConnectionAborted())

    def break_off(self) -> None:
        """The network resets the connection."""
        self.connection.reset()
        self.lose(ConnectionLost())

    def lose(self, reason: Exception) -> None:
        if self._lost:
            return
        self._lost = True
        self._network.transports.remove(self)
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._network.callLater(0, self.protocol.connectionLost, Failure(reason))


class Connector:
    """An attempt to connect."""

    def __init__(self, factory: Any, timeout: float, network: "Network") -> None:
        self._factory = factory
        self._call = network.callLater(timeout, self.stopConnecting)

    def established(self) -> None:
        self._call.cancel()

    def stopConnecting(self) -> None:
        if self._call.active():
            self._call.cancel()
        self._factory.clientConnectionFailed(self, Failure(UserError()))

    def getDestination(self) -> Any:
        return IPv4Address("TCP", "127.0.0.1", 9999)


@implementer(IReactorTCP, IReactorTime)
class Network(FakeClock):
    """Connects to protocols that `server` builds; None refuses connections. While `dead`, no byte arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.server: Any = None
        self.dead = False
        #: attempts to connect so far, as times; and connections that there are
        self.attempts: list[float] = []
        self.transports: list[Transport] = []
        #: the bytes that clients sent
        self.sent: list[bytes] = []

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        self.attempts.append(self.seconds())
        connector = Connector(factory, timeout, self)
        factory.doStart()
        factory.startedConnecting(connector)
        if not self.dead:
            self.callLater(0, self._connect, factory, connector)
        return connector

    def _connect(self, factory: Any, connector: Connector) -> None:
        if not connector._call.active():
            return
        connector.established()
        if self.server is None:
            factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
            return
        protocol = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 9999))
        connection = MemoryConnection(self, self.server)
        transport = Transport(self, connection, protocol)
        self.transports.append(transport)
        protocol.makeConnection(transport)


URLS = {
    "tcp": "tcp://127.0.0.1:9999",
    "ws": "ws://127.0.0.1:9999",
    "http_stream": "http://127.0.0.1:9999/connection/http_stream",
    "sse": "http://127.0.0.1:9999/connection/sse",
}


class Case(SynchronousTestCase):
    """Clients of a server in memory."""

    url = URLS["tcp"]

    def setUp(self) -> None:
        self.network = Network()
        self.clients: list[Client] = []
        self.hubs: list[Hub] = []
        self.states: list[Any] = []
        self.addCleanup(self._clean_up)

    def serve(self, **settings: Any) -> Hub:
        """A server that starts now; one that was there before is gone."""
        hub = Hub(self.network, Settings(**settings))
        self.hubs.append(hub)
        self.network.server = SharedPortFactory(ChatFactory(hub), LiveSite(hub))
        return hub

    def _clean_up(self) -> None:
        for each in self.clients:
            self.get(each.close(), 2)
        for transport in list(self.network.transports):
            transport.break_off()
        self.network.settle()
        for hub in self.hubs:
            hub.stop()
        self.network.settle()
        self.assertEqual(self.network.getDelayedCalls(), [])

    def client(self, url: str = "", **options: Any) -> Client:
        options.setdefault("random", lambda: 1.0)
        options.setdefault("on_state", self.states.append)
        made = connect(url or self.url, reactor=self.network, **options)
        self.clients.append(made)
        return made

    def get(self, waited: "Deferred[Any]", seconds: float = 0.0) -> Any:
        """Its result, after as many seconds at most."""
        results: list[Any] = []
        waited.addBoth(results.append)
        self.network.settle()
        if not results and seconds:
            self.network.advance(seconds)
        self.assertTrue(results, "it did not fire")
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def fails(self, kind: type[Exception], waited: "Deferred[Any]", seconds: float = 0.0) -> Any:
        """The error that it fails with."""
        with self.assertRaises(kind) as caught:
            self.get(waited, seconds)
        return caught.exception

    def subscribed(self, client: Client, channel: str = "news", **options: Any) -> Subscription:
        subscription: Subscription = self.get(client.subscribe(channel, **options))
        return subscription

    def next(self, subscription: Subscription) -> Any:
        return self.get(subscription.__anext__())

    def break_off(self) -> None:
        """All connections are lost."""
        for each in list(self.network.transports):
            each.break_off()
        self.network.settle()

    def post(self, *values: Any, channel: str = "news", content_type: str = "text/plain") -> None:
        """Publish by HTTP, as another client."""
        for value in values:
            connection = MemoryConnection(self.network, self.network.server)
            headers = [("Content-Type", content_type)]
            done = HTTPClient(connection, self.network.settle).post(f"/channels/{channel}", value, headers)
            self.assertEqual(done.status, 200)
            connection.reset()
