"""Who may use the server API: programs with `api_key`, or `api_previous_key` while they still use it; `admin_user`s."""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest

from longconn.core import errors
from longconn.core.errors import CommandError
from longconn.core.identity import Admission, Identity
from longconn.core.log import about, log
from longconn.core.settings import Settings
from longconn.protocols.http.errors import HTTPError
from longconn.protocols.http.exchange import HTTPExchange
from longconn.protocols.http.request import api_key
from longconn.wire.authorization import read_authorization


def _unauthorized() -> HTTPError:
    return HTTPError(401, "unauthorized", [("WWW-Authenticate", 'apikey realm="api"')], errors.UNAUTHORIZED.code)


class APIKeys:
    """Checks that requests bring a key, or the password or token of an operator. False if none of these can be."""

    def __init__(self, settings: Settings) -> None:
        self._key = settings.api_key.encode("utf-8", "surrogateescape")
        self._previous = settings.api_previous_key.encode("utf-8", "surrogateescape") or self._key
        self._operators = frozenset(settings.admin_user)

    def __bool__(self) -> bool:
        return bool(self._key or self._operators)

    def admit(self, exchange: HTTPExchange, respond: Callable[[HTTPExchange], None]) -> None:
        """Call `respond`, now or once it is known that the request may use the API.

        Raises HTTPError(401), or CommandError(TOO_MANY_REQUESTS) after too many wrong guesses; or answers so later.
        """
        authorization = exchange.header("authorization")
        if not self._operators or authorization.partition(" ")[0].lower() not in ("basic", "bearer"):
            self._check_key(exchange)
            respond(exchange)
            return
        try:
            credentials = read_authorization(authorization)
        except CommandError:
            raise _unauthorized() from None
        exchange.watch()

        def admitted(result: Identity | CommandError) -> None:
            if isinstance(result, Identity) and result.user in self._operators:
                exchange.guard(respond)
            elif isinstance(result, CommandError) and result.reason is not errors.UNAUTHORIZED:
                exchange.fail(result)
            else:  # not with the challenge `Basic`, on which a browser asks by itself
                self._log_refused(exchange)
                exchange.fail(_unauthorized())

        exchange.hub.gate.admit(Admission("http", exchange.host, exchange.address, credentials), admitted)

    def _check_key(self, exchange: HTTPExchange) -> None:
        guesses = exchange.hub.guesses
        given = api_key(exchange.header("x-api-key"), exchange.header("authorization"))
        wait = guesses.wait(exchange.host) if given else 0.0
        if wait:
            raise CommandError(errors.TOO_MANY_REQUESTS, retry_after=wait)
        # Both are compared, whether the first one fits or not: the time tells nothing.
        fits = compare_digest(given, self._key) | compare_digest(given, self._previous)
        if not (fits and given):  # without a key of the server, none fits
            exchange.hub.rates.count_request(exchange.caller)
            self._log_refused(exchange)
            if given:
                guesses.failed(exchange.host)
            raise _unauthorized()

    def _log_refused(self, exchange: HTTPExchange) -> None:
        log.info(
            "%s asked for the server API with a wrong key, or none",
            exchange.address,
            extra=about("api_refused", address=exchange.address),
        )
