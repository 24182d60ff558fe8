"""Commands over HTTP: POSTs to /emulation, one at a time, so that commands stay in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import random
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from longconn.clients.backoff import Backoff
from longconn.clients.endpoints import explain
from longconn.clients.errors import ClientError, ConnectionFailed
from longconn.clients.events import JSONObject
from longconn.clients.http_connections import HTTPConnections, RequestBody, address_of
from longconn.clients.transports.base import TransportConfiguration
from longconn.clients.transports.json_frames import write_json

#: Bytes of commands in one POST, if it is more than one command. Servers limit a request's body.
MOST_AT_ONCE = 64 * 1024
#: Seconds for which a connection is kept between two POSTs. Servers keep it longer, so that none closes it in a POST.
_KEPT = 30
_TOO_MANY_REQUESTS = 429


class _DiscardedBody(Protocol):
    """Reads a body to its end and drops it, so that its connection can be used again."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._on_end()


class Emulation:
    """Sends commands of the session that `start` names. `fail` is called when a POST does not get through."""

    def __init__(
        self,
        connections: HTTPConnections,
        url: bytes,
        configuration: TransportConfiguration,
        fail: Callable[[ClientError], None],
    ) -> None:
        self._address = address_of(URI.fromBytes(url))
        self._url = url
        self._configuration = configuration
        self._fail = fail
        self._pool = HTTPConnectionPool(configuration.reactor)
        self._pool.maxPersistentPerHost = 1
        self._pool.cachedConnectionTimeout = _KEPT
        # A command that was sent once may have been carried out.
        self._pool.retryAutomatically = False
        self._agent = Agent.usingEndpointFactory(configuration.reactor, connections, self._pool)
        self._session = self._node = ""
        self._waiting: deque[bytes] = deque()
        self._posting: Deferred[None] | None = None
        self._busy = False
        self._stopped = False

    def start(self, session: str, node: str) -> None:
        """The answer to `connect` names the session."""
        self._session, self._node = session, node

    def send(self, objects: Sequence[JSONObject]) -> None:
        self._waiting.extend([write_json(each) for each in objects])
        if not self._busy and not self._stopped:
            self._busy = True
            self._posting = Deferred.fromCoroutine(self._post_waiting())
            self._posting.addErrback(self._on_failure)

    def stop(self) -> None:
        """Send no more commands."""
        self._stopped = True
        self._waiting.clear()
        if self._posting is not None:
            self._posting.cancel()
        self._pool.closeCachedConnections()

    def _on_failure(self, failure: Failure) -> None:
        if not self._stopped:
            self._fail(explain(failure.value, self._address))

    async def _post_waiting(self) -> None:
        """POST until no command waits. Raises ClientError, and errors of twisted.web."""
        while self._waiting:
            body = self._take_batch()
            reactor = self._configuration.reactor
            backoff = Backoff(random, reactor.seconds)
            while (status := await self._status_of(body)) == _TOO_MANY_REQUESTS:  # no command of it was carried out
                await deferLater(reactor, backoff.delay())
            if status == 404:
                raise ConnectionFailed("the server does not know this session any more")
            if status not in (200, 204):
                raise ConnectionFailed(f"commands are answered by HTTP {status}")
        self._busy = False

    def _take_batch(self) -> bytes:
        """The body of the next POST."""
        batch = [self._waiting.popleft()]
        size = len(batch[0])
        while self._waiting and size + len(self._waiting[0]) < MOST_AT_ONCE:
            size += len(self._waiting[0]) + 1
            batch.append(self._waiting.popleft())
        return write_json({"session": self._session, "node": self._node, "data": b"\n".join(batch).decode()})

    def _status_of(self, body: bytes) -> Deferred[int]:
        """POST once; the status of the response, after its body."""

        def drain(response: Any) -> Deferred[int]:
            drained: Deferred[int] = Deferred()
            response.deliverBody(_DiscardedBody(lambda: drained.callback(int(response.code))))
            return drained

        def too_late(result: Any, seconds: float) -> Any:
            raise ConnectionFailed(f"{self._address.netloc}: commands do not get through within {seconds:g} s")

        headers = Headers({b"Content-Type": [b"application/json"]})
        posting: Deferred[Any] = self._agent.request(b"POST", self._url, headers, cast(Any, RequestBody(body)))
        posting.addCallback(drain)
        return posting.addTimeout(self._configuration.timeout, self._configuration.reactor, too_late)
