"""Shares out the turns of the reactor among long work; and the table of what each kind of input costs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TypeVar

from longconn.core.turn import Turn

_T = TypeVar("_T")

# The table of costs: microseconds that one input takes, about. One read may bring thousands of each.

#: A line, or a command: an empty one, a pong, one that is refused.
COMMAND = 20
#: A line that is published together with others.
BATCHED = 3
#: A step of Autobahn, which takes two for a WebSocket frame: a ping, a pong, a part of a message.
FRAME_STEP = 30
#: A request of HTTP that is answered at once, also with 404.
REQUEST = 250
#: A connection that becomes a client, beyond the request that it may begin with.
OPENING = 300
#: The end of a connection, or of its client.
LEAVING = 100
#: A subscribe or an unsubscribe, beyond the command.
MEMBERSHIP = 100
#: An answer to a long poll.
POLL = 250
#: A line end in a chunked body: a small chunk has two.
CHUNK_LINE = 4
#: An item (a client, a channel) that a command looks at to be answered; and as many of them as are looked at at once.
ITEM = 2
ITEMS_AT_ONCE = 500

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

    @property
    def full(self) -> bool:
        """Whether further work has to wait for a later turn."""
        return self._used >= _SLICE or bool(self._waiting)

    def take(self, cost: int) -> bool:
        """Count work of `cost` microseconds that is done now; False, and nothing is counted, if it must wait."""
        if self.full:
            return False
        self.count(cost)
        return True

    def do(self, host: str, cost: int, call: Callable[[], object]) -> WaitingWork | None:
        """Call `call` now if this turn has room, as most turns have, or in a later turn: None if it was called."""
        if self.take(cost):
            call()
            return None
        return self.wait(host, cost, call)

    def wait(self, host: str, cost: int, call: Callable[[], object]) -> WaitingWork:
        """Call `call` in a later turn, when work of `cost` microseconds may be done for the peer `host`."""
        waiting = WaitingWork(cost, call)
        self._waiting.setdefault(host, deque()).append(waiting)
        self.count(0)
        return waiting

    def look_at(self, host: str, items: Iterable[_T], look: Callable[[_T], object], done: Callable[[], None]) -> None:
        """Call `look` with each item for the peer `host`, in as many turns as it takes, and then `done`."""
        self._look_at(host, iter(items), look, done)

    def _look_at(self, host: str, left: Iterator[_T], look: Callable[[_T], object], done: Callable[[], None]) -> None:
        while found := tuple(islice(left, ITEMS_AT_ONCE)):
            for each in found:
                look(each)
            self.count(len(found) * ITEM)
            if self._used >= _SLICE and len(found) == ITEMS_AT_ONCE:
                self.wait(host, 0, partial(self._look_at, host, left, look, done))
                return
        done()

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
