"""The structured protocol over TCP: an object a line. The first line is `connect`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from longconn.clients.address import Address
from longconn.clients.errors import AddressError, NotLongconn
from longconn.clients.events import JSONObject
from longconn.clients.transports.base import TransportConfiguration, TransportFactory, TransportListener
from longconn.clients.transports.json_frames import Lines, foreign, read_lines, write_frame
from longconn.clients.transports.sockets import SocketTransport


def transports(address: Address) -> list[TransportFactory]:
    """Lines of TCP. Raises AddressError for a URL with a path."""
    if address.path not in ("", "/"):
        raise AddressError(f"{address}: {address.scheme}:// has no path")
    return [TCPTransport]


class _LineProtocol(Protocol):
    """The socket's end. What a server says first tells whether it is one of ours."""

    def __init__(self, socket: TCPTransport) -> None:
        self._socket = socket
        self._lines = Lines()
        self._known = False

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        self._socket.on_connected(self)

    def dataReceived(self, data: bytes) -> None:
        try:
            lines = self._lines.feed(data)
            if not self._known:
                # A greeting of another protocol may have no end of a line to wait for.
                start = b"".join(lines).lstrip() or self._lines.unfinished.lstrip()
                self._known = start.startswith(b"{")
                if start and not self._known:
                    raise foreign(start)
            objects = read_lines(lines)
        except NotLongconn as error:
            self._socket.wrong(error)
            return
        self._socket.listener.on_objects(objects)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._socket.on_connection_lost(reason)


class _Factory(Factory):
    noisy = False

    def __init__(self, socket: TCPTransport) -> None:
        self._socket = socket

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _LineProtocol(self._socket)


class TCPTransport(SocketTransport):
    """tcp:// and tls://"""

    def __init__(self, address: Address, configuration: TransportConfiguration, listener: TransportListener) -> None:
        super().__init__(address, configuration, listener)
        self._first: Sequence[JSONObject] = ()

    def open(self, first: Sequence[JSONObject]) -> None:
        self._first = first
        self.dial(_Factory(self))

    def on_connected(self, protocol: _LineProtocol) -> None:
        self.protocol = protocol
        self.send(self._first)

    def send(self, objects: Sequence[JSONObject]) -> None:
        if self.protocol is not None:
            self.protocol.transport.write(write_frame(objects) + b"\n")

    def close(self) -> None:
        if self.protocol is not None:
            self.protocol.transport.loseConnection()
        else:
            self.abort()
