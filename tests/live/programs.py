"""Processes of their own: the server, a client program that is driven by lines of JSON, and a cable between them."""

import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from docs.terminals import reserve
from tests.live import forks
from tests.live.certificates import write_certificate

ROOT = Path(__file__).resolve().parents[2]
#: Seconds for one thing to happen.
PATIENCE = 20.0


class Process:
    """A program, and the lines that it prints. `stop` may be called at any time.

    With `main` it is forked: that function is called, and `command` is its `sys.argv`.
    """

    def __init__(self, command: Sequence[str], folder: Path | None = None, main: str = "") -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("LONGCONN_", "PYTHON"))}
        environ = kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.seen: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._process: Any
        if main:
            self._process = forks.Program(main, command, folder or Path.cwd(), environ)
        else:
            self._process = subprocess.Popen(
                command, cwd=folder, env=environ, text=True, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line(self, wait: float = PATIENCE) -> str:
        """The next line. Raises TimeoutError, and EOFError after the last."""
        try:
            line = self._lines.get(timeout=wait)
        except queue.Empty:
            raise TimeoutError(f"nothing came in {wait:g} s after\n" + "\n".join(self.seen[-20:])) from None
        if line is None:
            raise EOFError("it ended after\n" + "\n".join(self.seen[-20:]))
        self.seen.append(line)
        return line

    def rest(self) -> list[str]:
        """All lines, once it has ended."""
        while not self._lines.empty():
            if (line := self._lines.get()) is not None:
                self.seen.append(line)
        return self.seen

    def write(self, line: str) -> None:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        found: int = self._process.pid
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join()
        for each in (self._process.stdin, self._process.stdout):
            if each is not None:
                each.close()


class Server:
    """The server as a user starts it, with this TOML file, on a port that stays its own over a restart.

    With `tls` there is a second port, whose certificate is signed by itself.
    """

    KEY = "key-of-the-tests"

    def __init__(self, settings: str = "", port: int = 0, tls: bool = False) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        path = folder / "longconn.toml"
        path.write_text(f'api_key = "{self.KEY}"\nshutdown_timeout = 1\n{settings}')
        self._path = path
        self._reserved = [reserve(port), reserve()]
        self.port, self.tls_port = (each.getsockname()[1] for each in self._reserved)
        self._key, self.certificate = write_certificate(folder) if tls else (None, None)
        self.start()

    def start(self) -> None:
        options = [f"--config={self._path}", f"--port=127.0.0.1:{self.port}"]
        if self.certificate is not None:
            files = f"privateKey={self._key}:certKey={self.certificate}"
            options.append(f"--port=ssl:{self.tls_port}:interface=127.0.0.1:{files}")
        folder = Path(self._folder.name)
        self._process = Process(["longconn", "serve", *options], folder, main="longconn.cli:main")
        while True:
            if "listening on" in self._process.line():
                return

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def stop(self) -> None:
        self._process.stop()

    def log(self) -> list[str]:
        """The lines of its log, once it has ended."""
        return self._process.rest()

    def kill(self) -> None:
        """End it with no time for anything."""
        self._process.stop(signal.SIGKILL)

    def hold(self) -> None:
        """It does nothing from now on, and its connections stay. `kill` ends it."""
        self._process.send(signal.SIGSTOP)

    def clean_up(self) -> None:
        self.stop()
        for each in self._reserved:
            each.close()
        self._folder.cleanup()

    def restart(self) -> None:
        """End it and start it again: what it kept is lost."""
        self.stop()
        self.start()

    def post(self, path: str, value: Any) -> Any:
        """POST a JSON value; the JSON value of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            headers = {"Content-Type": "application/json", "X-API-Key": self.KEY}
            connection.request("POST", path, json.dumps(value), headers)
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise AssertionError(f"{path}: {response.status} {body!r}")
            return json.loads(body)
        finally:
            connection.close()

    def publish(self, channel: str, *values: Any) -> None:
        for value in values:
            self.post(f"/channels/{channel}", value)

    def api(self, method: str, **parameters: Any) -> Any:
        answer = self.post(f"/api/{method}", parameters)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer}")
        return answer["result"]


class Cable:
    """Passes connections on to a server. `cut` breaks those that there are, and lets none in until `mend`."""

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._whole = True
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target()), 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for each in (near, far):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                whole = self._whole
                if whole:
                    self._sockets |= {near, far}
            if not whole:
                self._end(near, far)
                continue
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        self._end(source, target)

    def _end(self, *sockets: socket.socket) -> None:
        for each in sockets:
            with self._lock:
                self._sockets.discard(each)
            with suppress(OSError):  # it may be over already
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def cut(self) -> None:
        with self._lock:
            self._whole = False
            sockets = list(self._sockets)
        self._end(*sockets)

    def mend(self) -> None:
        self._whole = True

    def stop(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()


class Driven:
    """A client program: a line `{"do", "id", …}` in, `{"id", "result"}` or `{"id", "error"}` and `{"event", …}` out.

    Asked for `{"event": "token", "for": CHANNEL or ""}` it is given one by `tokens`.
    """

    def __init__(self, command: Sequence[str], tokens: Callable[[str], str] | None = None, main: str = "") -> None:
        self._process = Process(command, main=main)
        self._tokens = tokens
        self._count = 0
        self.events: list[dict[str, Any]] = []
        self._taken = 0
        self._replies: dict[int, dict[str, Any]] = {}

    def stop(self) -> None:
        self._process.stop(signal.SIGKILL)

    def _read(self, wait: float) -> None:
        line = self._process.line(wait)
        if not line.startswith("{"):
            return  # what it says of itself
        value = json.loads(line)
        if value.get("event") == "token":
            assert self._tokens is not None
            self._process.write(json.dumps({"do": "token", "id": value["id"], "token": self._tokens(value["for"])}))
        if "event" in value:
            self.events.append(value)
        else:
            self._replies[value["id"]] = value

    def call(self, do: str, **parameters: Any) -> Any:
        """Do something; its result. Raises Refused."""
        self._count += 1
        number = self._count
        self._process.write(json.dumps({"do": do, "id": number, **parameters}))
        end = time.monotonic() + PATIENCE
        while number not in self._replies:
            self._read(max(0.0, end - time.monotonic()))
        reply = self._replies.pop(number)
        if "error" in reply:
            raise Refused(reply["error"])
        return reply.get("result")

    def event(self, kind: str, **values: Any) -> dict[str, Any]:
        """The next event of this kind, with these values; those before it are passed over."""
        end = time.monotonic() + PATIENCE
        while True:
            while self._taken < len(self.events):
                each = self.events[self._taken]
                self._taken += 1
                if each["event"] == kind and values.items() <= each.items():
                    return each
            try:
                self._read(max(0.0, end - time.monotonic()))
            except (TimeoutError, EOFError) as error:
                raise AssertionError(f"no {kind} {values} came; {self.events[-20:]}") from error

    def heard(self, kind: str) -> list[dict[str, Any]]:
        """All events of this kind so far."""
        return [each for each in self.events if each["event"] == kind]


class Refused(Exception):
    """A call was refused, with this code, if there is one."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code
