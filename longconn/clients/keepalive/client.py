"""An HTTP client that keeps its connections and uses them again, on treq.

    client = KeepAliveClient(reactor, connections=4)
    async with await client.request("GET", "http://localhost:9999/PrintHello") as response:
        print(response.status, response.source_port, response.reused)
        async for piece in response:
            ...
    await client.close()

A connection that the pool kept may be gone by the time it is used: the server closed it, as it may
at any moment (RFC 9112, section 9.5). A request of an idempotent method (RFC 9110, section 9.2.2) is
then sent again, on another connection; no other request is, and none on a connection that was new.
Redirections are not followed, so that what is said to one host reaches no other.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Mapping
from typing import Any, cast

import treq.client
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.web.client import HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from longconn.clients.errors import AddressError, ClientError, Closed
from longconn.clients.http_connections import RequestBody
from longconn.clients.keepalive.body import Body
from longconn.clients.keepalive.exchange import Exchange


class BodyTooLarge(ClientError):
    """A body has more bytes than the caller wants."""


class Response:
    """What was answered. Its body is an asynchronous iterator of bytes, in pieces as they come.

    `headers` are Twisted's. `source_port` is the port of our end, `reused` whether an earlier request went over the
    same connection. A response that is closed, used up or forgotten frees its connection: see `http_body`.
    """

    def __init__(self, exchange: Exchange, body: Body) -> None:
        self.status = exchange.status
        self.headers = exchange.headers
        self.source_port = exchange.source_port
        self.reused = exchange.reused
        self._started = exchange.started
        self._body = body
        # One that is never read, or not to its end, and not closed either.
        weakref.finalize(self, body.close).atexit = False

    @property
    def seconds(self) -> float:
        """From when the connection was asked for to the last byte that came so far."""
        return self._body.last_byte - self._started

    def __aiter__(self) -> Response:
        return self

    async def __anext__(self) -> bytes:
        """Raises ClientError if the connection is lost before the end."""
        piece = await self._body.read()
        if not piece:
            raise StopAsyncIteration
        return piece

    def collect(self, limit: int = 1024 * 1024) -> Deferred[bytes]:
        """The rest of the body as a whole. Fails with BodyTooLarge above `limit` bytes, and with ClientError."""
        return Deferred.fromCoroutine(self._collect(limit))

    async def _collect(self, limit: int) -> bytes:
        pieces = []
        size = 0
        async for piece in self:
            size += len(piece)
            if size > limit:
                self.close()
                raise BodyTooLarge(f"a body of more than {limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """The rest of the body is not wanted. May be called at any time, repeatedly."""
        self._body.close()

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(self, *reason: object) -> None:
        self.close()


class KeepAliveClient:
    """Sends requests over connections that it keeps.

    `connections`: the most to one host at a time; further requests wait for one in line. `connect_timeout`: seconds
    until a connection is made, the look-up of the name included. `read_timeout`: seconds in which no byte of a response
    comes; the request must be sent, and the response's head be there as a whole, in that time. `idle_timeout`: seconds
    for which an unused connection is kept. `trust_root` is Twisted's: who may have signed certificates, None for the
    system's.
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
    ) -> None:
        self.reactor = reactor
        self.connect_timeout = connect_timeout
        self.read_timeout = read_timeout
        self.trust_root = trust_root
        self.pool = HTTPConnectionPool(reactor)
        self.pool.maxPersistentPerHost = connections
        self.pool.cachedConnectionTimeout = idle_timeout  # type: ignore[assignment]
        self.pool.retryAutomatically = False  # its own retries take only a part of what may be repeated
        self._connections = connections
        self._places: dict[Hashable, DeferredSemaphore] = {}
        self.used: weakref.WeakSet[Any] = weakref.WeakSet()
        self._exchanges: set[Exchange] = set()
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
        """Ask, and get the response once its head is there.

        `auth`: a name and a password (Basic authentication, RFC 7617). Fails with AddressError for a URL that is none
        of HTTP, with ConnectionFailed, CertificateError or NotLongconn (what answers speaks no HTTP), with Closed after
        `close`. Cancelling it breaks the exchange off.
        """
        return Deferred.fromCoroutine(self._request(method, url, params, headers, data, auth))

    async def _request(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        data: bytes | None,
        auth: tuple[str, str] | None,
    ) -> Response:
        if self._closed:
            raise Closed("the client was closed")
        exchange = Exchange(self)
        fields = Headers({name: [value] for name, value in (headers or {}).items()})
        # treq's own producer of a body would run on the global reactor.
        sender = treq.client.HTTPClient(cast(IAgent, exchange), data_to_body_producer=cast(Any, RequestBody))
        self._exchanges.add(exchange)
        try:
            answer: Any = sender.request(
                method, url, params=params, headers=fields, data=data, auth=auth,
                allow_redirects=False, unbuffered=True, reactor=self.reactor,
            )  # fmt: skip
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
        assert exchange.body is not None
        return Response(exchange, exchange.body)

    def place(self, host: Hashable) -> Deferred[DeferredSemaphore]:
        """Fires when a connection to that host may be used; the semaphore's is to be released."""
        place = self._places.setdefault(host, DeferredSemaphore(self._connections))
        return place.acquire()

    def on_end(self, exchange: Exchange, host: Hashable) -> None:
        """An exchange is over: its connection is in the pool, or gone."""
        self._exchanges.discard(exchange)
        place = self._places[host]
        place.release()
        if place.tokens == place.limit:
            del self._places[host]

    def close(self) -> Deferred[None]:
        """Break off what is under way, and close all connections; fires when they are."""
        self._closed = True
        for each in tuple(self._exchanges):
            each.abort()
        closed: Deferred[None] = self.pool.closeCachedConnections()
        return closed
