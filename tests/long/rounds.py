"""Whether the server gives its memory back: five equal rounds of crowds and floods against one server.

After each round all of them have left, and the server's memory is printed. The check fails if it is more than a tenth
larger after the last round than after the second, or if clients are left.
"""

import multiprocessing
import re
import time
from pathlib import Path
from typing import Any

from tests.live.programs import Server
from tests.long.disturb import MANY, SETTINGS, Wrong

ROUNDS = 5
#: From this round on the server's memory must stay within `MORE` of what it was.
WARM = 2
MORE = 1.1
#: Each round has these, one after the other: crowds, slow ones, what is kept for others, floods, and gRPC.
MIX = (
    "openings",
    "joins",
    "silent",
    "slow-heads",
    "slow-bodies",
    "structured-histories",
    "held-readers",
    "http2-rapid-resets",
    "http2-windows",
    "json-posts",
    "json-commands",
    "speakers",
    "grpc-presence",
)
#: Seconds that each attack takes at least, and in which all clients must be gone.
LEAST = 1.0
GONE = 60.0


def _memory(pid: int) -> int:
    found = re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def _round(server: Server, each: float) -> None:
    for name in MIX:
        until = time.monotonic() + each
        attacker = multiprocessing.get_context("fork").Process(
            target=MANY[name], args=(server.port, until), daemon=True
        )
        attacker.start()
        attacker.join(each + 5)
        attacker.kill()
        attacker.join()
    end = time.monotonic() + GONE
    while clients := server.api("info")["nodes"][0]["num_clients"]:
        if time.monotonic() > end:
            raise Wrong(f"{clients} clients are left")
        time.sleep(0.5)


def main(seed: int, seconds: float, say: Any) -> None:
    """Nothing is random: the seed has no effect."""
    server = Server(SETTINGS)
    found: list[int] = []
    try:
        for number in range(1, ROUNDS + 1):
            _round(server, max(LEAST, seconds / ROUNDS / len(MIX)))
            found.append(_memory(server.pid))
            say(f"round {number}: {found[-1] / (1 << 20):.1f} MiB")
    finally:
        server.clean_up()
    grown = found[-1] / found[WARM - 1]
    say(f"after round {ROUNDS} it is {grown:.3f} of what it was after round {WARM}")
    if grown > MORE:
        raise Wrong("the server's memory grows")
