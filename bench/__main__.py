"""Compare longconn with other servers on this machine: ``python -m bench``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench import generator, install, report
from bench.process import SERVER_CORE, BenchError, Child, free_port
from bench.report import Result
from bench.rows import ROWS, Row, generator_options
from bench.servers import SERVERS, Server


def measure(server: Server, row: Row, options: argparse.Namespace) -> dict[str, float]:
    """Start a server, put the row's load on it, and end it."""
    port = free_port()
    core = SERVER_CORE if options.pin else None
    with Child(server.command(port), port, core, dict(server.environment or {})) as child:
        load = generator_options(row, server.dialects[row.speaks], options.seconds)
        try:
            return generator.run(row.mode, port, {**load, "pids": child.pid}, options.pin)
        except BenchError as error:
            raise BenchError(f"{error}\n{child.log()[-2000:]}") from None


def measure_all(plan: list[Result], servers: dict[str, Server], options: argparse.Namespace) -> None:
    """Measure everything once in each run; the servers of a row follow each other, in another order each run."""
    begun, done, total = time.monotonic(), 0, len(plan) * options.runs
    for run in range(options.runs):
        for result in plan if run % 2 == 0 else reversed(plan):
            done += 1
            if result.error:
                continue
            try:
                figures = measure(servers[result.server], result.row, options)
            except (BenchError, subprocess.TimeoutExpired) as error:
                result.error = str(error)
                shown = f"failed: {error}"
            else:
                result.figures.append(figures)
                shown = f"{figures[result.row.figure]:,.0f} {result.row.unit}"
            print(
                f"{done}/{total} {time.monotonic() - begun:4.0f} s  {result.row.group}: {result.row.name}, "
                f"{result.server}: {shown}",
                file=sys.stderr,
                flush=True,
            )


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--install", action="store_true", help=f"install the peers into {install.CACHE}, and end")
    parser.add_argument("--list", action="store_true", help="show rows and servers, and end")
    parser.add_argument("--full", action="store_true", help="all rows, not only those of five minutes")
    parser.add_argument("--rows", nargs="+", metavar="TEXT", help="only rows whose name has one of these texts")
    parser.add_argument("--servers", nargs="+", metavar="NAME", help="only these servers")
    parser.add_argument("--runs", type=int, default=1, help="medians of so many (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write all figures there, too")
    parser.add_argument("--no-pin", dest="pin", action="store_false", help="do not keep server and load on a core each")
    return parser.parse_args()


def chosen_rows(options: argparse.Namespace) -> list[Row]:
    """Return the rows that the options ask for."""
    if options.rows:
        return [row for row in ROWS if any(each.lower() in f"{row.group}: {row.name}".lower() for each in options.rows)]
    return [row for row in ROWS if row.quick or options.full]


def chosen_servers(options: argparse.Namespace) -> dict[str, Server]:
    """Return the servers that the options ask for and that are there; name the others."""
    names = [each.lower() for each in options.servers or ()]
    unknown = set(names) - {server.name.lower() for server in SERVERS}
    if unknown:
        raise BenchError(f"no such server: {', '.join(unknown)}; there are {', '.join(each.name for each in SERVERS)}")
    chosen = {}
    for server in SERVERS:
        if names and server.name.lower() not in names:
            continue
        missing = server.missing()
        if missing is None:
            chosen[server.name] = server
        else:
            print(f"{server.name} is left out: {missing}", file=sys.stderr)
    return chosen


def main() -> None:
    """Measure and print."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are ended
    if options.install:
        install.install()
        return
    rows = chosen_rows(options)
    if options.list:
        print(*(f"{row.group}: {row.name}{'' if row.quick else ' (--full)'}" for row in ROWS), sep="\n")
        print("\nservers:", ", ".join(server.name for server in SERVERS))
        return
    servers = chosen_servers(options)
    generator.load_program()
    plan = [Result(row, name) for row in rows for name, each in servers.items() if row.speaks in each.dialects]
    measure_all(plan, servers, options)
    if options.json:
        Path(options.json).write_text(json.dumps([each.as_dict() for each in plan], indent=1) + "\n")
    print(f"medians of {options.runs}, load average {os.getloadavg()[0]:.1f}\n\n{report.table(plan)}")


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"bench: {error}")
