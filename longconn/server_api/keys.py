"""The keys of the server API: `api_key`, and `api_previous_key` while programs still use it."""

from __future__ import annotations

from hmac import compare_digest

from longconn.core import errors
from longconn.core.errors import CommandError
from longconn.core.log import about, log
from longconn.core.settings import Settings
from longconn.protocols.http.errors import HTTPError
from longconn.protocols.http.exchange import HTTPExchange
from longconn.protocols.http.request import api_key


class APIKeys:
    """Checks that requests bring a key. False if there is none."""

    def __init__(self, settings: Settings) -> None:
        self._key = settings.api_key.encode("utf-8", "surrogateescape")
        self._previous = settings.api_previous_key.encode("utf-8", "surrogateescape") or self._key

    def __bool__(self) -> bool:
        return bool(self._key)

    def check(self, exchange: HTTPExchange) -> None:
        """Raises HTTPError(401) without the right key, CommandError(TOO_MANY_REQUESTS) after too many wrong ones."""
        guesses = exchange.hub.guesses
        given = api_key(exchange.header("x-api-key"), exchange.header("authorization"))
        wait = guesses.wait(exchange.host) if given else 0.0
        if wait:
            raise CommandError(errors.TOO_MANY_REQUESTS, retry_after=wait)
        # Both are compared, whether the first one fits or not: the time tells nothing.
        if not compare_digest(given, self._key) | compare_digest(given, self._previous):
            exchange.hub.rates.count_request(exchange.caller)
            log.info(
                "%s asked for the server API with a wrong key, or none",
                exchange.address,
                extra=about("api_refused", address=exchange.address),
            )
            if given:
                guesses.failed(exchange.host)
            raise HTTPError(401, "unauthorized", [("WWW-Authenticate", 'apikey realm="api"')], errors.UNAUTHORIZED.code)
