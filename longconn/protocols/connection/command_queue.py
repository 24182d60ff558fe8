"""What a client sends, acted on in its order and within its rates."""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar

from longconn.core.hub import Hub
from longconn.core.timers import Bucket, Call

_T = TypeVar("_T")

#: Things that a command may look at for the cost of one: what takes about as long as a short command.
_LOOKED_AT = 100
#: A wait that ends when somebody calls `go_on_soon`, not by a timer.
UNTIL_TOLD = -1.0


class Reader(Protocol):
    """What an intake may ask of the side that reads: to stop, and to go on."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class CommandQueue(Generic[_T]):
    """Items that may not be acted on yet wait, and with them all behind them; meanwhile nothing is read.

    So what waits is never more than what one read brought. Subclasses say in `act` what an
    item does, or the seconds for which it must wait.
    """

    __slots__ = ("_commands", "_reader", "_resume", "_waiting", "hub")

    def __init__(self, hub: Hub, reader: Reader) -> None:
        self.hub = hub
        self._reader = reader
        #: items that may not be acted on yet; None while there are none
        self._waiting: deque[_T] | None = None
        self._resume: Call | None = None
        # Made by the first command: most clients send none.
        self._commands: Bucket | None = None

    @property
    def held_back(self) -> bool:
        """Whether items wait, and nothing more is read."""
        return self._waiting is not None

    @property
    def over(self) -> bool:
        """Whether nothing is to be acted on any more."""
        raise NotImplementedError

    def act(self, item: _T) -> float:
        """Do what an item says and return 0; or return the seconds for which it must wait."""
        raise NotImplementedError

    def take(self, items: list[_T]) -> None:
        """Act on what came in, as far as that may be."""
        if self._waiting is not None:
            self._waiting.extend(items)
            return
        for index, item in enumerate(items):
            if self.over:
                return
            wait = self.act(item)
            if wait:
                self._waiting = deque(items[index:])
                self._reader.pause_reading()
                self._go_on_in(wait)
                return

    def command_wait(self) -> float:
        """Count a command, at a rate of its own that is as large as that of publishing: 0, or seconds to wait."""
        settings = self.hub.settings
        now = self.hub.clock.seconds()
        if self._commands is None:
            self._commands = Bucket(settings.publish_rate, settings.publish_burst, now)
        wait = self._commands.wait(now)
        if not wait:
            self._commands.spend(1)
        return wait

    def charge(self, looked_at: int) -> None:
        """Count a command for more than one, if it looked at very many things to be answered."""
        if self._commands is not None:
            self._commands.spend(looked_at / _LOOKED_AT)

    def go_on_soon(self) -> None:
        """What was waited for has happened."""
        if self._waiting is not None and self._resume is None:
            # Not from within the item that asked for it, which may still be at the head of those that wait.
            self._go_on_in(0)

    def forget(self) -> None:
        """Drop what waits: the connection is lost."""
        self._waiting = None
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None

    def _go_on_in(self, wait: float) -> None:
        if wait != UNTIL_TOLD:
            self._resume = self.hub.clock.callLater(wait, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        while self._waiting and not self.over:
            wait = self.act(self._waiting[0])
            if wait:
                self._go_on_in(wait)
                return
            if self._waiting:
                self._waiting.popleft()
        if self._waiting is not None:
            self._waiting = None
            self._reader.resume_reading()
