"""Programs in processes that start in milliseconds: they are forked from one that has imported everything.

`Program("longconn.cli:main", ["longconn", "serve"], …)` does what `python -c "from longconn.cli import main; …"` does,
without the third of a second that the imports take. It is for tests that need a process. A test of how a process
starts runs a fresh interpreter.

A server of forks runs beside each process of tests, and ends with it. For each program it forks a supervisor. The
supervisor forks the program, waits for it and reports its exit status. So the server needs no thread and no handler of
signals, although no program is a child of the tests.
"""

from __future__ import annotations

import gc
import io
import json
import locale
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: Modules that programs import while they run; none of them imports the reactor, which each program chooses itself.
_IMPORTED = ("twisted.scripts._twistd_unix", "twisted.internet.epollreactor", "twisted.internet.asyncioreactor")
#: Bytes of a request: arguments and environment.
_MOST = 1 << 18


class Program:
    """Like a `subprocess.Popen` in text mode: the same attributes and methods, as far as the tests use them.

    `main` is MODULE:FUNCTION; `arguments` become `sys.argv`. Input and output are pipes; `stderr` is one of its own,
    or goes with stdout. The program leads a session of its own.
    """

    def __init__(
        self, main: str, arguments: Sequence[str], folder: str | Path, environ: Mapping[str, str], stderr: bool = False
    ) -> None:
        pairs = [os.pipe() for _ in range(3 if stderr else 2)]
        theirs = [pairs[0][0], *(each[1] for each in pairs[1:])]
        ours = [pairs[0][1], *(each[0] for each in pairs[1:])]
        request = {"main": main, "argv": list(arguments), "folder": os.path.abspath(folder), "environ": dict(environ)}
        self._status, far = socket.socketpair()
        try:
            _server().send(json.dumps(request).encode(), [far.fileno(), *theirs, *([] if stderr else theirs[1:])])
        finally:
            far.close()
            for each in theirs:
                os.close(each)
        self.args = list(arguments)
        self.returncode: int | None = None
        options: Any = {"encoding": "utf-8", "errors": "replace", "buffering": 1}
        files = [os.fdopen(each, "r" if number else "w", **options) for number, each in enumerate(ours)]
        self.stdin: Any = files[0]
        self.stdout: Any = files[1]
        self.stderr: Any = files[2] if stderr else None
        self._told = self._status.makefile("r")
        self.pid = int(self._told.readline())

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def _end(self) -> None:
        self.returncode = int(self._told.readline())
        self._told.close()
        self._status.close()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ends just now
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        """Write `input` and close it; all that is printed, once the program has ended. Closes the pipes."""
        found: dict[Any, str] = {}
        threads = [
            threading.Thread(target=lambda file=each: found.update({file: file.read()}), daemon=True)
            for each in (self.stdout, self.stderr)
            if each is not None and not each.closed
        ]
        for thread in threads:
            thread.start()
        if not self.stdin.closed:
            with suppress(BrokenPipeError):
                self.stdin.write(input or "")
                self.stdin.close()
        self.wait(timeout)
        for thread in threads:
            thread.join()
        for file in found:
            file.close()
        return found.get(self.stdout, ""), found.get(self.stderr, "")


class _Server:
    """The tests' end of the server of forks."""

    def __init__(self) -> None:
        self._socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.getpid()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("LONGCONN_", "PYTHON"))}
        environ = kept | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.live.forks", str(far.fileno())]
        # It has no output of its own: what it printed would be a test's.
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, pass_fds=[far.fileno()], start_new_session=True
        )
        far.close()

    def send(self, request: bytes, descriptors: Sequence[int]) -> None:
        socket.send_fds(self._socket, [request], list(descriptors))


_servers: list[_Server] = []


def _server() -> _Server:
    """That of this process."""
    if not _servers or _servers[0].pid != os.getpid():
        _servers[:] = [_Server()]
    return _servers[0]


# The server's side.


def _serve(control: socket.socket) -> dict[str, Any]:
    """Fork for each request. Returns its request in each program that was forked; ends with the tests."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, _MOST, 4)
        if not data:
            os._exit(0)
        request: dict[str, Any] = json.loads(data)
        import_module(request["main"].partition(":")[0])
        if os.fork() == 0:
            control.close()
            _supervise(request, *descriptors)
            return request
        for each in descriptors:
            os.close(each)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _supervise(request: dict[str, Any], status: int, *standard: int) -> None:
    """Fork the program, in which alone this returns."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        # Told by the program, so that it leads its session from the moment when the tests know it.
        os.write(status, b"%d\n" % os.getpid())
        os.close(status)
        _become(request, standard)
        return
    for each in standard:
        os.close(each)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):
        os.write(status, b"%d\n" % code)
    os._exit(0)


def _become(request: dict[str, Any], standard: Sequence[int]) -> None:
    """What the interpreter does when it starts."""
    for number, each in enumerate(standard):
        os.dup2(each, number)
    os.closerange(3, max(standard) + 1)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environ"])
    time.tzset()
    locale.setlocale(locale.LC_CTYPE, "")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = list(request["argv"])
    sys.path[0] = ""
    unbuffered = bool(request["environ"].get("PYTHONUNBUFFERED"))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        raw = io.FileIO(number, "r" if name == "stdin" else "w", closefd=False)
        buffer: Any = io.BufferedReader(raw) if name == "stdin" else raw if unbuffered else io.BufferedWriter(raw)
        errors = "backslashreplace" if name == "stderr" else "strict"
        text = io.TextIOWrapper(buffer, "utf-8", errors, line_buffering=name == "stderr", write_through=unbuffered)
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


def _import_all() -> None:
    import longconn

    for each in walk_packages(longconn.__path__, "longconn."):
        import_module(each.name)
    for name in _IMPORTED:
        import_module(name)
    from twisted.application.service import IServiceMaker
    from twisted.plugin import getPlugins

    list(getPlugins(IServiceMaker))
    assert "twisted.internet.reactor" not in sys.modules


if __name__ == "__main__":
    _control = socket.socket(fileno=int(sys.argv[1]))
    _import_all()
    # Nothing of this is garbage: a collection would only write to its pages, which are shared.
    gc.collect()
    gc.freeze()
    _module, _, _function = _serve(_control)["main"].partition(":")
    sys.exit(getattr(import_module(_module), _function)())
