"""`longconn get URL`: the body of a response."""

from __future__ import annotations

from argparse import Namespace
from codecs import getincrementaldecoder
from http import HTTPStatus

from longconn.clients.keepalive import Response
from longconn.commands.parser import Parser
from longconn.commands.requesting import Requests, add_request
from longconn.commands.running import Console
from longconn.wire.chat import safe


def parser() -> Parser:
    """The command line."""
    found = Parser(
        "get",
        "GET a URL, and print the body of the response as it comes. In a terminal, control characters are replaced.",
        "The exit status is 0 if the response has a status below 400; another status is told on standard error.",
    )
    add_request(found)
    return found


async def main(console: Console, arguments: Namespace) -> int:
    """Ask, and print."""
    requests = Requests(console, arguments)
    try:
        response = await requests.client.request("GET", requests.url, auth=requests.login)
        async with response:
            await (_show if console.out.is_terminal else _copy)(console, response)
        if response.status >= 400:
            await console.say(f"{requests.url}: status {response.status}{_phrase(response.status)}")
        return int(response.status >= 400)
    finally:
        await requests.client.close()


async def _copy(console: Console, response: Response) -> None:
    async for piece in response:
        await console.out.write_bytes(piece)


async def _show(console: Console, response: Response) -> None:
    """Write the body as text, which has an end of line at its end."""
    decoder = getincrementaldecoder("utf-8")("replace")
    last = "\n"
    async for piece in response:
        text = decoder.decode(piece).replace("\r\n", "\n")
        if text:
            await console.out.write("\n".join(map(safe, text.split("\n"))))
            last = text[-1]
    await console.out.write(safe(decoder.decode(b"", True)) + ("" if last == "\n" else "\n"))


def _phrase(status: int) -> str:
    """The words for a status, after a space. A server may have one that has none."""
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""
