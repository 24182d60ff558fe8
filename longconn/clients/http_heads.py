"""A bound for heads of HTTP responses: Twisted's parser keeps all fields that come, however many."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from longconn.clients.address import Address
from longconn.clients.errors import NotLongconn

#: Bytes of a response's head at most, with the informational responses before it.
MOST_HEAD = 64 * 1024


class BoundedConnection(ProtocolWrapper):
    """A connection of Agent's. It is broken off when a request's answer has a head without end."""

    # Bytes that came since a request was made; None while no head is expected.
    _size: int | None = 0
    _wrong: NotLongconn | None = None

    def watch(self) -> Any:
        """The protocol within, for Agent. Its requests are noted from now on."""
        protocol: Any = self.wrappedProtocol
        request = protocol.request

        def noted(*arguments: Any) -> Deferred[Any]:
            self._size = 0
            asking: Deferred[Any] = request(*arguments)
            return asking.addBoth(self._on_head)

        protocol.request = noted
        return protocol

    def _on_head(self, result: Any) -> Any:
        self._size = None
        return result

    def dataReceived(self, data: bytes) -> None:
        if self._wrong is not None:
            return
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if self._size is None:
            return
        self._size += len(data)
        if self._size > MOST_HEAD:
            where = self.factory.address.netloc
            self._wrong = NotLongconn(f"{where}: the head of its answer has more than {MOST_HEAD} bytes")
            self.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason if self._wrong is None else Failure(self._wrong))  # type: ignore[no-untyped-call]


class BoundingFactory(WrappingFactory):
    """Builds the protocol of a request to `address` within a connection that is bounded."""

    protocol: type[BoundedConnection] = BoundedConnection
    noisy = False

    def __init__(self, factory: Any, address: Address) -> None:
        factory.noisy = False  # Agent's own, of which nobody wants to read in the log
        super().__init__(factory)  # type: ignore[no-untyped-call]
        self.address = address


@implementer(IStreamClientEndpoint)
class BoundedEndpoint:
    """An endpoint for Agent whose connections are bounded."""

    def __init__(self, endpoint: Any, address: Address) -> None:
        self._endpoint = endpoint
        self._address = address

    def wrap(self, factory: Any) -> BoundingFactory:
        return BoundingFactory(factory, self._address)

    def connect(self, factory: Any) -> Deferred[IProtocol]:
        connecting: Deferred[Any] = self._endpoint.connect(self.wrap(factory))
        return connecting.addCallback(lambda connection: connection.watch())
