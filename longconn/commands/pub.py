"""`longconn pub CHANNEL [DATA|-]`: one message, or each line of standard input."""

from __future__ import annotations

from argparse import Namespace

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from longconn.clients import Client, ClientError, Refused
from longconn.commands.messages import BadDataError, parse_json
from longconn.commands.naming import open_labelled
from longconn.commands.parser import Parser
from longconn.commands.progress import Progress
from longconn.commands.running import Console
from longconn.commands.standard_streams import LineTooLong, ReadError

#: Lines without an answer at most, and their bytes: input is read no faster than the server accepts it.
_MOST_LINES = 32
_MOST_BYTES = 256 * 1024


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
        self._progress = Progress(console)

    async def publish(self) -> int:
        """Publish until the input ends; returns the exit status."""
        number = 0
        unread: ReadError | None = None
        while self._error is None:
            try:
                line = await self._console.input.line()
            except LineTooLong as error:
                number += 1
                await self._refuse(number, 0, error)
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
            else:
                await self._progress.on_line(1, None)
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
        sent_at = self._console.reactor.seconds()
        try:
            await self._client.publish(self._channel, _value(line, self._json))
        except (Refused, BadDataError) as error:
            await self._refuse(number, len(line) + 1, error)
        except ClientError as error:
            self._error = self._error or _LineError(f"line {number}: {error}")
        else:
            await self._progress.on_line(len(line) + 1, self._console.reactor.seconds() - sent_at)
        finally:
            self._numbers.discard(number)
            self._bytes -= len(line)
            self._wake()

    async def _refuse(self, number: int, size: int, error: ClientError) -> None:
        self._refused += 1
        await self._progress.on_line(size, None)
        await self._progress.clear()
        await self._console.say(f"line {number}: {error}")

    def _failed(self, failure: Failure) -> None:
        failure.trap(CancelledError, OSError)

    def _wake(self) -> None:
        free, self._free = self._free, None
        if free is not None:
            free.callback(None)
