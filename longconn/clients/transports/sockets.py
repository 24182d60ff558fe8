"""What transports over one socket have in common: connecting, being given up, being lost."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure

from longconn.clients.address import Address
from longconn.clients.endpoints import endpoint_for, explain
from longconn.clients.errors import ClientError, ConnectionFailed, NotLongconn, Refused
from longconn.clients.transports.base import TransportConfiguration, TransportListener

#: Statuses of servers that are there, but not able to serve now (RFC 9110, section 15.6).
_LATER = (408, 425, 429, 500, 502, 503, 504)


def status_error(status: int, where: str) -> ClientError:
    """What it means that HTTP's answer was none that one can go on from."""
    if status in _LATER:
        return ConnectionFailed(f"{where} answered HTTP {status}")
    if status in (401, 403):
        return Refused(status, f"{where} does not let us in")
    return NotLongconn(f"{where} answered HTTP {status}: this is no longconn server, or not its path")


class SocketTransport:
    """One socket, from connecting to its loss. Its protocol calls `on_connection_lost`."""

    def __init__(self, address: Address, configuration: TransportConfiguration, listener: TransportListener) -> None:
        self.address = address
        self.configuration = configuration
        self.listener = listener
        self._dialling: Deferred[IProtocol] | None = None
        self.protocol: Any = None
        # What was found wrong, before the connection was broken off for it.
        self._wrong: ClientError | None = None
        self._lost = False

    def dial(self, factory: Any) -> None:
        self._dialling = endpoint_for(self.address, self.configuration).connect(factory)
        self._dialling.addCallbacks(self._on_dialled, self._on_not_dialled)

    def _on_dialled(self, protocol: IProtocol) -> None:
        self._dialling = None

    def _on_not_dialled(self, failure: Failure) -> None:
        self._dialling = None
        self.on_connection_lost(failure)

    def on_connection_lost(self, failure: Failure) -> None:
        if not self._lost:
            self._lost = True
            self.protocol = None
            self.listener.on_lost(self._wrong or explain(failure.value, self.address))

    def wrong(self, error: ClientError) -> None:
        """What came is none of the protocol: break the connection off."""
        self._wrong = self._wrong or error
        self.abort()

    def pause(self) -> None:
        if self.protocol is not None:
            self.protocol.transport.pauseProducing()

    def resume(self) -> None:
        if self.protocol is not None:
            self.protocol.transport.resumeProducing()

    def abort(self) -> None:
        if self.protocol is not None:
            self.protocol.transport.abortConnection()
        elif self._dialling is not None:
            self._dialling.cancel()
