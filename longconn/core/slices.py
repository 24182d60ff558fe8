"""Shares out the turns of the reactor among long work; and the table of what each kind of input costs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from longconn.core.turn import Turn

# The table of costs: microseconds that one input takes, about. One read may bring thousands of each.

#: A line, or a command: an empty one, a pong, one that is refused.
COMMAND = 20
#: A step of Autobahn, which takes two for a WebSocket frame: a ping, a pong, a part of a message.
FRAME_STEP = 30
#: A request of HTTP that is answered at once, also with 404.
REQUEST = 250
#: A line end in a chunked body: a small chunk has two.
CHUNK_LINE = 4
#: An item (a client, a channel) that a command looks at to be answered.
ITEM = 2

#: What one connection takes at a time.
PART = 600
#: What is shared out in one turn, among all. Other clients are served between two turns.
_SLICE = 4_000
#: Bytes that are inflated and parsed in a microsecond, at least.
_BYTES_PER_MICROSECOND = 200


def cost_of_bytes(size: int) -> int:
    """Microseconds that inflating and parsing a message of `size` bytes takes."""
    return size // _BYTES_PER_MICROSECOND


class WaitingWork:
    """Work that waits for its turn."""

    __slots__ = ("call", "cost")

    def __init__(self, cost: int, call: Callable[[], object]) -> None:
        self.cost = cost
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Do not call it."""
        self.call = None


class Slices:
    """Work that does not fit into the slice of one turn waits for the next turns. Addresses take turns."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._used = 0
        self._counting = False
        # Work that waits, by address. The first address has the next turn.
        self._waiting: dict[str, deque[WaitingWork]] = {}

    def take(self, cost: int) -> bool:
        """Count work of `cost` microseconds that is done now; False, and nothing is counted, if it must wait."""
        if self._waiting or self._used >= _SLICE:
            return False
        self.count(cost)
        return True

    def wait(self, host: str, cost: int, call: Callable[[], object]) -> WaitingWork:
        """Call `call` in a later turn, when work of `cost` microseconds may be done for the peer `host`."""
        waiting = WaitingWork(cost, call)
        self._waiting.setdefault(host, deque()).append(waiting)
        self.count(0)
        return waiting

    def count(self, cost: int) -> None:
        """Count work that is done now in any case."""
        self._used += cost
        if not self._counting:
            self._counting = True
            self._turn.soon(self._next_turn)

    def _next_turn(self) -> None:
        self._counting = False
        self._used = 0
        while self._waiting and self._used < _SLICE:
            host, works = next(iter(self._waiting.items()))
            del self._waiting[host]
            work = works.popleft()
            if works:
                self._waiting[host] = works
            if work.call is not None:  # it was not cancelled meanwhile
                self.count(work.cost)
                work.call()
        if self._waiting:
            self.count(0)
