"""What the commands of an operator share: the server API, and the options for it."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from longconn.clients import ClientError, NotLongconn, Refused
from longconn.clients.address import parse_address
from longconn.clients.keepalive import KeepAliveClient
from longconn.commands.connecting import load_certificates, read_login
from longconn.commands.parser import DEFAULT_PORT, DEFAULT_SERVER, Parser, UsageError, complete_url
from longconn.commands.running import Console

#: The environment variable with the key. Other users of a machine can read command lines.
KEY_VARIABLE = "LONGCONN_API_KEY"
#: Bytes of an answer that are read.
_MOST = 64 * 1024 * 1024
_OFF = "the server API is off there: it needs an API key or an --admin-user, and may be on the --admin port"
_MEANINGS = {401: "the key or the password is not right", 404: _OFF, 429: "too many wrong guesses: wait a minute"}


def add_server(parser: Parser) -> None:
    """Add the option -s."""
    parser.add_argument(
        "-s", "--server", metavar="URL",
        help=f"the port that has the server API, as http:// or https:// [{DEFAULT_SERVER}]",
    )  # fmt: skip
    add_options(parser)


def add_options(parser: Parser) -> None:
    """Add the options with which the server API is reached."""
    parser.add_argument(
        "--user", metavar="NAME",
        help="log in as this operator; the password is in $LONGCONN_PASSWORD, or is asked for. "
        f"Without it the API key is in ${KEY_VARIABLE}",
    )  # fmt: skip
    parser.add_tls()
    parser.add_timeout(10.0, "seconds for a connection to be made, and in which no byte of an answer comes")


class ServerAPIClient:
    """Calls the server API at `server`, a URL or a short form. Raises ClientError where a call fails."""

    def __init__(self, console: Console, server: str | None, arguments: Namespace) -> None:
        url = complete_url(server or DEFAULT_SERVER, "http", DEFAULT_PORT).rstrip("/")
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"the server API is at http:// or https://, and not at {url}")
        self._url = url
        self._login = read_login(console, arguments.user)
        key = console.environ.get(KEY_VARIABLE, "")
        if self._login is None and not key:
            raise UsageError(f"the server API needs its key in ${KEY_VARIABLE}, or --user NAME of an operator")
        self._headers = {} if self._login is not None else {"X-API-Key": key}
        self._client = KeepAliveClient(
            console.reactor,
            connect_timeout=arguments.timeout,
            read_timeout=arguments.timeout,
            **load_certificates(parse_address(url), arguments),
        )

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def call(self, method: str, body: object) -> Any:
        """The result of one command. Raises Refused."""
        answer = await self._post(method, body)
        if "error" in answer:
            raise Refused(answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    async def call_all(self, *commands: dict[str, object]) -> list[Any]:
        """The results of several commands in order. None for one that was refused."""
        answer = await self._post("batch", {"commands": commands, "parallel": True})
        return [None if "error" in each else next(iter(each.values())) for each in answer["replies"]]

    async def _post(self, method: str, body: object) -> Any:
        response = await self._client.request(
            "POST", f"{self._url}/api/{method}", headers=self._headers, data=json.dumps(body).encode(), auth=self._login
        )
        received = bytearray()
        async with response:
            async for part in response:
                received += part
                if len(received) > _MOST:
                    raise ClientError(f"the answer is longer than {_MOST >> 20} MiB")
        if response.status != 200:
            raise Refused(response.status, _MEANINGS.get(response.status, "the server API refused the request"))
        try:
            return json.loads(received)
        except ValueError:
            raise NotLongconn(f"{self._url} answers, and is no longconn server") from None


def span(seconds: float) -> str:
    """Seconds as people say them: `40 s`, `12 min`, `5 h`, `3 d`."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def short(value: float) -> str:
    """A number with at most three digits, and k, M or G."""
    for unit in ("", "k", "M", "G"):
        if value < 1000 or unit == "G":
            break
        value /= 1000
    return f"{value:.3g}{unit}"


def table(rows: Sequence[tuple[str, ...]], numbers: frozenset[int]) -> list[str]:
    """Rows in columns, those in `numbers` to the right; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            each.rjust(width) if column in numbers else each.ljust(width)
            for column, (each, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
