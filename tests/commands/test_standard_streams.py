"""Standard input and output beside the reactor, and the parser of command lines."""

import contextlib
import os
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

import longconn
from longconn.cli import COMMANDS
from longconn.commands.parser import DEFAULT_SERVER, Parser, UsageError, complete_url, count, server_url
from longconn.commands.standard_streams import InputStream, LineTooLong, OutputStream, ReadError
from tests.commands.kit import reactor, until

DOCS = Path(longconn.__file__).parents[1] / "docs"


class InputTests(TestCase):
    timeout = 20

    def open(self, data: bytes = b"") -> InputStream:
        reading, self.writing = os.pipe()
        self.addCleanup(os.close, reading)
        os.write(self.writing, data)
        return InputStream(reactor, reading)

    def end(self) -> None:
        os.close(self.writing)

    async def all(self, stream: InputStream) -> list[bytes]:
        found = []
        while (line := await stream.line()) is not None:
            found.append(line)
        self.assertIsNone(await stream.line())
        return found

    async def test_lines(self) -> None:
        stream = self.open(b"one\r\ntwo\n\nthr")
        self.assertIsNone(stream.size)
        self.assertEqual([await stream.line() for _ in range(3)], [b"one", b"two", b""])
        os.write(self.writing, b"ee")
        self.end()
        self.assertEqual(await self.all(stream), [b"three"])

    async def test_input_that_ends_with_a_line_end(self) -> None:
        stream = self.open(b"one\n")
        self.end()
        self.assertEqual(await self.all(stream), [b"one"])

    async def test_a_cancelled_read_keeps_the_line(self) -> None:
        stream = self.open()
        waiting = stream.line()
        waiting.addErrback(lambda failure: None)
        waiting.cancel()
        os.write(self.writing, b"one\n")
        self.assertEqual(await stream.line(), b"one")
        self.end()
        self.assertEqual(await self.all(stream), [])

    async def test_reading_ahead_is_limited(self) -> None:
        stream = self.open(b"first\n")
        os.set_blocking(self.writing, False)
        self.assertEqual(await stream.line(), b"first")

        def full() -> bool:
            try:
                os.write(self.writing, b"a\n" * 2000)
            except BlockingIOError:
                return True
            return False

        await until(full)
        self.assertLess(len(stream._lines), 1100)
        self.end()
        self.assertGreater(len(await self.all(stream)), 2000)

    async def test_a_file_has_a_size(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(b"one\ntwo")
        with path.open("rb") as file:
            stream = InputStream(reactor, file.fileno())
            self.assertEqual(stream.size, 7)
            self.assertEqual(await self.all(stream), [b"one", b"two"])

    async def test_a_line_that_is_too_long(self) -> None:
        """It is skipped, and reported as soon as it is too long."""
        for end in (b"\n", b"x\n"):
            stream = self.open(b"first\n")
            self.assertEqual(await stream.line(), b"first")
            writing, most = os.fdopen(self.writing, "wb", buffering=0), 16 * 1024 * 1024
            await deferToThread(writing.write, b"a" * most)
            long_line = stream.line()
            writing.write(end)
            if end == b"\n":
                self.assertEqual(len(await long_line or b""), most)
            else:
                with self.assertRaisesRegex(LineTooLong, "more than 16777216 bytes"):
                    await long_line
            writing.write(b"next")
            writing.close()
            self.assertEqual(await self.all(stream), [b"next"])

    async def test_input_that_cannot_be_read(self) -> None:
        folder = os.open(".", os.O_RDONLY)
        self.addCleanup(os.close, folder)
        stream = InputStream(reactor, folder)
        with self.assertRaisesRegex(ReadError, "cannot read: Is a directory"):
            await stream.line()
        self.assertEqual(await self.all(stream), [])


class OutputTests(TestCase):
    timeout = 20

    async def test_writing_to_a_pipe(self) -> None:
        reading, writing = os.pipe()
        stream = OutputStream(reactor, writing)
        self.assertFalse(stream.is_terminal)
        await stream.write("ü\n")
        self.assertEqual(os.read(reading, 100), "ü\n".encode())
        # More than the pipe holds: it is written when it is read, and the reactor goes on meanwhile.
        done = stream.write("a" * 1_000_000)
        behind = stream.write("b")
        breath: Deferred[None] = Deferred()
        reactor.callLater(0.01, breath.callback, None)
        await breath
        self.assertFalse(done.called)
        given_up = stream.write("")
        given_up.addErrback(lambda failure: failure.trap(CancelledError))
        given_up.cancel()
        os.set_blocking(reading, False)
        size = 0

        def read() -> bool:
            nonlocal size
            with contextlib.suppress(BlockingIOError):
                size += len(os.read(reading, 65536))
            return behind.called

        await until(read)
        await stream.write("")  # and so the one that was given up is, too
        self.assertGreaterEqual(size, 1_000_000 - 65536)
        # The reader closes the pipe.
        os.close(reading)
        for _ in range(2):
            with self.assertRaises(BrokenPipeError):
                await stream.write("c")
        os.close(writing)


class CommandLineTests(SynchronousTestCase):
    def test_servers(self) -> None:
        for given, variable, url in (
            (None, None, "tcp://localhost:9999"),
            (":8888", None, "tcp://localhost:8888"),
            ("8888", None, "tcp://localhost:8888"),
            ("host:1", ":2", "tcp://host:1"),
            (None, ":2", "tcp://localhost:2"),
            (None, "wss://host", "wss://host"),
            ("tls://host:1", "", "tls://host:1"),
            ("ws://8888", None, "ws://localhost:8888"),
            ("ws://:8888/path", None, "ws://localhost:8888/path"),
            ("::1", None, "tcp://[::1]"),
            ("ws://::1/path", None, "ws://[::1]/path"),
            ("[::1]:8888", None, "tcp://[::1]:8888"),
            ("wss://[fe80::1%eth0]:8888", None, "wss://[fe80::1%eth0]:8888"),
        ):
            self.assertEqual(server_url(given, {"LONGCONN_URL": variable} if variable else {}), url)
        self.assertEqual(DEFAULT_SERVER, "localhost:9999")
        for given, url in (
            ("8888/PrintHello?a=b://c", "http://localhost:8888/PrintHello?a=b://c"),
            (":8888", "http://localhost:8888"),
            ("host", "http://host:9999"),
            ("host/path", "http://host:9999/path"),
            ("[::1]", "http://[::1]:9999"),
            ("http://host", "http://host"),
        ):
            self.assertEqual(complete_url(given, "http", 9999), url)

    def test_options_stand_anywhere(self) -> None:
        parser = Parser("x", "")
        parser.add_argument("what", nargs="+")
        parser.add_times(1, "times")
        parser.add_every(1, "seconds")
        parser.add_timeout(1, "seconds")
        parsed = parser.parse_intermixed_args(["a", "--times=3", "b", "--every", "0", "--timeout=.5"])
        self.assertEqual((parsed.what, parsed.times, parsed.every, parsed.timeout), (["a", "b"], 3, 0, 0.5))
        for bad in ("--times=-1", "--times=x", "--every=-1", "--every=nan", "--every=inf", "--timeout=0", "--time=1"):
            with self.assertRaises(UsageError):
                parser.parse_intermixed_args(["a", bad])
        self.assertEqual(count("0"), 0)
        for wrong, hint in (
            ("--tmes=1", "--tmes=1; did you mean --times\\?$"),
            ("--time=1", "--time=1"),
            ("--x", "--x$"),
        ):
            with self.assertRaisesRegex(UsageError, f"^unrecognized arguments: {hint}"):
                parser.parse_intermixed_args(["a", wrong])

    def test_the_reference_has_every_option(self) -> None:
        from importlib import import_module

        page = (DOCS / "reference" / "commands.md").read_text()
        for name in COMMANDS.keys() - {"serve", "config", "completion", "man"}:
            section = page.partition(f"## `longconn {name}")[2].partition("\n## ")[0]
            for action in import_module(f"longconn.commands.{name}").parser()._actions:
                for flag in {*action.option_strings} - {"-h", "--help", "--version"}:
                    self.assertIn(f"`{flag}", section, f"{name} {flag}")
