"""HTTP with every protocol that has paths there: for the service, and for programs that embed a hub."""

from __future__ import annotations

from typing import Any

from longconn.core.hub import Hub
from longconn.protocols.centrifugo import http as centrifugo
from longconn.protocols.http.resource import HTTPResource
from longconn.protocols.http.site import HTTPSite
from longconn.protocols.http.upgrade import TakeOver, upgrade_routes
from longconn.protocols.websocket.connection import WebSocketFactory
from longconn.server_api.http import APIRoutes


class LiveResource(HTTPResource):
    """All that `hub` serves over HTTP, at any path of any `twisted.web` site.

    `upgrade` takes over connections that ask for WebSocket; by default a `WebSocketFactory` is
    made for them. Under a site that is no `LiveSite`, that site's limits on heads and bodies apply. A body that
    is over `max_body` of the settings is refused there too, once all of it has come.
    """

    def __init__(self, hub: Hub, upgrade: TakeOver | None = None) -> None:
        api = APIRoutes(hub.api)
        upgrades = upgrade_routes(upgrade if upgrade is not None else WebSocketFactory(hub).take_over)
        super().__init__(hub, {**upgrades, **centrifugo.ROUTES, **api.routes()}, api.on_missing)


class LiveSite(HTTPSite):
    """A site with `LiveResource(hub)` at its root, or with `resource`, and with the limits of `hub.settings`.

    It speaks HTTP/1.1 and 1.0 and writes no access log; logger `longconn` has a line for each
    request at level debug.
    """

    def __init__(self, hub: Hub, resource: Any = None) -> None:
        super().__init__(hub, resource if resource is not None else LiveResource(hub))
