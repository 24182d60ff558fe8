"""Deliveries a second to gRPC streams: our server, and the same service on grpc.aio, side by side.

    python bench/calls.py [--rounds 3] [--shapes 4x50 100x1] [--in-flight 1 16]

`4x50` is four connections with fifty calls of `LongConn.Subscribe` each. One publisher calls `LongConn.Publish`. It has
at most `--in-flight` messages under way: sent, and not yet read by all. Each round starts each server anew, loads it
and ends it. The load client has its own HTTP/2 framing, to be as fast as Python allows. Its windows are so large that
it never sends a WINDOW_UPDATE. The figures are medians over the rounds; compare only ratios within one run.
"""

from __future__ import annotations

import argparse
import select
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass

import common

sys.path.insert(0, str(common.ROOT))

from longconn.v1 import longconn_pb2 as pb
from longconn.wire import http2
from longconn.wire.grpc import frame

#: Messages are counted by this text, which no other part of a frame contains; a message has 64 bytes.
MARK = b"<one-message>"
TEXT = MARK.decode() + "." * (64 - len(MARK))
SERVICE = b"/longconn.v1.LongConn/"
PATIENCE = 30.0
#: The buffer for reading. `recv` would allocate memory each time, which takes longer than reading a message.
BUFFER = memoryview(bytearray(1 << 18))


class Connection:
    """One HTTP/2 connection of the load client."""

    def __init__(self, port: int) -> None:
        self.sock = common.connect(port)
        self.stream = -1
        self.count = 0
        self._data = b""
        self._tail = b""
        largest = 2**31 - 1  # RFC 9113, section 6.9.1
        windows = {4: largest, 2: 0}
        more = largest - http2.DEFAULT_WINDOW
        self.sock.sendall(http2.PREFACE + http2.settings(windows) + http2.window_update(0, more))

    def call(self, method: bytes, message: bytes) -> None:
        """Begin a call with its only message."""
        self.stream += 2
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", SERVICE + method),
            (b":authority", b"localhost"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        ]
        self.sock.sendall(
            http2.frame(http2.HEADERS, http2.END_HEADERS, self.stream, http2.encode_headers(fields))
            + http2.frame(http2.DATA, http2.END_STREAM, self.stream, frame(message))
        )

    def read(self) -> None:
        """Count the messages in the bytes that arrived, and acknowledge SETTINGS and PING."""
        data = bytes(BUFFER[: self.sock.recv_into(BUFFER)])
        if not data:
            raise common.BenchError("a connection was closed by the server")
        counted = self._tail + data
        self.count += counted.count(MARK)
        self._tail = counted[-(len(MARK) - 1) :]
        self._answer(data)

    def _answer(self, data: bytes) -> None:
        """Acknowledge SETTINGS and PING. Raises BenchError for a GOAWAY or a stream that is reset."""
        data = self._data + data
        at, end = 0, len(data)
        while end - at >= http2.FRAME_HEADER_SIZE:
            length, kind, flags = int.from_bytes(data[at : at + 3], "big"), data[at + 3], data[at + 4]
            after = at + http2.FRAME_HEADER_SIZE + length
            if after > end:
                break
            if kind == http2.SETTINGS and not flags & http2.ACK:
                self.sock.sendall(http2.frame(http2.SETTINGS, http2.ACK, 0, b""))
            elif kind == http2.PING and not flags & http2.ACK:
                self.sock.sendall(http2.ping(data[at + http2.FRAME_HEADER_SIZE : after], ack=True))
            elif kind in (http2.GOAWAY, http2.RST_STREAM):
                raise common.BenchError(f"the server ended a call: {data[at:after]!r}")
            at = after
        self._data = data[at:]


@dataclass
class Result:
    """The result for one window."""

    rate: float
    p50: float
    cpu: float
    client: float


class Load:
    """The subscribers and the publisher of one run."""

    def __init__(self, port: int, connections: int, calls: int) -> None:
        self.calls = calls
        self.connections = [Connection(port) for _ in range(connections)]
        self.publisher = Connection(port)
        self.epoll = select.epoll()
        self.by_number = {each.sock.fileno(): each for each in (*self.connections, self.publisher)}
        for number in self.by_number:
            self.epoll.register(number, select.EPOLLIN)
        request = pb.SubscribeRequest(channel="bench").SerializeToString()
        for connection in self.connections:
            for _ in range(calls):
                connection.call(b"Subscribe", request)
        self.message = pb.PublishRequest(channel="bench", text=TEXT).SerializeToString()
        self._sent = 0

    def settle(self) -> None:
        """Publish until every subscriber receives the messages."""
        deadline = time.monotonic() + PATIENCE
        while True:
            before = [each.count for each in self.connections]
            self.publisher.call(b"Publish", self.message)
            self._poll_for(0.5)
            counts = [each.count - old for each, old in zip(self.connections, before, strict=True)]
            if all(each == self.calls for each in counts):
                break
            if time.monotonic() > deadline:
                raise common.BenchError("not all subscribers receive the messages")
        for each in self.connections:
            each.count = 0

    def _poll_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._poll(left)

    def _poll(self, timeout: float) -> None:
        for number, _ in self.epoll.poll(timeout):
            self.by_number[number].read()

    def measure(self, in_flight: int, seconds: float, pid: int) -> Result:
        """Publish for `seconds`, then wait until all subscribers have read every message."""
        sent: list[float] = []
        waits: list[float] = []
        for each in self.connections:
            each.count = 0
        start, cpu, own = time.monotonic(), common.cpu_seconds(pid), time.process_time()
        done = 0
        while True:
            now = time.monotonic()
            if now - start < seconds:
                while len(sent) - done < in_flight:
                    sent.append(now)
                    self.publisher.call(b"Publish", self.message)
            elif done == len(sent):
                break
            if now - start > seconds + PATIENCE:
                raise common.BenchError("a message did not arrive")
            self._poll(1.0)
            now = time.monotonic()
            lowest = min(each.count for each in self.connections) // self.calls
            waits += [now - each for each in sent[done:lowest]]
            done = lowest
        took = time.monotonic() - start
        deliveries = sum(each.count for each in self.connections)
        if deliveries != len(sent) * self.calls * len(self.connections):
            raise common.BenchError(f"{deliveries} deliveries of {len(sent)} messages")
        return Result(
            deliveries / took,
            statistics.median(waits) * 1000,
            (common.cpu_seconds(pid) - cpu) / deliveries * 1e6,
            (time.process_time() - own) / took,
        )

    def close(self) -> None:
        """Close all connections."""
        common.close_all(each.sock for each in (*self.connections, self.publisher))


def run(name: str, shape: str, options: argparse.Namespace) -> list[Result]:
    """Start one server, load it and return the result of each window."""
    port = common.free_port()
    connections, calls = map(int, shape.split("x"))
    child = common.peer(name, port) if name == "grpc_aio" else common.longconn(port, *common.UNLIMITED)
    with child:
        load = Load(port, connections, calls)
        try:
            load.settle()
            return [load.measure(each, options.seconds, child.pid) for each in options.in_flight]
        finally:
            load.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--shapes", nargs="+", default=["4x50", "100x1"], help="default: 4x50 100x1")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 16], help="default: 1 16")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each window (default: %(default)s)")
    options = parser.parse_args()
    common.exit_on_sigterm()
    names = ["longconn", "grpc_aio"]
    found: dict[tuple[str, int, str], list[Result]] = defaultdict(list)
    for number in range(options.rounds):
        for shape in options.shapes:
            for name in names if number % 2 == 0 else reversed(names):
                for in_flight, result in zip(options.in_flight, run(name, shape, options), strict=True):
                    found[shape, in_flight, name].append(result)
                    print(f"round {number + 1}: {shape} {in_flight:>3} in flight {name:<9}{result}", file=sys.stderr)
    print(
        "| shape | in flight | server | deliveries/s | p50 ms | CPU µs each | client CPU | ratio |\n"
        "|---|---:|---|---:|---:|---:|---:|---:|"
    )
    for (shape, in_flight, name), results in sorted(found.items()):
        rate, p50, cpu, client = (
            statistics.median(getattr(each, key) for each in results) for key in ("rate", "p50", "cpu", "client")
        )
        theirs = statistics.median(each.rate for each in found[shape, in_flight, "grpc_aio"])
        ratio = f"{rate / theirs:.2f}" if name == "longconn" else ""
        print(f"| {shape} | {in_flight} | {name} | {rate:,.0f} | {p50:.1f} | {cpu:.1f} | {client:.0%} | {ratio} |")


if __name__ == "__main__":
    try:
        main()
    except (common.BenchError, OSError, subprocess.TimeoutExpired) as error:
        sys.exit(f"calls: {error}")
