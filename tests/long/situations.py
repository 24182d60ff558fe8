"""Servers for `disturb` to which something happens: their clock is set, or nothing reads their log."""

import fcntl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from docs.terminals import reserve
from tests.long.crowds import resets

#: Seconds after the start of the process at which its wall clock is set.
CLOCK_SET_AFTER = 3.0
#: Bytes of the smallest pipe: it is full after a few lines of the log.
SMALL_PIPE = 4096
#: Runs before anything else of the program is imported, so that all of it reads the clock that is set.
_CLOCK = f"""
import sys, time
now, start, jump = time.time, time.monotonic(), float(sys.argv.pop(1))
time.time = lambda: now() + (jump if time.monotonic() > start + {CLOCK_SET_AFTER} else 0)
"""
_SERVE = "from longconn.cli import main; main()"


class LonelyServer:
    """A server of a program of its own. Nothing reads what it prints after its start."""

    def __init__(
        self, program: str, arguments: tuple[str, ...], settings: str, prepare: Callable[[], None] | None = None
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "longconn.toml"
        path.write_text(f"shutdown_timeout = 1\n{settings}")
        self._reserved = reserve()
        self.port = self._reserved.getsockname()[1]
        command = [
            sys.executable,
            "-c",
            program,
            *arguments,
            "serve",
            f"--config={path}",
            f"--port=127.0.0.1:{self.port}",
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=prepare)
        assert self._process.stdout is not None
        while b"listening on" not in (line := self._process.stdout.readline()):
            if not line:
                raise AssertionError("the server did not start")
        fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, SMALL_PIPE)

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self) -> list[str]:
        """What it printed last, once it has ended."""
        return self._printed

    def stop(self) -> None:
        self._process.terminate()
        printed, _ = self._process.communicate(timeout=20)
        self._printed = printed.decode(errors="replace").splitlines()
        self._reserved.close()
        self._folder.cleanup()


def _nothing(port: int, until: float) -> None:
    """The server is left alone."""
    time.sleep(max(0.0, until - time.monotonic()))


#: A name, the server, and what is done to it.
SITUATIONS: dict[str, tuple[Callable[[str], LonelyServer], Callable[[int, float], None]]] = {
    "clock-forward": (partial(LonelyServer, _CLOCK + _SERVE, ("3600",)), _nothing),
    "clock-back": (partial(LonelyServer, _CLOCK + _SERVE, ("-3600",)), _nothing),
    "log-unread": (partial(LonelyServer, _SERVE, ()), resets),
}
