"""Webhooks: tells the application of clients and channels, by signed POSTs in batches.

Requests are signed as Standard Webhooks has it (standardwebhooks.com, version 1), for which there are libraries. One is
under way at a time, so the events come in order. It is best effort: what waits is in memory, and is bounded.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import random
import secrets
from collections import Counter, deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from longconn.core.client import Client
from longconn.core.errors import ConfigError, shown
from longconn.core.log import about, log
from longconn.core.settings import WEBHOOK_EVENTS, Settings

#: Sends a body with headers to a URL; the Deferred has the status of the answer.
Post = Callable[[str, bytes, dict[str, str]], "Deferred[int]"]

#: Seconds in which events are collected, and what one request has at most: events, and bytes of them.
COLLECT = 0.5
MOST_EVENTS = 100
_MOST_BYTES = 64 * 1024
#: Events that wait at most, and their bytes.
MOST_WAITING = 10_000
_MOST_WAITING_BYTES = 8 * 1024 * 1024
#: Seconds for an answer, and between two tries of one request: twice as long each time. After so many it is given up.
TIMEOUT = 10.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
TRIES = 10
#: Seconds at the end of the server in which the last events may still be sent.
LAST_WAIT = 5.0


class Webhooks:
    """Sends the events that the settings name to `webhook`. An observer of a hub (`longconn.core.observer`).

    `clock` has `seconds` and `callLater`, `wall_time` the seconds since 1970, `post` sends, and
    `lost` counts what is dropped, by reason. Raises ConfigError.
    """

    def __init__(
        self, settings: Settings, node: str, clock: Any, wall_time: Callable[[], float], post: Post, lost: Counter[str]
    ) -> None:
        parts = urlsplit(settings.webhook)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"webhook: {shown(settings.webhook, 100)} is no URL as http://HOST or https://HOST")
        if not settings.webhook_secret:
            raise ConfigError("webhook needs webhook_secret: without it nobody can know who sends the events")
        for each in settings.webhook_event:
            if each not in WEBHOOK_EVENTS:
                raise ConfigError(f"webhook_event: {shown(each)} is none of {', '.join(WEBHOOK_EVENTS)}")
        self._secret = _key(settings.webhook_secret)
        self._url = settings.webhook
        self._events = frozenset(settings.webhook_event or WEBHOOK_EVENTS)
        self._node = node
        self._clock = clock
        self._wall_time = wall_time
        self._post = post
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._lost = lost
        # Events that were dropped, and of which no request has told.
        self._untold = 0
        # The request that is under way: its id, its body, how often it was tried.
        self._id = ""
        self._body = b""
        self._count = 0
        self._tries = 0
        self._call: Any = None
        self._answer: Deferred[int] | None = None
        self._ending: Deferred[None] | None = None

    # What happens.

    def client_connected(self, client: Client) -> None:
        self._add("client_connected", **_of(client))

    def client_disconnected(self, client: Client) -> None:
        why = client.closed_for
        ended = {} if why is None else {"code": why.code, "reason": why.text}
        self._add("client_disconnected", **_of(client), **ended)

    def channel_occupied(self, channel: str) -> None:
        self._add("channel_occupied", channel=channel)

    def channel_vacated(self, channel: str) -> None:
        self._add("channel_vacated", channel=channel)

    def _add(self, event: str, **fields: object) -> None:
        if event not in self._events:
            return
        data = json.dumps(
            {"event": event, "time": round(self._wall_time() * 1000), **fields}, separators=(",", ":")
        ).encode()
        if len(self._waiting) >= MOST_WAITING or self._bytes + len(data) > _MOST_WAITING_BYTES:
            self._drop("full", 1)
            return
        self._waiting.append(data)
        self._bytes += len(data)
        if not self._body and self._call is None:
            self._call = self._clock.callLater(COLLECT, self._next)

    def _drop(self, reason: str, count: int) -> None:
        self._lost[reason] += count
        self._untold += count

    # Requests.

    def _next(self) -> None:
        """Send what waits, as much as one request may have."""
        self._call = None
        events: list[bytes] = []
        size = 0
        while self._waiting and len(events) < MOST_EVENTS and (not events or size < _MOST_BYTES):
            events.append(self._waiting.popleft())
            size += len(events[-1])
        self._bytes -= size
        if not events:
            self.finish()
            return
        self._id = f"msg_{secrets.token_urlsafe(16)}"
        self._count, self._tries = len(events), 0
        head = f'{{"id":"{self._id}","node":"{self._node}","dropped":{self._untold},"events":['
        self._untold = 0
        self._body = head.encode() + b",".join(events) + b"]}"
        self._try()

    def _try(self) -> None:
        self._call = None
        self._tries += 1
        stamp = str(int(self._wall_time()))
        signed = b".".join((self._id.encode(), stamp.encode(), self._body))
        signature = base64.b64encode(hmac.digest(self._secret, signed, "sha256")).decode()
        headers = {
            "Content-Type": "application/json",
            "webhook-id": self._id,
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{signature}",
        }
        self._answer = self._post(self._url, self._body, headers)
        self._answer.addTimeout(TIMEOUT, self._clock).addBoth(self._answered)

    def _answered(self, result: int | Failure) -> None:
        self._answer = None
        if isinstance(result, int) and 200 <= result < 300:
            self._body = b""
            self._next()
            return
        why = f"status {result}" if isinstance(result, int) else result.getErrorMessage() or type(result.value).__name__
        if self._tries < TRIES and self._ending is None:
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (self._tries - 1)) * random.uniform(0.8, 1.2)
            self._call = self._clock.callLater(pause, self._try)
            if self._tries == 1:
                log.warning(
                    "the webhook is tried again: %s", " ".join(why.split())[:200], extra=about("webhook_failed")
                )
            return
        log.warning(
            "the webhook lost %d events: %s", self._count, " ".join(why.split())[:200], extra=about("webhook_lost")
        )
        self._body = b""
        self._drop("refused", self._count)
        if self._ending is not None:
            self._drop("end", len(self._waiting))
            self._waiting.clear()
        self._next()

    # The end.

    def stop(self) -> Deferred[None]:
        """Send what waits, each request once, for `LAST_WAIT` seconds at most; the Deferred never fails.

        The hub has no more events then: it has another observer, or none.
        """
        if not self._body and not self._waiting:
            self._cancel()
            return succeed(None)
        ending = self._ending = Deferred()

        def too_late(result: object, seconds: float) -> None:
            log.warning(
                "the webhook lost %d events at the end", self._count + len(self._waiting), extra=about("webhook_lost")
            )

        ending.addTimeout(LAST_WAIT, self._clock, too_late).addErrback(lambda failure: None)
        ending.addBoth(self._stopped)
        if self._answer is None:
            self._cancel()
            if self._body:
                self._try()
            else:
                self._next()
        return ending

    def finish(self) -> None:
        """Let `stop` wait no longer."""
        if self._ending is not None and not self._ending.called:
            self._ending.callback(None)

    def _stopped(self, result: object) -> None:
        if self._answer is not None:
            self._answer.cancel()
        self._ending = None
        self._cancel()
        self._waiting.clear()
        self._bytes = 0
        self._body = b""

    def _cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None


class HTTPPost:
    """A `Post` by treq, over a connection that is kept. It follows no redirection."""

    def __init__(self, reactor: Any) -> None:
        # treq takes half as long to import as all the rest, and most servers have no webhook.
        import treq
        from twisted.web.client import Agent, HTTPConnectionPool

        self._reactor = reactor
        self._collect = treq.collect
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = 1
        agent: Any = Agent(reactor, connectTimeout=TIMEOUT, pool=self._pool)
        self._client = treq.client.HTTPClient(agent)

    def __call__(self, url: str, body: bytes, headers: dict[str, str]) -> Deferred[int]:
        return Deferred.fromCoroutine(self._send(url, body, headers))

    def close(self) -> Any:
        """Close the kept connection; the Deferred fires when it is gone."""
        return self._pool.closeCachedConnections()

    async def _send(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        fields = Headers({name: [value] for name, value in headers.items()})
        response = await self._client.post(
            url, data=body, headers=fields, allow_redirects=False, timeout=TIMEOUT, reactor=self._reactor
        )
        # What it says does not matter. A connection that goes on saying something is not kept.
        size = 0

        def count(part: bytes) -> None:
            nonlocal size
            size += len(part)
            if size > _MOST_BYTES:
                raise ValueError(f"the answer has more than {_MOST_BYTES} bytes")

        await self._collect(response, count)
        status: int = response.code
        return status


def _of(client: Client) -> dict[str, object]:
    return {
        "client": client.id,
        "user": client.user,
        "name": client.name,
        "protocol": client.protocol,
        "address": client.address,
    }


def _key(secret: str) -> bytes:
    """The bytes of a secret: those that `whsec_` precedes in base64, or its own."""
    if not secret.startswith("whsec_"):
        return secret.encode("utf-8", "surrogateescape")
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ConfigError("webhook_secret: what follows whsec_ is no base64") from None
