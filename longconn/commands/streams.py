"""Standard input and output, read and written beside the reactor.

A pipe that nobody reads, and a terminal where nobody types, make a program wait. Threads wait here, so
that heartbeats go on meanwhile. They use the descriptors alone: a thread that is still waiting when the
program ends holds no lock then.
"""

from __future__ import annotations

import os
import queue
import stat
import threading
from collections import deque
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

_READ_SIZE = 65536
#: Lines that are read ahead, at most.
_MOST_LINES = 1000


class Writer(Protocol):
    """Where text goes. `is_terminal` says that a person reads it."""

    is_terminal: bool

    def write(self, text: str) -> Deferred[None]:
        """Fires when it is written. Fails with BrokenPipeError where nobody reads any more, and other OSErrors."""


class Reader(Protocol):
    """Where lines come from. `size` in bytes where that is known: a file's."""

    is_terminal: bool
    size: int | None

    def line(self) -> Deferred[bytes | None]:
        """The next line without its end; None after the last. One at a time. Cancelling it loses nothing."""


class OutputStream:
    """A descriptor that text is written to, in UTF-8."""

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self.is_terminal = os.isatty(descriptor)
        self._reactor = reactor
        self._descriptor = descriptor
        self._texts: queue.SimpleQueue[tuple[bytes, Deferred[None]]] = queue.SimpleQueue()
        self._started = False

    def write(self, text: str) -> Deferred[None]:
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, daemon=True).start()
        done: Deferred[None] = Deferred()  # cancelled, it lets the result pass unheard
        self._texts.put((text.encode("utf-8", "replace"), done))
        return done

    def _run(self) -> None:
        broken: Failure | None = None
        while True:
            data, done = self._texts.get()
            try:
                while data and broken is None:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                broken = Failure()
            self._reactor.callFromThread(done.callback if broken is None else done.errback, broken)


class InputStream:
    """A descriptor that lines are read from."""

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self.is_terminal = os.isatty(descriptor)
        status = os.fstat(descriptor)
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._reactor = reactor
        self._descriptor = descriptor
        self._lines: deque[bytes | None] = deque()
        self._waiting: Deferred[bytes | None] | None = None
        self._started = False
        self._room = threading.Semaphore(_MOST_LINES)

    def line(self) -> Deferred[bytes | None]:
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, daemon=True).start()
        if self._lines:
            return succeed(self._take())
        self._waiting = Deferred(self._forget)
        return self._waiting

    def _take(self) -> bytes | None:
        line = self._lines[0]
        if line is not None:  # the end stays
            self._lines.popleft()
            self._room.release()
        return line

    def _forget(self, waiting: Deferred[bytes | None]) -> None:
        self._waiting = None

    def _run(self) -> None:
        rest = b""
        while True:
            try:
                data = os.read(self._descriptor, _READ_SIZE)
            except OSError:
                data = b""
            *lines, rest = (rest + data).split(b"\n") if data else ([rest, b""] if rest else [b""])
            for line in lines:
                self._room.acquire()
                self._reactor.callFromThread(self._came, line.removesuffix(b"\r"))
            if not data:
                self._reactor.callFromThread(self._came, None)
                return

    def _came(self, line: bytes | None) -> None:
        self._lines.append(line)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback(self._take())
