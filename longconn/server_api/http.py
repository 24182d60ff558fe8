"""The server API over HTTP: POST /api/METHOD, with the key of `api_key`, a JSON object either way.

An answer has status 200 whether the command was done or refused, as Centrifugo's has; 400 says that the
request is no JSON object or has a member of a wrong type, 401 that the key is not right. With the header
`X-Centrifugo-Error-Mode: transport` a refusal has a status of its own.
"""

from __future__ import annotations

from functools import partial

from longconn.core import errors
from longconn.core.errors import CommandError, Reason
from longconn.core.json_text import JSONError
from longconn.core.log import about, log
from longconn.protocols.http.errors import STATUSES, HTTPError
from longconn.protocols.http.exchange import HTTPExchange
from longconn.protocols.http.routes import Access, Route
from longconn.server_api.keys import APIKeys
from longconn.server_api.messages import error_json, reason_of, response
from longconn.server_api.methods import METHODS, answer_node, read
from longconn.server_api.operations import ServerAPI
from longconn.server_api.revocations import share_revocations

#: All methods, in the order in which they are described.
NAMES = (*METHODS, "batch")

#: Statuses of refused commands in `transport` mode, where Centrifugo's differ from `STATUSES`.
_STATUSES: dict[Reason, int] = {errors.INTERNAL: 500, errors.NOT_AVAILABLE: 400, errors.UNRECOVERABLE: 416}


class APIRoutes:
    """The paths of the API for a resource: none without a key."""

    def __init__(self, api: ServerAPI) -> None:
        self._api = api
        self._keys = APIKeys(api.hub.settings)
        self._warned = False
        api.hub.nodes.handlers["api"] = partial(answer_node, api)
        share_revocations(api.hub)

    def routes(self) -> dict[str, Route]:
        """The routes for a resource, by path."""
        names, call = NAMES if self._keys else (), self._call
        return {f"/api/{name}": Route(None, partial(call, name), free=True, access=Access.PUBLIC) for name in names}

    def on_missing(self, exchange: HTTPExchange, path: list[str]) -> None:
        """Warn once, when the API or the metrics are asked for and are off."""
        if path[0] in ("api", "metrics") and not self._keys and not self._warned:
            self._warned = True
            log.warning(
                "%s asked for the %s, off without a key: give the server one, "
                "by --api-key, LONGCONN_API_KEY or api_key in the file",
                exchange.address,
                "server API" if path[0] == "api" else "metrics",
                extra=about("api_refused", address=exchange.address),
            )

    def _call(self, method: str, exchange: HTTPExchange) -> None:
        """Execute a request, and answer when the result is known. Raises HTTPError."""
        self._keys.admit(exchange, partial(self._execute, method))

    def _execute(self, method: str, exchange: HTTPExchange) -> None:
        self._api.calls[method] += 1
        try:
            command = read(method, exchange.body())
        except JSONError as error:
            self._api.refused += 1
            raise HTTPError(400, f"bad request: {error}", code=errors.BAD_REQUEST.code) from None
        exchange.watch()
        answer = partial(self._answer, method, exchange)
        try:
            command(self._api, answer)
        except CommandError as error:
            answer(error)

    def _answer(self, method: str, exchange: HTTPExchange, result: bytes | CommandError) -> None:
        status, body = 200, b""
        if isinstance(result, CommandError):
            self._api.refused += 1
            log.info(
                "API %s of %s refused: %s",
                method,
                exchange.address,
                result,
                extra=about("api_refused", address=exchange.address, code=result.reason.code),
            )
            if exchange.header("x-centrifugo-error-mode") == "transport":
                reason = reason_of(result)
                status, body = _STATUSES.get(reason, STATUSES[reason]), error_json(result)
        elif method == "batch":
            body = result
        exchange.answer(status, body or response(result), "application/json")
