"""The log of a server process: a thread writes it, so that a full disk or an unread pipe does not stop the server.

Twisted's observers write in the thread that logs, which is the reactor's. `take_over` puts a queue between. Lines that
the queue cannot hold are dropped, and a line says how many. Lines of one kind that come too fast are summed up.
"""

from __future__ import annotations

import atexit
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LegacyLogObserverWrapper,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from twisted.python.logfile import BaseLogFile
from zope.interface import implementer

from longconn.service.logs import json_line

#: The size of the queue: characters, and lines.
QUEUE_SIZE = 1024 * 1024
QUEUE_LINES = 20_000
#: Lines of one kind that are written in a second; the others of that second become one line.
KIND_RATE = 100
#: Lines about a server that is full, by their kind, and in how many seconds.
_FULL = (1, 60)
#: Seconds that the process waits at its end for lines that are not written yet.
LAST_WAIT = 2.0
# Kinds that are remembered; beyond it those of earlier seconds are forgotten.
_KINDS = 1_000


class Storm:
    """Sums up the events of one kind beyond `KIND_RATE` in a second; of a full server, beyond one in a minute.

    The kind is the text without its values.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        # By kind: when its time ends, how many events are written in it, how many came, the last that was not written.
        self._kinds: dict[object, tuple[int, int, int, LogEvent | None]] = {}
        self._over: list[tuple[int, LogEvent]] = []

    def admits(self, event: LogEvent) -> bool:
        """Whether to write the event now; it is counted otherwise."""
        text = event.get("template", event.get("log_format"))
        kind = (event.get("log_namespace"), text, event.get("fields", {}).get("event"))
        rate, period = _FULL if _is_of_full(event, text) else (KIND_RATE, 1)
        with self._lock:
            now = int(self._seconds())
            end, rate, count, last = self._kinds.get(kind, (now + period, rate, 0, None))
            if end <= now:
                self._close(count - rate, last)
                end, count, last = now + period, 0, None
            admitted = count < rate
            self._kinds[kind] = (end, rate, count + 1, last if admitted else event)
            if len(self._kinds) > _KINDS:
                self._forget(now)
            return admitted

    @property
    def pending(self) -> bool:
        """Whether events were counted that are in no summary yet."""
        with self._lock:
            return bool(self._over) or any(last is not None for *_, last in self._kinds.values())

    def summaries(self, all: bool = False) -> list[LogEvent]:
        """One event for each kind of which events were counted in a time that is over (`all`: in this one too)."""
        with self._lock:
            self._forget(None if all else int(self._seconds()))
            over, self._over = self._over, []
        return [_summary(*each) for each in over]

    def _forget(self, now: int | None) -> None:
        for kind, (end, rate, count, last) in tuple(self._kinds.items()):
            if now is None or end <= now:
                del self._kinds[kind]
                self._close(count - rate, last)

    def _close(self, count: int, last: LogEvent | None) -> None:
        if last is not None:
            self._over.append((count, last))


def _is_of_full(event: LogEvent, text: object) -> bool:
    """Whether an event is about a server without a place or an open file for a newcomer."""
    fields = event.get("fields", {})
    return fields.get("event") == "full" or (isinstance(text, str) and "EMFILE" in text)


def _summary(count: int, last: LogEvent) -> LogEvent:
    """The last of `count` events, with their number."""
    event = {name: value for name, value in last.items() if name not in ("log_failure", "log_flattened", "isError")}
    more = f" (and {count - 1} more of the kind)" if count > 1 else ""
    # A line of this package has its text without its fields (`longconn.service.logs`).
    text, suffix = (last["text"], last["suffix"]) if "suffix" in last else (formatEvent(last), "")
    return {**event, "log_format": "{text}{suffix}{more}", "text": text, "suffix": suffix, "more": more}


@implementer(ILogObserver)
class BackgroundObserver:
    """A log observer that hands events to a thread. `prepare` turns an event into an item for `write`, or None.

    `prepare` runs in the thread that logs, because an event's values may change later. `write` gets waiting items, in
    order. If it raises, they are counted as lost lines.
    """

    def __init__(
        self,
        prepare: Callable[[LogEvent], Any],
        write: Callable[[list[Any]], None],
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prepare = prepare
        self._write = write
        self._storm = Storm(seconds)
        self._changed = threading.Condition()
        self._queue: deque[Any] = deque()
        self._size = 0
        self._lost = 0
        self._writing = False
        # Whether the thread looks for summaries once a second.
        self._summing = False
        self._deadline: float | None = None
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def __call__(self, event: LogEvent) -> None:
        if not self._storm.admits(event):
            with self._changed:
                if not self._summing:
                    self._summing = True
                    self._changed.notify_all()
            return
        item = self._prepare(event)
        if item is None:
            return
        with self._changed:
            if self._size >= QUEUE_SIZE or len(self._queue) >= QUEUE_LINES:
                self._lost += 1
                return
            self._add(item)
        if self._deadline is not None:
            self.flush(max(0.0, self._deadline - time.monotonic()))

    def call(self, function: Callable[[], None]) -> None:
        """Call `function` in the thread, after waiting lines are written."""
        with self._changed:
            self._queue.append(function)
            self._changed.notify_all()

    def end(self) -> None:
        """The process ends: from now on wait until each line is written, `LAST_WAIT` seconds in all."""
        self._deadline = time.monotonic() + LAST_WAIT
        for each in self._storm.summaries(all=True):
            self(each)
        self.flush(LAST_WAIT)

    def flush(self, timeout: float) -> bool:
        """Wait until all is written; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._writing, timeout)

    def _add(self, item: Any) -> None:
        self._queue.append(item)
        self._size += _size(item)
        if len(self._queue) == 1:
            self._changed.notify_all()

    # In the thread.

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._summing = self._storm.pending
                if not self._queue:
                    self._changed.wait(1.0 if self._summing else None)
                items = list(self._queue)
                self._queue.clear()
                self._size = 0
                lost, self._lost = self._lost, 0
                self._writing = True
            self._work(items, lost)

    def _work(self, items: list[Any], lost: int) -> None:
        lines: list[Any] = []
        for each in items:
            if callable(each):
                lost += self._try(lines)
                lines = []
                try:
                    each()
                except OSError:
                    lost += 1
            else:
                lines.append(each)
        lines += filter(None, map(self._prepare, self._storm.summaries()))
        lost += self._try(lines)
        if lost and self._try([self._prepare(_lost_event(lost))]):
            with self._changed:
                self._lost += lost  # logged when writing works again

    def _try(self, lines: list[Any]) -> int:
        """Write, and return the number of lost lines."""
        if not lines:
            return 0
        try:
            self._write(lines)
        except Exception:  # a full disk, a pipe that is closed; it cannot be logged
            return len(lines)
        return 0


def _size(item: Any) -> int:
    return len(item) if isinstance(item, str) else 200


def _lost_event(count: int) -> LogEvent:
    return {
        "log_namespace": "longconn",
        "log_level": LogLevel.warn,
        "log_format": "{count} lines of the log were dropped: they could not be written",
        "log_time": time.time(),
        "log_system": "longconn#warn",
        "time": time.time(),
        "isError": 0,
        "count": count,
        "message": (f"{count} lines of the log were dropped: they could not be written",),
    }


class ProcessLog:
    """The observers of this process's log that write in the background, from `take_over` on."""

    def __init__(self) -> None:
        self._observers: list[BackgroundObserver] = []
        self._files: list[BaseLogFile] = []

    def take_over(self, form: str = "text", level: str = "debug") -> None:
        """Put a queue before each of Twisted's observers that writes to a file, a stream or syslog.

        `form` is text or json; syslog has a form of its own. `level` is the least serious level that is written:
        debug, info, warning or error.
        """
        least = LogLevel.levelWithName(level.replace("warning", "warn"))
        for each in _observers():
            if isinstance(each, FileLogObserver):
                out = each._outFile
                if isinstance(out, BaseLogFile):
                    self._files.append(out)
                line = json_line if form == "json" else each.formatEvent
                ours = BackgroundObserver(_from(least, line), _writer(out))
            elif isinstance(each, LegacyLogObserverWrapper):
                ours = BackgroundObserver(_from(least, dict), _each(each))
            else:
                continue
            globalLogPublisher.addObserver(ours)  # type: ignore[arg-type]
            globalLogPublisher.removeObserver(each)
            self._observers.append(ours)
            atexit.register(ours.flush, LAST_WAIT)

    def rotate(self) -> bool:
        """Begin new log files, or open those again that another program has moved. False if there are none."""
        for each in self._observers:
            each.call(self._rotate)
            break
        return bool(self._files)

    def _rotate(self) -> None:
        for each in self._files:
            if _is_moved(each):
                each.reopen()
            else:
                each.rotate()  # type: ignore[attr-defined]

    def end(self) -> None:
        """Write waiting lines, within `LAST_WAIT`: the process ends."""
        for each in self._observers:
            each.end()


def _observers() -> Iterator[Any]:
    # Twisted has no public list of the log's observers. If this attribute changes, the log is written as Twisted does.
    yield from tuple(getattr(globalLogPublisher, "_observers", ()))


def _from(least: Any, prepare: Callable[[LogEvent], Any]) -> Callable[[LogEvent], Any]:
    """`prepare`, and None for events that are less serious than `least`."""

    def prepared(event: LogEvent) -> Any:
        level = event.get("log_level", LogLevel.info)
        return prepare(event) if level >= least else None

    return prepared


def _each(observer: Callable[[LogEvent], None]) -> Callable[[list[LogEvent]], None]:
    def write(events: list[LogEvent]) -> None:
        for each in events:
            observer(each)

    return write


def _writer(out: Any) -> Callable[[list[str]], None]:
    """Writes lines to `out`. A stream is written below Python's buffer, whose lock a thread that hangs would keep."""
    if isinstance(out, BaseLogFile):
        return lambda lines: out.write("".join(lines))
    try:
        out.fileno()
        out.flush()
    except (AttributeError, OSError, ValueError):
        return lambda lines: _write_and_flush(out, "".join(lines))
    return lambda lines: _write_all(out.fileno(), "".join(lines).encode("utf-8", "backslashreplace"))


def _write_and_flush(out: Any, text: str) -> None:
    out.write(text)
    out.flush()


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:  # a process at the other end made it non-blocking
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


def _is_moved(file: Any) -> bool:
    """Whether the file has another path by now, or none."""
    try:
        return not os.path.samestat(os.stat(file.path), os.fstat(file._file.fileno()))
    except FileNotFoundError:
        return True
