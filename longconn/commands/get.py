"""`longconn get URL`: GET requests over kept connections, one line for each response."""

from __future__ import annotations

import json
from argparse import Namespace
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred

from longconn.clients.address import parse_address
from longconn.clients.errors import AddressError, ClientError
from longconn.clients.keepalive import KeepAliveClient
from longconn.commands.connecting import load_certificates, wait_for_all
from longconn.commands.parser import Parser, UsageError, complete_url, positive
from longconn.commands.running import Console, repeat


def parser() -> Parser:
    """The command line."""
    found = Parser(
        "get",
        "GET a URL over connections that are kept. For each response a line: its status, the port of our end, "
        "the time it took, and whether the connection was new or reused.",
        "The exit status is 0 if all were answered with a status below 400.",
    )
    found.add_argument("url", metavar="URL", help="http:// or https://; without a scheme it is http://")
    found.add_argument(
        "--connections", type=positive, default=1, metavar="N", help="ask over N connections at a time [1]"
    )
    found.add_every(1.0, "seconds from one round of requests to the next")
    found.add_times(1, "rounds")
    found.add_tls()
    found.add_argument("--user", metavar="NAME:PASSWORD", help="for Basic authentication")
    found.add_timeout(10.0, "seconds for a connection to be made, and in which no byte of a response comes")
    found.add_argument("--json", action="store_true", help="write the lines as JSON")
    return found


async def main(console: Console, arguments: Namespace) -> int:
    """Ask in `--times` rounds."""
    requests = _Requests(console, _complete_url(arguments.url), arguments)
    try:
        await repeat(console.reactor, arguments.times, arguments.every, requests.round)
        return int(requests.failed)
    finally:
        await requests.client.close()


def _complete_url(url: str) -> str:
    """The whole URL for a short form. Raises AddressError."""
    url = complete_url(url, "http")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError
    except ValueError as error:
        raise AddressError(f"{url!a} is no URL: {error}") from error
    if "@" in parts.netloc:
        raise AddressError("the URL has a user or password: give them as --user NAME:PASSWORD")
    return url


class _Requests:
    """The client and the options of all requests. `failed`: one of them failed."""

    def __init__(self, console: Console, url: str, arguments: Namespace) -> None:
        self.failed = False
        self.client = KeepAliveClient(
            console.reactor,
            connections=arguments.connections,
            connect_timeout=arguments.timeout,
            read_timeout=arguments.timeout,
            **load_certificates(parse_address(url), arguments),
        )
        self._console = console
        self._url = url
        self._count = arguments.connections
        self._json = arguments.json
        self._auth: tuple[str, str] | None = None
        if arguments.user is not None:
            name, colon, password = arguments.user.partition(":")
            if not colon:
                raise UsageError("--user is NAME:PASSWORD")
            self._auth = (name, password)

    async def round(self) -> None:
        """One request over each connection."""
        await wait_for_all([Deferred.fromCoroutine(self._one()) for _ in range(self._count)])

    async def _one(self) -> None:
        try:
            response = await self.client.request("GET", self._url, auth=self._auth)
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
