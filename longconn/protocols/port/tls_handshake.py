"""A deadline for TLS handshakes. A connection without a complete one is no client yet."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IHandshakeListener, IProtocolNegotiationFactory
from zope.interface import implementer

from longconn.core.hub import Hub
from longconn.protocols.connection.handover import hand_over
from longconn.protocols.connection.peer import log_closed
from longconn.protocols.connection.set_up import AnyServerFactory, is_full
from longconn.protocols.port.undecided import UndecidedProtocol


@implementer(IHandshakeListener)
class HandshakeProtocol(UndecidedProtocol):
    """Waits for the handshake, then gives the connection to a protocol of `wrapped`."""

    def __init__(self, hub: Hub, wrapped: Any) -> None:
        super().__init__(hub)
        self._wrapped = wrapped

    def connectionMade(self) -> None:
        super().connectionMade()
        if self._hub.settings.handshake_timeout:
            self.start_timer(self._hub.settings.handshake_timeout, self._give_up)

    def _give_up(self) -> None:
        transport: Any = self.transport
        log_closed(transport.getPeer(), "no TLS handshake in time")
        self.abort()

    def handshakeCompleted(self) -> None:
        """Twisted calls this when the handshake is complete, before it delivers bytes of the peer."""
        self.leave()
        transport: Any = self.transport
        protocol = self._wrapped.buildProtocol(transport.getPeer())
        if protocol is None:
            self.abort()
        else:
            hand_over(transport, protocol)


@implementer(IProtocolNegotiationFactory)
class HandshakeFactory(AnyServerFactory):
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
        return None if is_full(self.hub, addr) else HandshakeProtocol(self.hub, self.wrapped)

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS with ALPN (RFC 7301): those of the wrapped factory."""
        protocols: list[bytes] = self.wrapped.acceptableProtocols()
        return protocols
