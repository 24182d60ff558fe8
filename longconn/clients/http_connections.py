"""The connections of one HTTP session: made by our own endpoints, and all broken off together."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from longconn.clients.address import Address
from longconn.clients.endpoints import endpoint_for
from longconn.clients.http_heads import BoundedConnection, BoundedEndpoint, BoundingFactory
from longconn.clients.transports.base import TransportConfiguration


@implementer(IBodyProducer)
class RequestBody:
    """A request's body that is there as a whole."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def as_producer(self) -> Any:
        """This, whose interface is one that types do not tell."""
        return self

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """All was written at once."""

    def resumeProducing(self) -> None:
        """All was written at once."""

    def stopProducing(self) -> None:
        """All was written at once."""


class _Noted(BoundedConnection):
    """A connection that is noted while it is there."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.factory.on_lost()


class _Noting(BoundingFactory):
    """Builds a request's protocol within one that is noted."""

    protocol = _Noted

    def __init__(self, factory: Any, connections: HTTPConnections) -> None:
        super().__init__(factory, connections.address)
        self._connections = connections

    def registerProtocol(self, p: Any) -> None:
        self._connections.open.add(p)

    def unregisterProtocol(self, p: Any) -> None:
        self._connections.open.discard(p)

    def on_lost(self) -> None:
        self._connections.look()


class _Endpoint(BoundedEndpoint):
    """An endpoint whose connections are noted."""

    def __init__(self, endpoint: Any, connections: HTTPConnections) -> None:
        super().__init__(endpoint, connections.address)
        self._connections = connections

    def wrap(self, factory: Any) -> BoundingFactory:
        return _Noting(factory, self._connections)


@implementer(IAgentEndpointFactory)
class HTTPConnections:
    """Endpoints for Agents. All go to one address, whatever a URL names: nothing redirects us."""

    def __init__(self, address: Address, configuration: TransportConfiguration) -> None:
        self.address = address
        self._configuration = configuration
        #: connections that are there
        self.open: set[Any] = set()
        self._gone: Deferred[None] | None = None

    def endpointForURI(self, uri: Any) -> Any:
        return _Endpoint(endpoint_for(self.address, self._configuration), self)

    def abort(self) -> Deferred[None]:
        """Break all off, once; fires when they are gone."""
        gone = self._gone = Deferred()
        for each in tuple(self.open):
            each.abortConnection()
        self.look()
        return gone

    def look(self) -> None:
        gone = self._gone
        if gone is not None and not self.open:
            self._gone = None
            gone.callback(None)
