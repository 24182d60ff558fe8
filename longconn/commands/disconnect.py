"""`longconn disconnect USER`, `longconn disconnect --client ID`: close connections of a server."""

from __future__ import annotations

from argparse import Namespace

from longconn.clients import Refused
from longconn.commands.operating import ServerAPIClient, add_server
from longconn.commands.parser import Parser, UsageError
from longconn.commands.running import Console


def parser() -> Parser:
    """The command line."""
    found = Parser(
        "disconnect",
        "Close all connections of a user, or one client, by the server API. They are told not to come back.",
        "The exit status is 1 if there is no such client.",
    )
    found.add_argument("target", metavar="USER", nargs="?", help="the user that a login, a token or a hook gave")
    found.add_argument("--client", metavar="ID", help="a client's id, as `longconn top --json` and the log have it")
    add_server(found)
    return found


async def main(console: Console, arguments: Namespace) -> int:
    """Disconnect, and say how many."""
    if (arguments.target is None) == (arguments.client is None):
        raise UsageError("disconnect: give USER, or --client ID")
    if arguments.target == "":
        raise UsageError("disconnect: an empty USER would mean all clients without a user")
    api = ServerAPIClient(console, arguments.server, arguments)
    try:
        key, wanted = ("client", arguments.client) if arguments.target is None else ("user", arguments.target)
        listed = await api.call("clients", {"match": wanted, "limit": 1000})
        found = [each for each in listed["clients"] if each[key] == wanted]
        if not found and listed["num_clients"] <= len(listed["clients"]):
            raise Refused(404, f"there is no {key} {wanted!a}")
        body = {"user": wanted} if key == "user" else {"user": found[0]["user"], "client": wanted}
        await api.call("disconnect", body)
    finally:
        await api.close()
    await console.out.write(f"disconnected {len(found)} client{'' if len(found) == 1 else 's'}\n")
    return 0
