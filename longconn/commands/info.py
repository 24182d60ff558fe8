"""`longconn info`: the numbers of a server."""

from __future__ import annotations

import json
from argparse import Namespace

from longconn.commands.operating import ServerAPIClient, add_server, span
from longconn.commands.parser import Parser
from longconn.commands.running import Console
from longconn.wire.chat import safe


def parser() -> Parser:
    """The command line."""
    found = Parser("info", "Print the numbers of a server, by its server API: clients, channels, publications.")
    add_server(found)
    found.add_argument("--json", action="store_true", help="print the API's answer, as JSON")
    return found


async def main(console: Console, arguments: Namespace) -> int:
    """Print once."""
    api = ServerAPIClient(console, arguments.server, arguments)
    try:
        found = await api.call("info", {})
    finally:
        await api.close()
    if arguments.json:
        await console.out.write(json.dumps(found, ensure_ascii=False) + "\n")
        return 0
    for node in found["nodes"]:
        items = node["metrics"]["items"]
        lines = {
            "node": f"{node['name']} {node['version']} ({node['uid']})",
            "up": span(node["uptime"]),
            "clients": f"{node['num_clients']} ({node['num_users']} users)",
            "channels": f"{node['num_channels']} ({node['num_subs']} subscriptions)",
            "publications": f"{items.get('publications', 0):g} since the start",
            "revocations": f"{items.get('revocations', 0):g}",
        }
        await console.out.write("".join(f"{name:<14}{safe(text)}\n" for name, text in lines.items()))
    return 0
