"""Shared by transports over one socket: connecting, aborting, the loss of the connection."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from longconn.clients.address import Address
from longconn.clients.endpoints import endpoint_for, explain
from longconn.clients.errors import ClientError, ConnectionFailed, NotLongconn, Refused
from longconn.clients.transports.base import TransportConfiguration, TransportListener

#: Statuses of servers that cannot serve now (RFC 9110, section 15.6, and three of section 15.5).
_TRY_LATER = (408, 425, 429, 500, 502, 503, 504)


def status_error(status: int, where: str) -> ClientError:
    """The error for an HTTP response with an unexpected status."""
    if status in _TRY_LATER:
        return ConnectionFailed(f"{where} answered HTTP {status}")
    if status in (401, 403):
        advice = "; perhaps it serves this name with --allowed-host only" if status == 403 else ""
        return Refused(status, f"{where} does not let us in{advice}")
    return NotLongconn(f"{where} answered HTTP {status}: this is no longconn server, or not its path")


class SocketTransport:
    """One socket, from connecting to its loss. `transport` is Twisted's, None while there is no connection."""

    def __init__(self, address: Address, configuration: TransportConfiguration, listener: TransportListener) -> None:
        self.address = address
        self.configuration = configuration
        self.listener = listener
        self.transport: Any = None
        self._connecting: Deferred[IProtocol] | None = None
        # The reason why the connection was aborted.
        self._error: ClientError | None = None
        self._lost = False

    def connect(self, factory: Any) -> None:
        """Connect with a factory of Twisted's."""
        self._connecting = endpoint_for(self.address, self.configuration).connect(factory)
        self._connecting.addCallbacks(self._on_connected, self._on_not_connected)

    def _on_connected(self, protocol: IProtocol) -> None:
        self._connecting = None

    def _on_not_connected(self, failure: Failure) -> None:
        self._connecting = None
        self.on_connection_lost(failure)

    def on_connection_lost(self, failure: Failure) -> None:
        if not self._lost:
            self._lost = True
            self.transport = None
            self.listener.on_lost(self._error or explain(failure.value, self.address), 0.0)

    def fail(self, error: ClientError) -> None:
        """Abort the connection because of an error."""
        self._error = self._error or error
        self.abort()

    def pause(self) -> None:
        if self.transport is not None:
            self.transport.pauseProducing()

    def resume(self) -> None:
        if self.transport is not None:
            self.transport.resumeProducing()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()
        elif self._connecting is not None:
            self._connecting.cancel()


class ByteStreamTransport(SocketTransport, Protocol):
    """A transport that is the protocol of its socket, too."""

    transport: Any

    def connect_itself(self) -> None:
        factory = Factory.forProtocol(lambda: self)
        factory.noisy = False
        self.connect(factory)

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.on_connection_lost(reason)
