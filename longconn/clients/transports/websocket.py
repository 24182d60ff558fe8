"""The structured protocol over WebSocket: text messages of objects joined by line feeds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from longconn.clients.address import Address
from longconn.clients.errors import ClientError, ConnectionFailed, Disconnected, NotLongconn
from longconn.clients.events import JSONObject
from longconn.clients.transports.base import TransportConfiguration, TransportFactory, TransportListener
from longconn.clients.transports.json_frames import MOST, foreign, read_frame, write_frame
from longconn.clients.transports.sockets import SocketTransport, status_error

#: Where servers have it, if a URL names no path.
PATH = "/connection/websocket"
#: Bytes of an answer to the handshake at most.
_MOST_HEAD = 64 * 1024
#: How an answer begins that agrees (RFC 6455, section 4.1).
_SWITCHING = b"HTTP/1.1 101"
#: Close codes of WebSocket itself (RFC 6455, section 7.4.1) that say that the other one goes away.
_AWAY = (1000, 1001, 1005)


def transports(address: Address) -> list[TransportFactory]:
    return [WebSocketTransport]


class _Protocol(WebSocketClientProtocol):
    """The socket's end. Autobahn has names of its own for all that a subclass might call a thing."""

    longconn_socket: WebSocketTransport

    def connectionMade(self) -> None:
        self.longconn_socket.protocol = self
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        head = data if self.longconn_socket.opened else self.longconn_socket.head(data)
        if head:
            super().dataReceived(head)

    def onOpen(self) -> None:
        self.longconn_socket.on_open()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.longconn_socket.on_message(payload, isBinary)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost()  # it would log what TLS finds wrong, where it is told by an error of ours
        self.longconn_socket.on_closed(self, reason)


class WebSocketTransport(SocketTransport):
    """ws:// and wss://"""

    def __init__(self, address: Address, configuration: TransportConfiguration, listener: TransportListener) -> None:
        super().__init__(address, configuration, listener)
        self._first: Sequence[JSONObject] = ()
        self.opened = False
        # The first bytes that came, and how many before it was open; whether they begin a handshake's answer.
        self._start = b""
        self._head_size = 0
        self._switching = False

    def open(self, first: Sequence[JSONObject]) -> None:
        self._first = first
        address = self.address
        path = PATH + address.path.removeprefix("/") if address.path[:2] in ("", "/", "/?", "?") else address.path
        factory: Any = WebSocketClientFactory(
            f"{address.scheme}://{address.netloc}{path}", reactor=self.configuration.reactor
        )
        factory.noisy = False
        if ":" in address.host:
            factory.host = f"[{address.host}]"  # as the Host header has it (RFC 9110, section 7.2)
        factory.protocol = self._build
        # Times are the client's own; a message is bounded, as anything that a peer controls.
        factory.setProtocolOptions(
            version=13,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            autoPingInterval=0,
            maxMessagePayloadSize=MOST,
            maxFramePayloadSize=MOST,
            failByDrop=True,
        )
        self.dial(factory)

    def _build(self) -> Any:
        protocol = _Protocol()
        protocol.longconn_socket = self
        return protocol

    def head(self, data: bytes) -> bytes:
        """What Autobahn may see of what comes before the handshake is done. It would log what is none, as a warning."""
        self._head_size += len(data)
        if self._switching:
            if self._head_size > _MOST_HEAD:
                self.abort()
            return data
        self._start += data
        if len(self._start) < len(_SWITCHING) and _SWITCHING.startswith(self._start[:7]):
            return b""
        status = re.match(rb"HTTP/1\.[01] (\d\d\d)", self._start)
        if status is None:
            self.wrong(foreign(self._start))
        elif status[1] != b"101":
            self.wrong(status_error(int(status[1]), self.address.netloc))
        else:
            self._switching = True
            return self._start
        return b""

    def on_open(self) -> None:
        self.opened = True
        self.protocol.transport.setTcpKeepAlive(True)
        self.send(self._first)

    def on_message(self, payload: bytes, binary: bool) -> None:
        try:
            if binary:
                raise NotLongconn("this is no longconn server: it answered in binary")
            objects = read_frame(payload)
        except NotLongconn as error:
            self.wrong(error)
        else:
            self.listener.on_objects(objects)

    def on_closed(self, protocol: Any, reason: Failure) -> None:
        if self._wrong is None:
            self._wrong = self._why(protocol)
        self.on_connection_lost(reason)

    def _why(self, protocol: Any) -> ClientError | None:
        """What Autobahn has found; None where the loss of the connection is all there is to tell."""
        where = self.address.netloc
        code, told = protocol.remoteCloseCode, protocol.remoteCloseReason
        if code is not None and code not in _AWAY:
            return Disconnected(code, told or "")
        if code is not None:
            return ConnectionFailed(f"{where}: the server closed the connection")
        if self.opened or not self._switching:
            return None
        return NotLongconn(f"this is no longconn server: {protocol.wasNotCleanReason or 'the handshake failed'}")

    def send(self, objects: Sequence[JSONObject]) -> None:
        if self.protocol is not None and self.protocol.state == self.protocol.STATE_OPEN:
            self.protocol.sendMessage(write_frame(objects))

    def close(self) -> None:
        if self.protocol is not None and self.opened:
            self.protocol.sendClose(1000)
        else:
            self.abort()
