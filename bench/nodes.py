"""Publishing through Redis: ``python -m bench.nodes``.

Publications a second of one node, one after another and many at once, beside ``redis-benchmark`` with the same script;
and the time from a publication at one node to its reading at another, both in processes of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from twisted.internet import asyncioreactor

from bench.process import Child, free_port
from longconn.core.publication import Data, Info, Position
from longconn.core.settings import Settings
from longconn.redis.scripts import PUBLISH
from longconn.redis.server import redis_broker

SIZE = 64
DATA = Data.of_text("x" * SIZE)
INFO = Info("bench")
#: Requests of redis-benchmark that are under way at once, and publications of the node.
AT_ONCE = 64
RATE = 100


class Redis:
    """A server without persistence on a port, and its end."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.port = free_port()
        command = ["redis-server", "--port", str(self.port), "--save", "", "--dir", self._folder.name]
        self._child = Child(command, self.port, None, {})

    def __enter__(self) -> Redis:
        self._child.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        self._child.__exit__(*reason)
        self._folder.cleanup()

    def benchmark(self, pipeline: int, requests: int) -> float:
        """Requests a second with the script that publishes, by redis-benchmark."""
        subprocess.run(
            ["redis-cli", "-p", str(self.port), "SCRIPT", "LOAD", PUBLISH.source], check=True, capture_output=True
        )
        # Marks without a number at their end have no order.
        arguments = ["g", "e", "3900", "300000", "__rand_int__m", "60", "100", "1048576", "m:b", "x" * (SIZE + 40)]
        keys = ["b:{c}:meta", "b:{c}:stream", "b:{c}:once"]
        command = ["redis-benchmark", "-p", str(self.port), "-c", "1", "-P", str(pipeline), "-n", str(requests), "-q"]
        command += ["-r", "1000000000", "EVALSHA", PUBLISH.digest, "3", *keys, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        found = re.findall(r"([\d.]+) requests per second", done.stdout)
        return float(found[-1])


class Node:
    """A broker on the asyncio reactor of this process."""

    def __init__(self, reactor: Any, port: int) -> None:
        self._broker = redis_broker(reactor, Settings(broker=(f"redis://127.0.0.1:{port}",)))
        self._broker.attach(self)  # type: ignore[arg-type]

    def on_broker_change(self) -> None:
        pass

    async def __aenter__(self) -> Node:
        self._broker.start()
        while self._broker.problem:
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *reason: object) -> None:
        self._broker.stop()
        await asyncio.sleep(0.1)

    async def publish(self, at_once: int, count: int) -> float:
        """Publications a second with so many under way."""
        done = asyncio.get_running_loop().create_future()
        sent = answered = 0
        begun = time.perf_counter()

        def answer(result: Any) -> None:
            nonlocal sent, answered
            answered += 1
            if not isinstance(result, Position):
                done.set_exception(result)
            elif answered == count:
                done.set_result(None)
            elif sent < count:
                sent += 1
                self._broker.publish("bench", DATA, INFO, answer)

        for _ in range(at_once):
            sent += 1
            self._broker.publish("bench", DATA, INFO, answer)
        await done
        return count / (time.perf_counter() - begun)


async def rates(reactor: Any, runs: int) -> None:
    figures: dict[str, list[float]] = {}
    with Redis() as redis:
        async with Node(reactor, redis.port) as node:
            for _ in range(runs):
                for name, at_once, count in (("alone", 1, 5_000), ("at once", AT_ONCE, 40_000)):
                    figures.setdefault(f"redis-benchmark, {name}", []).append(
                        await asyncio.to_thread(redis.benchmark, at_once, count)
                    )
                    figures.setdefault(f"this node, {name}", []).append(await node.publish(at_once, count))
    middle = {name: median(each) for name, each in figures.items()}
    for name in ("alone", "at once"):
        ours, theirs = middle[f"this node, {name}"], middle[f"redis-benchmark, {name}"]
        print(f"{name:8} {ours:9,.0f} publications a second; redis-benchmark {theirs:9,.0f}; {ours / theirs:.2f} of it")


async def latency(seconds: float) -> None:
    """From a publication at one node to the line at the other."""
    with Redis() as redis:
        ports = [free_port(), free_port()]
        serve = [str(Path(sys.executable).with_name("longconn")), "serve", f"--broker=redis://127.0.0.1:{redis.port}"]
        first, second = (Child([*serve, f"--port=127.0.0.1:{each}"], each, None, {}) for each in ports)
        with first, second:
            await asyncio.sleep(1)
            writers = [await asyncio.open_connection("127.0.0.1", port) for port in ports]
            for _, writer in writers:
                writer.write(b"/nick " + f"n{id(writer)}".encode() + b"\n")
            reader = writers[1][0]
            taken: list[float] = []

            async def read() -> None:
                while line := await reader.readline():
                    _, _, text = line.partition(b": at ")
                    if text:
                        taken.append(time.perf_counter() - float(text))

            reading = asyncio.ensure_future(read())
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                writers[0][1].write(b"at %.6f\n" % time.perf_counter())
                await asyncio.sleep(1 / RATE)
            await asyncio.sleep(0.5)
            reading.cancel()
    cuts = quantiles(taken, n=100)
    print(
        f"from node to node at {RATE} a second: p50 {median(taken) * 1000:.2f} ms, p99 {cuts[98] * 1000:.2f} ms, "
        f"longest {max(taken) * 1000:.1f} ms, of {len(taken)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.nodes", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each, of which the median counts (default: 5)")
    parser.add_argument("--seconds", type=float, default=20, help="how long the latency is measured (default: 20)")
    options = parser.parse_args()
    loop = asyncio.new_event_loop()
    asyncioreactor.install(loop)
    from twisted.internet import reactor

    installed: Any = reactor

    async def run() -> None:
        try:
            await rates(installed, options.runs)
            await latency(options.seconds)
        finally:
            installed.stop()

    task = loop.create_task(run())
    installed.run()
    task.result()


if __name__ == "__main__":
    main()
