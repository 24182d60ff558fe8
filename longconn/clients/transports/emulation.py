"""The way up of the structured protocol over HTTP: POSTs, one at a time, so that commands stay in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from longconn.clients.backoff import Backoff
from longconn.clients.delayed_calls import DelayedCalls
from longconn.clients.endpoints import explain
from longconn.clients.errors import ClientError, ConnectionFailed
from longconn.clients.events import JSONObject
from longconn.clients.http_connections import HTTPConnections, RequestBody
from longconn.clients.transports.base import TransportConfiguration
from longconn.clients.transports.json_frames import write_json

#: Bytes of commands in one POST, if it is more than one command. Servers refuse more than they have room for.
MOST_AT_ONCE = 64 * 1024
#: Seconds for which a connection is kept between two POSTs: less than servers keep it, which would race with a POST.
_KEPT = 30
_TOO_MANY = 429


class _Drain(Protocol):
    """Reads a body to its end, so that its connection can be used again."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._on_end()


class Emulation:
    """Sends commands of the session that `start` names. `fail` is told when a POST does not get through."""

    def __init__(
        self,
        connections: HTTPConnections,
        url: bytes,
        configuration: TransportConfiguration,
        fail: Callable[[ClientError], None],
    ) -> None:
        self._address = connections.address
        self._url = url
        self._configuration = configuration
        self._fail = fail
        self._pool = HTTPConnectionPool(configuration.reactor)
        self._pool.maxPersistentPerHost = 1
        self._pool.cachedConnectionTimeout = _KEPT
        # Never by itself: what was sent once may have been acted on.
        self._pool.retryAutomatically = False
        self._agent = Agent.usingEndpointFactory(configuration.reactor, connections, self._pool)
        self._calls = DelayedCalls(configuration.reactor)
        self._backoff = Backoff(lambda: 0.0)
        self._session = self._node = ""
        self._waiting: deque[bytes] = deque()
        self._posting: Deferred[Any] | None = None
        self._busy = False
        self._stopped = False

    def start(self, session: str, node: str) -> None:
        """The answer to `connect` says who we are."""
        self._session, self._node = session, node

    def send(self, objects: Sequence[JSONObject]) -> None:
        self._waiting.extend([write_json(each) for each in objects])
        self._post_next()

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True
        self._waiting.clear()
        self._calls.cancel_all()
        posting, self._posting = self._posting, None
        if posting is not None:
            posting.cancel()
        self._pool.closeCachedConnections()

    def _post_next(self) -> None:
        if self._busy or self._stopped or not self._waiting:
            return
        batch = [self._waiting.popleft()]
        size = len(batch[0])
        while self._waiting and size + len(self._waiting[0]) < MOST_AT_ONCE:
            size += len(self._waiting[0]) + 1
            batch.append(self._waiting.popleft())
        self._busy = True
        data = b"\n".join(batch).decode()
        self._post(write_json({"session": self._session, "node": self._node, "data": data}))

    def _post(self, body: bytes) -> None:
        headers = Headers({b"Content-Type": [b"application/json"]})
        posting: Deferred[Any] = self._agent.request(b"POST", self._url, headers, RequestBody(body).as_producer())
        posting.addCallback(self._read)
        posting.addTimeout(self._configuration.timeout, self._configuration.reactor, self._on_late)
        self._posting = posting
        posting.addCallbacks(lambda status: self._on_status(status, body), self._on_failure)

    def _read(self, response: Any) -> Deferred[int]:
        read: Deferred[int] = Deferred()
        response.deliverBody(_Drain(lambda: read.callback(int(response.code))))
        return read

    def _on_status(self, status: int, body: bytes) -> None:
        self._posting = None
        if self._stopped:
            return
        if status == _TOO_MANY:  # none of it was taken
            self._calls.call(self._backoff.delay(), lambda: self._post(body))
        elif status in (200, 204):
            self._busy = False
            self._backoff.reset()
            self._post_next()
        elif status == 404:
            self._fail(ConnectionFailed("the server does not know this session any more"))
        else:
            self._fail(ConnectionFailed(f"commands are answered by HTTP {status}"))

    def _on_failure(self, failure: Failure) -> None:
        self._posting = None
        if not self._stopped:
            self._fail(explain(failure.value, self._address))

    def _on_late(self, _: Any, seconds: float) -> Any:
        raise ConnectionFailed(f"{self._address.netloc}: commands do not get through within {seconds:g} s")
