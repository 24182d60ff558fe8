"""`longconn sub CHANNEL…`: print publications, as text or as JSON objects."""

from __future__ import annotations

import argparse
import json
from argparse import Namespace

from twisted.internet.defer import Deferred

from longconn.clients import Lost, Position, Publication, State, Subscription
from longconn.commands.connecting import describe_loss, open_client, say_state, wait_for_all
from longconn.commands.messages import printable, speaker, texts
from longconn.commands.parser import Parser, UsageError
from longconn.commands.running import Console
from longconn.wire.chat import safe


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
    found.add_argument(
        "--since", type=position, metavar="EPOCH:OFFSET", help="go on after that position; for one channel"
    )  # fmt: skip
    found.add_argument("--json", action="store_true", help="print JSON objects, one in a line")
    found.add_timeout(10.0, "seconds to wait for a connection, and for an answer")
    return found


def position(text: str) -> Position:
    """EPOCH:OFFSET. Raises argparse.ArgumentTypeError."""
    epoch, _, offset = text.rpartition(":")
    if not epoch or not offset.isascii() or not offset.isdecimal() or len(offset) > 18:
        raise argparse.ArgumentTypeError(f"{text!r} is not EPOCH:OFFSET")
    return Position(epoch, int(offset))


async def main(console: Console, arguments: Namespace) -> int:
    """Print until the connection ends for good, or the output does."""
    channels = list(dict.fromkeys(arguments.channels))
    if arguments.since is not None and len(channels) > 1:
        raise UsageError("sub: --since is for one channel")

    def on_state(state: State) -> None:
        say_state(console, state)

    client = await open_client(console, arguments, reconnect=True, on_state=on_state)
    try:
        found = [await client.subscribe(each, since=arguments.since) for each in channels]
        several = len(found) > 1
        await wait_for_all([Deferred.fromCoroutine(_print(console, each, arguments.json, several)) for each in found])
    finally:
        await client.close()
    return 0


async def _print(console: Console, subscription: Subscription, as_json: bool, with_channel: bool) -> None:
    async for event in subscription:
        if isinstance(event, Lost):
            await console.say(describe_loss(event))
        elif isinstance(event, Publication):
            if as_json:
                await console.out.write(_object(event) + "\n")
            else:
                start = f"[{safe(event.channel)}] " if with_channel else ""
                start += f"{speaker(event)}: "
                await console.out.write("".join(f"{start}{each}\n" for each in texts(event)))


def _object(publication: Publication) -> str:
    head = {"channel": publication.channel, "offset": publication.offset, "epoch": publication.epoch}
    tail = {"name": publication.name, "time": publication.time}
    # The data are written as they were published: a value of Python has less, as `1.5` for `1.50`.
    return printable(f'{_compact(head)[:-1]},"data":{publication.json},{_compact(tail)[1:]}')


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
