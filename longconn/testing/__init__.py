"""A kit for tests in memory: a server on a fake clock, and clients of each kind. It opens no socket.

    server = MemoryServer()
    ada, bo = server.line_client(), server.websocket_client("/ws?name=bo")
    ada.say("hello")
    assert bo.read() == [f"{ada.address}: hello"]
    server.stop()

Time stands still until `server.clock.advance` moves it. `read` and the HTTP client's requests first run all calls that
are due. A client's `connection` controls its end: `stop_reading` makes it a slow client; `half_close`, `close` and
`reset` end it. `factory=` connects a client to any Twisted factory.

A reactor would log an exception of a protocol. Here it comes out of the call that caused it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.web.server import Site

from longconn import ChatFactory, Hub, LiveResource, Settings, WebSocketFactory
from longconn.testing.clock import START, FakeClock
from longconn.testing.http import HTTPClient, HTTPResponse, ServerEvent
from longconn.testing.lines import Connection, LineClient
from longconn.testing.transport import WINDOW, MemoryConnection, MemoryTransport
from longconn.testing.websocket import WebSocketClient, client_frame

__all__ = [
    "START",
    "WINDOW",
    "Connection",
    "FakeClock",
    "HTTPClient",
    "HTTPResponse",
    "LineClient",
    "MemoryConnection",
    "MemoryServer",
    "MemoryTransport",
    "ServerEvent",
    "WebSocketClient",
    "client_frame",
]


class MemoryServer:
    """A hub on a fake clock, and clients of it.

    Give `hub` for a hub with a broker of your own. Its clock must be a `FakeClock`.
    """

    def __init__(self, settings: Settings | None = None, hub: Hub | None = None) -> None:
        if hub is not None and settings is not None:
            raise ValueError("a hub has settings already: give one or the other")
        self.hub = hub if hub is not None else Hub(FakeClock(), settings)
        if not isinstance(self.hub.clock, FakeClock):
            raise TypeError("the hub's clock must be a FakeClock")
        self.clock = self.hub.clock
        #: all connections, in the order in which they were made
        self.connections: list[MemoryConnection] = []
        self._factories: dict[str, Any] = {}
        self._started: list[Any] = []

    def _factory(self, kind: str) -> Any:
        if kind not in self._factories:
            if kind == "lines":
                self._factories[kind] = ChatFactory(self.hub)
            elif kind == "websocket":
                self._factories[kind] = WebSocketFactory(self.hub)
            else:
                self._factories[kind] = Site(LiveResource(self.hub), reactor=self.clock)
        return self._factories[kind]

    # Clients.

    def connect(self, factory: Any, local: Any = None, remote: Any = None, window: int = WINDOW) -> MemoryConnection:
        """A connection of raw bytes to the protocol that `factory` builds. `local` is the client's IAddress."""
        if factory not in self._started:
            self._started.append(factory)
            factory.doStart()
        connection = MemoryConnection(self.clock, factory, local=local, remote=remote, window=window)
        self.connections.append(connection)
        return connection

    def line_client(self, factory: Any = None, **options: Any) -> LineClient:
        """A client for chat lines, by default of a `ChatFactory`. `options` are those of `connect`."""
        return LineClient(self.connect(factory or self._factory("lines"), **options), self.clock.settle)

    def websocket_client(
        self, path: str = "/ws", factory: Any = None, headers: Iterable[tuple[str, str]] = (), **options: Any
    ) -> WebSocketClient:
        """A WebSocket client after its handshake, by default of a `WebSocketFactory`."""
        connection = self.connect(factory or self._factory("websocket"), **options)
        client = WebSocketClient(connection, path, headers, self.clock.settle)
        self.clock.settle()
        return client

    def http_client(self, factory: Any = None, **options: Any) -> HTTPClient:
        """An HTTP client, by default of a Site with a `LiveResource`."""
        return HTTPClient(self.connect(factory or self._factory("http"), **options), self.clock.settle)

    # Time, and the end.

    def settle(self) -> None:
        """Run all calls that are due now."""
        self.clock.settle()

    def advance(self, seconds: float) -> None:
        """Move time on by `seconds`."""
        self.clock.advance(seconds)

    def stop(self) -> None:
        """Reset all connections and stop the hub. Raises RuntimeError if a delayed call is left."""
        for each in self.connections:
            each.reset()
        for factory in self._started:
            factory.doStop()
        self._started.clear()
        self.settle()
        self.hub.stop()
        left = self.clock.getDelayedCalls()
        if left:
            raise RuntimeError(f"delayed calls are left: {left}")
