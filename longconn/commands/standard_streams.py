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
from collections.abc import Iterator
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from longconn.clients.errors import ClientError

_READ_SIZE = 65536
#: Lines that are read ahead, at most; a long one counts as one more for each `_READ_SIZE` bytes.
_MOST_LINES = 1000
#: Bytes of a line, without its end. Servers take far less; what has no end at all must not fill the memory.
_MOST_BYTES = 16 * 1024 * 1024


class ReadError(ClientError):
    """Input cannot be read: nothing more comes of it."""


class LineTooLong(ClientError):
    """A line of the input has too many bytes. It is passed over; lines after it come."""


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
        """The next line without its end; None after the last. One at a time. Cancelling it loses nothing.

        Fails with LineTooLong for a line of more than 16 MiB, in its place, and with ReadError, once; None follows.
        """


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


class _Cutter:
    """Cuts what is read into lines. A line that is too long is a LineTooLong, as soon as it is known to be."""

    def __init__(self) -> None:
        self._line = bytearray()  # what there is of the next one
        self._passing = False  # over the rest of one that is too long

    def cut(self, data: bytes) -> Iterator[bytes | ClientError]:
        """The lines that end in `data`."""
        *ends, rest = data.split(b"\n")
        for each in ends:
            yield from self._add(each)
            if not self._passing:
                yield bytes(self._line).removesuffix(b"\r")
            self._line.clear()
            self._passing = False
        yield from self._add(rest)

    def _add(self, data: bytes) -> Iterator[ClientError]:
        if self._passing:
            return
        self._line += data
        if len(self._line) > _MOST_BYTES:
            self._passing = True
            self._line.clear()
            yield LineTooLong(f"too large: a line of more than {_MOST_BYTES} bytes")

    def end(self) -> Iterator[bytes]:
        """The last line, if it has no end."""
        if self._line:
            yield bytes(self._line).removesuffix(b"\r")


def _weight(line: bytes | ClientError) -> int:
    """For how many lines one counts."""
    return 1 + len(line) // _READ_SIZE if isinstance(line, bytes) else 1


class InputStream:
    """A descriptor that lines are read from."""

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self.is_terminal = os.isatty(descriptor)
        status = os.fstat(descriptor)
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._reactor = reactor
        self._descriptor = descriptor
        self._lines: deque[bytes | ClientError | None] = deque()
        self._waiting: Deferred[bytes | None] | None = None
        self._started = False
        self._room = threading.Semaphore(_MOST_LINES)

    def line(self) -> Deferred[bytes | None]:
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, daemon=True).start()
        if self._lines:
            line = self._take()
            return fail(line) if isinstance(line, ClientError) else succeed(line)
        self._waiting = Deferred(self._forget)
        return self._waiting

    def _take(self) -> bytes | ClientError | None:
        line = self._lines[0]
        if line is not None:  # the end stays
            self._lines.popleft()
            self._room.release(_weight(line))
        return line

    def _forget(self, waiting: Deferred[bytes | None]) -> None:
        self._waiting = None

    def _run(self) -> None:
        cutter = _Cutter()
        while True:
            try:
                data = os.read(self._descriptor, _READ_SIZE)
            except OSError as error:
                # What there is of a line may not be all of it.
                self._put(ReadError(f"cannot read: {error.strerror}"))
                break
            for line in cutter.cut(data) if data else cutter.end():
                self._put(line)
            if not data:
                break
        self._reactor.callFromThread(self._came, None)

    def _put(self, line: bytes | ClientError) -> None:
        for _ in range(_weight(line)):
            self._room.acquire()
        self._reactor.callFromThread(self._came, line)

    def _came(self, line: bytes | ClientError | None) -> None:
        self._lines.append(line)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            first = self._take()
            if isinstance(first, ClientError):
                waiting.errback(first)
            else:
                waiting.callback(first)
