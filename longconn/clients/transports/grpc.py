"""Centrifugo's client protocol over gRPC: one call of LongConn.Connect on an HTTP/2 connection with prior knowledge.

`doc/PROTOCOL-HTTP2.md` in grpc/grpc has the rules of gRPC over HTTP/2. Messages are not compressed.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from longconn.clients.address import Address
from longconn.clients.delayed_calls import DelayedCalls
from longconn.clients.errors import ClientError, ConnectionFailed
from longconn.clients.events import JSONObject
from longconn.clients.transports.base import (
    TransportConfiguration,
    TransportFactory,
    TransportListener,
    check_no_path,
)
from longconn.clients.transports.grpc_messages import Translation
from longconn.clients.transports.grpc_status import check_head, end_of_call
from longconn.clients.transports.http2_call import HTTP2Call, ResponseData, ResponseHead, ResponsePart
from longconn.clients.transports.sockets import ByteStreamTransport
from longconn.wire.grpc import frame


def basic(user: str, password: str) -> str:
    """A name and a password as in RFC 7617."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


PATH = "/longconn.v1.LongConn/Connect"
#: Bytes of answers to HTTP/2 frames that may wait for a server which does not read them.
_MOST_WAITING = 256 * 1024


def transports(address: Address) -> list[TransportFactory]:
    """Raises AddressError for a URL with a path."""
    check_no_path(address)
    return [GRPCTransport]


@implementer(IPushProducer)
class GRPCTransport(ByteStreamTransport):
    """grpc:// and grpcs://

    It always reads the socket, so that the server's HTTP/2 pings are answered. While it is paused the server gets no
    credit, and has to stop after one window (RFC 9113, section 5.2).
    """

    def __init__(self, address: Address, configuration: TransportConfiguration, listener: TransportListener) -> None:
        super().__init__(address, configuration, listener)
        self._calls = DelayedCalls(configuration.reactor)
        headers = [
            (":method", "POST"),
            (":scheme", "https" if address.secure else "http"),
            (":path", PATH),
            (":authority", f"{address.uri_host}:{address.port}"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-accept-encoding", "identity"),
        ]
        if configuration.login is not None:
            headers.append(("authorization", basic(*configuration.login)))
        self._call = HTTP2Call(headers, address.netloc)
        self._translation = Translation()
        # `_full`: the server does not read; `_waiting`: bytes that were written since.
        self._paused = self._closing = self._full = False
        self._waiting = 0

    def open(self, first: Sequence[JSONObject]) -> None:
        self._add(first)
        self.connect_itself()

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.registerProducer(self, True)
        self._flush()

    # Sending.

    def send(self, objects: Sequence[JSONObject]) -> None:
        self._add(objects)
        self._flush()

    def _add(self, objects: Sequence[JSONObject]) -> None:
        """Add objects to the request's body. A command that gRPC does not have gets its error reply here."""
        refusals = []
        for each in objects:
            request = self._translation.command(each)
            if isinstance(request, dict):
                refusals.append(request)
            else:
                self._call.send(frame(request.SerializeToString()))
        if refusals:
            self._calls.call(0, lambda: self.listener.on_objects(refusals))

    def _flush(self) -> None:
        """Send waiting frames, as far as the server's windows allow."""
        if self.transport is None:
            return
        data = self._call.take(not self._full)
        if data:
            self.transport.write(data)
            self._waiting += len(data)
            if self._full and self._waiting > _MOST_WAITING:
                self.fail(ConnectionFailed(f"{self.address.netloc} does not read what it asks for"))

    # Called by Twisted while bytes wait to be sent.

    def pauseProducing(self) -> None:
        self._full = True
        self._waiting = 0

    def resumeProducing(self) -> None:
        self._full = False
        self._waiting = 0
        self._flush()

    def stopProducing(self) -> None:
        """`connectionLost` follows."""

    # Receiving.

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._call.credit()
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        objects: list[JSONObject] = []
        try:
            for part in self._call.feed(data):
                objects += self._read(part)
        except ClientError as error:
            self.listener.on_objects(objects)
            self._end(error)
            return
        self.listener.on_objects(objects)
        if not self._paused:
            self._call.credit()
        self._flush()

    def _read(self, part: ResponsePart) -> list[JSONObject]:
        """The objects in a part of the response. Raises ClientError at the end of the call."""
        where = self.address.netloc
        if isinstance(part, ResponseData):
            return self._translation.objects(part.data)
        if isinstance(part, ResponseHead) or ":status" in part.fields:
            check_head(part.fields, where)
        if isinstance(part, ResponseHead):
            return []
        raise end_of_call(part.fields, where)

    # The end.

    def close(self) -> None:
        if self.transport is None:
            self.abort()
        else:
            # The server answers earlier commands, and then ends the call.
            self._closing = True
            self._call.end()
            self._flush()

    def _end(self, error: ClientError) -> None:
        if self._closing and self.transport is not None:
            self.transport.unregisterProducer()  # a paused producer would keep the connection open
            self.transport.loseConnection()
        else:
            self.fail(error)

    def on_connection_lost(self, failure: Failure) -> None:
        self._calls.cancel_all()
        super().on_connection_lost(failure)
