"""`longconn pub CHANNEL [DATA|-]`: one message, or each line of standard input."""

from __future__ import annotations

from argparse import Namespace

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from longconn.clients import Client, ClientError, Refused
from longconn.commands.messages import BadDataError, parse_json
from longconn.commands.naming import open_labelled
from longconn.commands.parser import Parser
from longconn.commands.running import Console
from longconn.commands.standard_streams import LineTooLong, ReadError

#: Lines without an answer at most, and their bytes: input is read no faster than the server accepts it.
_MOST_LINES = 32
_MOST_BYTES = 256 * 1024
#: Seconds between two updates of the progress.
_PROGRESS = 0.1


class _LineError(ClientError):
    """The connection was lost; the text names the line."""


def parser() -> Parser:
    """The command line."""
    found = Parser(
        "pub",
        "Publish DATA, or each line of standard input where DATA is - or left out. Empty lines are passed over. Each "
        "line that the server refuses is told by its number, and the rest is published.",
        "The exit status is 0 if all was published.",
    )
    found.add_argument("channel", metavar="CHANNEL")
    found.add_argument("data", metavar="DATA", nargs="?", default="-", help="text, or JSON with --json; - for lines")
    found.add_server()
    found.add_token()
    found.add_argument("--json", action="store_true", help="DATA, or each line, is a JSON value")
    found.add_argument(
        "--name", metavar="NAME", help="publish as NAME; else as the user of --token or --user, or the login name"
    )
    found.add_timeout(10.0, "seconds to wait for a connection, and for an answer")
    return found


async def main(console: Console, arguments: Namespace) -> int:
    """Publish DATA, or all lines."""
    one = None if arguments.data == "-" else _value(arguments.data.encode("utf-8", "surrogateescape"), arguments.json)
    client = await open_labelled(console, arguments)
    try:
        if arguments.data != "-":
            await client.publish(arguments.channel, one)
            return 0
        return await _LinePublisher(console, client, arguments.channel, arguments.json).publish()
    finally:
        await client.close()


def _value(data: bytes, as_json: bool) -> str:
    """A text, or a JSONText. Raises BadDataError."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise BadDataError("not UTF-8") from None
    if not as_json:
        return text
    return parse_json(text)


class _LinePublisher:
    """Publishes the lines of standard input in order, without waiting for each answer."""

    def __init__(self, console: Console, client: Client, channel: str, as_json: bool) -> None:
        self._console = console
        self._client = client
        self._channel = channel
        self._json = as_json
        # The numbers of the lines without an answer, and their bytes.
        self._numbers: set[int] = set()
        self._bytes = 0
        self._free: Deferred[None] | None = None
        self._refused = 0
        # The loss of the connection.
        self._error: ClientError | None = None
        self._progress = _Progress(console)

    async def publish(self) -> int:
        """Publish until the input ends; returns the exit status."""
        number = 0
        unread: ReadError | None = None
        while self._error is None:
            try:
                line = await self._console.input.line()
            except LineTooLong as error:
                number += 1
                await self._refuse(number, error)
                continue
            except ReadError as error:
                unread = error
                break
            if line is None:
                break
            number += 1
            if line:
                await self._until(_MOST_LINES - 1, _MOST_BYTES - len(line))
                self._numbers.add(number)
                self._bytes += len(line)
                Deferred.fromCoroutine(self._one(number, line)).addErrback(self._failed)
            await self._progress.on_line(number, len(line) + 1)
        await self._until(0, 0)
        await self._progress.end()
        ended = self._error or unread
        if ended is not None:
            raise ended
        return 1 if self._refused else 0

    async def _until(self, lines: int, size: int) -> None:
        """Wait until at most so many lines and bytes have no answer. One line alone may have any size."""
        while self._numbers and (len(self._numbers) > lines or self._bytes > size) and self._error is None:
            self._free = Deferred()
            await self._free

    async def _one(self, number: int, line: bytes) -> None:
        try:
            await self._client.publish(self._channel, _value(line, self._json))
        except (Refused, BadDataError) as error:
            await self._refuse(number, error)
        except ClientError as error:
            self._error = self._error or _LineError(f"line {number}: {error}")
        finally:
            self._numbers.discard(number)
            self._bytes -= len(line)
            self._wake()

    async def _refuse(self, number: int, error: ClientError) -> None:
        self._refused += 1
        await self._progress.clear()
        await self._console.say(f"line {number}: {error}")

    def _failed(self, failure: Failure) -> None:
        failure.trap(CancelledError, OSError)

    def _wake(self) -> None:
        free, self._free = self._free, None
        if free is not None:
            free.callback(None)


class _Progress:
    """The progress through a file, on standard error, if that is a terminal: one line that is rewritten."""

    def __init__(self, console: Console) -> None:
        self._console = console
        size = console.input.size
        self._size = size if size and console.err.is_terminal else 0
        self._done = 0
        self._lines = 0
        self._shown_at: float | None = None

    async def on_line(self, number: int, size: int) -> None:
        self._done += size
        self._lines = number
        now = self._console.reactor.seconds()
        if self._size and (self._shown_at is None or now - self._shown_at >= _PROGRESS):
            self._shown_at = now
            await self._show()

    async def _show(self) -> None:
        await self._console.err.write(f"\r{min(100, 100 * self._done // self._size)} %, {self._lines} lines")

    async def clear(self) -> None:
        """Remove the line, before another one is written."""
        if self._size:
            await self._console.err.write("\r\x1b[K")

    async def end(self) -> None:
        if self._size:
            await self._show()
            await self._console.err.write("\n")
