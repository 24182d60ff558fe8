"""The PROXY protocol before a connection (`haproxy:` endpoints), by which a proxy names the address of its client.

Twisted's wrapper (twisted/protocols/haproxy/_wrapper.py) ends a connection at a half-close, refuses `PROXY UNKNOWN` and
headers in pieces, and connects the protocol behind it before it knows the address. Its parsers are used here.
The definition is haproxy's doc/proxy-protocol.txt.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from longconn.core.hub import Hub
from longconn.core.timers import Call
from longconn.protocols.connection.peer import is_proxy, log_closed
from longconn.protocols.connection.set_up import is_full, log_given_way

#: Bytes of the longest header of version 1, its line end included.
_V1_MOST = 107
#: Bytes of a header of version 2 before its addresses; the last two are the number of bytes that follow.
_V2_START = 16


@implementer(IHalfCloseableProtocol)
class ProxiedConnection(ProtocolWrapper):
    """Reads the header, and is then the transport of the wrapped protocol, with the addresses that the header names."""

    factory: ProxyHeaderFactory
    transport: Any
    wrappedProtocol: Any

    def __init__(self, factory: ProxyHeaderFactory, wrapped: Any) -> None:
        super().__init__(factory, wrapped)  # type: ignore[arg-type]
        self._received: bytearray | None = bytearray()
        self._peer: IAddress | None = None
        self._host: IAddress | None = None
        self._deadline: Call | None = None

    def makeConnection(self, transport: Any) -> None:
        directlyProvides(self, providedBy(transport))
        self.transport = transport
        self.connected = 1
        self.factory.registerProtocol(self)  # type: ignore[no-untyped-call]
        hub = self.factory.hub
        hub.places.add(self, "")  # the peer is the proxy, which brings many clients
        if hub.settings.handshake_timeout:
            self._deadline = hub.clock.callLater(hub.settings.handshake_timeout, self._give_up)

    def dataReceived(self, data: bytes) -> None:
        if self._received is None:
            self.wrappedProtocol.dataReceived(data)
            return
        self._received += data
        try:
            size = _header_size(self._received)
            if size is None:
                return
            self._peer, self._host = _addresses(bytes(self._received[:size]))
        except _BAD_HEADER:
            self._refuse("no header of the PROXY protocol")
            return
        rest = bytes(self._received[size:])
        self._leave()
        if is_full(self.factory.hub, self.getPeer()):
            self.transport.abortConnection()
            return
        self.wrappedProtocol.makeConnection(self)
        if rest:
            self.wrappedProtocol.dataReceived(rest)

    def _leave(self) -> None:
        """The header is read, or the connection is lost before."""
        if self._received is not None:
            self._received = None
            self.factory.hub.places.remove(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        self._refuse("no header of the PROXY protocol in time")

    def give_way(self) -> None:
        """For the hub's places."""
        log_given_way(self.transport.getPeer())
        self.transport.abortConnection()

    def _refuse(self, why: str) -> None:
        log_closed(self.transport.getPeer(), why)
        self.transport.abortConnection()

    def getPeer(self) -> IAddress:
        return self._peer or self.transport.getPeer()

    def getHost(self) -> IAddress:
        return self._host or self.transport.getHost()

    # The end.

    def readConnectionLost(self) -> None:
        half: Any = None if self._received is not None else IHalfCloseableProtocol(self.wrappedProtocol, None)
        if half is None:  # the connection ends, as without a proxy
            self.transport.abortConnection()
        else:
            half.readConnectionLost()

    def writeConnectionLost(self) -> None:
        half: Any = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if half is not None:
            half.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._received is None:
            super().connectionLost(reason)  # type: ignore[no-untyped-call]
        else:
            self._leave()
            self.factory.unregisterProtocol(self)  # type: ignore[no-untyped-call]
            self.wrappedProtocol = None


class ProxyHeaderFactory(WrappingFactory):
    """Stands before `wrapped` on a `haproxy:` endpoint: its protocols are connected when the header is read."""

    protocol = ProxiedConnection
    noisy = False

    def __init__(self, hub: Hub, wrapped: Any) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self.hub = hub


class TrustedHeaderFactory(ProxyHeaderFactory):
    """Reads the header on a port that takes other connections, too, from trusted proxies alone."""

    def buildProtocol(self, addr: Any) -> Any:
        """None, and a line in the log, for a peer that is no proxy."""
        if not is_proxy(self.hub.proxies, addr):
            log_closed(addr, "PROXY protocol, and --trusted-proxy does not name it")
            return None
        return super().buildProtocol(addr)


#: The exceptions of Twisted's parsers.
_BAD_HEADER = (InvalidProxyHeader, ValueError, KeyError)


def _header_size(data: bytearray) -> int | None:
    """Bytes of the header that `data` begins with; None if more must come first. Raises InvalidProxyHeader."""
    signature = data[: len(V2Parser.PREFIX)]
    if V2Parser.PREFIX.startswith(signature):
        size = _V2_START + int.from_bytes(data[_V2_START - 2 : _V2_START], "big")
        return size if len(data) >= max(size, _V2_START) else None
    if not b"PROXY ".startswith(data[:6]):
        raise InvalidProxyHeader
    end = data.find(b"\r\n", 0, _V1_MOST)
    if end < 0 and len(data) >= _V1_MOST:
        raise InvalidProxyHeader
    return None if end < 0 else end + 2


def _addresses(header: bytes) -> tuple[IAddress | None, IAddress | None]:
    """The client's address and the one that it connected to; None where the proxy does not know them."""
    if header.startswith(V2Parser.PREFIX):
        info = V2Parser.parse(header)
    elif header.split()[1:2] == [V1Parser.UNKNOWN_PROTO]:
        return None, None
    else:
        info = V1Parser.parse(header.removesuffix(b"\r\n"))
    return info.source, info.destination
