"""Connections of gRPC for one hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory
from twisted.internet.protocol import ServerFactory
from zope.interface import implementer

from longconn.core.hub import Hub, log
from longconn.protocols.grpc.call import Services
from longconn.protocols.grpc.connection import GrpcProtocol
from longconn.protocols.grpc.http2_connection import HTTP2Connection
from longconn.protocols.grpc.receiving import ReceiveBudget
from longconn.protocols.grpc.services import services as served

#: Bytes of a message that is received, as the libraries of gRPC have it by default.
MAX_RECEIVE = 4 * 1024 * 1024
#: What one publication's message may have beside its data.
_ENVELOPE = 64 * 1024

if TYPE_CHECKING:
    _Factory = ServerFactory["GrpcProtocol"]
else:  # Twisted before 26 has no type parameter at run time
    _Factory = ServerFactory


@implementer(IProtocolNegotiationFactory)
class GrpcFactory(_Factory):
    """Calls of gRPC for `hub`'s clients, by peers that speak HTTP/2 from the first byte (prior knowledge).

    `services` are all of ours unless given.
    """

    noisy = False

    def __init__(self, hub: Hub, services: Services | None = None) -> None:
        self.hub = hub
        self.services = services if services is not None else served(hub)
        self.connections: set[HTTP2Connection] = set()
        #: as for the bodies of HTTP
        self.budget = ReceiveBudget(hub.settings.max_body_total)
        #: a publication as large as the hub takes must fit
        self.max_receive = max(MAX_RECEIVE, hub.settings.max_message + _ENVELOPE)

    def buildProtocol(self, addr: IAddress | None) -> GrpcProtocol | None:
        if self.hub.full:
            log.info("connection from %s closed: too many connections", addr)
            return None
        protocol = GrpcProtocol()
        protocol.factory = self
        return protocol

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS with ALPN (RFC 7301)."""
        return [b"h2"]

    def drain(self) -> None:
        """The server shuts down: take no more calls, and close what has none. To be called until all are gone."""
        now = self.hub.clock.seconds()
        for connection in list(self.connections):
            connection.drain(now)
