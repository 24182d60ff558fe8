"""HTTP connections for `twisted.web.client.Agent`: response heads have a limit, and all connections can be aborted."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from longconn.clients.address import Address
from longconn.clients.endpoints import endpoint_for
from longconn.clients.errors import NotLongconn
from longconn.clients.transports.base import TransportConfiguration

#: Bytes of a response's head at most, with the informational responses before it.
MOST_HEAD = 64 * 1024


@implementer(IBodyProducer)
class RequestBody:
    """A request's body in one piece of bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """All was written at once."""

    def resumeProducing(self) -> None:
        """All was written at once."""

    def stopProducing(self) -> None:
        """All was written at once."""


class _LimitedConnection(ProtocolWrapper):
    """Aborts itself when a response's head is too long: Twisted's parser keeps all header fields, however many."""

    factory: _LimitedConnectionFactory
    # Bytes that came since a request was made; None while no head is expected.
    _size: int | None = 0
    _error: NotLongconn | None = None

    def watch(self) -> Any:
        """The HTTP protocol within, for Agent. The heads of its responses are counted from now on."""
        protocol: Any = self.wrappedProtocol
        request = protocol.request

        def counted(*arguments: Any) -> Deferred[Any]:
            self._size = 0
            asking: Deferred[Any] = request(*arguments)
            return asking.addBoth(self._on_head)

        protocol.request = counted
        return protocol

    def _on_head(self, result: Any) -> Any:
        self._size = None
        return result

    def dataReceived(self, data: bytes) -> None:
        if self._error is not None:
            return
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if self._size is None:
            return
        self._size += len(data)
        if self._size > MOST_HEAD:
            where = self.factory.where
            self._error = NotLongconn(f"{where}: the head of its answer has more than {MOST_HEAD} bytes")
            self.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason if self._error is None else Failure(self._error))  # type: ignore[no-untyped-call]
        self.factory.connections.on_lost(self)


class _LimitedConnectionFactory(WrappingFactory):
    protocol: type[_LimitedConnection] = _LimitedConnection
    noisy = False

    def __init__(self, factory: Any, where: str, connections: HTTPConnections) -> None:
        factory.noisy = False  # Agent's own would log each connection
        super().__init__(factory)  # type: ignore[no-untyped-call]
        self.where = where
        self.connections = connections

    def registerProtocol(self, p: _LimitedConnection) -> None:
        self.connections.open.add(p)

    def unregisterProtocol(self, p: _LimitedConnection) -> None:
        """`_LimitedConnection.connectionLost` does it, after the request has its error."""


@implementer(IStreamClientEndpoint)
class _Endpoint:
    def __init__(self, endpoint: Any, where: str, connections: HTTPConnections) -> None:
        self._endpoint = endpoint
        self._where = where
        self._connections = connections

    def connect(self, factory: Any) -> Deferred[IProtocol]:
        wrapping = _LimitedConnectionFactory(factory, self._where, self._connections)
        connecting: Deferred[Any] = self._endpoint.connect(wrapping)
        return connecting.addCallback(lambda connection: connection.watch())


@implementer(IAgentEndpointFactory)
class HTTPConnections:
    """Endpoints for Agents, and the connections that they made."""

    def __init__(self, configuration: TransportConfiguration) -> None:
        self._configuration = configuration
        self.open: set[_LimitedConnection] = set()
        self._gone: Deferred[None] | None = None

    def endpointForURI(self, uri: URI) -> Any:
        address = address_of(uri)
        return _Endpoint(endpoint_for(address, self._configuration), address.netloc, self)

    def abort(self) -> Deferred[None]:
        """Abort all connections, once. Fires when they are gone."""
        gone = self._gone = Deferred()
        for each in tuple(self.open):
            each.abortConnection()
        self._fire_if_gone()
        return gone

    def on_lost(self, connection: _LimitedConnection) -> None:
        self.open.discard(connection)
        self._fire_if_gone()

    def _fire_if_gone(self) -> None:
        gone = self._gone
        if gone is not None and not self.open:
            self._gone = None
            gone.callback(None)


def address_of(uri: URI) -> Address:
    """The address that a request for `uri` connects to."""
    return Address(uri.scheme.decode(), uri.host.decode(), uri.port, "")
