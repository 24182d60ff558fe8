"""The client that a command uses, and the command's messages about its connection."""

from __future__ import annotations

import getpass
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.python.failure import Failure

from longconn.clients import (
    Client,
    Closed,
    ConnectionState,
    Lost,
    State,
    connect,
    load_authorities,
    load_certificate,
)
from longconn.clients.address import Address, parse_address
from longconn.commands.parser import PASSWORD_VARIABLE, TOKEN_VARIABLE, UsageError, server_url
from longconn.commands.running import Console


async def open_client(
    console: Console,
    arguments: Namespace,
    *,
    reconnect: bool,
    name: str | None = None,
    label: str | None = None,
    on_state: Callable[[State], None] | None = None,
) -> Client:
    """A connected client of the server that the command line names. Raises ClientError if the first attempt fails.

    `on_state` is called for the changes after the first connection. `reconnect` is about those, too.
    """
    first: Deferred[None] = Deferred()

    def on_change(state: State) -> None:
        if first.called:
            if on_state is not None:
                on_state(state)
        elif state.state is ConnectionState.CONNECTED:
            first.callback(None)
        elif state.state is not ConnectionState.CONNECTING:
            first.errback(state.error or Closed("closed"))

    url = server_url(arguments.server, console.environ)
    certificates = load_certificates(parse_address(url), arguments)
    client = connect(
        url,
        reactor=console.reactor,
        name=name,
        label=label,
        token=arguments.token or console.environ.get(TOKEN_VARIABLE, ""),
        login=read_login(console, arguments.user),
        reconnect=reconnect,
        on_state=on_change,
        timeout=arguments.timeout,
        **certificates,
    )
    try:
        await first
    except BaseException:
        await client.close()
        raise
    return client


def load_certificates(address: Address, arguments: Namespace) -> dict[str, Any]:
    """`trust_root` and `certificate` of a client, from the files of the command line. Raises ClientError."""
    if not address.secure and (arguments.cafile or arguments.cert or arguments.key):
        raise UsageError(f"--cafile, --cert and --key are for TLS, and {address.scheme}:// is without it")
    if arguments.key and not arguments.cert:
        raise UsageError("--key needs --cert")
    return {
        "trust_root": load_authorities(arguments.cafile) if arguments.cafile else None,
        "certificate": load_certificate(arguments.cert, arguments.key) if arguments.cert else None,
    }


def read_login(console: Console, user: str | None) -> tuple[str, str] | None:
    """The name and the password; the latter is asked for in a terminal. Raises UsageError if there is none."""
    if user is None:
        return None
    password = console.environ.get(PASSWORD_VARIABLE)
    if password is None and not console.input.is_terminal:
        raise UsageError(f"--user needs the password in ${PASSWORD_VARIABLE}, or a terminal to ask for it")
    return user, password if password is not None else getpass.getpass(f"password of {user}: ")


def say_state(console: Console, state: State) -> None:
    """Write a line about a lost or a new connection to standard error."""
    if state.state is ConnectionState.RECONNECTING:
        text = f"connection lost: {state.reason}; trying again in {state.retry_in:.0f} s"
    elif state.state is ConnectionState.CONNECTED:
        text = "connected again"
    else:
        return
    console.say(text).addErrback(lambda failure: failure.trap(OSError))


def describe_loss(lost: Lost) -> str:
    """A line about publications that cannot be recovered."""
    old, new = lost.position, lost.resumed
    if not new.epoch:
        return f"{lost.channel}: what was published while there was no connection cannot be had"
    since = f"what followed {old.epoch}:{old.offset}" if old.epoch else "what was published before"
    return f"{lost.channel}: {since} cannot be had any more; it goes on after {new.epoch}:{new.offset}"


async def wait_for_all(deferreds: list[Deferred[None]]) -> None:
    """Wait for all. If one fails, the others are cancelled, and its error is raised."""
    try:
        await gatherResults(deferreds, consumeErrors=True)
    except FirstError as error:
        for each in deferreds:
            each.cancel()
        failure: Failure = error.subFailure
        failure.raiseException()
