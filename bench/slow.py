"""The effect of a client that never reads on the others: latency before, while it hangs, and after its disconnect.

    python bench/slow.py [--reactor epoll asyncio] [--over tcp tls] [--rate 200] [--size 1024]

One publisher and some readers exchange chat lines at a steady rate. The latency of a delivery is the time from the
publisher's send to the reader's read, both in this process. Then a client with a tiny receive buffer connects and reads
nothing, until the server disconnects it or ``--at-most`` seconds are over. The others then go on without it.
"""

from __future__ import annotations

import argparse
import select
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import common

SLOW_BUFFER = 2048  # bytes for SO_RCVBUF; the kernel raises them to its minimum


@dataclass
class Reader:
    """A client that reads at once."""

    sock: socket.socket
    rest: bytes = b""

    def latencies(self) -> list[float]:
        """Read all that has arrived. Returns the latency in seconds of each whole line that carries a time."""
        received = [self.rest]
        try:
            while data := self.sock.recv(65536):
                received.append(data)
                if len(data) < 65536 and not isinstance(self.sock, ssl.SSLSocket):
                    break
            else:
                raise common.BenchError("a client that reads was disconnected")
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        now = time.perf_counter_ns()
        *lines, self.rest = b"".join(received).split(b"\n")
        times = (line.partition(b"sent=")[2][:20] for line in lines)
        return [(now - int(sent)) / 1e9 for sent in times if sent]


@dataclass
class Room:
    """The publisher and the readers. The first reader is the publisher."""

    readers: list[Reader]
    rate: float
    size: int
    epoll: select.epoll = field(default_factory=select.epoll)
    next_send: float = 0.0

    def __post_init__(self) -> None:
        self.by_number = {reader.sock.fileno(): reader for reader in self.readers}
        for number in self.by_number:
            self.epoll.register(number, select.EPOLLIN)

    def talk(self, seconds: float, slow: socket.socket | None = None) -> tuple[list[float], bool]:
        """Publish for `seconds`, or until the slow client is cut off. Returns the latencies, and whether it was."""
        gone = select.poll()
        if slow is not None:
            gone.register(slow, 0)  # poll() reports errors and hang-ups even without flags
        found: list[float] = []
        until = time.perf_counter() + seconds
        self.next_send = time.perf_counter()
        while (now := time.perf_counter()) < until:
            if now >= self.next_send:
                self._publish()
                self.next_send += 1 / self.rate
                if slow is not None and gone.poll(0):
                    break
            self._read(found, max(0.0, self.next_send - time.perf_counter()))
        drained = time.perf_counter() + 1
        while time.perf_counter() < drained and self._read(found, 0.2):
            pass
        return found, slow is not None and bool(gone.poll(0))

    def _publish(self) -> None:
        text = b"sent=%020d " % time.perf_counter_ns()
        self.readers[0].sock.sendall(text.ljust(self.size, b"x") + b"\r\n")

    def _read(self, found: list[float], patience: float) -> int:
        events = self.epoll.poll(patience)
        for number, _ in events:
            found += self.by_number[number].latencies()
        return len(events)


class Client:
    """Opens clients, over TLS or not."""

    def __init__(self, port: int, over: str) -> None:
        self.port = port
        self.tls = ssl.create_default_context() if over == "tls" else None
        if self.tls is not None:
            self.tls.check_hostname = False
            self.tls.verify_mode = ssl.CERT_NONE

    def open(self, receive_buffer: int | None = None) -> socket.socket:
        """Connect, shake hands, and come back non-blocking."""
        sock = common.connect(self.port, receive_buffer=receive_buffer)
        if self.tls is not None:
            sock = self.tls.wrap_socket(sock)
        sock.setblocking(False)
        return sock


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate with the openssl program; return the files of the key and the certificate."""
    if shutil.which("openssl") is None:
        raise common.BenchError("the openssl program is needed for --over tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return key, cert


def row(label: str, reactor: str, over: str, latencies: list[float]) -> str:
    """Return a line of the table."""
    latencies.sort()
    p50, p99 = (common.percentile(latencies, share) * 1000 for share in (0.5, 0.99))
    most = max(latencies, default=float("nan")) * 1000
    return f"| {reactor} | {over} | {label} | {len(latencies):,} | {p50:.2f} | {p99:.2f} | {most:.2f} |"


def measure(options: argparse.Namespace, reactor: str, over: str) -> None:
    """Measure one server and print its part of the table."""
    port = common.free_port()
    notes = []
    with tempfile.TemporaryDirectory(prefix="longconn-bench-") as folder:
        endpoint = None
        if over == "tls":
            key, cert = certificate(Path(folder))
            endpoint = f"ssl:{port}:privateKey={key}:certKey={cert}:interface={common.HOST}"
        server = common.longconn(port, *common.UNLIMITED, *options.option, reactor=reactor, endpoint=endpoint)
        with server:
            client = Client(port, over)
            room = Room([Reader(client.open()) for _ in range(options.readers)], options.rate, options.size)
            time.sleep(0.5)  # a silent client is a listener after 0.3 s
            room.talk(1)
            before, _ = room.talk(options.seconds)
            slow = client.open(SLOW_BUFFER)
            host, number = slow.getsockname()
            time.sleep(0.5)
            start = time.perf_counter()
            hanging, cut = room.talk(options.at_most, slow)
            took = time.perf_counter() - start
            after, _ = room.talk(options.seconds)
            notes = [line for line in server.log().splitlines() if f"{host}:{number}" in line]
            common.close_all([slow, *(reader.sock for reader in room.readers)])
    for label, latencies in (("before", before), ("while it hangs", hanging), ("after", after)):
        print(row(label, reactor, over, latencies))
    said = "; ".join(notes) or "nothing"
    print(
        f"\n{reactor}, {over}: the slow client was {'disconnected' if cut else 'NOT disconnected'} after {took:.1f} s,"
        f" by its socket; the log says of it: {said}\n",
        flush=True,
    )


def main() -> None:
    """Measure each reactor with and without TLS."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reactor", nargs="+", default=["epoll", "asyncio"], help="default: epoll asyncio")
    parser.add_argument("--over", nargs="+", choices=["tcp", "tls"], default=["tcp", "tls"], help="default: both")
    parser.add_argument("--readers", type=int, default=51, help="the publisher included (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=200.0, help="messages a second (default: %(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="bytes of a message (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="before, and after (default: %(default)s)")
    parser.add_argument("--at-most", type=float, default=60.0, help="seconds of hanging (default: %(default)s)")
    parser.add_argument("--option", action="append", default=[], help="of the server: --option=--send-queue=65536")
    options = parser.parse_args()
    common.exit_on_sigterm()
    print("| reactor | over | the slow client | deliveries | p50 ms | p99 ms | max ms |")
    print("|---|---|---|---:|---:|---:|---:|")
    for reactor in options.reactor:
        for over in options.over:
            measure(options, reactor, over)


if __name__ == "__main__":
    try:
        main()
    except (common.BenchError, OSError) as error:
        sys.exit(f"slow: {error}")
