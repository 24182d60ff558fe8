"""A load client: subscribers that only count bytes, and a publisher that keeps a window of messages in flight.

    python bench/load.py --port=9999 --kind=ws --in-flight 1 16

A message is in flight from when it is sent until *every* subscriber has read it. The publisher is a subscriber, too,
and never has more than ``--in-flight`` messages in flight. The result of a window is one line of JSON on standard
output. Every subscriber checks one message, which gives the size of a delivery. From then on bytes are counted, and at
the end each subscriber must have received exactly what was sent.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import select
import sys
import time
from dataclasses import asdict, dataclass

import common

TEXT = "".join(chr(ord("a") + number % 26) for number in range(64))
UNUSED = 1 << 62  # the count of a file number that is not a subscriber, so that it is never the lowest


@dataclass
class Result:
    """The result for one window."""

    kind: str
    subscribers: int
    in_flight: int
    seconds: float
    messages: int
    deliveries_per_second: float
    p50_ms: float
    p99_ms: float
    client_cpu: float
    server_us_per_delivery: float | None


class Load:
    """The connections of one run."""

    def __init__(self, kind: str, port: int, subscribers: int, path: str) -> None:
        self.kind = kind
        self.epoll = select.epoll()
        socks = common.open_many(kind, port, subscribers, path)
        self.socks = {sock.fileno(): sock for sock in socks}
        self.publisher = socks[0]
        self.message = common.message(kind, TEXT)
        for number in self.socks:
            # Edge-triggered: one event for all bytes that arrived. A read shorter than the buffer takes all of them.
            self.epoll.register(number, select.EPOLLIN | select.EPOLLET)

    def settle(self) -> None:
        """Wait until the server has subscribed the silent clients and announced all; read the announcements."""
        deadline = time.monotonic() + 30
        time.sleep(0.5)
        self._drain(1.5, deadline)
        self.publisher.sendall(common.message(self.kind, "hello"))  # a first line announces its client
        self._drain(1.5, deadline)

    def _drain(self, quiet: float, deadline: float) -> None:
        for _ in common.arrivals(self.epoll, self.socks, quiet, deadline - time.monotonic()):
            pass

    def learn_size(self) -> int:
        """Send one message, check that all subscribers read the same, and return its size on the wire."""
        self.publisher.sendall(self.message)
        got = dict.fromkeys(self.socks, b"")
        for sock, data in common.arrivals(self.epoll, self.socks, 0.5, 10):
            got[sock.fileno()] += data
        seen = set(got.values())
        if len(seen) != 1:
            raise common.BenchError(f"the subscribers read different things: {sorted(seen)[:3]}")
        data = seen.pop()
        if data.rstrip(b"\r\n").endswith(TEXT.encode()) and data.count(TEXT.encode()) == 1:
            return len(data)
        raise common.BenchError(f"not one message but {data[:200]!r}")

    def run(self, size: int, in_flight: int, warm_up: float, seconds: float, pid: int | None) -> Result:
        """Keep the window full for `seconds`, let it run empty, and check the counts."""
        receive = {number: sock.recv_into for number, sock in self.socks.items()}
        got = [UNUSED] * (max(receive) + 1)
        for number in receive:
            got[number] = 0
        buffer = bytearray(1 << 18)
        poll, clock, say = self.epoll.poll, time.perf_counter, self.publisher.sendall
        sent_at: list[float] = []
        done_at: list[float] = []
        most = len(receive)
        target, behind = (
            size,
            most,
        )  # `behind` subscribers have not read `target` bytes, the end of the oldest message in flight
        begin = end = 0
        cpu_begin = cpu_end = server_begin = server_end = 0.0
        start = clock()
        from_, until = start + warm_up, start + warm_up + seconds
        began = ended = start
        state = 0  # 0 warming up, 1 measuring, 2 running empty
        say(self.message * in_flight)
        sent_at += [start] * in_flight
        while True:
            for number, _ in poll(1.0, most):
                old = got[number]
                got[number] = new = old + receive[number](buffer)
                if old < target <= new:
                    behind -= 1
            now = clock()
            if not behind:
                done = min(got) // size
                done_at += [now] * (done - len(done_at))
                target = (done + 1) * size
                behind = sum([count < target for count in got])
                if state < 2:
                    room = done + in_flight - len(sent_at)
                    say(self.message * room)
                    sent_at += [now] * room
                elif done == len(sent_at):
                    break
            if state == 0 and now >= from_:
                state, began, begin = 1, now, sum(got) % UNUSED
                cpu_begin, server_begin = time.process_time(), common.cpu_seconds(pid) if pid else 0.0
            elif state == 1 and now >= until:
                state, ended, end = 2, now, sum(got) % UNUSED
                cpu_end, server_end = time.process_time(), common.cpu_seconds(pid) if pid else 0.0
            elif now > until + 20:
                raise common.BenchError(f"{behind} of {most} subscribers lack messages 20 seconds after the end")
        if set(got) - {UNUSED} != {len(sent_at) * size}:
            raise common.BenchError("a subscriber read more than was sent: other traffic came in between")
        rounds = [(sent, read) for sent, read in zip(sent_at, done_at, strict=True) if began <= sent and read <= ended]
        waits = sorted(read - sent for sent, read in rounds)
        deliveries = (end - begin) / size
        return Result(
            kind=self.kind,
            subscribers=most,
            in_flight=in_flight,
            seconds=round(ended - began, 3),
            messages=len(rounds),
            deliveries_per_second=round(deliveries / (ended - began)),
            p50_ms=round(common.percentile(waits, 0.5) * 1000, 2),
            p99_ms=round(common.percentile(waits, 0.99) * 1000, 2),
            client_cpu=round((cpu_end - cpu_begin) / (ended - began), 2),
            server_us_per_delivery=round((server_end - server_begin) / deliveries * 1e6, 2) if pid else None,
        )


def main() -> None:
    """Measure each window, one after the other, on the same connections."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--kind", choices=sorted(common.PATHS), default="ws")
    parser.add_argument("--path", default=common.PATHS["ws"], help="of the WebSocket handshake (default: %(default)s)")
    parser.add_argument("--subscribers", type=int, default=1000, help="the publisher included (default: %(default)s)")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 16], help="default: 1 16")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured, at most 60 (default: %(default)s)")
    parser.add_argument("--pid", type=int, help="the server, to tell its CPU time")
    parser.add_argument("--cpu", type=int, help="the CPU to run on")
    options = parser.parse_args()
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    common.file_limit()
    load = Load(options.kind, options.port, options.subscribers, options.path)
    load.settle()
    size = load.learn_size()
    gc.freeze()
    gc.disable()
    for in_flight in options.in_flight:
        result = load.run(size, in_flight, options.warm_up, min(options.seconds, 60.0), options.pid)
        print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    try:
        main()
    except (common.BenchError, OSError) as error:
        sys.exit(f"load: {error}")
