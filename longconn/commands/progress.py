"""The progress of `longconn pub` through its input, on a terminal: one line that is rewritten."""

from __future__ import annotations

from collections import deque

from longconn.commands.running import Console

#: Seconds between two updates of the line.
_UPDATE = 0.1
#: Seconds over which the rate is measured.
_WINDOW = 5.0
#: Answers are late if they take this many times as long as the quickest one, and so many seconds more. A server that
#: limits a client reads more slowly (`--publish-rate`), so that answers wait; those of a slow network take the same
#: time each.
_LATE_FACTOR = 3
_LATE = 0.05
#: Seconds for which all answers are late before a limit is the reason.
_HELD = 1.0
HELD = "the server's limit holds it back"


class Progress:
    """Counts lines that the server has answered, and shows them if standard error is a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        shown = console.err.is_terminal and not console.input.is_terminal
        self._size = console.input.size if shown else None
        # Without a size there is no line to rewrite; then a limit is told once.
        self._tells = shown and not self._size
        self._started = console.reactor.seconds()
        self._lines = 0
        self._bytes = 0
        self._samples: deque[tuple[float, int, int]] = deque([(self._started, 0, 0)])
        self._quickest = float("inf")
        self._late_since: float | None = None
        self._shown_at = float("-inf")

    async def on_line(self, size: int, seconds: float | None) -> None:
        """A line of `size` bytes is done. `seconds`: until the answer; None if there was nothing to ask."""
        now = self._console.reactor.seconds()
        self._lines += 1
        self._bytes += size
        if seconds is not None:
            self._quickest = min(self._quickest, seconds)
            if seconds <= _LATE_FACTOR * self._quickest + _LATE:
                self._late_since = None
            elif self._late_since is None:
                self._late_since = now
                self._samples = deque([(now, self._lines, self._bytes)])  # the rate before says nothing any more
        if now - self._shown_at < _UPDATE:
            return
        self._shown_at = now
        self._samples.append((now, self._lines, self._bytes))
        while now - self._samples[0][0] > _WINDOW and len(self._samples) > 2:
            self._samples.popleft()
        if self._size:
            await self._console.err.write(f"\r\x1b[K{self._text(now, self._size)}")
        elif self._tells and self._held(now):
            self._tells = False
            await self._console.say(f"{HELD}: {_rate(self._rates(now)[0])}")

    def _held(self, now: float) -> bool:
        return self._late_since is not None and now - self._late_since >= _HELD

    def _rates(self, now: float) -> tuple[float, float]:
        """Lines and bytes a second, lately."""
        since, lines, size = self._samples[0]
        seconds = max(now - since, 0.001)
        return (self._lines - lines) / seconds, (self._bytes - size) / seconds

    def _text(self, now: float, size: int) -> str:
        parts = [f"{min(100, 100 * self._bytes // size)} %", f"{self._lines} lines"]
        lines, each_second = self._rates(now)
        if now - self._started >= _HELD:  # before that, the rate is that of the start
            parts.append(_rate(lines))
            if each_second:
                parts.append(f"{duration(max(0, size - self._bytes) / each_second)} left")
        if self._held(now):
            parts.append(HELD)
        return ", ".join(parts)

    async def clear(self) -> None:
        """Remove the line, before another one is written."""
        if self._size:
            await self._console.err.write("\r\x1b[K")

    async def end(self) -> None:
        """Leave the last line on the terminal."""
        if not self._size:
            return
        seconds = self._console.reactor.seconds() - self._started
        rate = f", {_rate(self._lines / seconds)}" if seconds >= _HELD else ""
        done = f"{min(100, 100 * self._bytes // self._size)} %, {self._lines} lines in {duration(seconds)}{rate}"
        await self._console.err.write(f"\r\x1b[K{done}\n")


def _rate(lines: float) -> str:
    return f"{lines:.{0 if lines >= 10 else 1}f} lines/s"


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole // 60 % 60} min"
