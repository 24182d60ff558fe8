"""Resident memory of idle connections, and the memory left after they are closed.

    python bench/idle.py [--kind ws] [--connections 10000] [--rounds 5]

The server runs as a child. 50 connections warm it up; its memory after they are closed counts as that of the empty
server. Each round opens all connections, lets them settle, closes them, and waits until the server has closed its ends
too.
"""

from __future__ import annotations

import argparse
import select
import socket
import sys
import time
from dataclasses import dataclass

import common

SPARE = 200  # open files that the server and this program need for other purposes
PER_SOURCE = 2000  # connections from one loopback address, which has about 28,000 ports; a used port is held for 60 s
PING = 9
PONG = 10


@dataclass
class Crowd:
    """Open connections, and the epoll object that watches them."""

    kind: str
    epoll: select.epoll
    socks: dict[int, socket.socket]

    def read(self, quiet: float, at_most: float) -> None:
        """Read joins and pings, and answer pings, until none arrive or the time is over."""
        for sock, data in common.arrivals(self.epoll, self.socks, quiet, at_most):
            if self.kind == "ws":
                self._answer_pings(sock, data)

    def _answer_pings(self, sock: socket.socket, data: bytes) -> None:
        # Frames to an idle client are small and arrive whole.
        while len(data) >= 4:
            length, start = data[1], 2
            if length == 126:
                length, start = int.from_bytes(data[2:4], "big"), 4
            end = start + length
            if data[0] & 0x0F == PING:
                sock.sendall(common.frame(data[start:end], PONG))
            data = data[end:]


def open_crowd(kind: str, port: int, count: int) -> Crowd:
    """Open connections from several loopback addresses, and meanwhile read from those that are open."""
    crowd = Crowd(kind, select.epoll(), {})
    sources = [f"127.0.0.{2 + number}" for number in range(max(1, -(-count // PER_SOURCE)))]

    def between(step: list[socket.socket]) -> None:
        for sock in step:
            crowd.socks[sock.fileno()] = sock
            crowd.epoll.register(sock, select.EPOLLIN)
        crowd.read(0, 1)

    common.open_many(kind, port, count, sources=sources, between=between)
    return crowd


def wait_for_sockets(pid: int, wanted: int, crowd: Crowd | None = None) -> None:
    """Wait until the server has `wanted` sockets open."""
    deadline = time.monotonic() + 60
    while (now := common.open_sockets(pid)) != wanted:
        if time.monotonic() > deadline:
            raise common.BenchError(f"the server has {now} open sockets after 60 seconds, not {wanted}")
        if crowd is None:
            time.sleep(0.1)
        else:
            crowd.read(0.1, 0.2)


def settled_kib(pid: int, crowd: Crowd | None = None) -> int:
    """Return the resident memory once it has not changed for two seconds, or after 20 seconds."""
    seen = [common.resident_kib(pid)]
    while len(seen) < 20:
        if crowd is None:
            time.sleep(1)
        else:
            crowd.read(1, 1)
        seen.append(common.resident_kib(pid))
        if len(seen) > 2 and max(seen[-3:]) - min(seen[-3:]) <= seen[-1] // 500:
            break
    return seen[-1]


def one_round(kind: str, child: common.Child, count: int, empty_sockets: int) -> tuple[int, int]:
    """Open and close all connections. Returns the resident memory while they were open, and after."""
    crowd = open_crowd(kind, child.port, count)
    try:
        wait_for_sockets(child.pid, empty_sockets + count, crowd)
        full = settled_kib(child.pid, crowd)
    finally:
        common.close_all(crowd.socks.values())
        crowd.epoll.close()
    wait_for_sockets(child.pid, empty_sockets)
    return full, settled_kib(child.pid)


def measure(options: argparse.Namespace, count: int) -> None:
    """Print one line for each round, then the verdicts."""
    port = common.free_port()
    with common.under_test(options.server, port) as child:
        time.sleep(1)  # until the connection that found it listening is gone
        empty_sockets = common.open_sockets(child.pid)
        one_round(options.kind, child, 50, empty_sockets)
        empty = common.resident_kib(child.pid)
        print(f"empty server: {empty:,} KiB resident")
        after = []
        for number in range(options.rounds):
            full, left = one_round(options.kind, child, count, empty_sockets)
            after.append(left)
            print(
                f"round {number + 1}: open {full:,} KiB, {(full - empty) / count:.2f} KiB each beyond the empty server;"
                f" all closed {left:,} KiB",
                flush=True,
            )
            if number == 0:
                first = full
    print(f"{count} idle {options.kind} connections: {(first - empty) / count:.2f} KiB each (first round)")
    if len(after) > 2:
        growth = after[-1] / after[1] - 1
        verdict = "at most 10 %" if growth <= 0.1 else "MORE than 10 %"
        print(f"after round {len(after)}: {growth:+.1%} against after round 2, {verdict}")


def main() -> None:
    """Measure one kind of connection."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kind", choices=sorted(common.PATHS), default="tcp", help="default: %(default)s")
    parser.add_argument("--connections", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    common.add_server_option(parser)
    options = parser.parse_args()
    common.exit_on_sigterm()
    limit = common.file_limit()
    count = min(options.connections, limit - SPARE)
    if count < options.connections:
        print(f"{count} connections, not {options.connections}: the limit of open files is {limit}")
    measure(options, count)


if __name__ == "__main__":
    try:
        main()
    except (common.BenchError, OSError) as error:
        sys.exit(f"idle: {error}")
