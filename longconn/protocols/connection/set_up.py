"""The set-up of a connection, and stopping to read from it, for all protocols of clients."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp
from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import ServerFactory
from twisted.protocols.policies import ProtocolWrapper

from longconn.core.disconnects import Disconnect
from longconn.core.hub import Hub
from longconn.core.settings import Settings
from longconn.protocols.connection.peer import counted_host, log_full, peer_of
from longconn.protocols.connection.socket_outlet import SocketOutlet

if TYPE_CHECKING:
    AnyServerFactory = ServerFactory[Any]
else:  # Twisted before 26 has no type parameter at run time
    AnyServerFactory = ServerFactory


#: Options of TCP for a peer that vanished: seconds without a byte until the kernel asks whether it is there, seconds
#: between such questions, and how many of them in a row may stay unanswered (tcp(7)).
KEEP_ALIVE = {"TCP_KEEPIDLE": 25, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
#: Seconds that the kernel gives a connection beyond `write_timeout`. A peer that reads nothing also acknowledges
#: nothing new, and `SendQueue` has to notice it first, because that tells the client why.
USER_TIMEOUT_GRACE = 3


def is_full(hub: Hub, addr: IAddress | None) -> bool:
    """Whether a new connection from `addr` is to be refused, because there are too many; the log says so.

    Another connection, which is no client, may be closed to make room for it.
    """
    full = not hub.places.make_room(counted_host(hub.proxies, addr))
    if full:
        log_full(addr, "too many connections")
    return full


def log_given_way(peer: object) -> None:
    """A connection is closed for a newcomer (see `longconn.core.places`)."""
    log_full(peer, "too many connections, and a new one gets its place")


def set_up(
    hub: Hub, transport: Any, on_close: Callable[[Disconnect], None], new: bool = True
) -> tuple[SocketOutlet, str, str]:
    """Prepare a connection: its outlet, the host that limits are counted by, and the address of the peer.

    `on_close` is the outlet's. Call it once for a connection, since peers without an address get a number. One that is
    not `new` is `HTTPConnection`'s until now: it has `notice_dead_peer` already.
    """
    if ITCPTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
    if new:
        notice_dead_peer(transport, hub.settings)
    host, address = peer_of(transport, hub.numbers)
    return SocketOutlet(hub, transport, on_close), host, address


def notice_dead_peer(transport: Any, settings: Settings) -> None:
    """Let the kernel end a TCP connection within a minute of its peer's disappearance (a device without power).

    Keep-alive finds it on a connection on which nothing is sent. Where something is sent, TCP_USER_TIMEOUT limits how
    long it may stay unacknowledged (RFC 5482); Linux alone would try for a quarter of an hour.
    """
    if not ITCPTransport.providedBy(transport):
        return
    transport.setTcpKeepAlive(True)
    raw = transport
    while isinstance(raw, ProtocolWrapper):
        raw = raw.transport  # below TLS, or below the PROXY protocol
    handle = raw.getHandle() if isinstance(raw, tcp.Connection) else None
    if not isinstance(handle, socket.socket) or handle.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = dict(KEEP_ALIVE)
    if settings.write_timeout:
        options["TCP_USER_TIMEOUT"] = round((settings.write_timeout + USER_TIMEOUT_GRACE) * 1000)
    for name, value in options.items():
        number = getattr(socket, name, None)  # a platform may lack some
        if number is not None:
            handle.setsockopt(socket.IPPROTO_TCP, number, value)


class PausableReading:
    """For a protocol whose commands may have to wait: until they go on, it does not read from its transport."""

    transport: Any

    @property
    def input_waits(self) -> bool:
        """What is read becomes commands at once, unless a protocol says otherwise."""
        return False

    def pause_reading(self) -> None:
        """Read nothing more for now."""
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Read again."""
        self.transport.resumeProducing()
