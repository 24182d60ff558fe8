"""`python -m tests.simulation [--seeds N] [--seed N --verbose]`: see `tests.simulation.world`.

A seed that fails is printed with the end of its trace, and can be run again. The exit status is 1 if one failed.
"""

import argparse
import os
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.simulation.checker import WrongError
from tests.simulation.world import simulate

#: Seeds that a process takes at once.
_PART = 100
#: Lines of a trace.
_SHORT = 40


def failure(seed: int, lines: int | None = _SHORT) -> str:
    """What went wrong with a seed; empty if nothing did."""
    try:
        simulate(seed)
    except (Exception, WrongError):
        trace: list[str] = []
        try:
            simulate(seed, trace)
        except (Exception, WrongError) as error:
            shown = trace if lines is None else trace[-lines:]
            found = traceback.format_exc(limit=-4)
            return "\n".join([*shown, found, f"seed {seed}: {type(error).__name__}: {error}"])
        return f"seed {seed} fails, and then does not: {traceback.format_exc()}"
    return ""


def failures(seeds: range) -> list[str]:
    """The failures of some seeds."""
    return [found for found in map(failure, seeds) if found]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Simulates nodes and a Redis.")
    parser.add_argument("--seeds", type=int, default=10_000, help="how many (default: 10,000)")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--first", type=int, default=0, help="the first (default: 0)")
    parser.add_argument("--verbose", action="store_true", help="print the whole trace")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="default: one for each core")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no more seeds after so long")
    options = parser.parse_args()
    if options.seed is not None:
        trace: list[str] = []
        try:
            simulate(options.seed, trace)
        finally:
            print("\n".join(trace if options.verbose else trace[-_SHORT:]))
        return 0
    began = time.monotonic()
    end = options.first + options.seeds
    parts = [range(first, min(end, first + _PART)) for first in range(options.first, end, _PART)]
    done = wrong = 0
    with ProcessPoolExecutor(options.processes) as pool:
        waiting = {}
        for part in parts:
            waiting[pool.submit(failures, part)] = part
        for each in as_completed(waiting):
            done += len(waiting[each])
            if done % 1000 == 0:
                print(f"{done} seeds, {time.monotonic() - began:.0f} s", flush=True)
            for found in each.result():
                wrong += 1
                if wrong <= 5:
                    print(found, flush=True)
            if time.monotonic() - began > options.seconds or wrong >= 5:
                pool.shutdown(cancel_futures=True)
                break
    print(f"{done} seeds, {wrong} failed, {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
