"""The name that a command asks for, and others like it if that is taken."""

from __future__ import annotations

import getpass
import re
import secrets
from argparse import Namespace
from collections.abc import Callable, Iterator

from longconn.clients import Client, ClientError, Refused, State
from longconn.commands.connecting import open_client
from longconn.commands.parser import TOKEN_VARIABLE
from longconn.commands.running import Console
from longconn.core.errors import NAME_TAKEN, CommandError
from longconn.core.names import check_name

#: How many names made from the login name are tried.
_MOST = 20


def names(given: str | None, user: str | None = None) -> Iterator[str]:
    """The names to try in turn: only `given`, or else that of `user` or the login name, and others like it."""
    if given is not None:
        yield given
        return
    try:
        login = re.sub(r"[^\w.-]", "", user or getpass.getuser())[:24]
        check_name(login)
    except (CommandError, OSError, KeyError):
        login = "somebody"
    yield login
    yield from (f"{login}-{number}" for number in range(2, _MOST))
    yield f"{login}-{secrets.token_hex(3)}"


async def open_named(
    console: Console, arguments: Namespace, on_state: Callable[[State], None], *, reconnect: bool
) -> tuple[str, Client]:
    """A client in the chat, and its name. Raises ClientError, as `open_client`."""
    return await _open(console, arguments, reconnect=reconnect, on_state=on_state, is_label=False)


async def open_labelled(console: Console, arguments: Namespace) -> Client:
    """A client that publishes under a name: `--name`, or that of its token or user, or the login name."""
    proved = arguments.token or console.environ.get(TOKEN_VARIABLE) or arguments.user or arguments.cert
    if proved and arguments.name is None:
        return await open_client(console, arguments, reconnect=False)
    return (await _open(console, arguments, reconnect=False, on_state=None, is_label=True))[1]


async def _open(
    console: Console,
    arguments: Namespace,
    *,
    reconnect: bool,
    on_state: Callable[[State], None] | None,
    is_label: bool,
) -> tuple[str, Client]:
    taken: ClientError | None = None
    first = None
    for name in names(arguments.name, arguments.user):
        first = first or name
        asked = {"label" if is_label else "name": name}
        try:
            client = await open_client(console, arguments, reconnect=reconnect, on_state=on_state, **asked)
        except Refused as error:
            if error.code != NAME_TAKEN.code:
                raise
            taken = error
        else:
            if name != first:
                await console.say(f"the name {first} is taken: you are {name}")
            return name, client
    assert taken is not None  # `names` yields at least one
    if arguments.name is not None:
        raise ClientError(f"{taken}; another one, as --name={arguments.name}-2, may be free")
    raise taken
