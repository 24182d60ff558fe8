"""Deliveries a second over `/connection/websocket` beside `/ws`: the cost of Centrifugo's client protocol.

    python bench/structured.py [--rounds 5]

Each round starts a server anew for each of the two, which go first in turns. A thousand WebSockets subscribe. A
publisher sends 16 publications at once, and the next 16 when every subscriber has read them. One such batch gives the
sizes; so many go before it that offsets do not grow by a digit while measuring.
"""

from __future__ import annotations

import argparse
import select
import socket
import statistics
import sys
import time

import common

TEXT = "".join(chr(ord("a") + number % 26) for number in range(64))
IN_FLIGHT = 16
PATHS = {"ws": "/ws", "structured": "/connection/websocket"}
OFFSET = 10_000  # where measuring starts: up to 99,999 all batches have the same size


class Subscribers:
    """The connections of one round. The first is the publisher, which is not counted."""

    def __init__(self, kind: str, port: int, count: int) -> None:
        self.epoll = select.epoll()
        socks = common.open_many("ws", port, count + 1, PATHS[kind])
        self.publisher = socks[0]
        self.socks: dict[int, socket.socket] = {sock.fileno(): sock for sock in socks}
        for number in self.socks:
            self.epoll.register(number, select.EPOLLIN | select.EPOLLET)
        if kind == "ws":
            self.batch = common.message("ws", TEXT) * IN_FLIGHT
            return
        for sock in socks:
            commands = b'{"id":1,"connect":{}}'
            if sock is not self.publisher:
                commands += b'\n{"id":2,"subscribe":{"channel":"lobby"}}'
            sock.sendall(common.frame(commands))
        publish = b'{"id":%d,"publish":{"channel":"lobby","data":"%b"}}'
        commands = b"\n".join([publish % (100 + number, TEXT.encode()) for number in range(IN_FLIGHT)])
        self.batch = common.frame(commands)

    def drain(self, quiet: float) -> None:
        for _ in common.arrivals(self.epoll, self.socks, quiet, 30):
            pass

    def learn(self) -> int:
        """Send batches up to the first offset, then one more. Returns its size for one subscriber."""
        for number in range(OFFSET // IN_FLIGHT):
            self.publisher.sendall(self.batch)
            if number % 16 == 15:
                self.drain(0.05)
        self.drain(1.0)
        got = dict.fromkeys(self.socks, 0)
        self.publisher.sendall(self.batch)
        for sock, data in common.arrivals(self.epoll, self.socks, 0.7, 10):
            got[sock.fileno()] += len(data)
        sizes = {size for number, size in got.items() if number != self.publisher.fileno()}
        if max(sizes) - min(sizes) > 64:  # a batch sent in two frames has one more frame header
            raise common.BenchError(f"the subscribers read different things: {sorted(sizes)[:3]}")
        return min(sizes)

    def run(self, size: int, seconds: float, pid: int) -> tuple[float, float]:
        """Deliveries a second, and the server's CPU microseconds for each."""
        receive = {number: sock.recv_into for number, sock in self.socks.items()}
        buffer = bytearray(1 << 18)
        subscribers = [number for number in receive if number != self.publisher.fileno()]
        # Less by one message: a batch in fewer frames is shorter, and still whole.
        need = size - len(TEXT)
        rounds = 0
        began, cpu = time.perf_counter(), common.cpu_seconds(pid)
        while time.perf_counter() - began < seconds:
            got = dict.fromkeys(subscribers, 0)
            missing = len(subscribers)
            self.publisher.sendall(self.batch)
            while missing:
                ready = self.epoll.poll(5.0, len(receive))
                if not ready:
                    raise common.BenchError(f"{missing} subscribers lack a part of a batch")
                for number, _ in ready:
                    more = receive[number](buffer)
                    if number in got:
                        old = got[number]
                        got[number] = old + more
                        missing -= old < need <= old + more
            rounds += 1
        deliveries = rounds * IN_FLIGHT * len(subscribers)
        elapsed = time.perf_counter() - began
        return deliveries / elapsed, (common.cpu_seconds(pid) - cpu) / deliveries * 1e6


def measure(kind: str, subscribers: int, seconds: float) -> tuple[float, float]:
    """Measure one kind against a new server."""
    port = common.free_port()
    with common.longconn(port, *common.UNLIMITED, "--ping-interval=0") as child:
        load = Subscribers(kind, port, subscribers)
        load.drain(1.5)
        size = load.learn()
        load.run(size, 1.0, child.pid)
        result = load.run(size, seconds, child.pid)
        common.close_all(list(load.socks.values()))
    return result


def main() -> None:
    """Measure in turns and print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--subscribers", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured, at most 60 (default: %(default)s)")
    options = parser.parse_args()
    common.exit_on_sigterm()
    common.file_limit()
    results: dict[str, list[tuple[float, float]]] = {kind: [] for kind in PATHS}
    for number in range(options.rounds):
        for kind in PATHS if number % 2 == 0 else reversed(PATHS):
            rate, cpu = measure(kind, options.subscribers, min(options.seconds, 60.0))
            results[kind].append((rate, cpu))
            print(f"round {number + 1}: {PATHS[kind]:<24}{rate:>12,.0f} deliveries/s, {cpu:.2f} µs each", flush=True)
    rates = {kind: statistics.median(rate for rate, _ in each) for kind, each in results.items()}
    for kind, each in results.items():
        low, high = min(rate for rate, _ in each), max(rate for rate, _ in each)
        print(f"{PATHS[kind]:<24}{rates[kind]:>12,.0f} ({low:,.0f} to {high:,.0f})")
    print(f"ratio {rates['structured'] / rates['ws']:.2f}")


if __name__ == "__main__":
    try:
        main()
    except (common.BenchError, OSError) as error:
        sys.exit(f"structured: {error}")
