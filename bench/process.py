"""A server as a child process, pinned to a core of its own, and what the kernel says of it."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = (_CORES[0], _CORES[1]) if len(_CORES) > 1 else (None, None)


class BenchError(Exception):
    """A measurement cannot be made: a server does not start, or does not do what it is asked for."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on now."""
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Start processes on a core: a child has its parent's set of cores from its first instruction on."""
    before = os.sched_getaffinity(0)
    try:
        if core is not None:
            os.sched_setaffinity(0, {core})
        yield
    finally:
        os.sched_setaffinity(0, before)


class Child:
    """A server in a child process, used as a context manager. Its end is certain, and by its own id."""

    def __init__(self, command: list[str], port: int, core: int | None, environment: dict[str, str]) -> None:
        self.command = command
        self.port = port
        self._core = core
        self._environment = environment
        self._folder = tempfile.TemporaryDirectory(prefix="longconn-bench-")
        self._log = Path(self._folder.name, "log")

    def __enter__(self) -> Child:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LONGCONN_")}
        with self._log.open("wb") as log, on_core(self._core):
            self._process = subprocess.Popen(
                self.command,
                cwd=self._folder.name,
                env={**kept, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def log(self) -> str:
        """Return what the server has written so far."""
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """End the child: SIGTERM, and SIGKILL for one that is still there after 2 seconds."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._folder.cleanup()

    def _wait_until_it_listens(self, patience: float = 20.0) -> None:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise BenchError(f"{shlex.join(self.command)} ended at once:\n{self.log()[-2000:]}")
            try:
                socket.create_connection((HOST, self.port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise BenchError(f"{shlex.join(self.command)} does not listen on port {self.port}:\n{self.log()[-2000:]}")


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process in KiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Rss:\s+(\d+) kB", text, re.MULTILINE)
    if found is None:
        raise BenchError(f"no Rss in /proc/{pid}/smaps_rollup")
    return int(found[1])
