"""The log of a server process, over real pipes and files: nothing that it is written to holds anybody up."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LegacyLogObserverWrapper, Logger, formatEvent, globalLogPublisher, textFileLogObserver
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase

from longconn.service.process_log import KIND_RATE, QUEUE_LINES, BackgroundObserver, ProcessLog
from longconn.service.process_signals import ProcessSignals
from longconn.testing import FakeClock

PATIENCE = 10.0


class Case(SynchronousTestCase):
    def background(self, write: Callable[[list[Any]], None]) -> Logger:
        """A logger that is observed in the background; each of its lines is the text alone."""
        self.clock = FakeClock()
        self.observer = BackgroundObserver(formatEvent, write, self.clock.seconds)
        return Logger(namespace="test", observer=self.observer)  # type: ignore[arg-type]

    def flush(self) -> None:
        self.assertTrue(self.observer.flush(PATIENCE))


class QueueTests(Case):
    def test_a_sink_that_hangs_holds_nobody_up_and_what_is_dropped_is_counted(self) -> None:
        may_write, lines = threading.Event(), list[str]()
        hangs = threading.Event()

        def write(batch: list[str]) -> None:
            hangs.set()
            self.assertTrue(may_write.wait(PATIENCE))
            lines.extend(batch)

        log = self.background(write)
        log.info("first")
        self.assertTrue(hangs.wait(PATIENCE))
        for number in range(QUEUE_LINES + 7):
            if number % KIND_RATE == 0:
                self.clock.advance(1)
            log.info("{number}", number=number)
        may_write.set()
        self.flush()
        self.assertEqual(lines[:3], ["first", "0", "1"])
        self.assertEqual(
            lines[-2:], [str(QUEUE_LINES - 1), "7 lines of the log were dropped: they could not be written"]
        )

    def test_errors_of_the_sink_are_survived_and_told_when_it_works_again(self) -> None:
        lines, broken = list[str](), [True]

        def write(batch: list[str]) -> None:
            if broken:
                raise OSError(28, "No space left on device")
            lines.extend(batch)

        log = self.background(write)
        for _ in range(3):
            log.info("lost")
            self.flush()
        broken.clear()
        log.info("again")
        self.flush()
        self.assertEqual(lines, ["again", "3 lines of the log were dropped: they could not be written"])

    def test_the_end_waits_for_what_is_logged_last(self) -> None:
        lines = list[str]()
        log = self.background(lines.extend)
        self.observer.end()
        for text in ("main loop terminated", "shut down"):
            log.info(text)
            self.assertEqual(lines[-1], text)


class StormTests(Case):
    def test_one_kind_is_summed_up_and_others_are_not(self) -> None:
        lines = list[str]()
        log = self.background(lines.extend)
        for number in range(KIND_RATE + 50):
            log.info("client {number} came", number=number)
        log.info("something else")
        self.flush()
        self.assertEqual(len(lines), KIND_RATE + 1)
        self.clock.advance(1)
        log.info("client {number} came", number="next")
        self.flush()
        self.assertEqual(lines[-2:], ["client next came", f"client {KIND_RATE + 49} came (and 49 more of the kind)"])

    def test_records_of_the_core_are_of_a_kind_by_their_template(self) -> None:
        lines = list[str]()
        log = self.background(lines.extend)
        for number in range(KIND_RATE + 1):
            log.info("{text}", text=f"{number} came", template="%s came")
            log.info("{text}", text=f"{number} left", template="%s left")
        self.observer.end()
        self.assertEqual(len(lines), 2 * (KIND_RATE + 1))
        self.assertEqual(lines[-2:], [f"{KIND_RATE} came", f"{KIND_RATE} left"])


class ProcessTests(SynchronousTestCase):
    """`ProcessLog` in place of the observers that twistd would have made."""

    def take_over(self, *observers: Any) -> ProcessLog:
        before = tuple(globalLogPublisher._observers)
        self.patch(globalLogPublisher, "_observers", list(observers))
        log = ProcessLog()
        log.take_over()
        self.assertFalse(set(globalLogPublisher._observers) & (set(observers) | set(before)))
        self.log = Logger(namespace="test")
        return log

    def test_a_pipe_that_nobody_reads(self) -> None:
        ours, theirs = os.pipe()
        self.addCleanup(os.close, ours)
        log = self.take_over(textFileLogObserver(os.fdopen(theirs, "w")))
        for number in range(50):
            self.log.info(f"{number} {'x' * 4_000}")  # more than the pipe holds
        read = b""
        while read.count(b"\n") < 50:
            read += os.read(ours, 1 << 16)
        self.assertIn(b"[test#info] 49 x", read)
        log.end()

    def test_a_pipe_that_is_closed_and_a_full_disk(self) -> None:
        ours, theirs = os.pipe()
        os.close(ours)
        for out in (os.fdopen(theirs, "w"), os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")):
            log = self.take_over(textFileLogObserver(out))
            self.log.info("lost")
            log.end()

    def test_syslog(self) -> None:
        events: list[Any] = []
        log = self.take_over(LegacyLogObserverWrapper(events.append))
        self.log.info("hello {name}", name="you")
        log.end()
        self.assertEqual([each["format"] % each for each in events], ["hello you"])

    def test_a_file_is_begun_anew_or_opened_again(self) -> None:
        path = Path(self.mktemp())
        file = LogFile.fromFullPath(str(path))
        log = self.take_over(textFileLogObserver(file))  # type: ignore[arg-type]
        self.log.info("one")
        self.assertTrue(log.rotate())
        self.log.info("two")
        log.end()
        self.assertIn("one", Path(f"{path}.1").read_text())
        path.rename(f"{path}.moved")
        log.rotate()
        self.log.info("three")
        self.assertIn("two", Path(f"{path}.moved").read_text())
        self.assertIn("three", path.read_text())
        file.close()


class SignalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.reactor.callFromThread = lambda function, *arguments: function(*arguments)
        self.reactor.hasStopped = False  # it begins as true in Twisted 24.11
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            self.addCleanup(signal.signal, number, signal.signal(number, signal.SIG_DFL))
        self.rotated: list[str] = []

    def install(self, terminal: bool) -> None:
        self.patch(os, "isatty", lambda descriptor: terminal)
        log: Any = ProcessLog()
        log.rotate = lambda: bool(self.rotated.append("rotated")) or True
        ProcessSignals(self.reactor, log).install()

    def test_none_of_them_kills(self) -> None:
        self.install(terminal=False)
        for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGHUP):
            os.kill(os.getpid(), number)
        self.assertEqual(self.rotated, ["rotated"] * 2)
        self.assertFalse(self.reactor.hasStopped)

    def test_without_a_terminal_any_more_the_server_stops(self) -> None:
        self.install(terminal=True)
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertTrue(self.reactor.hasStopped)

    def test_what_is_ignored_stays_ignored(self) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.install(terminal=True)
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertFalse(self.reactor.hasStopped)


class FullTests(Case):
    def test_lines_of_a_full_server_come_once_a_minute(self) -> None:
        lines: list[str] = []
        log = self.background(lines.extend)
        for minute in range(3):
            for number in range(5):
                log.info("EMFILE encountered", number=number)
                log.info("{text}", text="no place", template="no place", fields={"event": "full"})
            self.flush()
            self.clock.advance(60)
            if minute == 0:
                self.assertEqual(lines, ["EMFILE encountered", "no place"])
        self.observer.end()
        summed_up = "EMFILE encountered (and 3 more of the kind)", "no place (and 3 more of the kind)"
        self.assertEqual(sorted(lines), sorted(3 * ("EMFILE encountered", "no place") + 3 * summed_up))
