"""The keep-alive client: requests over pooled connections, by treq on Twisted's Agent.

A pooled connection may be gone by the time it is used: a server may close it at any moment (RFC 9112, section 9.5). A
request of an idempotent method (RFC 9110, section 9.2.2) is then sent again on another connection. Other requests are
not, and no request is sent again that failed on a new connection. Redirections are not followed: headers and
credentials for one host reach no other.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Mapping
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import treq.client
from hyperlink import EncodedURL
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
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
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IResponse
from zope.interface import implementer

from longconn.clients.address import Address
from longconn.clients.certificates import ClientCertificate
from longconn.clients.endpoints import explain
from longconn.clients.errors import AddressError, ClientError, Closed, ConnectionFailed, NotLongconn
from longconn.clients.http_connections import HTTPConnections, RequestBody, address_of
from longconn.clients.keepalive.response import Body, Response
from longconn.clients.transports.base import TransportConfiguration

_IDEMPOTENT = {b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"}
#: Errors of a pooled connection that was gone before it was used, or before anything came back on it.
_NOTHING_CAME = (RequestTransmissionFailed, ResponseNeverReceived)
_LOST = (ConnectionDone, ConnectionLost, SSL.Error)


class _URL(EncodedURL):
    """A URL whose host may be an IPv6 address: hyperlink 21 encodes that as a name, and fails."""

    def to_uri(self) -> EncodedURL:
        if ":" not in self.host:
            return super().to_uri()
        return self.replace(host="localhost").to_uri().replace(host=self.host)


class KeepAliveClient:
    """Sends requests over connections that it keeps.

    `connections`: the most to one host at a time; further requests wait for one in line. `connect_timeout`: seconds
    until a connection is made, the look-up of the name included. `read_timeout`: seconds in which the request has to be
    sent and the response's head has to come, and then seconds without a byte of its body. `idle_timeout`: seconds for
    which an unused connection is kept. `trust_root`: the trusted certificates, as `load_authorities` or
    `twisted.internet.ssl.optionsForClientTLS` has them; None for the system's. `certificate`: that of the client, by
    `load_certificate`.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        connections: int = 2,
        connect_timeout: float = 10.0,
        read_timeout: float = 30.0,
        idle_timeout: float = 60.0,
        trust_root: Any = None,
        certificate: ClientCertificate | None = None,
    ) -> None:
        self.reactor = reactor
        self.connect_timeout = connect_timeout
        self.read_timeout = read_timeout
        self.connections = HTTPConnections(
            TransportConfiguration(reactor, trust_root, connect_timeout, certificate=certificate)
        )
        self.pool = HTTPConnectionPool(reactor)
        self.pool.maxPersistentPerHost = connections
        self.pool.cachedConnectionTimeout = idle_timeout  # type: ignore[assignment]
        # The pool repeats neither a PUT nor any other request with a body.
        self.pool.retryAutomatically = False
        #: connections that served a request
        self.used: weakref.WeakSet[Any] = weakref.WeakSet()
        self._limit = connections
        # By host; an exchange keeps its semaphore alive.
        self._semaphores: weakref.WeakValueDictionary[Hashable, DeferredSemaphore] = weakref.WeakValueDictionary()
        self._exchanges: set[_Exchange] = set()
        self._closed = False

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        auth: tuple[str, str] | None = None,
    ) -> Deferred[Response]:
        """Send a request. Fires with the response when its head is there.

        `auth`: a name and a password (Basic authentication, RFC 7617). Fails with AddressError for a URL that is not
        HTTP's, with ConnectionFailed or CertificateError, with NotLongconn if the server does not speak HTTP, with
        Closed after `close`. Cancelling it aborts the connection.
        """
        fields = Headers({name: [value] for name, value in (headers or {}).items()})
        return Deferred.fromCoroutine(self._request(method, url, params=params, headers=fields, data=data, auth=auth))

    async def _request(self, method: str, url: str, **options: Any) -> Response:
        if self._closed:
            raise Closed("the client was closed")
        exchange = _Exchange(self)
        # treq's own producer of a body would run on the global reactor.
        sender = treq.client.HTTPClient(cast(IAgent, exchange), data_to_body_producer=cast(Any, RequestBody))
        self._exchanges.add(exchange)
        try:
            answer: Any = sender.request(
                method, _URL.from_text(url), allow_redirects=False, unbuffered=True, reactor=self.reactor, **options
            )
            exchange.answer = answer
            await answer
        except ClientError:
            raise
        except ValueError as error:  # of hyperlink and twisted.web
            raise AddressError(f"{url!a} cannot be asked for: {error}") from error
        except CancelledError:
            if self._closed:
                raise Closed("the client was closed") from None
            raise
        finally:
            if exchange.body is None:
                self._exchanges.discard(exchange)
        return exchange.response()

    def semaphore(self, host: Hashable) -> DeferredSemaphore:
        """Its tokens are the connections that a host may still have."""
        return self._semaphores.setdefault(host, DeferredSemaphore(self._limit))

    def on_end(self, exchange: _Exchange) -> None:
        """The connection of an exchange is in the pool, or gone."""
        self._exchanges.discard(exchange)

    def close(self) -> Deferred[None]:
        """Abort all requests and close all connections. Fires when they are closed."""
        self._closed = True
        for each in tuple(self._exchanges):
            each.abort()
        closed: Deferred[None] = self.pool.closeCachedConnections()
        return closed


@implementer(IAgent)
class _Exchange:
    """One request and its response: treq takes it for an agent, and the Agent below it for a pool.

    The pool of Twisted does not tell which connection a request used. So this stands between the Agent and the pool.
    """

    #: Agent reads it from its pool
    persistent = True

    def __init__(self, client: KeepAliveClient) -> None:
        self._client = client
        self._started: float = client.reactor.seconds()
        self.answer: Deferred[Any] | None = None
        self.body: Body | None = None
        self._status = 0
        self._headers = Headers()
        self._address = Address("", "", 0, "")
        # The connection that was used last, and whether it came from the pool.
        self._connection: Any = None
        self._source_port = 0
        self._reused = False

    def abort(self) -> None:
        if self.body is not None:
            self.body.break_off()
        elif self.answer is not None:
            self.answer.cancel()

    def response(self) -> Response:
        assert self.body is not None  # `request` has fired
        return Response(
            self._status, self._headers, self.body, self._source_port, reused=self._reused, started=self._started
        )

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: Any = None
    ) -> Deferred[IResponse]:
        return Deferred.fromCoroutine(self._request(method, uri, headers or Headers(), bodyProducer))

    async def _request(self, method: bytes, uri: bytes, headers: Headers, producer: Any) -> IResponse:
        parts = URI.fromBytes(uri)
        if parts.scheme not in (b"http", b"https") or not parts.host:
            raise AddressError(f"{uri.decode()!a} is no URL of the form http://HOST or https://HOST")
        # A body that treq unpacks has no bound.
        headers.setRawHeaders(b"Accept-Encoding", [b"identity"])
        self._address = address_of(parts)
        semaphore = self._client.semaphore((parts.scheme, parts.host, parts.port))
        await semaphore.acquire()

        def on_end() -> None:
            self._client.on_end(self)
            semaphore.release()

        try:
            raw = await self._send(method, uri, headers, producer)
        except BaseException:
            on_end()
            raise
        length = None if raw.length == UNKNOWN_LENGTH else raw.length
        abort = self._connection.transport.abortConnection
        self._status = raw.code
        self._headers = raw.headers.copy()  # treq removes Content-Encoding
        self.body = Body(self._client.reactor, length, self._client.read_timeout, abort, on_end)
        raw.deliverBody(self.body)  # type: ignore[call-arg, misc]  # a zope interface has no self
        return raw

    async def _send(self, method: bytes, uri: bytes, headers: Headers, producer: Any) -> IResponse:
        """The response of the first connection that was not gone already."""
        agent = Agent.usingEndpointFactory(
            self._client.reactor, self._client.connections, cast(HTTPConnectionPool, self)
        )
        while True:
            try:
                response: IResponse = await agent.request(method, uri, headers, producer)
                return response
            except Exception as error:
                gone = self._reused and isinstance(error, _NOTHING_CAME) and _was_closed(error)
                if not (gone and method in _IDEMPOTENT):
                    raise _converted(error, self._address) from error

    # Called by Agent, as its pool.

    def getConnection(self, key: Hashable, endpoint: Any) -> Deferred[Any]:
        self._reused = False
        connecting: Deferred[Any] = self._client.pool.getConnection(key, endpoint)
        connecting.addTimeout(self._client.connect_timeout, self._client.reactor, self._too_late("no connection"))
        return connecting.addCallback(self._on_connection)

    def _on_connection(self, connection: Any) -> Any:
        self._connection = connection
        self._source_port = getattr(connection.transport.getHost(), "port", 0)
        self._reused = connection in self._client.used
        self._client.used.add(connection)

        def request(parsed: Any) -> Deferred[Any]:
            asking: Deferred[Any] = connection.request(parsed)
            return asking.addTimeout(self._client.read_timeout, self._client.reactor, self._too_late("no answer"))

        return SimpleNamespace(request=request)

    def _too_late(self, what: str) -> Callable[[Any, float], NoReturn]:
        def fail(result: Any, seconds: float) -> NoReturn:
            raise ConnectionFailed(f"{self._address.netloc}: {what} for {seconds:g} s")

        return fail


def _was_closed(error: Exception) -> bool:
    """Whether the server or the network ended the connection, rather than TLS or this client."""
    reasons: list[Failure] = getattr(error, "reasons", [])
    return all(each.check(ConnectionDone, ConnectionLost) for each in reasons)


def _converted(error: Exception, address: Address) -> Exception:
    """An error of twisted.web or of the network as a ClientError; a cancellation stays one."""
    reasons = [each.value for each in getattr(error, "reasons", ())]
    if any(isinstance(each, CancelledError) for each in (error, *reasons)):
        return CancelledError()
    # Something came, and the connection was not lost: the error is the parser's.
    if type(error) is ResponseFailed and not any(isinstance(each, (*_LOST, ClientError)) for each in reasons):
        return NotLongconn(f"{address.netloc}: the answer is not HTTP")
    return explain(error, address)
