"""A TLS handshake has a deadline, and a connection without one is nobody yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IAddress, IHandshakeListener, IProtocolNegotiationFactory
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from longconn.core.hub import Hub, log
from longconn.core.timers import Call
from longconn.protocols.connection.handover import hand_over


@implementer(IHandshakeListener)
class HandshakeProtocol(Protocol):
    """Waits for the handshake, then gives the connection to what its factory is for."""

    factory: HandshakeFactory
    _deadline: Call | None = None

    def connectionMade(self) -> None:
        hub = self.factory.hub
        hub.guests += 1
        self._waiting = True
        if hub.settings.handshake_timeout:
            self._deadline = hub.clock.callLater(hub.settings.handshake_timeout, self._give_up)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._waiting:
            self._waiting = False
            self.factory.hub.guests -= 1
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        transport: Any = self.transport
        log.info("connection from %s closed: no TLS handshake in time", transport.getPeer())
        transport.abortConnection()

    def handshakeCompleted(self) -> None:
        """For Twisted: the peer speaks TLS, and what it says comes next."""
        self._leave()
        transport: Any = self.transport
        protocol = self.factory.wrapped.buildProtocol(transport.getPeer())
        if protocol is None:
            transport.abortConnection()
        else:
            hand_over(transport, protocol)


if TYPE_CHECKING:
    _Factory = ServerFactory["HandshakeProtocol"]
else:  # Twisted before 26 has no type parameter at run time
    _Factory = ServerFactory


@implementer(IProtocolNegotiationFactory)
class HandshakeFactory(_Factory):
    """Stands before `wrapped` on a TLS endpoint: its protocols are made when a handshake is complete."""

    noisy = False

    def __init__(self, hub: Hub, wrapped: Any) -> None:
        self.hub = hub
        self.wrapped = wrapped

    def doStart(self) -> None:
        super().doStart()  # type: ignore[no-untyped-call]
        self.wrapped.doStart()

    def doStop(self) -> None:
        super().doStop()  # type: ignore[no-untyped-call]
        self.wrapped.doStop()

    def buildProtocol(self, addr: IAddress | None) -> HandshakeProtocol | None:
        if self.hub.full:
            log.info("connection from %s closed: too many connections", addr)
            return None
        protocol = HandshakeProtocol()
        protocol.factory = self
        return protocol

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS with ALPN (RFC 7301): what the wrapped factory says."""
        protocols: list[bytes] = self.wrapped.acceptableProtocols()
        return protocols
