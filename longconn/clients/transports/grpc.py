"""The structured protocol over gRPC: one call of LongConn.Connect on a connection of HTTP/2 with prior knowledge.

The rules of gRPC over HTTP/2 are those of `doc/PROTOCOL-HTTP2.md` in grpc/grpc. Messages are not compressed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from longconn.clients.address import Address
from longconn.clients.delayed_calls import DelayedCalls
from longconn.clients.errors import AddressError, ClientError, ConnectionFailed
from longconn.clients.events import JSONObject
from longconn.clients.transports.base import TransportConfiguration, TransportFactory, TransportListener
from longconn.clients.transports.grpc_messages import Messages, Translation, frame
from longconn.clients.transports.grpc_status import check_head, why_ended
from longconn.clients.transports.http2_call import Data, Head, HTTP2Call, Received
from longconn.clients.transports.sockets import SocketTransport

PATH = "/longconn.v1.LongConn/Connect"
#: Bytes of answers to frames of HTTP/2 that may wait for a server which does not read them.
_MOST_WAITING = 256 * 1024


def transports(address: Address) -> list[TransportFactory]:
    """gRPC. Raises AddressError for a URL with a path."""
    if address.path not in ("", "/"):
        raise AddressError(f"{address}: {address.scheme}:// has no path")
    return [GRPCTransport]


@implementer(IPushProducer)
class _Protocol(Protocol):
    """The socket's end. It is told, too, while the server takes nothing more."""

    def __init__(self, socket: GRPCTransport) -> None:
        self._socket = socket

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        transport.registerProducer(self, True)
        self._socket.on_connected(self)

    def dataReceived(self, data: bytes) -> None:
        self._socket.on_data(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._socket.on_connection_lost(reason)

    def pauseProducing(self) -> None:
        self._socket.on_full(True)

    def resumeProducing(self) -> None:
        self._socket.on_full(False)

    def stopProducing(self) -> None:
        """The connection is lost: that is told by itself."""


class _Factory(Factory):
    noisy = False

    def __init__(self, socket: GRPCTransport) -> None:
        self._socket = socket

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _Protocol(self._socket)


class GRPCTransport(SocketTransport):
    """grpc://

    It always reads the socket, so that the server's pings are answered. While it is paused the server gets no
    credit, and has to stop after one window (RFC 9113, section 5.2).
    """

    def __init__(self, address: Address, configuration: TransportConfiguration, listener: TransportListener) -> None:
        super().__init__(address, configuration, listener)
        self._calls = DelayedCalls(configuration.reactor)
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", PATH),
            (":authority", address.netloc),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-accept-encoding", "identity"),
        ]
        self._call = HTTP2Call(headers, address.netloc)
        self._messages = Messages()
        self._translation = Translation()
        self._paused = self._closing = self._full = False
        # Bytes that were sent since the server stopped to read.
        self._waiting = 0

    # Transport.

    def open(self, first: Sequence[JSONObject]) -> None:
        self._write(first)
        self.dial(_Factory(self))

    def send(self, objects: Sequence[JSONObject]) -> None:
        self._write(objects)
        self._pass_on()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._call.credit()
        self._pass_on()

    def close(self) -> None:
        if self.protocol is None:
            self.abort()
        else:
            # What was said before is answered, and then the server ends the call.
            self._closing = True
            self._call.end()
            self._pass_on()

    # Out.

    def _write(self, objects: Sequence[JSONObject]) -> None:
        refused = []
        for each in objects:
            request = self._translation.command(each)
            if isinstance(request, dict):
                refused.append(request)
            else:
                self._call.send(frame(request))
        if refused:
            self._calls.call(0, lambda: self.listener.on_objects(refused))

    def _pass_on(self) -> None:
        """Send what there is to send, as far as the server reads."""
        if self.protocol is None:
            return
        data = self._call.take(not self._full)
        if data:
            self.protocol.transport.write(data)
            self._waiting += len(data)
            if self._full and self._waiting > _MOST_WAITING:
                self.wrong(ConnectionFailed(f"{self.address.netloc} does not read what it asks for"))

    def on_full(self, full: bool) -> None:
        """Whether what was sent waits."""
        self._full = full
        self._waiting = 0
        if not full:
            self._pass_on()

    # In.

    def on_connected(self, protocol: _Protocol) -> None:
        self.protocol = protocol
        self._pass_on()

    def on_data(self, data: bytes) -> None:
        objects: list[JSONObject] = []
        try:
            for heard in self._call.feed(data):
                self._take(heard, objects)
        except ClientError as error:
            self.listener.on_objects(objects)
            self._end(error)
            return
        self.listener.on_objects(objects)
        if not self._paused:
            self._call.credit()
        self._pass_on()

    def _take(self, heard: Received, objects: list[JSONObject]) -> None:
        """Add what it says to `objects`. Raises ClientError at the end of the call, and for what is none of ours."""
        where = self.address.netloc
        if isinstance(heard, Head):
            check_head(heard.fields, where)
        elif isinstance(heard, Data):
            for response in self._messages.feed(heard.data):
                found = self._translation.object(response)
                if found is not None:
                    objects.append(found)
        else:
            if ":status" in heard.fields:
                check_head(heard.fields, where)
            raise why_ended(heard.fields, where)

    # The end.

    def _end(self, error: ClientError) -> None:
        if self._closing and self.protocol is not None:
            self.protocol.transport.unregisterProducer()  # a paused one would keep the connection open
            self.protocol.transport.loseConnection()
        else:
            self.wrong(error)

    def on_connection_lost(self, failure: Failure) -> None:
        self._calls.cancel_all()
        super().on_connection_lost(failure)
