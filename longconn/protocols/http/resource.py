"""HTTP: a site of its own, and a resource for anybody's site (design, section 6).

http_channel    a connection and its limits     http_streams   /channels/NAME/events, /stream
http_exchange   a request and its answer        http_history   GET  /channels/NAME
http_errors     reasons as statuses             http_publish   POST /channels/NAME
http_page       the chat page's files           http_upgrade   /ws, /echo
http_request    heads and bodies                http_session   /connection/…, /emulation
http_routes     paths                           http_api       /api/METHOD
http_openapi    a description of all of them
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from longconn.core.errors import CommandError
from longconn.core.hub import Hub, log
from longconn.core.names import check_channel
from longconn.protocols.centrifugo import http as http_session
from longconn.protocols.connection.peer import peer_of
from longconn.protocols.http import openapi as http_openapi
from longconn.protocols.http.connection import HTTPConnection
from longconn.protocols.http.errors import HTTPError
from longconn.protocols.http.exchange import HTTPExchange
from longconn.protocols.http.history import ChannelHistory
from longconn.protocols.http.page import page, part, redirect_below
from longconn.protocols.http.publish import publish
from longconn.protocols.http.request import BufferedRequest
from longconn.protocols.http.routes import Route, Routes
from longconn.protocols.http.streams import ChannelStreams
from longconn.protocols.http.upgrade import UPGRADES, TakeOver, WebSocketUpgrade
from longconn.server_api import http as http_api
from longconn.wire.origin import OriginRules

__all__ = ["LiveResource", "LiveSite"]

#: Seconds for which a browser may remember the answer to a preflight.
_PREFLIGHT_AGE = "600"


@dataclass(slots=True)
class _ConnectionRecord:
    """What is known of a connection from its first request on."""

    host: str
    address: str
    requests: int = 0


class LiveResource(Resource):
    """All that `hub` serves over HTTP, at whatever place of whatever `twisted.web` site.

    `upgrade` takes over connections that ask for WebSocket; by default a `WebSocketFactory` is
    made for them. Under a site that is no `LiveSite` its limits on heads and bodies are the
    limits there: a body over ours is refused, but only when all of it has come.
    """

    isLeaf = True

    def __init__(self, hub: Hub, upgrade: TakeOver | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.hub = hub
        self._upgrades = WebSocketUpgrade(upgrade)
        self._rules = OriginRules(hub.settings)
        self._streams = ChannelStreams()
        self._histories = ChannelHistory()
        self._api = http_api.ServerAPI(hub)
        #: all that is served here, by paths
        self.routes = Routes(self._table())
        self._connections: WeakKeyDictionary[Any, _ConnectionRecord] = WeakKeyDictionary()

    def end_polls(self) -> None:
        """Answer the long polls that wait, at a shutdown."""
        self._histories.end_polls()

    def render(self, request: IRequest) -> int:
        """Answer, now or later; for `twisted.web`."""
        exchange = self._exchange(request)
        try:
            self._serve(exchange)
        except (CommandError, HTTPError) as error:
            exchange.fail(error)
        except Exception:
            log.exception("could not answer %r of %s", exchange.request.uri, exchange.address)
            if exchange.request.startedWriting:
                exchange.request.loseConnection()
            else:
                exchange.fail(HTTPError(500, "internal error"))
        return NOT_DONE_YET

    def _exchange(self, request: Any) -> HTTPExchange:
        connection = self._connections.get(request.channel)
        if connection is None:
            connection = _ConnectionRecord(*peer_of(request.channel, self.hub.numbers))
            self._connections[request.channel] = connection
        connection.requests += 1
        return HTTPExchange(self.hub, request, connection.host, connection.address)

    def _serve(self, exchange: HTTPExchange) -> None:
        request = exchange.request
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("X-Content-Type-Options", "nosniff")
        request.setHeader("Vary", "Origin")
        refusal = self._rules.check(exchange.origin(), harmless=True)
        if refusal is None and exchange.header("origin"):
            request.setHeader("Access-Control-Allow-Origin", exchange.header("origin"))
            request.setHeader("Access-Control-Expose-Headers", "Retry-After, X-Connection")
        route, parameters = (None, []) if refusal else self._find(exchange)
        if refusal is None and not (route and route.harmless):
            refusal = self._rules.check(exchange.origin())
        if refusal is not None:
            raise HTTPError(refusal.status, refusal.message)
        if route is None:
            raise HTTPError(404, "there is nothing at this path")
        self._act(exchange, route, parameters)

    def _find(self, exchange: HTTPExchange) -> tuple[Route | None, list[str]]:
        path = exchange.path()
        if not path:
            return Route(redirect_below, harmless=True), []
        if path[0] == "api" and not self._api.on:
            self._api.tell(exchange)
        return self.routes.find(path) or (None, [])

    def _act(self, exchange: HTTPExchange, route: Route, parameters: list[str]) -> None:
        method = exchange.request.method
        if method in (b"GET", b"HEAD") and route.get is not None:
            route.get(exchange, *parameters)
        elif method == b"POST" and route.post is not None:
            route.post(exchange, *parameters)
        elif method == b"OPTIONS":
            self._options(exchange, route)
        else:
            raise HTTPError(405, f"allowed here: {route.allow}", [("Allow", route.allow)])

    def _options(self, exchange: HTTPExchange, route: Route) -> None:
        request = exchange.request
        request.setResponseCode(204)
        request.setHeader("Allow", route.allow)
        if exchange.header("origin"):  # WHATWG Fetch, section 3.2: the preflight
            request.setHeader("Access-Control-Allow-Methods", route.allow)
            request.setHeader("Access-Control-Allow-Headers", "Content-Type, Last-Event-ID, Authorization")
            request.setHeader("Access-Control-Max-Age", _PREFLIGHT_AGE)
        request.finish()

    # Paths.

    def _table(self) -> dict[str, Route]:
        upgrade = self._upgrades.hand_over
        table = {
            "/": Route(page, harmless=True),
            "/page/{file}": Route(part),
            "/PrintHello": Route(self._hello, harmless=True),
            "/health/live": Route(lambda exchange: exchange.text(200, "live\n"), harmless=True),
            "/health/ready": Route(self._ready, harmless=True),
            "/openapi.json": Route(self._describe, harmless=True),
            **{f"/{name}": Route(partial(upgrade, mode=mode)) for name, mode in UPGRADES.items()},
            "/connection/websocket": Route(partial(upgrade, mode="structured")),
            "/connection/http_stream": Route(None, http_session.http_stream),
            "/connection/sse": Route(http_session.sse, http_session.sse),
            "/emulation": Route(None, http_session.emulation),
            "/channels/{channel}": Route(self._history, lambda exchange, name: publish(exchange, check_channel(name))),
            "/channels/{channel}/events": Route(partial(self._stream, "sse")),
            "/channels/{channel}/stream": Route(partial(self._stream, "stream")),
        }
        if self._api.on:
            table |= {f"/api/{name}": Route(None, partial(self._api.call, name)) for name in http_api.NAMES}
        return table

    def _history(self, exchange: HTTPExchange, channel: str) -> None:
        self._histories.answer(exchange, check_channel(channel))

    def _describe(self, exchange: HTTPExchange) -> None:
        exchange.json(200, http_openapi.document(self.routes.table))

    def _hello(self, exchange: HTTPExchange) -> None:
        count = self._connections[exchange.request.channel].requests
        exchange.text(200, "hello word", [("X-Connection", f"{exchange.address}; request={count}")])

    def _ready(self, exchange: HTTPExchange) -> None:
        if not self.hub.ready:
            raise HTTPError(503, "not ready")
        exchange.text(200, "ready\n")

    def _stream(self, kind: str, exchange: HTTPExchange, channel: str) -> None:
        check_channel(channel)
        self._streams.open(exchange, kind, channel)


class LiveSite(Site):
    """A site with `LiveResource(hub)` at its root, or with `resource`, and with the limits of `hub.settings`.

    It speaks HTTP/1.1 and 1.0 and writes no access log; logger `longconn` has a line for each
    request at level debug.
    """

    protocol: Any = HTTPConnection
    requestFactory = BufferedRequest
    displayTracebacks = False
    noisy = False

    def __init__(self, hub: Hub, resource: Any = None) -> None:
        self.hub = hub
        #: connections on which no request is under way, and bytes of the bodies of those that are
        self.idle: set[HTTPConnection] = set()
        self.bodies = 0
        self._live = resource if resource is not None else LiveResource(hub)
        # Without twisted.web's own time-out: a channel has one for each of its phases.
        super().__init__(self._live, reactor=hub.clock, timeout=None)  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: Any) -> Any:
        if self.hub.full:
            log.info("connection from %s closed: too many connections", addr)
            return None
        return super().buildProtocol(addr)  # type: ignore[no-untyped-call]

    def startFactory(self) -> None:
        """Nothing: twisted.web would start a clock for its access log."""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def log(self, request: Any) -> None:
        log.debug("%r %r from %s: %d", request.method, request.uri, request.getClientAddress(), request.code)

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS (ALPN): no HTTP/2, which twisted.web would speak without any of our limits."""
        return [b"http/1.1"]

    def close_idle(self) -> None:
        """Close the connections on which no request is under way, and answer those that only wait."""
        if isinstance(self._live, LiveResource):
            self._live.end_polls()
        for each in tuple(self.idle):
            each.close_idle()
