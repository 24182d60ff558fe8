"""`python -m tests.long NAME --seed N [--seconds S]`: tests that take long.

Each ends by itself and prints its seed. The exit status is 1 if a check fails.
"""

import argparse
import random
import sys
from importlib import import_module

NAMES = ("chaos", "clients", "disturb", "endings", "fuzz", "inputs", "nodes", "recovery", "rounds", "sdk-python")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.long", description="Soaks of the server.")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument(
        "--seed", type=int, default=random.randrange(1_000_000), help="the first seed (default: random)"
    )
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    parser.add_argument(
        "--only", nargs="+", metavar="ROW", help="these attacks (disturb), protocols (inputs) or modes (nodes) alone"
    )
    parser.add_argument("--count", type=int, help="so many inputs for each protocol, whatever the time (inputs)")
    parser.add_argument("--repeat", type=int, help="the medians of so many runs of each (disturb)")
    options = parser.parse_args()
    if options.only and options.name not in ("disturb", "inputs", "nodes"):
        parser.error("--only is for disturb, inputs and nodes")
    print(f"{options.name}: seed {options.seed}, {options.seconds:g} s", flush=True)
    chosen = {name: value for name in ("only", "count", "repeat") if (value := getattr(options, name))}
    import_module(f"tests.long.{options.name.replace('-', '_')}").main(options.seed, options.seconds, print, **chosen)


if __name__ == "__main__":
    sys.exit(main())
