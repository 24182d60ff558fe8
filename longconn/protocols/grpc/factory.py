"""Connections of gRPC for one hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.descriptor import FileDescriptor
from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory
from zope.interface import implementer

from longconn.core.hub import Hub
from longconn.protocols.connection.set_up import AnyServerFactory, is_full
from longconn.protocols.grpc.call import Handler
from longconn.protocols.grpc.connection import GrpcConnection
from longconn.protocols.grpc.receiving import ReceiveBudget
from longconn.protocols.grpc.services import services as all_services
from longconn.protocols.grpc.services.callers import for_users

#: Bytes of a message that is received: the default of gRPC's own libraries.
MAX_RECEIVE = 4 * 1024 * 1024
#: Bytes of a publication's message beside its data.
_ENVELOPE = 64 * 1024


@implementer(IProtocolNegotiationFactory)
class GrpcFactory(AnyServerFactory):
    """Serves gRPC to peers that speak HTTP/2 from the first byte (prior knowledge).

    `services` are handlers of the program, served beside longconn's; one with the same path takes the place of
    longconn's. A call is let in before its handler runs: `call.identity` is who makes it. `files` are descriptors of
    their files (`example_pb2.DESCRIPTOR`), which reflection tells with those that they import.
    """

    noisy = False

    def __init__(
        self, hub: Hub, services: Mapping[str, Handler] | None = None, files: Sequence[FileDescriptor] = ()
    ) -> None:
        self.hub = hub
        self.services = all_services(hub, files)
        self.services.update({path: for_users(handler) for path, handler in (services or {}).items()})
        self.connections: set[GrpcConnection] = set()
        #: the bound is that of HTTP bodies
        self.budget = ReceiveBudget(hub.settings.max_body_total)
        #: bytes of a message; a publication as large as the hub accepts must fit
        self.max_receive = max(MAX_RECEIVE, hub.settings.max_message + _ENVELOPE)

    def buildProtocol(self, addr: IAddress | None) -> GrpcConnection | None:
        if is_full(self.hub, addr):
            return None
        return GrpcConnection(self.hub, self.services, self.budget, self.max_receive, self.connections)

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS with ALPN (RFC 7301)."""
        return [b"h2"]

    def drain(self) -> None:
        """The server shuts down: accept no more calls, close unused connections. To be called until all are closed."""
        now = self.hub.clock.seconds()
        for connection in list(self.connections):
            connection.drain(now)
