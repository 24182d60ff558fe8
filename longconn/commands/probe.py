"""`longconn probe URL`: GET requests over kept connections, one line for each response."""

from __future__ import annotations

import json
from argparse import Namespace

from twisted.internet.defer import Deferred

from longconn.clients.errors import AddressError, ClientError
from longconn.commands.connecting import wait_for_all
from longconn.commands.parser import Parser, positive
from longconn.commands.requesting import Requests, add_request
from longconn.commands.running import Console, repeat


def parser() -> Parser:
    """The command line."""
    found = Parser(
        "probe",
        "GET a URL over connections that are kept. For each response a line: its status, the port of our end, "
        "the time it took, and whether the connection was new or reused.",
        "The exit status is 0 if all were answered with a status below 400.",
    )
    add_request(found)
    found.add_argument(
        "--connections", type=positive, default=1, metavar="N", help="ask over N connections at a time [1]"
    )
    found.add_every(1.0, "seconds from one round of requests to the next")
    found.add_times(1, "rounds")
    found.add_argument("--json", action="store_true", help="write the lines as JSON")
    return found


async def main(console: Console, arguments: Namespace) -> int:
    """Ask in `--times` rounds."""
    requests = Requests(console, arguments, arguments.connections)
    probe = _Probe(console, requests, arguments)
    try:
        await repeat(console.reactor, arguments.times, arguments.every, probe.round)
        return int(probe.failed)
    finally:
        await requests.client.close()


class _Probe:
    """The requests and the options of all of them. `failed`: one of them failed."""

    def __init__(self, console: Console, requests: Requests, arguments: Namespace) -> None:
        self.failed = False
        self._console = console
        self._requests = requests
        self._count = arguments.connections
        self._json = arguments.json

    async def round(self) -> None:
        """One request over each connection."""
        await wait_for_all([Deferred.fromCoroutine(self._one()) for _ in range(self._count)])

    async def _one(self) -> None:
        try:
            response = await self._requests.client.request("GET", self._requests.url, auth=self._requests.login)
            async with response:
                async for _ in response:
                    pass  # `seconds` is to include the whole body
        except AddressError:
            raise
        except ClientError as error:
            self.failed = True
            await self._console.say(str(error))
            return
        self.failed = self.failed or response.status >= 400
        if self._json:
            value = {
                "status": response.status, "port": response.source_port,
                "seconds": round(response.seconds, 6), "reused": response.reused,
            }  # fmt: skip
            line = json.dumps(value, separators=(",", ":"))
        else:
            used = "reused" if response.reused else "new"
            line = f"{response.status}  port {response.source_port}  {response.seconds * 1000:.1f} ms  {used}"
        await self._console.out.write(line + "\n")
