"""Deliveries a second to many subscribers: our server and a peer of each kind, side by side.

    python bench/fanout.py [--rounds 5] [--kinds ws tcp] [--in-flight 1 16]

Each round starts each server anew, loads it by ``load.py`` and ends it. Ours and the peer go first in turns. The
figures are medians over the rounds; compare only ratios within one run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from typing import Any

import common

PEERS = {"ws": "ws_broadcast", "tcp": "line_receiver"}
PATIENCE = 240  # seconds for one load client, all its windows together
Samples = dict[tuple[str, int, str], list[dict[str, Any]]]


def measure(name: str, kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Start one server, load it and return the load client's result for each window."""
    port = common.free_port()
    ours = name not in PEERS.values()
    child = common.under_test(options.server, port, *common.UNLIMITED) if ours else common.peer(name, port)
    with child:
        command = [sys.executable, str(common.ROOT / "bench" / "load.py"), f"--port={port}", f"--kind={kind}"]
        command += [f"--path={common.PATHS['ws'] if ours else '/'}", f"--subscribers={options.subscribers}"]
        command += [f"--seconds={options.seconds}", f"--pid={child.pid}", "--in-flight", *map(str, options.in_flight)]
        if options.pin:
            first, second = sorted(os.sched_getaffinity(0))[:2]
            os.sched_setaffinity(child.pid, {first})
            command.append(f"--cpu={second}")
        # run() kills the client on a time-out or an error. Its standard error is shown.
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=PATIENCE, text=True)
        if done.returncode:
            raise common.BenchError(f"the load client failed against {name}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def collect(options: argparse.Namespace) -> Samples:
    """Run all rounds."""
    samples: Samples = defaultdict(list)
    for number in range(options.rounds):
        for kind in options.kinds:
            names = ["under test" if options.server else "longconn", PEERS[kind]]
            for name in names if number % 2 == 0 else reversed(names):
                for result in measure(name, kind, options):
                    samples[kind, result["in_flight"], name].append(result)
                    rate, latency = result["deliveries_per_second"], result["p50_ms"]
                    print(
                        f"round {number + 1}: {kind} {result['in_flight']:>3} in flight, {name:<14}"
                        f"{rate:>10,.0f} deliveries/s, p50 {latency} ms, client's CPU {result['client_cpu']:.0%}",
                        file=sys.stderr,
                        flush=True,
                    )
    return samples


def table(samples: Samples) -> str:
    """Return the medians, the extremes and the ratios as a Markdown table."""
    lines = [
        "| kind | in flight | server | deliveries/s | min | max | p50 ms | p99 ms | CPU µs each | client CPU | ratio |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (kind, in_flight, name), results in sorted(samples.items()):
        rates, theirs = (
            [result["deliveries_per_second"] for result in samples[kind, in_flight, each]]
            for each in (name, PEERS[kind])
        )
        middle = {
            key: statistics.median(result[key] for result in results)
            for key in ("p50_ms", "p99_ms", "server_us_per_delivery", "client_cpu")
        }
        ratio = f"{statistics.median(rates) / statistics.median(theirs):.2f}" if name != PEERS[kind] else ""
        lines.append(
            f"| {kind} | {in_flight} | {name} | {statistics.median(rates):,.0f} | {min(rates):,.0f} | {max(rates):,.0f}"
            f" | {middle['p50_ms']:.1f} | {middle['p99_ms']:.1f} | {middle['server_us_per_delivery']:.2f}"
            f" | {middle['client_cpu']:.0%} | {ratio} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--kinds", nargs="+", choices=sorted(PEERS), default=["ws", "tcp"], help="default: both")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 16], help="default: 1 16")
    parser.add_argument("--subscribers", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each window (default: %(default)s)")
    parser.add_argument("--pin", action="store_true", help="keep the server and the client on a CPU each")
    common.add_server_option(parser)
    options = parser.parse_args()
    common.exit_on_sigterm()
    print(
        f"{options.subscribers} subscribers, 64 bytes, medians of {options.rounds} rounds\n\n{table(collect(options))}"
    )


if __name__ == "__main__":
    try:
        main()
    except (common.BenchError, OSError, subprocess.TimeoutExpired) as error:
        sys.exit(f"fanout: {error}")
