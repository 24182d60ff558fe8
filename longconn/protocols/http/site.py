"""A site of twisted.web whose connections have limits."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.web.server import Site

from longconn.core.hub import Hub
from longconn.core.log import about, log
from longconn.protocols.connection.set_up import is_full
from longconn.protocols.http.connection import HTTPConnection, SiteState
from longconn.protocols.http.request import BufferedRequest
from longconn.protocols.http.resource import HTTPResource


class HTTPSite(Site):
    """A site with `resource` at its root and with the limits of `hub.settings`."""

    requestFactory = BufferedRequest
    displayTracebacks = False
    noisy = False

    def __init__(self, hub: Hub, resource: Any) -> None:
        self.state = SiteState(hub)
        self.protocol: Any = partial(HTTPConnection, self.state)
        self._resource = resource
        # Without twisted.web's own time-out: a connection has one for each of its phases.
        super().__init__(resource, reactor=hub.clock, timeout=None)  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: Any) -> Any:
        if is_full(self.state.hub, addr):
            return None
        return super().buildProtocol(addr)  # type: ignore[no-untyped-call]

    def startFactory(self) -> None:
        """Nothing: twisted.web would start a clock for its access log."""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def log(self, request: Any) -> None:
        log.debug(
            "%r %r from %s: %d",
            request.method,
            request.uri,
            request.getClientAddress(),
            request.code,
            extra=about("request", address=request.getClientAddress(), protocol="http", code=request.code),
        )

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS (ALPN): no HTTP/2, which twisted.web would speak without any of our limits."""
        return [b"http/1.1"]

    def close_idle(self) -> None:
        """Close the connections on which no request is under way, and answer the long polls."""
        if isinstance(self._resource, HTTPResource):
            self._resource.end_polls()
        for each in tuple(self.state.idle):
            each.close_idle()
