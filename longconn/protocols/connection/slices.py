"""Shares out the turns of the reactor among long work of many connections: inflating, encoding, checking."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred, succeed

from longconn.core.turn import Turn

#: Microseconds of work in one turn, of all connections. Other clients are served between two turns.
_SLICE = 4_000
#: Bytes that are inflated and parsed in a microsecond, at least.
_BYTES_PER_MICROSECOND = 200


def cost_of_bytes(size: int) -> int:
    """Microseconds that inflating and parsing a message of `size` bytes takes."""
    return size // _BYTES_PER_MICROSECOND


class Slices:
    """Work that does not fit into the slice of one turn waits for the next turns. Addresses take turns."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._used = 0
        self._counting = False
        # Work that waits, and its cost, by address. The first address has the next turn.
        self._waiting: dict[str, deque[tuple[int, Deferred[None]]]] = {}

    def take(self, host: str, cost: int) -> Deferred[None]:
        """Fires when work of `cost` microseconds may be done for the peer `host`; at once if this turn has room."""
        if not self._waiting and self._used < _SLICE:
            self._count(cost)
            return succeed(None)
        work: Deferred[None] = Deferred()
        self._waiting.setdefault(host, deque()).append((cost, work))
        self._count(0)
        return work

    def _count(self, cost: int) -> None:
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
            cost, work = works.popleft()
            if works:
                self._waiting[host] = works
            if not work.called:  # one that has ended cancelled it
                self._count(cost)
                work.callback(None)
        if self._waiting:
            self._count(0)
