"""What `longconn get` and `longconn probe` share: the URL, the options, and the client for requests."""

from __future__ import annotations

from argparse import Namespace
from urllib.parse import urlsplit

from longconn.clients.address import parse_address
from longconn.clients.errors import AddressError
from longconn.clients.keepalive import KeepAliveClient
from longconn.commands.connecting import load_certificates
from longconn.commands.parser import Parser, UsageError, complete_url
from longconn.commands.running import Console


def add_request(parser: Parser) -> None:
    """Add the URL, and the options for a request."""
    parser.add_argument("url", metavar="URL", help="http:// or https://; without a scheme it is http://")
    parser.add_tls()
    parser.add_argument("--user", metavar="NAME:PASSWORD", help="for Basic authentication")
    parser.add_timeout(10.0, "seconds for a connection to be made, and in which no byte of a response comes")


class Requests:
    """A client, the URL that it asks for, and the login. Raises AddressError, UsageError."""

    def __init__(self, console: Console, arguments: Namespace, connections: int = 1) -> None:
        self.url = _complete(arguments.url)
        self.client = KeepAliveClient(
            console.reactor,
            connections=connections,
            connect_timeout=arguments.timeout,
            read_timeout=arguments.timeout,
            **load_certificates(parse_address(self.url), arguments),
        )
        self.login: tuple[str, str] | None = None
        if arguments.user is not None:
            name, colon, password = arguments.user.partition(":")
            if not colon:
                raise UsageError("--user is NAME:PASSWORD")
            self.login = (name, password)


def _complete(url: str) -> str:
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
