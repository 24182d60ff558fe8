"""What comes in on a connection, taken in its order, within its rates and its share of each turn of the reactor.

Every kind of input has a cost (`longconn.core.slices`). Commands go through a `CommandQueue`. Other input (frames of
WebSocket, requests and chunks of HTTP) is counted by an `InputMeter`. Both pause the reader of a connection that is
over its share or its rate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar

from longconn.core.slices import BATCHED, COMMAND, ITEM, PART, Slices, WaitingWork
from longconn.core.timers import Bucket, Call, ClientBuckets, Clock

_T = TypeVar("_T")

#: Items that a command may look at for the price of one command: they take about as long as a short command.
LOOKED_AT = 100
#: What a command counts that asks for nothing: an empty line, a pong.
EMPTY = 0.1
#: Microseconds of input that is no command, for the price of one command.
_INPUT_OF_ONE = 100
#: A wait that ends when `go_on` is called, and not by a timer.
UNTIL_TOLD = -1.0
#: A read that brings more commands is executed in parts.
_COMMANDS_AT_ONCE = PART // COMMAND
#: Commands that are executed together, at most.
TOGETHER = PART // BATCHED


class Reader(Protocol):
    """The side of a connection that reads."""

    @property
    def input_waits(self) -> bool:
        """Whether input was read that has not become commands, because it waits for its share of a turn."""

    def pause_reading(self) -> None:
        """Read nothing more for now."""

    def resume_reading(self) -> None:
        """Read again."""


class CommandQueue(Generic[_T]):
    """Executes commands one after the other. While one of them must wait, so do all behind it, and nothing is read.

    So the queue never holds more than one read brought. A read that brings many commands is executed in several turns
    of the reactor: `slices` shares them out, by `host`. `execute` executes a command and returns 0, or returns the
    seconds for which the command must wait and is then tried again (`UNTIL_TOLD`: until `go_on`). After `close`
    no command is executed. `execute_many` executes the first of several commands that can be executed together, and
    returns their number.
    """

    __slots__ = (
        "_clock", "_delayed", "_execute", "_execute_many", "_host", "_rate", "_rates", "_reader", "_slices", "_spent",
        "_trying", "_waiting", "closed", "held_until",
    )  # fmt: skip

    def __init__(
        self,
        clock: Clock,
        rates: ClientBuckets,
        slices: Slices,
        host: str,
        reader: Reader,
        execute: Callable[[_T], float],
        execute_many: Callable[[Sequence[_T]], int] | None = None,
    ) -> None:
        self._clock = clock
        self._rates = rates
        self._slices = slices
        self._host = host
        self._reader = reader
        self._execute: Callable[[_T], float] = execute
        self._execute_many: Callable[[Sequence[_T]], int] = execute_many or _none
        #: commands that must wait; None while there are none
        self._waiting: deque[_T] | None = None
        self._delayed: Call | WaitingWork | None = None
        # Microseconds that the commands of this turn took beyond the cost of a command.
        self._spent = 0
        self._trying = False
        # The rate of commands. The first command makes it, since most clients send none.
        self._rate: Bucket | None = None
        self.closed = False
        #: when commands last waited
        self.held_until = 0.0

    @property
    def held_back(self) -> bool:
        """Whether commands wait, or input before them, and nothing is read."""
        return self._waiting is not None or self._reader.input_waits

    @property
    def waiting(self) -> tuple[_T, ...]:
        """The commands that wait."""
        return tuple(self._waiting or ())

    def feed(self, commands: list[_T]) -> None:
        """Execute received commands, until one has to wait."""
        if self._waiting is not None:
            self._waiting.extend(commands)
            self._reader.pause_reading()  # the connection may have been resumed for another reason
            return
        if self._slices.full:
            self._waiting = deque(commands)
            self._reader.pause_reading()
            self._delayed = self._slices.wait(self._host, PART, self._try_again)
            return
        if len(commands) > 1:
            count = self._execute_many(commands[:TOGETHER])
            if count:
                self._slices.count(count * BATCHED)
                commands = commands[count:]
        if len(commands) > _COMMANDS_AT_ONCE:
            self._waiting = deque(commands)
            self._reader.pause_reading()
            self._execute_waiting(0)
            return
        self._spent = 0
        execute = self._execute
        for index, command in enumerate(commands):
            if self.closed:
                return
            wait = execute(command)
            if wait:
                self._waiting = deque(commands[index:])
                self._reader.pause_reading()
                self._try_again_in(wait)
                return
            if self._spent > PART and index + 1 < len(commands):
                self._waiting = deque(commands[index + 1 :])
                self._reader.pause_reading()
                self._delayed = self._slices.wait(self._host, PART, self._try_again)
                return

    def command_wait(self, amount: float = 1) -> float:
        """Count a command (or `amount` of one) against the client's rate of commands, and return 0.

        Or count nothing, and return the seconds until it is allowed.

        That rate is apart from the rate of publications, and as large.
        """
        now = self._clock.seconds()
        if self._rate is None:
            self._rate = self._rates.bucket(self._host, now)
        wait = self._rate.wait(now)
        if not wait:
            self._rate.spend(amount)
        return wait

    def charge(self, looked_at: int) -> None:
        """Count a command as several, because it looked at this many items to be answered."""
        self.count(looked_at * ITEM)
        self.spend(looked_at / LOOKED_AT)

    def count(self, cost: int) -> None:
        """Count microseconds that a command took beyond the cost of one."""
        self._spent += cost
        self._slices.count(cost)

    def spend(self, amount: float) -> None:
        """Count further commands that were executed, whatever the rate."""
        if self._rate is not None:
            self._rate.spend(amount)

    def go_on(self) -> None:
        """Try the first waiting command again, in another turn of the reactor."""
        if self._waiting is not None and self._delayed is None and not self._trying:
            # Not within this call: it may come from the command that is still the first of those that wait.
            self._try_again_in(0)

    def close(self) -> None:
        """Execute nothing more."""
        self.closed = True

    def stop(self) -> None:
        """The connection is lost: forget the commands and the reader, so that no reference cycle keeps it in memory."""
        self.closed = True
        self._execute = _nothing
        self._execute_many = _none
        self._waiting = None
        if self._rate is not None:
            self._rates.close(self._host, self._rate, self._clock.seconds())
            self._rate = None
        if self._delayed is not None:
            self._delayed.cancel()
            self._delayed = None

    def _try_again_in(self, wait: float) -> None:
        if wait != UNTIL_TOLD:
            self._delayed = self._clock.callLater(wait, self._execute_waiting, 0)

    def _try_again(self) -> None:
        self._execute_waiting(PART)

    def _execute_waiting(self, left: int) -> None:
        """Execute commands that wait: for `left` microseconds, and for as long as this turn has room."""
        self._delayed = None
        self._trying = True
        try:
            while self._waiting and not self.closed:
                if left <= 0:
                    if not self._slices.take(COMMAND):
                        self._delayed = self._slices.wait(self._host, PART, self._try_again)
                        return
                    left = COMMAND
                if len(self._waiting) > 1:
                    count = self._execute_many(list(islice(self._waiting, TOGETHER)))
                    if count:
                        for _ in range(min(count, len(self._waiting or ()))):
                            self._waiting.popleft()
                        self._slices.count(count * BATCHED)
                        left -= count * BATCHED
                        continue
                self._spent = COMMAND
                wait = self._execute(self._waiting[0])
                if wait:
                    self._try_again_in(wait)
                    return
                if self._waiting:
                    self._waiting.popleft()
                left -= self._spent
        finally:
            self._trying = False
        if self._waiting is not None:
            self._waiting = None
            self.held_until = self._clock.seconds()
            self._reader.resume_reading()


class InputMeter:
    """Counts the cost of one connection's input that is not commands.

    Over its share of a turn, or over its rate (that of commands, if there are `rates`), the reader is paused, and
    `held` is true until `on_free` is called. The protocol keeps what it has read until then.
    """

    __slots__ = (
        "_clock", "_delayed", "_host", "_may_go", "_on_free", "_rate", "_rates", "_reader", "_slices", "_spent", "held",
    )  # fmt: skip

    def __init__(
        self,
        clock: Clock,
        rates: ClientBuckets | None,
        slices: Slices,
        host: str,
        reader: Reader,
        on_free: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._rates = rates
        self._slices = slices
        self._host = host
        self._reader = reader
        self._on_free: Callable[[], None] = on_free
        self._rate = rates.bucket(host, clock.seconds()) if rates is not None else None
        self._spent = 0
        self._delayed: Call | WaitingWork | None = None
        # Whether input that had to wait for room in a turn may be processed now.
        self._may_go = False
        self.held = False

    def take(self, cost: int) -> bool:
        """Count input before it is processed; False if it has to wait, and is to be tried again when this is free."""
        if self._may_go or self._slices.take(cost):
            self._may_go = False
            return True
        self.held = True
        self._reader.pause_reading()
        self._delayed = self._slices.wait(self._host, cost, self._let_go)
        return False

    def _let_go(self) -> None:
        self._may_go = True
        self._free()

    def count(self, cost: int) -> bool:
        """Count input that cost this many microseconds; False if the next has to wait."""
        self._spent += cost
        if self._spent < PART:
            return True
        spent, self._spent = self._spent, 0
        wait = 0.0
        if self._rate is not None:
            self._rate.spend(spent / _INPUT_OF_ONE)
            wait = self._rate.wait(self._clock.seconds())
        if not wait and self._slices.take(spent):
            return True
        self.held = True
        self._reader.pause_reading()
        if wait:
            self._delayed = self._clock.callLater(wait, self._free)
        else:
            self._delayed = self._slices.wait(self._host, spent, self._free)
        return False

    def on_read(self) -> None:
        """A new read begins. For input without a rate: the share of a turn is what one read may cost."""
        self._spent = 0

    def stop(self) -> None:
        """The connection is lost, or another protocol has it."""
        self._on_free = _done
        if self._rates is not None and self._rate is not None:
            self._rates.close(self._host, self._rate, self._clock.seconds())
            self._rate = None
        if self._delayed is not None:
            self._delayed.cancel()
            self._delayed = None

    def _free(self) -> None:
        self._delayed = None
        self.held = False
        self._reader.resume_reading()
        self._on_free()


def _done() -> None:
    """Nothing waits for the meter."""


def _none(commands: object) -> int:
    """Execute no commands together."""
    return 0


def _nothing(command: object) -> float:
    """Execute no command: the connection is lost."""
    return 0.0
