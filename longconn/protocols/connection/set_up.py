"""What the protocols of clients have in common when a connection begins, and while it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import ServerFactory

from longconn.core.disconnects import Disconnect
from longconn.core.hub import Hub, log
from longconn.protocols.connection.peer import peer_of
from longconn.protocols.connection.socket_outlet import SocketOutlet

if TYPE_CHECKING:
    AnyServerFactory = ServerFactory[Any]
else:  # Twisted before 26 has no type parameter at run time
    AnyServerFactory = ServerFactory


def is_full(hub: Hub, addr: IAddress | None) -> bool:
    """Whether a new connection is to be refused, because there are too many; the log says so."""
    if hub.full:
        log.info("connection from %s closed: too many connections", addr)
    return hub.full


def set_up(hub: Hub, transport: Any, on_close: Callable[[Disconnect], None]) -> tuple[SocketOutlet, str, str]:
    """Prepare a new connection: its outlet, the host that limits are counted by, and the address of the peer.

    `on_close` is the outlet's. Call it once for a connection, since peers without an address get a number.
    """
    if ITCPTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
        # Keep-alive finds the peers that went without a word (a device without power).
        transport.setTcpKeepAlive(True)
    host, address = peer_of(transport, hub.numbers)
    return SocketOutlet(hub, transport, on_close), host, address


class PausableReading:
    """For a protocol whose commands may have to wait: it stops reading from its transport meanwhile."""

    transport: Any

    def pause_reading(self) -> None:
        """Read nothing more for now."""
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Read again."""
        self.transport.resumeProducing()
