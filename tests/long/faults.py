"""Faults around the server, for `disturb`: no files are left, the disk is full, peers stop, a proxy is in front."""

import ctypes
import os
import re
import resource
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from docs.terminals import reserve
from tests.live.programs import Server
from tests.long.crowds import UPGRADE, Crowd, _publish, connect, resets
from tests.long.situations import _SERVE, LonelyServer

#: Open files of a server that has few; those that are left to it where other files are open, too.
FILES = 256
LEFT = 40
#: The server's log may speak of this once a minute.
NO_FILES = re.compile("EMFILE|open files|could not accept", re.IGNORECASE)
#: From then on each write to the log fails, as on a full disk.
_FULL = """
import os, threading
def fill():
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1), os.dup2(full, 2)
threading.Timer(1.5, fill).start()
"""
_HELD = f"""
import os
kept = [os.open("/dev/null", os.O_RDONLY) for _ in range({FILES - LEFT - 3})]
"""


# Few files.


class FewFiles(LonelyServer):
    """A server with a limit of `FILES` open files. Its log is read by nobody, and has room in the pipe."""

    def __init__(self, settings: str, held: bool = False) -> None:
        limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (FILES, FILES))
        super().__init__((_HELD if held else "") + _SERVE, (), settings, limit)


def beyond_files(port: int, until: float) -> None:
    """600 WebSockets come. Those beyond the limit must be refused in words, and the others must stay."""
    said: Counter[bytes] = Counter()
    crowd = Crowd(port, lambda _, data: said.update([data[:12]]))
    while time.monotonic() < until:
        crowd.come(600, UPGRADE, min(until, time.monotonic() + 1))
        crowd.read(min(until, time.monotonic() + 0.5))
        crowd.leave()
    if not said[b"HTTP/1.1 101"] or not said[b"HTTP/1.1 503"]:
        raise AssertionError(f"the answers were {said}")


# Peers that stop.


def _end_with_parent() -> None:
    """The kernel ends this process as soon as its parent ends: one that is stopped could not see to that."""
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)


def held_readers(port: int, until: float) -> None:
    """A process with 100 members is stopped (SIGSTOP) while their channel is busy, and goes on near the end."""
    ready, says = os.pipe()
    child = os.fork()
    if not child:
        _end_with_parent()
        crowd = Crowd(port)
        crowd.come(100, UPGRADE, until)
        os.write(says, b"1")
        crowd.read(until)
        os._exit(0)
    os.read(ready, 1)
    os.kill(child, signal.SIGSTOP)
    while time.monotonic() < until - 1:
        _publish(port, *[("other", "x" * 10_000)] * 10)
        time.sleep(0.02)
    os.kill(child, signal.SIGCONT)
    while time.monotonic() < until - 0.2:
        _publish(port, ("other", "news"))
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


class Relay:
    """Passes what a server sends on to clients of its own. After `stop` it does so no more, and closes nothing."""

    def __init__(self, port: int, count: int) -> None:
        self.pairs = [(connect(port), *socket.socketpair()) for _ in range(count)]
        for far, near, client in self.pairs:
            for each in (far, near, client):
                each.setblocking(False)
            client.send(UPGRADE)

    def turn(self) -> int:
        """Pass on once, in both directions, and let the clients read. The bytes that these read."""
        heard = 0
        for far, near, client in self.pairs:
            for source, target in ((near, far), (far, near)):
                with suppress(BlockingIOError):
                    target.send(source.recv(1 << 16))
            with suppress(BlockingIOError):
                heard += len(client.recv(1 << 16))
        return heard


def half_open(port: int, until: float) -> None:
    """A relay with 1,000 members in its back stops to forward, while their channel is busy. It closes nothing."""
    crowd = Crowd(port)  # for its limit on open files
    relay = Relay(port, 1_000)
    heard = 0
    start = time.monotonic()
    while time.monotonic() < min(start + 1, until):
        heard += relay.turn()
    if not heard:
        raise AssertionError("nothing came through the relay")
    while time.monotonic() < until:
        _publish(port, ("other", "x" * 10_000))
        time.sleep(0.05)
    crowd.leave()


# A proxy.

#: The port of nginx in front of a server, by that server's own port.
_NGINX: dict[int, int] = {}
_CONFIGURATION = """
daemon off; master_process off; pid FOLDER/pid; error_log stderr error; worker_rlimit_nofile 20000;
events { worker_connections 16000; }
http {
    access_log off; client_body_temp_path FOLDER; proxy_temp_path FOLDER;
    fastcgi_temp_path FOLDER; uwsgi_temp_path FOLDER; scgi_temp_path FOLDER;
    server {
        listen 127.0.0.1:PORT backlog=4096;
        location / {
            proxy_pass http://unix:FOLDER/socket:; proxy_http_version 1.1; proxy_read_timeout 60s;
            proxy_set_header Host localhost; proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
        }
    }
}
"""


class ProxiedServer(Server):
    """A server that also listens on a UNIX socket, with nginx in front of that."""

    def __init__(self, settings: str) -> None:
        self._around = tempfile.TemporaryDirectory()
        folder = self._around.name
        os.chmod(folder, 0o755)
        path = Path(folder, "nginx.conf")
        with reserve() as kept:
            port = kept.getsockname()[1]
        super().__init__(f'{settings}http = ["unix:{folder}/socket"]\ntrusted_proxy = ["unix"]\n')
        _NGINX[self.port] = port
        path.write_text(_CONFIGURATION.replace("FOLDER", folder).replace("PORT", str(port)))
        self._nginx = subprocess.Popen(["nginx", "-c", path, "-p", folder], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                connect(port).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("nginx did not start")

    def stop(self) -> None:
        self._nginx.terminate()
        self._nginx.wait(20)
        super().stop()
        self._around.cleanup()


def through_nginx(port: int, until: float) -> None:
    """5,000 WebSockets come through nginx, stay, hear what is published, and leave. Again and again."""
    while time.monotonic() < until:
        said: Counter[bytes] = Counter()
        crowd = Crowd(_NGINX[port], lambda _, data, said=said: said.update([data[:12]]))
        crowd.come(5_000, UPGRADE, until)
        for _ in range(5):
            _publish(port, ("other", "news"))
            crowd.read(min(until, time.monotonic() + 0.3))
        crowd.leave(1)
        if not said[b"HTTP/1.1 101"]:
            raise AssertionError(f"the answers were {said}")


def slowhttptest(test: str, port: int, until: float) -> None:
    """4,000 connections of slowhttptest, which send or read as slowly as they may."""
    seconds = str(max(1, int(until - time.monotonic())))
    command = ["slowhttptest", test, "-c", "4000", "-r", "1000", "-i", "1", "-p", "2", "-l", seconds]
    subprocess.run([*command, "-u", f"http://127.0.0.1:{port}/"], stdout=subprocess.DEVNULL, check=False)


#: Newcomers cannot be served in these: they are not measured.
UNSERVED = frozenset(["no-files"])
FAULT_CROWDS: dict[str, Callable[[int, float], None]] = {
    "held-readers": held_readers,
    "half-open": half_open,
    "slowhttptest-headers": partial(slowhttptest, "-H"),
    "slowhttptest-bodies": partial(slowhttptest, "-B"),
    "slowhttptest-ranges": partial(slowhttptest, "-R"),
    "slowhttptest-reads": partial(slowhttptest, "-X"),
}
#: The programs without which a row is left out.
PROGRAMS = {
    "nginx": "nginx",
    **dict.fromkeys(
        ("slowhttptest-headers", "slowhttptest-bodies", "slowhttptest-ranges", "slowhttptest-reads"), "slowhttptest"
    ),
}
FAULTS: dict[str, tuple[Callable[[str], Any], Callable[[int, float], None]]] = {
    "few-files": (FewFiles, beyond_files),
    "no-files": (partial(FewFiles, held=True), resets),
    "log-full": (partial(LonelyServer, _FULL + _SERVE, ()), resets),
    "nginx": (ProxiedServer, through_nginx),
}
