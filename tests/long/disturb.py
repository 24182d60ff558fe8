"""What one connection does to the others: the latency of a quiet WebSocket member while an attack runs.

A member of a channel hears a line twenty times a second, and twice a second a newcomer opens a WebSocket. Beside them,
a process of its own attacks the server, one kind of input at a time: over one or more connections that each send
without end (`ATTACKS`), or by crowds (`tests.long.crowds`, `handshakes` and `frames`). Of some servers the clock is
set, or nothing reads the log (`tests.long.situations` and `faults`). The check fails if the attack failed, if a
hundredth of the lines took longer than `LONGEST`, if a line was lost, if a newcomer waited longer than
`LONGEST_OPENING`, or if the server took more memory than `MOST_MEMORY`.
"""

import multiprocessing
import os
import re
import selectors
import shutil
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.live.programs import Server
from tests.long.crowds import CROWDS
from tests.long.faults import FAULT_CROWDS, FAULTS, PROGRAMS, UNSERVED
from tests.long.frames import FRAMES
from tests.long.handshakes import HANDSHAKES, SECURE_HANDSHAKES
from tests.long.situations import SITUATIONS

#: Seconds between two lines that the member hears.
PAUSE = 0.05
#: Seconds that a line may take, but for a hundredth of them.
LONGEST = 0.25
#: Seconds in which the last lines must come.
LAST = 30.0
#: Seconds that a newcomer may wait for the answer to its handshake, and between two newcomers.
LONGEST_OPENING = 1.0
OPENING_PAUSE = 0.5
#: Bytes of memory that the server may take at most.
MOST_MEMORY = 512 * 1024 * 1024
#: The address of the member and of the newcomers: rates are by address.
QUIET = "127.0.0.2"
SETTINGS = 'max_connections = 20000\nchannel_rate = 0\nsend_queue_total = "16MiB"\n'


class Wrong(AssertionError):
    """A check failed."""


class Attack(NamedTuple):
    """`unit` is sent without end over `connections` connections, each of which `begin` makes."""

    begin: Callable[[int], socket.socket]
    unit: bytes
    connections: int = 1


def _frame(first: int, payload: bytes = b"") -> bytes:
    """A masked frame; `first` is its first byte: FIN and the opcode (RFC 6455, section 5.2)."""
    return bytes((first, 0x80 | len(payload))) + bytes(4) + payload


class Result(NamedTuple):
    """Seconds that half of the lines took at most, and 99 of 100; how many lines are lost; the longest opening, in
    seconds; the server's memory at its largest, in bytes; the exit status of the attack, if it ended by itself; what
    the server's log said.
    """

    half: float
    most: float
    lost: int
    opening: float
    memory: int
    status: int = 0
    log: tuple[str, ...] = ()

    @property
    def wrong(self) -> bool:
        """Whether the others felt it."""
        late = self.most > LONGEST or self.opening > LONGEST_OPENING
        return bool(late or self.lost or self.memory > MOST_MEMORY or self.status)

    def __str__(self) -> str:
        failed = f", the attack failed with status {self.status}" if self.status else ""
        return (
            f"p50 {self.half * 1000:.1f} ms, p99 {self.most * 1000:.1f} ms, {self.lost} lost, "
            f"newcomers {self.opening * 1000:.0f} ms, {self.memory >> 20} MiB{failed}"
        )

    def most_frequent(self) -> str:
        """How often the log has its most frequent line, apart from numbers and from the quiet, and that line."""
        said = [each.partition("] ")[2] or each for each in self.log if QUIET not in each]
        kinds: dict[str, list[str]] = {}
        for each in said:
            kinds.setdefault(re.sub(r"\d+", "0", each), []).append(each)
        if not kinds:
            return "nothing"
        found = max(kinds.values(), key=len)
        return f"{len(found)} times {found[0][:150]}"


def _connect(port: int, begin: bytes = b"", answer: bool = True, host: str = "") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 20, (host, 0) if host else None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if begin:
        connection.sendall(begin)
        if answer:
            connection.recv(65536)
    return connection


def _upgrade(path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


def _websocket(port: int) -> socket.socket:
    return _connect(port, _upgrade("/ws?channel=other"))


def _fragmented(port: int) -> socket.socket:
    connection = _websocket(port)
    connection.sendall(_frame(0x01, b"a"))
    return connection


def _structured(port: int) -> socket.socket:
    return _connect(port, b'{"id":1,"connect":{}}\n')


def _structured_member(port: int) -> socket.socket:
    return _connect(port, b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"probe"}}\n')


def _chunked(port: int) -> socket.socket:
    head = "POST /channels/other HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
    return _connect(port, (head + "Transfer-Encoding: chunked\r\n\r\n").encode(), answer=False)


def _body_of_commands() -> bytes:
    body = b'{"id":1,"connect":{}}' + b"\n{}" * 349_000
    head = f"POST /connection/http_stream HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _lines(pattern: str) -> bytes:
    return "".join(pattern.replace("NUMBER", str(each)) + "\n" for each in range(3_000)).encode()


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


ATTACKS = {
    "nothing": Attack(_connect, b""),
    "websocket-pings": Attack(_websocket, _frame(0x89) * 5_000),
    "websocket-pings-of-ten": Attack(_websocket, _frame(0x89) * 5_000, 10),
    "websocket-pongs": Attack(_websocket, _frame(0x8A) * 5_000),
    "websocket-continuations": Attack(_fragmented, _frame(0x00) * 5_000),
    "structured-empty-lines": Attack(_structured, b"\n" * 60_000),
    "structured-pongs": Attack(_structured, b"{}\n" * 20_000),
    "structured-refused-publishes": Attack(_structured, b'{"id":1,"publish":{}}\n' * 3_000),
    "structured-renames": Attack(
        _structured_member, _lines('{"id":1,"rpc":{"method":"chat.rename","data":{"name":"attackerNUMBER"}}}')
    ),
    "chat-pings": Attack(_connect, b"ping\n" * 10_000),
    "http-not-found": Attack(_connect, _get("/x") * 500),
    "http-histories": Attack(_connect, _get("/channels/probe") * 500),
    "http-refused-publishes": Attack(
        _connect, b"POST /channels/!! HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx" * 500
    ),
    "http-tiny-chunks": Attack(_chunked, b"1\r\na\r\n" * 10_000),
    "http-stream-body-of-pongs": Attack(_connect, _body_of_commands()),
    "channels-come-and-go": Attack(
        _structured,
        _lines(
            '{"id":1,"subscribe":{"channel":"c-RANDOM-NUMBER"}}\n{"id":2,"unsubscribe":{"channel":"c-RANDOM-NUMBER"}}'
        ),
        200,
    ),
    "joins-of-many": Attack(_connect, b"/join probe\n/join other\n" * 100, 1_000),
}
#: Attacks by many, and those that need a server of their own.
MANY = CROWDS | HANDSHAKES | FRAMES | FAULT_CROWDS
SERVERS = SITUATIONS | SECURE_HANDSHAKES | FAULTS


def attack(name: str, port: int, until: float) -> None:
    """Attack until a time; a connection that the server closes is replaced."""
    begin, unit, count = ATTACKS[name]
    selector = selectors.DefaultSelector()

    def add(number: int) -> None:
        try:
            connection = begin(port)
        except OSError:
            return
        connection.setblocking(False)
        data = memoryview(unit.replace(b"RANDOM", str(number).encode()))
        selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE, [data, data])

    for number in range(count if unit else 0):
        if time.monotonic() < until:
            add(number)
    number = count
    while time.monotonic() < until:
        for key, events in selector.select(0.2) if selector.get_map() else ():
            connection: Any = key.fileobj
            try:
                if events & selectors.EVENT_READ and not connection.recv(1 << 18):
                    raise ConnectionError
                if events & selectors.EVENT_WRITE:
                    key.data[0] = key.data[0][connection.send(key.data[0]) :] or key.data[1]
            except BlockingIOError:
                pass
            except OSError:
                selector.unregister(connection)
                connection.close()
                number += 1
                add(number)
        if not selector.get_map():
            time.sleep(0.2)
            add(number)


class Probe:
    """A WebSocket member that hears, and a line client that speaks. `delays` are the seconds that lines took."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._member = _connect(port, _upgrade("/ws?channel=probe"), host=QUIET)
        self._speaker = _connect(port, b"/join probe\n", answer=False, host=QUIET)
        self._over = threading.Event()
        self._newcomers = threading.Thread(target=self._come, daemon=True)
        self._newcomers.start()
        self._openings: list[float] = []
        self._received = b""
        self._said: list[float] = []
        self.delays: dict[int, float] = {}

    def run(self, seconds: float) -> None:
        """Speak and hear for a time, and hear what is still missing."""
        start = time.monotonic()
        while (now := time.monotonic()) < start + seconds:
            due = start + len(self._said) * PAUSE
            if now >= due:
                self._said.append(due)  # a late probe would hide a delay
                self._speaker.sendall(b"probe-%d-\n" % (len(self._said) - 1))
            else:
                self._hear(due - now)
        end = time.monotonic() + LAST
        while len(self.delays) < len(self._said) and time.monotonic() < end:
            self._hear(0.1)

    def _hear(self, seconds: float) -> None:
        self._member.settimeout(max(seconds, 0.001))
        try:
            self._received += self._member.recv(1 << 18)
        except TimeoutError:
            return
        now = time.monotonic()
        for found in re.finditer(rb"probe-(\d+)-", self._received):
            self.delays.setdefault(int(found[1]), now - self._said[int(found[1])])
        self._received = self._received[-20:]

    def _come(self) -> None:
        """Open WebSockets, one after the other, and measure how long each takes."""
        while not self._over.wait(OPENING_PAUSE):
            start = time.monotonic()
            try:
                with _connect(self._port, _upgrade("/ws?channel=quiet"), host=QUIET):
                    self._openings.append(time.monotonic() - start)
            except OSError:
                self._openings.append(LAST)

    def result(self, memory: int) -> Result:
        """What was measured."""
        found = sorted(self.delays.values()) or [LAST]
        lost = len(self._said) - len(self.delays)
        most = found[int(len(found) * 0.99)]
        return Result(found[len(found) // 2], most, lost, max(self._openings, default=LAST), memory)

    def stop(self) -> None:
        self._over.set()
        self._newcomers.join()
        self._member.close()
        self._speaker.close()


def _peak_memory(pid: int) -> int:
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def disturb(name: str, seconds: float) -> Result:
    """One attack on a server of its own, or one situation."""
    serve, assault = SERVERS.get(name) or (Server, MANY.get(name) or partial(attack, name))
    server: Any = serve(SETTINGS)
    try:
        probe = Probe(server.port)
        attacker = multiprocessing.get_context("fork").Process(
            target=assault, args=(server.port, time.monotonic() + seconds), daemon=True
        )
        attacker.start()
        try:
            probe.run(seconds)
            result = probe.result(_peak_memory(server.pid))._replace(status=attacker.exitcode or 0)
            if name in UNSERVED:
                result = result._replace(opening=0.0)
        finally:
            attacker.kill()
            attacker.join()
            probe.stop()
    finally:
        server.stop()
    return result._replace(log=tuple(server.log()[1:]))


def median_of(results: Sequence[Result]) -> Result:
    """The median of each figure; what one run says of the attacker and the log."""
    figures = [sorted(column)[len(results) // 2] for column in zip(*(each[:5] for each in results), strict=True)]
    worst = max(results, key=lambda each: each.status)
    return worst._replace(**dict(zip(Result._fields, figures, strict=False)))


def main(seed: int, seconds: float, say: Any, only: Sequence[str] = (), repeat: int = 1) -> None:
    """Try every attack, or those named, in equal parts of the time, each `repeat` times, of which the medians count.

    Nothing is random: the seed has no effect. An attack whose program is missing is left out, unless this is CI.
    """
    names = tuple(only) or (*ATTACKS, *MANY, *SERVERS)
    each = max(2.0, seconds / len(names) / repeat)
    wrong = []
    for name in names:
        program = PROGRAMS.get(name)
        if program is not None and shutil.which(program) is None and not os.environ.get("CI"):
            say(f"{name}: left out, since there is no {program}")
            continue
        result = median_of([disturb(name, each) for _ in range(repeat)])
        say(f"{name}: {result}\n  log: {result.most_frequent()}")
        if result.wrong:
            wrong.append(name)
    if wrong:
        raise Wrong(f"disturbed by {', '.join(wrong)}")
