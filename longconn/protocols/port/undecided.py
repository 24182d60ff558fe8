"""A connection that is no client yet: it counts against the limit of connections, and it has a deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from longconn.core.hub import Hub
from longconn.core.slices import OPENING, WaitingWork
from longconn.core.timers import Call
from longconn.protocols.connection.peer import counted_host
from longconn.protocols.connection.set_up import log_given_way


class UndecidedProtocol(Protocol):
    """Counts as a guest of the hub until `leave` is called or the connection is lost."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._host = ""
        self._timer: Call | WaitingWork | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self._host = counted_host(self._hub.proxies, transport.getPeer())
        self._hub.places.add(self, self._host)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.leave()

    def leave(self) -> None:
        """The connection becomes something else, or is lost."""
        self.stop_timer()
        self._hub.places.remove(self)

    def start_timer(self, delay: float, action: Callable[[], None]) -> None:
        """Call `action` in `delay` seconds; there is one timer at a time."""

        def on_timer() -> None:
            self._timer = None
            action()

        self._timer = self._hub.clock.callLater(delay, on_timer)

    def when_room(self, action: Callable[[], None]) -> None:
        """Call `action`, which makes this connection another, when a turn has room for it: most often now."""

        def on_room() -> None:
            self._timer = None
            action()

        self._timer = self._hub.slices.do(self._host, OPENING, on_room)

    def stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def give_way(self) -> None:
        """For the hub's places."""
        transport: Any = self.transport
        self.stop_timer()
        log_given_way(transport.getPeer())
        self.abort()

    def abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()
