"""The programs and the browser console that a listing's terminals run."""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any


class ListingError(AssertionError):
    """The output differs from a listing."""


def reserve(port: int = 0) -> socket.socket:
    """A socket that keeps a port of 127.0.0.1, by default a free one, from all that choose a free port.

    A server can listen there nevertheless: two sockets with SO_REUSEADDR may have one address as long as only one of
    them listens (socket(7)).
    """
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", port))
    return kept


def shell(command: str, folder: Path, environ: Mapping[str, str], descriptors: Sequence[int] = ()) -> Any:
    """A process, in a session of its own, of a shell that runs a command."""
    return subprocess.Popen(
        ["sh", "-c", command], cwd=folder, env=dict(environ), start_new_session=True, pass_fds=descriptors,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, encoding="utf-8", errors="replace", bufsize=1, preexec_fn=_heed_interrupts,
    )  # fmt: skip


def _heed_interrupts() -> None:
    """A shell that runs this in the background made it ignore SIGINT, and what it starts would, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Program:
    """A program in a terminal: what it prints comes as lines. `process` is one that `shell` started, or like it."""

    def __init__(self, process: Any) -> None:
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.seen: list[str] = []
        self._process = process
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            text = line.rstrip("\r\n")
            self.seen.append(text)
            self.lines.put(text)
        self.lines.put(None)

    def ended(self) -> bool:
        return self._process.poll() is not None

    def type(self, text: str) -> None:
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def end_input(self) -> None:
        self._process.stdin.close()

    def interrupt(self) -> None:
        self._signal(signal.SIGINT)

    def _signal(self, number: int) -> None:
        # The program has a session of its own, with the shell and its children alone.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """End the program."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal(number)
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                continue
            break
        self._signal(signal.SIGKILL)  # children that the shell left
        self._reader.join(5)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


class Browser:
    """The console of a page, as far as `new WebSocket`, `onmessage` and `send` go."""

    def __init__(self, port: Callable[[str], str]) -> None:
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.seen: list[str] = []
        self._port = port
        self._stack = ExitStack()
        self._socket: Any = None
        self._reader: threading.Thread | None = None

    def type(self, text: str) -> None:
        """Carry out a line of JavaScript."""
        from websockets.sync.client import connect

        opened = re.search(r'new WebSocket\("(ws://localhost:\d+\S*)"\)', text)
        sent = re.search(r"""\.send\(("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\)""", text)
        if opened is not None:
            url = opened[1].replace("localhost", "127.0.0.1")
            origin: Any = re.sub(r"^ws(://[^/]*).*", r"http\1", opened[1])
            self._socket = self._stack.enter_context(connect(url, origin=origin, proxy=None))
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
        elif sent is not None:
            self._socket.send(eval(sent[1]))
        elif "onmessage" not in text:
            raise ListingError(f"the browser of the tests does not know {text!r}")

    def _read(self) -> None:
        for message in self._socket:
            for line in message.split("\n"):
                self.seen.append(line)
                self.lines.put(line)
        self.lines.put(None)

    def interrupt(self) -> None:
        self.stop()

    end_input = interrupt

    def stop(self) -> None:
        self._stack.close()
        if self._reader is not None:
            self._reader.join(5)
