"""A connection that is no client yet: it counts against the limit of connections, and it has a deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from longconn.core.hub import Hub
from longconn.core.timers import Call
from longconn.protocols.connection.peer import host_of


class UndecidedProtocol(Protocol):
    """Counts as a guest of the hub until `leave` is called or the connection is lost."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._is_guest = False
        self._timer: Call | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self._host = host_of(transport.getPeer())
        self._hub.add_pending(self._host)
        self._is_guest = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.leave()

    def leave(self) -> None:
        """The connection becomes something else, or is lost."""
        self.stop_timer()
        if self._is_guest:
            self._is_guest = False
            self._hub.remove_pending(self._host)

    def start_timer(self, delay: float, action: Callable[[], None]) -> None:
        """Call `action` in `delay` seconds; there is one timer at a time."""

        def on_timer() -> None:
            self._timer = None
            action()

        self._timer = self._hub.clock.callLater(delay, on_timer)

    def stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()
