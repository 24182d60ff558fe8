"""Puts carriers and the protocols spoken over them together, for the service and for programs that embed a hub."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from longconn.core.hub import Hub
from longconn.protocols.centrifugo import http as centrifugo
from longconn.protocols.centrifugo.protobuf import CentrifugoProtobuf, binary_frame
from longconn.protocols.centrifugo.tcp import CentrifugoTCP
from longconn.protocols.centrifugo.websocket import CentrifugoWebSocket
from longconn.protocols.chat.tcp import ChatLinesFactory
from longconn.protocols.chat.websocket import ChatWebSocket
from longconn.protocols.http.page import admin_page, admin_page_file
from longconn.protocols.http.resource import HTTPResource, Identify
from longconn.protocols.http.routes import Access, Route
from longconn.protocols.http.site import HTTPSite
from longconn.protocols.http.upgrade import TakeOver, upgrade_routes
from longconn.protocols.port.proxy_header import TrustedHeaderFactory
from longconn.protocols.port.shared_port import SharedPort
from longconn.protocols.port.table import Builder
from longconn.protocols.websocket.connection import Spoken, WebSocketConnection, WebSocketServer
from longconn.protocols.websocket.echo import EchoWebSocket
from longconn.server_api.http import APIRoutes
from longconn.server_api.keys import APIKeys
from longconn.server_api.metrics import MetricsRoutes, registry_of
from longconn.server_api.operations import ServerAPI
from longconn.wire.centrifugo import CentrifugoJSON, text_frame
from longconn.wire.chat import ChatFormat
from longconn.wire.chat_texts import CATALOGUES
from longconn.wire.first_bytes import Kind
from longconn.wire.websocket import text_frames


class ChatFactory(ChatLinesFactory):
    """Chat lines for `hub`'s clients; a client is announced when it connects.

    Embed it by listening with it on any stream endpoint. A connection whose first line looks like the opening of
    another protocol, as an HTTP request, is closed and logged: a browser made to POST here publishes nothing. One whose
    first line begins as JSON speaks Centrifugo's client protocol.
    """

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub, lambda addr: CentrifugoTCP(hub))


class WebSocketFactory(WebSocketServer):
    """Chat lines and echo over WebSocket for `hub`'s clients.

    Listen with it on an endpoint of its own: a path that ends in `/echo` or `/websocket` echoes, any
    other is chat, `?channel=` and `?name=` as on `/ws`. A `LiveResource` hands it connections of a site.
    """

    def __init__(self, hub: Hub) -> None:
        format = ChatFormat(CATALOGUES[hub.settings.locale], text_frames)
        spoken: dict[str, Callable[[WebSocketConnection], Spoken]] = {
            "chat": partial(ChatWebSocket, format),
            "echo": EchoWebSocket,
            "centrifugo": partial(CentrifugoWebSocket, partial(CentrifugoJSON, text_frame)),
            "centrifugo-protobuf": partial(CentrifugoWebSocket, partial(CentrifugoProtobuf, binary_frame)),
        }
        super().__init__(hub, spoken)


class SharedPortFactory(SharedPort):
    """Passes each connection to `chat` (a `ChatFactory`), `site` (a twisted.web Site) or `grpc` (a `GrpcFactory`).

    Without `grpc` HTTP/2 is not served. `build_tls` makes the protocol of a connection that begins with a TLS
    handshake; without it such a connection is closed.
    """

    def __init__(self, chat: ChatLinesFactory, site: Any, grpc: Any = None, build_tls: Builder | None = None) -> None:
        builders = {
            **chat.builders,
            Kind.CHAT: chat.build_decided,
            Kind.EMPTY: chat.build_decided,
            Kind.HTTP1: site.buildProtocol,
        }
        if grpc is not None:
            builders[Kind.HTTP2] = grpc.buildProtocol
        if build_tls is not None:
            builders[Kind.TLS] = build_tls
        if chat.hub.proxies:
            inner = SharedPort(chat.hub, dict(builders), chat.build_listener)
            builders[Kind.PROXY] = TrustedHeaderFactory(chat.hub, inner).buildProtocol
        super().__init__(chat.hub, builders, chat.build_listener, [site] if grpc is None else [site, grpc])


class LiveResource(HTTPResource):
    """All that `hub` serves over HTTP, at any path of any `twisted.web` site; without `for_operators` all for clients.

    `upgrade` takes over connections that ask for WebSocket; by default a `WebSocketFactory` is
    made for them. `registry` has what /metrics shows, by default the metrics of `hub`. `identify` is called with a
    request and returns the user that the site around the resource has let in: requests and connections are then that
    user's, whose name others read. None or empty: the request is one without the site's login, and proves its user as
    anywhere else. Requests of pages from origins that may not send the site's cookies are such ones, too. Under a site
    that is no `LiveSite`, that site's limits on heads and bodies apply. A body that is over `max_body` of the settings
    is refused there too, once all of it has come.
    """

    def __init__(
        self,
        hub: Hub,
        upgrade: TakeOver | None = None,
        for_operators: bool = True,
        registry: CollectorRegistry | None = None,
        api: ServerAPI | None = None,
        identify: Identify | None = None,
    ) -> None:
        calls = APIRoutes(api or ServerAPI(hub))
        centrifugo.serve_nodes(hub)
        metrics = MetricsRoutes(registry or registry_of(hub), APIKeys(hub.settings))
        upgrades = upgrade_routes(upgrade if upgrade is not None else WebSocketFactory(hub).take_over)
        routes = {**upgrades, **centrifugo.ROUTES, **calls.routes()}
        if for_operators:
            super().__init__(hub, {**routes, **metrics.routes()}, calls.on_missing, identify=identify)
        else:
            super().__init__(hub, routes, serves=lambda path: not _is_for_operators(path), identify=identify)


class AdminResource(HTTPResource):
    """What an operator needs: the server API and a page for it, the state of the server's health, and the metrics of
    `registry`."""

    def __init__(self, hub: Hub, registry: CollectorRegistry | None = None, api: ServerAPI | None = None) -> None:
        calls = APIRoutes(api or ServerAPI(hub))
        metrics = MetricsRoutes(registry or registry_of(hub), keys=None)
        routes = {**calls.routes(), **metrics.routes(), **_ADMIN_PAGE}
        super().__init__(hub, routes, calls.on_missing, lambda path: path in _ADMIN_PAGE or _is_for_operators(path))


_ADMIN_PAGE = {
    "/": Route(admin_page, harmless=True, free=True, access=Access.PUBLIC),
    "/page/{file}": Route(admin_page_file, free=True, access=Access.PUBLIC),
}


def _is_for_operators(path: str) -> bool:
    return path.startswith(("/api/", "/health/")) or path == "/metrics"


class LiveSite(HTTPSite):
    """A site with `LiveResource(hub)` at its root, or with `resource`, and with the limits of `hub.settings`.

    It speaks HTTP/1.1 and 1.0 and writes no access log; logger `longconn` has a line for each
    request at level debug.
    """

    def __init__(self, hub: Hub, resource: Any = None) -> None:
        super().__init__(hub, resource if resource is not None else LiveResource(hub))
