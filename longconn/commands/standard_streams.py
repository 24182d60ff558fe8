"""Standard input and output, read and written by threads beside the reactor.

Reading from a terminal blocks, and so does writing to a full pipe. Here only threads block, so that heartbeats go on.
The threads use bare descriptors: a thread that still blocks when the program ends holds no lock of a file object.
"""

from __future__ import annotations

import os
import queue
import stat
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from longconn.clients.errors import ClientError

_READ_SIZE = 65536
#: Lines that are read ahead at most. A long line counts as one more for each `_READ_SIZE` bytes.
_MOST_LINES = 1000
#: Bytes of a line, without its end. Servers accept far less; a line without an end must not fill the memory.
_MOST_BYTES = 16 * 1024 * 1024


class ReadError(ClientError):
    """The input cannot be read; no line follows."""


class LineTooLong(ClientError):
    """A line of the input has too many bytes. It is skipped; the lines after it follow."""


class OutputStream:
    """Writes text, in UTF-8, and bytes to a descriptor. `is_terminal`: a person reads it."""

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self.is_terminal = os.isatty(descriptor)
        self._reactor = reactor
        self._descriptor = descriptor
        self._texts: queue.SimpleQueue[tuple[bytes, Deferred[None]]] = queue.SimpleQueue()
        self._started = False

    def write(self, text: str) -> Deferred[None]:
        """Fires when the text is written. Fails with OSError; BrokenPipeError if the reader has closed the stream."""
        return self.write_bytes(text.encode("utf-8", "replace"))

    def write_bytes(self, data: bytes) -> Deferred[None]:
        """As `write`."""
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, daemon=True).start()
        done: Deferred[None] = Deferred()  # once cancelled, it ignores its result
        self._texts.put((data, done))
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
    """Cuts bytes into lines. A LineTooLong takes the place of a line as soon as it is too long."""

    def __init__(self) -> None:
        self._line = bytearray()
        # The rest of a line that is too long is skipped.
        self._skipping = False

    def cut(self, data: bytes) -> Iterator[bytes | ClientError]:
        """The lines that end in `data`."""
        *ends, rest = data.split(b"\n")
        for each in ends:
            yield from self._add(each)
            if not self._skipping:
                yield bytes(self._line).removesuffix(b"\r")
            self._line.clear()
            self._skipping = False
        yield from self._add(rest)

    def _add(self, data: bytes) -> Iterator[ClientError]:
        if self._skipping:
            return
        self._line += data
        if len(self._line) > _MOST_BYTES:
            self._skipping = True
            self._line.clear()
            yield LineTooLong(f"too large: a line of more than {_MOST_BYTES} bytes")

    def end(self) -> Iterator[bytes]:
        """The last line, if the input does not end with a line end."""
        if self._line:
            yield bytes(self._line).removesuffix(b"\r")


def _weight(line: bytes | ClientError) -> int:
    """How many lines a line counts as."""
    return 1 + len(line) // _READ_SIZE if isinstance(line, bytes) else 1


class InputStream:
    """Reads lines from a descriptor. `size`: that of a file in bytes; None for other streams."""

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
        """The next line without its end; None after the last. Call it again only after it has fired or was cancelled.

        Fails with LineTooLong in the place of a line of more than 16 MiB. Fails with ReadError once; then gives None.
        """
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
        if line is not None:  # None stays, for the calls that follow
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
                # An unfinished line is dropped: its rest is unknown.
                self._put(ReadError(f"cannot read: {error.strerror}"))
                break
            for line in cutter.cut(data) if data else cutter.end():
                self._put(line)
            if not data:
                break
        self._reactor.callFromThread(self._on_line, None)

    def _put(self, line: bytes | ClientError) -> None:
        for _ in range(_weight(line)):
            self._room.acquire()
        self._reactor.callFromThread(self._on_line, line)

    def _on_line(self, line: bytes | ClientError | None) -> None:
        self._lines.append(line)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            first = self._take()
            if isinstance(first, ClientError):
                waiting.errback(first)
            else:
                waiting.callback(first)
