"""HTTP as a resource for any site of twisted.web: its own paths, and the routes of other protocols.

connection  one connection and its limits       history   GET /channels/NAME, long polls
request     heads and bodies                    publish   POST /channels/NAME
exchange    one request and its answer          streams   /channels/NAME/events and /stream
errors      reasons as statuses                 response  a response that does not end
routes      paths and their resources           upgrade   requests for WebSocket
site        a site with these connections       page      the chat page's files
openapi     a description of all paths          large_answer  answers that wait for their reader
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from longconn.core.errors import CommandError
from longconn.core.hub import Hub
from longconn.core.identity import NO_CREDENTIALS, Admission, Credentials, Identity
from longconn.core.names import check_channel
from longconn.core.paced_batch import PacedBatch
from longconn.protocols.connection.peer import (
    certificate_user,
    forwarded_peer,
    is_local,
    is_proxy,
    own_names,
    peer_of,
    warn_of_forwarded,
)
from longconn.protocols.http import openapi
from longconn.protocols.http.errors import HTTPError
from longconn.protocols.http.exchange import HTTPExchange
from longconn.protocols.http.history import ChannelHistory
from longconn.protocols.http.large_answer import LargeAnswers
from longconn.protocols.http.page import page, page_file, redirect_below
from longconn.protocols.http.publish import publish
from longconn.protocols.http.routes import Access, Route, Routes
from longconn.protocols.http.streams import open_stream
from longconn.wire.authorization import read_credentials
from longconn.wire.origin import OriginRules

#: Seconds for which a browser may remember the answer to a preflight.
_PREFLIGHT_AGE = "600"
#: Headers that pages of allowed origins may send. Polyfills of EventSource send Cache-Control, libraries for requests
#: X-Requested-With.
_ALLOWED_HEADERS = "Content-Type, Last-Event-ID, Authorization, Cache-Control, Pragma, X-Requested-With"


#: Says which user of the site sends a request; None or empty: none.
Identify = Callable[[Any], str | None]

#: the path of the resource itself, without a slash
_BELOW = Route(redirect_below, harmless=True, access=Access.PUBLIC)


@dataclass(slots=True)
class _ConnectionRecord:
    """The peer of a connection, whether it is local and secure, and the number of its requests."""

    host: str
    address: str
    local: bool
    secure: bool
    certificate: str = ""
    #: whether its peer is a proxy, which says in each request from whom that is
    proxied: bool = False
    requests: int = 0


class HTTPResource(Resource):
    """Serves `hub` over HTTP, and `routes`, at any path of any `twisted.web` site.

    `on_missing` is called with a request and its path before a 404 is answered. `serves` says of each path whether it
    is served. `identify` says of a request which user sends it, as the site around the resource knows it; empty: none
    that the site knows. Under a site that is no `HTTPSite`, that site's limits on heads and bodies apply. A body that
    is over `max_body` of the settings is refused there too, once all of it has come.
    """

    isLeaf = True

    def __init__(
        self,
        hub: Hub,
        routes: Mapping[str, Route],
        on_missing: Callable[[HTTPExchange, list[str]], None] = lambda exchange, path: None,
        serves: Callable[[str], bool] = lambda path: True,
        identify: Identify | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.hub = hub
        self._rules = OriginRules(hub.settings, own_names())
        self._history = ChannelHistory()
        self._large_answers = LargeAnswers(hub)
        self._on_missing = on_missing
        self._identify = identify
        batches: set[PacedBatch[Any]] = set()
        #: all that is served here, by paths
        table = {
            "/": Route(page, harmless=True, free=True, access=Access.PUBLIC),
            "/page/{file}": Route(page_file, free=True, access=Access.PUBLIC),
            "/PrintHello": Route(self._hello, harmless=True, free=True),
            "/health/live": Route(self._live, harmless=True, free=True, access=Access.PUBLIC),
            "/health/ready": Route(self._ready, harmless=True, free=True, access=Access.PUBLIC),
            "/openapi.json": Route(self._describe, harmless=True, free=True, access=Access.PUBLIC),
            "/channels/{channel}": Route(
                lambda exchange, name: self._history.answer(exchange, check_channel(name)),
                lambda exchange, name: publish(exchange, check_channel(name), batches),
            ),
            "/channels/{channel}/events": Route(
                lambda exchange, name: open_stream("sse", exchange, check_channel(name)), is_for_events=True
            ),
            "/channels/{channel}/stream": Route(
                lambda exchange, name: open_stream("stream", exchange, check_channel(name))
            ),
            **routes,
        }
        self.routes = Routes({path: route for path, route in table.items() if serves(path)})
        self._connections: WeakKeyDictionary[Any, _ConnectionRecord] = WeakKeyDictionary()

    def end_polls(self) -> None:
        """Answer the long polls that wait, at a shutdown."""
        self._history.end_polls()

    def render(self, request: IRequest) -> int:
        """Answer, now or later; for `twisted.web`."""
        exchange = self._exchange(request)
        exchange.guard(self._serve)
        return NOT_DONE_YET

    def _exchange(self, request: Any) -> HTTPExchange:
        connection = self._connections.get(request.channel)
        if connection is None:
            host, address = peer_of(request.channel, self.hub.numbers)
            connection = _ConnectionRecord(host, address, is_local(request), bool(request.isSecure()))
            if self.hub.gate.certificates:
                connection.certificate = certificate_user(request.channel.transport)
            self._connections[request.channel] = connection
            peer = request.channel.getPeer()
            connection.proxied = is_proxy(self.hub.proxies, peer)
            if not connection.proxied:
                warn_of_forwarded(self.hub.proxies, peer, request.requestHeaders)
        connection.requests += 1
        if connection.proxied:
            connection = self._forwarded(request, connection)
        return HTTPExchange(self._large_answers, request, connection)

    def _forwarded(self, request: Any, connection: _ConnectionRecord) -> _ConnectionRecord:
        """What a proxy says of the client of a request."""
        found = forwarded_peer(self.hub.proxies, request.channel.getPeer(), request.requestHeaders)
        if found is None:
            return connection
        host, address, secure = found
        return replace(connection, host=host, address=address, secure=connection.secure if secure is None else secure)

    def _serve(self, exchange: HTTPExchange) -> None:
        """Find the request's route, check where it comes from, count it, and call the route."""
        request = exchange.request
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("X-Content-Type-Options", "nosniff")
        request.setHeader("Vary", "Origin")
        if exchange.connection.secure and self.hub.settings.hsts:
            request.setHeader("Strict-Transport-Security", f"max-age={self.hub.settings.hsts:.0f}")  # RFC 6797
        route, parameters, error = self._find(exchange)
        refusal = self._rules.check(exchange.origin(), harmless=route is not None and route.harmless)
        if refusal is None and exchange.header("origin"):
            request.setHeader("Access-Control-Allow-Origin", exchange.header("origin"))
            request.setHeader("Access-Control-Expose-Headers", "Retry-After, X-Connection")
            if self._rules.names(exchange.header("origin")):
                request.setHeader("Access-Control-Allow-Credentials", "true")
        exchange.has_event_source = (
            route is not None
            and route.is_for_events
            and request.method == b"GET"
            and "text/event-stream" in exchange.header("accept")
        )
        if route is None or not route.free:
            self.hub.rates.count_request(exchange.caller)
        if refusal is not None:
            raise HTTPError(refusal.status, refusal.message)
        if error is not None:
            raise error
        if route is None:
            self._on_missing(exchange, exchange.path())
            raise HTTPError(404, "there is nothing at this path")
        method = request.method
        if method in (b"GET", b"HEAD") and route.get is not None:
            respond = route.get
        elif method == b"POST" and route.post is not None:
            respond = route.post
        elif method == b"OPTIONS":
            _answer_options(exchange, route)
            return
        else:
            raise HTTPError(405, f"allowed here: {route.allow}", [("Allow", route.allow)])
        exchange.caller.headers = headers = self.hub.hooks.select(exchange.header)
        user = "" if route.access is Access.PUBLIC else self._user(exchange)
        if user:
            exchange.become(Identity(user))
            respond(exchange, *parameters)
            return
        credentials = NO_CREDENTIALS if route.access is Access.PUBLIC else self._credentials(exchange)
        if route.access is Access.PUBLIC or (route.access is Access.LATER and not credentials):
            respond(exchange, *parameters)
            return
        pending = True

        def admitted(result: Identity | CommandError) -> None:
            nonlocal pending
            pending = False
            if isinstance(result, CommandError):
                exchange.fail(result)
            elif not exchange.lost:
                exchange.become(result)
                exchange.guard(respond, *parameters)

        self.hub.gate.admit(Admission("http", exchange.host, exchange.address, credentials, headers=headers), admitted)
        if pending:
            exchange.watch()

    def _user(self, exchange: HTTPExchange) -> str:
        """The user that the site around this resource knows; empty if it knows none.

        A browser adds the site's login to the requests of other pages, too: from an origin that may not use it, the
        site is not asked.
        """
        if self._identify is None or not self._rules.may_send_cookies(exchange.origin()):
            return ""
        return self._identify(exchange.request) or ""

    def _credentials(self, exchange: HTTPExchange) -> Credentials:
        """What a request brings. Raises CommandError(UNAUTHORIZED).

        Where none can be checked, they are those of a proxy or of the site around this resource.
        """
        if not self.hub.gate.takes_credentials:
            return NO_CREDENTIALS
        name = self.hub.settings.token_cookie if self._rules.may_send_cookies(exchange.origin()) else ""
        found = read_credentials(exchange.header("authorization"), exchange.header("cookie"), name)
        return found or Credentials(certificate=exchange.connection.certificate)

    def _find(self, exchange: HTTPExchange) -> tuple[Route | None, list[str], HTTPError | None]:
        """The route of a request and its parameters; None if there is none, or with an error for a malformed path."""
        try:
            path = exchange.path()
        except HTTPError as error:
            return None, [], error
        route, parameters = (self.routes.find(path) or (None, [])) if path else (_BELOW, [])
        return route, parameters, None

    # Paths.

    def _describe(self, exchange: HTTPExchange) -> None:
        exchange.json(200, openapi.document(self.routes.table))

    def _hello(self, exchange: HTTPExchange) -> None:
        count = self._connections[exchange.request.channel].requests
        exchange.text(200, "hello word", [("X-Connection", f"{exchange.address}; request={count}")])

    def _live(self, exchange: HTTPExchange) -> None:
        exchange.text(200, "live\n")

    def _ready(self, exchange: HTTPExchange) -> None:
        if not self.hub.ready:
            raise HTTPError(503, f"not ready: {self.hub.not_ready}")
        exchange.text(200, "ready\n")


def _answer_options(exchange: HTTPExchange, route: Route) -> None:
    request = exchange.request
    request.setResponseCode(204)
    request.setHeader("Allow", route.allow)
    if exchange.header("origin"):  # WHATWG Fetch, section 3.2: the preflight
        request.setHeader("Access-Control-Allow-Methods", route.allow)
        request.setHeader("Access-Control-Allow-Headers", _ALLOWED_HEADERS)
        if exchange.header("access-control-request-private-network"):
            # A page on the Internet asks for a server in a private network (WICG Private Network Access, section 3.1).
            request.setHeader("Access-Control-Allow-Private-Network", "true")
        request.setHeader("Access-Control-Max-Age", _PREFLIGHT_AGE)
    request.finish()
