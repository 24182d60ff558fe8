"""Centrifugo's client protocol over WebSocket: text messages of objects joined by line feeds."""

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
from longconn.clients.transports.json_frames import MOST, not_longconn, read_frame, write_frame
from longconn.clients.transports.sockets import SocketTransport, status_error

#: The path of a URL without one.
PATH = "/connection/websocket"
#: Bytes of the handshake's response at most.
_MOST_HEAD = 64 * 1024
#: The start of a response that accepts the handshake (RFC 6455, section 4.1).
_SWITCHING = b"HTTP/1.1 101"
#: Close codes of WebSocket itself (RFC 6455, section 7.4.1) for a normal end.
_NORMAL_END = (1000, 1001, 1005)


def transports(address: Address) -> list[TransportFactory]:
    return [WebSocketTransport]


class OnePongProtocol(WebSocketClientProtocol):
    """Answers only the last ping of each read (RFC 6455, section 5.5.3).

    A server that does not read could make the answers fill the memory otherwise.
    """

    _last_ping: bytes | None = None

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        payload, self._last_ping = self._last_ping, None
        if payload is not None:
            super().onPing(payload)

    def onPing(self, payload: bytes) -> None:
        self._last_ping = payload


class _Protocol(OnePongProtocol):
    """The protocol of the socket. Autobahn uses many attribute names: the prefix keeps ours apart."""

    longconn_transport: WebSocketTransport

    def connectionMade(self) -> None:
        self.longconn_transport.on_socket(self)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        data = self.longconn_transport.check_handshake(data)
        if data:
            super().dataReceived(data)

    def onOpen(self) -> None:
        self.longconn_transport.on_open()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.longconn_transport.on_message(payload, isBinary)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost()  # without the reason, which Autobahn would log where TLS fails
        self.longconn_transport.on_closed(self, reason)


class WebSocketTransport(SocketTransport):
    """ws:// and wss://"""

    def __init__(self, address: Address, configuration: TransportConfiguration, listener: TransportListener) -> None:
        super().__init__(address, configuration, listener)
        self._first: Sequence[JSONObject] = ()
        self._protocol: Any = None
        self._opened = False
        # The handshake's response: its first bytes, its size so far, whether it accepts the handshake.
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
        factory.host = address.uri_host  # for the Host header (RFC 9110, section 7.2)
        factory.protocol = self._build
        # `ConnectionAttempt` has the time-outs.
        factory.setProtocolOptions(
            version=13,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            autoPingInterval=0,
            maxMessagePayloadSize=MOST,
            maxFramePayloadSize=MOST,
            failByDrop=True,
        )
        self.connect(factory)

    def _build(self) -> Any:
        protocol = _Protocol()
        protocol.longconn_transport = self
        return protocol

    def on_socket(self, protocol: _Protocol) -> None:
        self._protocol = protocol
        self.transport = protocol.transport

    def check_handshake(self, data: bytes) -> bytes:
        """The part of `data` that Autobahn may see. It would log the response of another server as a warning."""
        if self._opened:
            return data
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
            self.fail(not_longconn(self._start))
        elif status[1] != b"101":
            self.fail(status_error(int(status[1]), self.address.netloc))
        else:
            self._switching = True
            return self._start
        return b""

    def on_open(self) -> None:
        self._opened = True
        self.transport.setTcpKeepAlive(True)
        self.send(self._first)

    def on_message(self, payload: bytes, binary: bool) -> None:
        try:
            if binary:
                raise NotLongconn("this is no longconn server: it answered in binary")
            objects = read_frame(payload)
        except NotLongconn as error:
            self.fail(error)
        else:
            self.listener.on_objects(objects)

    def on_closed(self, protocol: Any, reason: Failure) -> None:
        if self._error is None:
            self._error = self._close_error(protocol)
        self._protocol = None
        self.on_connection_lost(reason)

    def _close_error(self, protocol: Any) -> ClientError | None:
        """The error of a close frame or of the handshake; None if only the connection was lost."""
        where = self.address.netloc
        code, reason = protocol.remoteCloseCode, protocol.remoteCloseReason
        if code is not None and code not in _NORMAL_END:
            return Disconnected(code, reason or "")
        if code is not None:
            return ConnectionFailed(f"{where}: the server closed the connection")
        if self._opened or not self._switching:
            return None
        return NotLongconn(f"this is no longconn server: {protocol.wasNotCleanReason or 'the handshake failed'}")

    def send(self, objects: Sequence[JSONObject]) -> None:
        if self._protocol is not None and self._protocol.state == self._protocol.STATE_OPEN:
            self._protocol.sendMessage(write_frame(objects))

    def close(self) -> None:
        if self._protocol is not None and self._opened:
            self._protocol.sendClose(1000)
        else:
            self.abort()
