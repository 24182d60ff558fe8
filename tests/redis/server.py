"""A real redis-server for tests: it listens on a UNIX socket, or on a port, and is ended by its own id."""

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from unittest import SkipTest

PROGRAM = shutil.which("redis-server")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class RedisServer:
    """A server with `options` as redis.conf has them. Without `port` it has a UNIX socket alone."""

    def __init__(self, *options: str, port: int = 0, folder: str | None = None, sentinel: bool = False) -> None:
        if PROGRAM is None:
            if os.environ.get("CI"):
                raise AssertionError("there is no redis-server")
            raise SkipTest("there is no redis-server")
        self.port = port
        self.folder = folder or tempfile.mkdtemp(prefix="redis")
        self._own_folder = folder is None
        self.path = str(Path(self.folder) / "socket")
        self._options = options
        self._sentinel = sentinel
        self.process: subprocess.Popen[bytes]
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}" if self.port else f"unix://{self.path}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert PROGRAM is not None
        command = [PROGRAM]
        if self._sentinel:
            command += [str(Path(self.folder) / "sentinel.conf"), "--sentinel"]
        command += ["--port", str(self.port), "--dir", self.folder, *self._options]
        if not self._sentinel:
            command += ["--unixsocket", self.path]
        with open(Path(self.folder) / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + 20
        while (self.ask("PING") or "-LOADING").startswith("-LOADING"):
            if time.monotonic() > until or self.process.poll() is not None:
                self.end(9)
                raise AssertionError((Path(self.folder) / "log").read_text())
            time.sleep(0.02)

    def ask(self, *words: str) -> str:
        """The first line of the answer to a command; empty if there is none."""
        try:
            with self._connect() as connection:
                connection.settimeout(5)
                written = [f"*{len(words)}\r\n", *(f"${len(each.encode())}\r\n{each}\r\n" for each in words)]
                connection.sendall("".join(written).encode())
                return connection.makefile("rb").readline().decode().rstrip("\r\n")
        except OSError:
            return ""

    def _connect(self) -> socket.socket:
        if self.port:
            return socket.create_connection(("127.0.0.1", self.port), 5)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.path)
        return connection

    def end(self, signal: int = 15) -> None:
        """End the process, by default in order."""
        if self.process.poll() is None:
            self.process.send_signal(signal)
        self.process.wait(20)

    def remove(self) -> None:
        self.end(9)
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)


_shared: list[RedisServer] = []


def shared_server() -> RedisServer:
    """A server without persistence for all tests of this process, each of which has a prefix of its own."""
    if not _shared:
        server = RedisServer("--save", "", "--appendonly", "no")
        _shared.append(server)
        atexit.register(server.remove)
    return _shared[0]
