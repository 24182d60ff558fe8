"""One request of the keep-alive client and what answers it: on which connection, how often, how long."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, cast

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IAgentEndpointFactory, IResponse
from zope.interface import implementer

from longconn.clients.address import Address
from longconn.clients.endpoints import endpoint_for, explain
from longconn.clients.errors import AddressError, ClientError, ConnectionFailed, NotLongconn
from longconn.clients.http_heads import BoundedEndpoint
from longconn.clients.keepalive.body import Body
from longconn.clients.transports.base import TransportConfiguration

if TYPE_CHECKING:
    from longconn.clients.keepalive.client import KeepAliveClient

_IDEMPOTENT = {b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"}
#: A pooled connection that went away before it was used, or before anything came back on it.
_NOTHING_CAME = (RequestTransmissionFailed, ResponseNeverReceived)
_LOST = (ConnectionDone, ConnectionLost, SSL.Error)


@implementer(IAgent, IAgentEndpointFactory)
class Exchange:
    """One request and its response: the agent below treq's, and what its own Agent takes for a pool."""

    persistent = True
    status = 0
    source_port = 0
    reused = False
    headers = Headers()

    def __init__(self, client: KeepAliveClient) -> None:
        self._client = client
        self._reactor = client.reactor
        self.started: float = client.reactor.seconds()
        self.answer: Deferred[Any] | None = None
        self.body: Body | None = None
        self._connection: Any = None
        self._sending: Deferred[IResponse] | None = None
        self._timer: Any = None
        self._late = ""
        self._address = Address("", "", 0, "")

    def abort(self) -> None:
        if self.body is not None:
            self.body.abort()
        elif self.answer is not None:
            self.answer.cancel()

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: Any = None
    ) -> Deferred[IResponse]:
        return Deferred.fromCoroutine(self._perform(method, uri, headers or Headers(), bodyProducer))

    async def _perform(self, method: bytes, uri: bytes, headers: Headers, producer: Any) -> IResponse:
        parts = URI.fromBytes(uri)
        if parts.scheme not in (b"http", b"https") or not parts.host:
            raise AddressError(f"{uri.decode()!a} is no URL of the form http://HOST or https://HOST")
        # The body goes through as it is written: what is unpacked has no bound.
        headers.setRawHeaders(b"Accept-Encoding", [b"identity"])
        host = (parts.scheme, parts.host, parts.port)
        self._address = Address(parts.scheme.decode(), parts.host.decode(), parts.port, "")
        await self._client.place(host)
        try:
            raw = await self._sent(method, uri, headers, producer)
        except BaseException:
            self._client.on_end(self, host)
            raise
        length = None if raw.length == UNKNOWN_LENGTH else raw.length
        drop = self._connection.transport.abortConnection
        self.status = raw.code
        self.headers = raw.headers.copy()  # treq takes out what it would unpack
        self.body = Body(
            self._reactor, length, self._client.read_timeout, drop, lambda: self._client.on_end(self, host)
        )
        raw.deliverBody(self.body)  # type: ignore[call-arg, misc]  # a zope interface has no self
        return raw

    async def _sent(self, method: bytes, uri: bytes, headers: Headers, producer: Any) -> IResponse:
        """The response's head, of the first connection that was not gone already."""
        agent = Agent.usingEndpointFactory(self._reactor, self, cast(HTTPConnectionPool, self))
        while True:
            self._sending = agent.request(method, uri, headers, producer)
            try:
                return await self._sending
            except Exception as error:
                gone = self.reused and isinstance(error, _NOTHING_CAME) and _was_closed(error)
                if gone and method in _IDEMPOTENT and not self._late:
                    continue
                if self._late:
                    raise ConnectionFailed(f"{self._address.netloc}: {self._late}") from error
                raise _converted(error, self._address) from error
            finally:
                self._stop_timer()

    # As the Agent's endpoint factory, and its pool.

    def endpointForURI(self, uri: URI) -> Any:
        configuration = TransportConfiguration(self._reactor, self._client.trust_root, self._client.connect_timeout)
        return BoundedEndpoint(endpoint_for(self._address, configuration), self._address)

    def getConnection(self, key: Hashable, endpoint: Any) -> Deferred[Any]:
        self.reused = False
        self._start_timer(self._client.connect_timeout, "no connection")
        return self._client.pool.getConnection(key, endpoint).addCallback(self._connected)

    def _connected(self, connection: Any) -> Any:
        self._connection = connection
        self.source_port = getattr(connection.transport.getHost(), "port", 0)
        self.reused = connection in self._client.used
        self._client.used.add(connection)
        self._start_timer(self._client.read_timeout, "no answer")
        return connection

    def _start_timer(self, seconds: float, what: str) -> None:
        self._stop_timer()
        self._timer = self._reactor.callLater(seconds, self._on_late, f"{what} for {seconds:g} s")

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _on_late(self, what: str) -> None:
        self._late = what
        if self._sending is not None:
            self._sending.cancel()


def _was_closed(error: Exception) -> bool:
    """Whether the peer, or the way to it, ended the connection; not TLS, and not we ourselves."""
    reasons: list[Failure] = getattr(error, "reasons", [])
    return all(each.check(ConnectionDone, ConnectionLost) for each in reasons)


def _converted(error: Exception, address: Address) -> Exception:
    """An error of twisted.web or of the network as one of ours; a cancellation stays one."""
    reasons = [each.value for each in getattr(error, "reasons", ())]
    if any(isinstance(each, CancelledError) for each in (error, *reasons)):
        return CancelledError()
    # Where something came and the connection was not lost, it is the parser that complains.
    if type(error) is ResponseFailed and not any(isinstance(each, (*_LOST, ClientError)) for each in reasons):
        return NotLongconn(f"{address.netloc}: the answer is not HTTP")
    return explain(error, address)
