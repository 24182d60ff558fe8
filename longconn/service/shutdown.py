"""The end of a service: it closes its clients in groups, then aborts the remaining connections.

Before it, the service closes its ports and refuses publications: otherwise one could be acknowledged that a closed
client does not get.

1. Clients are closed with SHUTDOWN, which advises them to reconnect, spread over the time.
2. The drain waits until all are gone or the time is over.
3. Other connections (undecided, or between two requests) get one more second.
4. Every connection that is left is aborted.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable
from math import ceil
from typing import Any

from twisted.internet.defer import Deferred

from longconn.core.client import Client
from longconn.core.disconnects import SHUTDOWN
from longconn.core.hub import Hub
from longconn.core.log import about, log

#: Seconds between two groups of clients.
TICK = 0.1
#: Up to FEW clients are closed at once; more are closed at RATE a second if the time allows, because all of them
#: reconnect to this server's successor.
FEW = 100
RATE = 50
#: The part of the time in which all clients are closed. In the rest they may disconnect by themselves.
CLOSING_PART = 0.8
#: Seconds that connections without a client get after the last client, and that an abort may take.
MOMENT = 1.0


class Drain:
    """Closes the clients of `hub` in at most `timeout` seconds.

    `close_idle` closes connections that have no request under way. `connections` returns the transports that are open.
    """

    def __init__(
        self,
        reactor: Any,
        hub: Hub,
        timeout: float,
        close_idle: Callable[[], None],
        connections: Callable[[], list[Any]],
    ) -> None:
        self._reactor = reactor
        self._hub = hub
        self._close_idle = close_idle
        self._connections = connections
        self._done: Deferred[None] = Deferred()
        self._call: Any = None
        self._finished = False
        self._waiting: deque[Client] = deque(hub.clients.values())
        self._closed: set[str] = set()
        self._group = self._group_size(timeout)
        self._end = reactor.seconds() + timeout
        self._aborted = False

    def _group_size(self, timeout: float) -> int | None:
        """How many clients are closed in each tick; None for all of them at once."""
        count = len(self._waiting)
        if not timeout or count <= FEW:
            return None
        return ceil(max(RATE * TICK, count * TICK / (timeout * CLOSING_PART)))

    def run(self) -> Deferred[None]:
        """Start. The Deferred fires when no connection is left, possibly before this returns."""
        self._tick()
        return self._done

    def finish(self) -> None:
        """Abort all connections that are left, and fire the Deferred at once."""
        if not self._finished:
            self._abort()
            self._finish()

    def _tick(self) -> None:
        self._call = None
        self._close_group()
        self._close_idle()
        now = self._reactor.seconds()
        left = bool(self._hub.clients)
        if not left and not self._connections():
            self._finish()
            return
        if not left:
            self._end = min(self._end, now + MOMENT)
        if now >= self._end:
            if self._aborted:
                log.warning("stopped with connections left", extra=about("stopping"))
                self._finish()
                return
            self._abort()
            self._end = now + MOMENT  # until connectionLost is called
        self._call = self._reactor.callLater(0 if self._aborted else TICK, self._tick)

    def _close_group(self) -> None:
        if not self._waiting:  # new clients: a kept connection may begin a stream
            self._waiting.extend(each for each in self._hub.clients.values() if each.id not in self._closed)
        for _ in range(len(self._waiting) if self._group is None else min(self._group, len(self._waiting))):
            client = self._waiting.popleft()
            self._closed.add(client.id)
            try:
                client.close(SHUTDOWN)
            except Exception:
                log.exception("could not close a client", extra=about("internal_error"))

    def _abort(self) -> None:
        self._aborted = True
        left = self._connections()
        if left:
            log.info("aborting %s connections", len(left), extra=about("stopping"))
        for each in left:
            try:
                each.abortConnection()
            except Exception:
                log.exception("could not abort a connection", extra=about("internal_error"))

    def _finish(self) -> None:
        self._finished = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._done.callback(None)


class SecondSignal:
    """Calls `on_signal` for SIGINT or SIGTERM during a shutdown. The reactor alone would only log that it is stopping.

    It replaces the reactor's own handlers. Where there are none, it does nothing: in another thread, in a program that
    handles signals itself, under the reactor of a test.
    """

    def __init__(self, reactor: Any, on_signal: Callable[[], None]) -> None:
        self._reactor = reactor
        self._callback = on_signal
        self._replaced: dict[int, Any] = {}

    def install(self) -> None:
        """Handle further signals. Does nothing if installed already, or outside of the main thread."""
        if self._replaced or threading.current_thread() is not threading.main_thread():
            return
        for number, name in ((signal.SIGINT, "sigInt"), (signal.SIGTERM, "sigTerm")):
            handler = signal.getsignal(number)
            if handler is not None and handler == getattr(self._reactor, name, None):
                self._replaced[number] = handler
                signal.signal(number, self._on_signal)

    def remove(self) -> None:
        """Give the signals back to the reactor."""
        for number, handler in self._replaced.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)
        self._replaced.clear()

    def _on_signal(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._callback)
