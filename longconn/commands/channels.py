"""`longconn channels [PATTERN]`: the channels of a server, those with most clients or publications first."""

from __future__ import annotations

import json
from argparse import Namespace

from longconn.commands.operating import ServerAPIClient, add_server, table
from longconn.commands.parser import Parser, positive
from longconn.commands.running import Console
from longconn.wire.chat import safe


def parser() -> Parser:
    """The command line."""
    found = Parser(
        "channels",
        "Print the channels that have subscribers, by the server API: the name, the clients, and the publications "
        "since it has them.",
    )
    found.add_argument("pattern", metavar="PATTERN", nargs="?", default="", help="as room:*, with * ? [abc] [!abc]")
    found.add_argument(
        "--order", choices=("clients", "publications"), default="clients", help="the largest come first [clients]"
    )
    found.add_argument("--limit", type=positive, default=100, metavar="N", help="at most N, up to 1000 [100]")
    add_server(found)
    found.add_argument("--json", action="store_true", help="print JSON objects, one in a line")
    return found


async def main(console: Console, arguments: Namespace) -> int:
    """Print once."""
    api = ServerAPIClient(console, arguments.server, arguments)
    try:
        body = {"pattern": arguments.pattern, "order": arguments.order, "limit": arguments.limit}
        found = await api.call("channels", body)
    finally:
        await api.close()
    channels = found["channels"]
    if arguments.json:
        lines = [json.dumps(each, ensure_ascii=False) for each in channels]
    else:
        numbers = [(safe(each["name"]), each["num_clients"], each["num_publications"]) for each in channels]
        rows = [("CHANNEL", "CLIENTS", "PUBLICATIONS"), *((name, str(a), str(b)) for name, a, b in numbers)]
        lines = table(rows, frozenset((1, 2)))
        if found["num_channels"] > len(channels):
            await console.say(f"{len(channels)} of {found['num_channels']} channels; --limit shows more")
    await console.out.write("".join(f"{each}\n" for each in lines))
    return 0
