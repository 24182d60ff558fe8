"""The end of a service: close its clients a few at a time, then whatever is left.

clients are told (SHUTDOWN, come back), spread over the time
→ until all are gone, or the time is over
→ other connections (undecided, between two requests) get a moment
→ hard stop: every connection that is still there is aborted
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
from longconn.service.logs import log

#: Seconds between two groups of clients, and at least how many are a group.
TICK = 0.1
GROUP = 100
#: The part of the time in which all clients are told; the rest is theirs to go.
TELLING = 0.8
#: Seconds for connections without a client once the last client is gone, and for an abort to be noticed.
MOMENT = 1.0


class Drain:
    """Empties `hub` in at most `timeout` seconds.

    `close_idle` closes connections on which nothing is under way; `connections` gives the
    transports that are open now. `run` returns a Deferred that fires when no connection is
    left; `finish` makes that be now.
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
        self._told: set[str] = set()
        self._group = max(GROUP, ceil(len(self._waiting) * TICK / (timeout * TELLING))) if timeout else None
        self._end = reactor.seconds() + timeout
        self._aborted = False

    def run(self) -> Deferred[None]:
        """Start. The Deferred may have fired already."""
        self._tick()
        return self._done

    def finish(self) -> None:
        """Abort what is left and be done, at once."""
        if not self._finished:
            self._abort()
            self._finish()

    def _tick(self) -> None:
        self._call = None
        self._tell()
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
                log.warn("stopped with connections left")
                self._finish()
                return
            self._abort()
            self._end = now + MOMENT  # for connectionLost to come
        self._call = self._reactor.callLater(0 if self._aborted else TICK, self._tick)

    def _tell(self) -> None:
        if not self._waiting:  # those who came since: a stream on a kept connection
            self._waiting.extend(each for each in self._hub.clients.values() if each.id not in self._told)
        for _ in range(len(self._waiting) if self._group is None else min(self._group, len(self._waiting))):
            client = self._waiting.popleft()
            self._told.add(client.id)
            try:
                client.close(SHUTDOWN)
            except Exception:
                log.failure("could not close a client")

    def _abort(self) -> None:
        self._aborted = True
        left = self._connections()
        if left:
            log.info("aborting {count} connections", count=len(left))
        for each in left:
            try:
                each.abortConnection()
            except Exception:
                log.failure("could not abort a connection")

    def _finish(self) -> None:
        self._finished = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._done.callback(None)


class SecondSignal:
    """During a shutdown, SIGINT or SIGTERM calls `ends`: the reactor itself only logs that it stops already.

    Takes the place of the reactor's own handlers, so nothing happens where there are none: in
    another thread, in a program that handles signals itself, under a reactor of a test.
    """

    def __init__(self, reactor: Any, ends: Callable[[], None]) -> None:
        self._reactor = reactor
        self._ends = ends
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Handle the next signal. In place already, or not in the main thread: nothing."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        for number, name in ((signal.SIGINT, "sigInt"), (signal.SIGTERM, "sigTerm")):
            handler = signal.getsignal(number)
            if handler is not None and handler == getattr(self._reactor, name, None):
                self._before[number] = handler
                signal.signal(number, self._on_signal)

    def remove(self) -> None:
        """Give the signals back to the reactor."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)
        self._before.clear()

    def _on_signal(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._ends)
