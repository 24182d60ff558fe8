"""The commands that a client sends, executed in their order and within its rates."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from longconn.core.settings import Settings
from longconn.core.timers import Bucket, Call, Clock

_T = TypeVar("_T")

#: Items that a command may look at for the price of one command: they take about as long as a short command.
LOOKED_AT = 100
#: A wait that ends when `go_on` is called, and not by a timer.
UNTIL_TOLD = -1.0


class Reader(Protocol):
    """The side of a connection that reads."""

    def pause_reading(self) -> None:
        """Read nothing more for now."""

    def resume_reading(self) -> None:
        """Read again."""


class CommandQueue(Generic[_T]):
    """Executes commands one after the other. While one of them must wait, so do all behind it, and nothing is read.

    So the queue never holds more than one read brought. `execute` executes a command and returns 0, or returns the
    seconds for which the command must wait and is then tried again (`UNTIL_TOLD`: until `go_on`). After `close`
    no command is executed.
    """

    __slots__ = ("_clock", "_delayed", "_execute", "_rate", "_reader", "_settings", "_trying", "_waiting", "closed")

    def __init__(self, clock: Clock, settings: Settings, reader: Reader, execute: Callable[[_T], float]) -> None:
        self._clock = clock
        self._settings = settings
        self._reader = reader
        self._execute: Callable[[_T], float] = execute
        #: commands that must wait; None while there are none
        self._waiting: deque[_T] | None = None
        self._delayed: Call | None = None
        self._trying = False
        # The rate of commands. The first command makes it, since most clients send none.
        self._rate: Bucket | None = None
        self.closed = False

    @property
    def held_back(self) -> bool:
        """Whether commands wait, and nothing is read."""
        return self._waiting is not None

    @property
    def waiting(self) -> tuple[_T, ...]:
        """The commands that wait."""
        return tuple(self._waiting or ())

    def feed(self, commands: list[_T]) -> None:
        """Execute received commands, until one has to wait."""
        if self._waiting is not None:
            self._waiting.extend(commands)
            return
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

    def command_wait(self) -> float:
        """Count a command against the client's rate of commands, and return 0; or the seconds until it is allowed.

        That rate is apart from the rate of publications, and as large.
        """
        now = self._clock.seconds()
        if self._rate is None:
            self._rate = Bucket(self._settings.publish_rate, self._settings.publish_burst, now)
        wait = self._rate.wait(now)
        if not wait:
            self._rate.spend(1)
        return wait

    def charge(self, looked_at: int) -> None:
        """Count a command as several, because it looked at this many items to be answered."""
        if self._rate is not None:
            self._rate.spend(looked_at / LOOKED_AT)

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
        self._waiting = None
        if self._delayed is not None:
            self._delayed.cancel()
            self._delayed = None

    def _try_again_in(self, wait: float) -> None:
        if wait != UNTIL_TOLD:
            self._delayed = self._clock.callLater(wait, self._try_again)

    def _try_again(self) -> None:
        self._delayed = None
        self._trying = True
        try:
            while self._waiting and not self.closed:
                wait = self._execute(self._waiting[0])
                if wait:
                    self._try_again_in(wait)
                    return
                if self._waiting:
                    self._waiting.popleft()
        finally:
            self._trying = False
        if self._waiting is not None:
            self._waiting = None
            self._reader.resume_reading()


def _nothing(command: object) -> float:
    """Execute no command: the connection is lost."""
    return 0.0
