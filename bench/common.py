"""Shared by the benchmarks: a server as a child process, connections to it, and its memory and CPU time."""

from __future__ import annotations

import argparse
import base64
import os
import resource
import select
import shlex
import signal
import socket
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType

from process import HOST, ROOT, BenchError, Child, free_port, resident_kib

__all__ = ["HOST", "ROOT", "BenchError", "Child", "free_port", "resident_kib"]

PATHS = {"tcp": "", "ws": "/ws"}
OPENING = 32  # connections opened at a time: less than the backlog of 50 that Twisted listens with
UNLIMITED = ("--publish-rate=0", "--publish-bytes=0")


# -- the server as a child -------------------------------------------------------------------------------------------


def child(command: list[str], port: int) -> Child:
    """Return a server as a child on any core, with the repository on its path."""
    search = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part)
    return Child(command, port, None, {"PYTHONPATH": search})


def longconn(port: int, *options: str, reactor: str | None = None, endpoint: str | None = None) -> Child:
    """Return our server as a child: on ``tcp:PORT`` of loopback, or on the endpoint string given."""
    twistd = [sys.executable, str(Path(sysconfig.get_path("scripts"), "twistd"))]
    chosen = [f"--reactor={reactor}"] if reactor else []
    where = endpoint or f"tcp:{port}:interface={HOST}"
    return child([*twistd, *chosen, "-n", "--pidfile=", "longconn", f"--port={where}", *options], port)


def peer(name: str, port: int) -> Child:
    """Return one of the programs in ``peers/`` as a child."""
    return child([sys.executable, str(ROOT / "bench" / "peers" / f"{name}.py"), str(port)], port)


def add_server_option(parser: argparse.ArgumentParser) -> None:
    """Let the user name another command for the server under test."""
    parser.add_argument("--server", metavar="COMMAND", help="measure COMMAND, '{port}' in it replaced, not longconn")


def under_test(command: str | None, port: int, *options: str) -> Child:
    """Return the server under test: our own, or that of ``--server``."""
    if command is None:
        return longconn(port, *options)
    return child(shlex.split(command.replace("{port}", str(port))), port)


def exit_on_sigterm() -> None:
    """Turn SIGTERM into SystemExit, so that children are ended."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


# -- measurements of the system --------------------------------------------------------------------------------------


def file_limit() -> int:
    """Raise the limit of open files as far as allowed and return it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_sockets(pid: int) -> int:
    """Return how many sockets a process has open."""
    count = 0
    with os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            try:
                count += os.readlink(entry.path).startswith("socket:")
            except FileNotFoundError:  # closed meanwhile
                continue
    return count


# -- connections -----------------------------------------------------------------------------------------------------


def connect(port: int, source: str = HOST, receive_buffer: int | None = None) -> socket.socket:
    """Open a TCP connection (blocking, 20 seconds' patience) from a loopback address, without Nagle's delay."""
    sock = socket.socket()
    try:
        sock.settimeout(20)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source != HOST:
            # The kernel chooses the port at connect, by the address pair: each source address has all ports.
            sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            sock.bind((source, 0))
        sock.connect((HOST, port))
    except BaseException:
        sock.close()
        raise
    return sock


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """Read up to and including ``end``. Returns all bytes read, which may be more."""
    data = b""
    while end not in data:
        more = sock.recv(65536)
        if not more:
            raise BenchError(f"closed by the server after {data[:200]!r}")
        data += more
    return data


def ask_upgrade(sock: socket.socket, port: int, path: str) -> None:
    """Send the request of a WebSocket handshake (RFC 6455, section 4.1)."""
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )


def await_upgrade(sock: socket.socket) -> bytes:
    """Read the response to a WebSocket handshake. Returns the bytes after it."""
    head, _, rest = read_until(sock, b"\r\n\r\n").partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 "):
        raise BenchError(f"no upgrade: {head[:200]!r}")
    return rest


def open_many(
    kind: str,
    port: int,
    count: int,
    path: str = PATHS["ws"],
    sources: Iterable[str] = (HOST,),
    between: Callable[[list[socket.socket]], None] | None = None,
) -> list[socket.socket]:
    """Open connections of a kind (``tcp`` or ``ws``), a few at a time, from each source address in turn.

    ``between`` is called with the sockets of each step. The sockets are non-blocking.
    """
    addresses = list(sources)
    opened: list[socket.socket] = []
    try:
        while len(opened) < count:
            start = len(opened)
            for number in range(start, min(start + OPENING, count)):
                opened.append(connect(port, addresses[number % len(addresses)]))
            step = opened[start:]
            if kind == "tcp":
                time.sleep(0.01)  # time to accept them: over TCP no response says that it has
            else:
                for sock in step:
                    ask_upgrade(sock, port, path)
                for sock in step:
                    await_upgrade(sock)
            for sock in step:
                sock.setblocking(False)
            if between is not None:
                between(step)
    except BaseException:
        close_all(opened)
        raise
    return opened


def close_all(socks: Iterable[socket.socket]) -> None:
    """Close sockets."""
    for sock in socks:
        sock.close()


def arrivals(
    epoll: select.epoll, socks: dict[int, socket.socket], quiet: float, at_most: float
) -> Iterator[tuple[socket.socket, bytes]]:
    """Yield bytes that arrive, until none have for ``quiet`` seconds, or ``at_most`` seconds are over.

    Raises BenchError when the server closes a socket.
    """
    deadline = time.monotonic() + at_most
    while time.monotonic() < deadline:
        events = epoll.poll(quiet)
        if not events:
            return
        for number, _ in events:
            try:
                data = socks[number].recv(65536)
            except BlockingIOError:
                continue
            except ConnectionError as error:
                raise BenchError(f"a connection was lost: {error}") from error
            if not data:
                raise BenchError("a connection was closed by the server")
            yield socks[number], data


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """Return a client's WebSocket frame, masked, of at most 65,535 bytes (RFC 6455, section 5.2)."""
    mask = b"\x5a\xc3\x17\x9e"
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([0x80 | opcode]) + length + mask + masked


def message(kind: str, text: str) -> bytes:
    """Return the bytes with which a client of a kind publishes a text."""
    return frame(text.encode()) if kind == "ws" else text.encode() + b"\r\n"


def percentile(values: list[float], share: float) -> float:
    """Return the value below which a share (0 to 1) of the sorted values lies; NaN for an empty list."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")
