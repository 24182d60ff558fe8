"""Fetches a document over HTTP, by treq."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from longconn.auth.jwks import MOST_BYTES, Fetch

#: Seconds for the answer.
_TIMEOUT = 10


def fetcher(reactor: Any) -> Fetch:
    """A `Fetch` on `reactor`. It follows no redirection, and checks certificates as the system does."""
    # treq takes half as long to import as all the rest, and most servers fetch nothing.
    import treq

    async def get(url: str) -> bytes:
        client = treq.client.HTTPClient(cast(IAgent, Agent(reactor, connectTimeout=_TIMEOUT)))
        accept = Headers({"Accept": ["application/json"]})
        response = await client.get(url, headers=accept, allow_redirects=False, timeout=_TIMEOUT, reactor=reactor)
        if response.code != 200:
            raise ValueError(f"status {response.code}")
        data = bytearray()

        def collect(part: bytes) -> None:
            data.extend(part)
            if len(data) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES} bytes")

        await treq.collect(response, collect).addTimeout(_TIMEOUT, reactor)
        return bytes(data)

    def fetch(url: str, got: Callable[[bytes], None], failed: Callable[[object], None]) -> None:
        def on_failure(failure: Failure) -> None:
            failed(failure.getErrorMessage() or type(failure.value).__name__)

        Deferred.fromCoroutine(get(url)).addCallback(got).addErrback(on_failure)

    return fetch
