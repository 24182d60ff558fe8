"""`longconn sub CHANNEL…`: print publications, as text, as JSON objects, or by a template."""

from __future__ import annotations

import argparse
from argparse import Namespace

from twisted.internet.defer import Deferred

from longconn.clients import Client, Lost, Position, Publication, State, Subscription
from longconn.commands import forms
from longconn.commands.connecting import describe_loss, open_client, say_state, wait_for_all
from longconn.commands.parser import Parser, UsageError, positive
from longconn.commands.running import Console


def parser() -> Parser:
    """The command line."""
    found = Parser(
        "sub",
        "Print what is published in channels, until interrupted. A lost connection is made anew, and nothing is "
        "missed or printed twice meanwhile; what could not be recovered is told on standard error.",
    )
    found.add_argument("channels", metavar="CHANNEL", nargs="+")
    found.add_server()
    found.add_token()
    found.add_argument("--count", type=positive, metavar="N", help="end after N publications")
    start = found.add_mutually_exclusive_group()
    start.add_argument(
        "--last", type=positive, metavar="N", help="print the last N publications of each channel's history first"
    )
    start.add_argument(
        "--since", type=position, metavar="EPOCH:OFFSET", help="go on after that position; for one channel"
    )  # fmt: skip
    form = found.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON objects, one in a line")
    form.add_argument("--raw", action="store_true", help="print the data alone, as they were published")
    form.add_argument(
        "--format", type=forms.template, metavar="TEXT",
        help="print TEXT, filled in: {channel}, {name}, {data}, {json}, {offset}, {epoch}, {time} or {time:%%H:%%M}",
    )  # fmt: skip
    found.add_argument("--time", action="store_true", help="begin each line with the local time")
    found.add_timeout(10.0, "seconds to wait for a connection, and for an answer")
    return found


def position(text: str) -> Position:
    """EPOCH:OFFSET. Raises argparse.ArgumentTypeError."""
    epoch, _, offset = text.rpartition(":")
    if not epoch or not offset.isascii() or not offset.isdecimal() or len(offset) > 18:
        raise argparse.ArgumentTypeError(f"{text!r} is not EPOCH:OFFSET")
    return Position(epoch, int(offset))


async def main(console: Console, arguments: Namespace) -> int:
    """Print until the connection ends for good, or the output or the count does."""
    channels = list(dict.fromkeys(arguments.channels))
    if arguments.since is not None and len(channels) > 1:
        raise UsageError("sub: --since is for one channel")
    if arguments.time and (arguments.json or arguments.raw or arguments.format):
        raise UsageError("sub: --time is for lines of text; JSON objects have the time, and --format has {time}")
    printer = _Printer(console, _form(console, arguments, len(channels) > 1), arguments.count)

    def on_state(state: State) -> None:
        say_state(console, state)

    client = await open_client(console, arguments, reconnect=True, on_state=on_state)
    try:
        started = [await printer.start(client, each, arguments.since, arguments.last) for each in channels]
        await wait_for_all([Deferred.fromCoroutine(printer.follow(each)) for each in started])
    except _Enough:
        pass
    finally:
        await client.close()
    return 0


def _form(console: Console, arguments: Namespace, several: bool) -> forms.Form:
    if arguments.json:
        return forms.json_object
    if arguments.raw:
        return forms.raw
    found: forms.Form = arguments.format or forms.lines(several, arguments.time, console.coloured)
    return found


class _Enough(Exception):
    """As many publications are printed as were asked for."""


class _Printer:
    """Prints publications of all channels, `count` at most if it is not None."""

    def __init__(self, console: Console, form: forms.Form, count: int | None) -> None:
        self._console = console
        self._form = form
        self._left = count

    async def start(self, client: Client, channel: str, since: Position | None, last: int | None) -> Subscription:
        """Subscribe, and print the `last` publications before that."""
        if last is None:
            return await client.subscribe(channel, since=since)
        page = await client.history(channel, limit=last, reverse=True)
        # From the position of the history: no publication is missed or printed twice.
        subscription = await client.subscribe(channel, since=page.position if page.position.epoch else None)
        for each in reversed(page.publications):
            await self._print(each)
        return subscription

    async def follow(self, subscription: Subscription) -> None:
        """Print until the subscription ends."""
        async for event in subscription:
            if isinstance(event, Lost):
                await self._console.say(describe_loss(event))
            elif isinstance(event, Publication):
                await self._print(event)

    async def _print(self, publication: Publication) -> None:
        if self._left == 0:
            raise _Enough
        if self._left is not None:
            self._left -= 1
        await self._console.out.write(self._form(publication))
        if self._left == 0:
            raise _Enough
