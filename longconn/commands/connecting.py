"""A client that runs while a command does, and what is told of its connection."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.python.failure import Failure

from longconn.clients import Client, Closed, ConnectionState, Lost, State, connect
from longconn.commands.parser import TOKEN_VARIABLE, server_url
from longconn.commands.running import Console


class Connecting:
    """A client of the server that the command line names.

    The first attempt has to succeed: later ones are the client's own affair, if it reconnects. `on_state` is told what
    happens from then on.
    """

    def __init__(
        self,
        console: Console,
        arguments: Namespace,
        *,
        reconnect: bool,
        name: str | None = None,
        on_state: Callable[[State], None] | None = None,
    ) -> None:
        """Raises AddressError."""
        self._first: Deferred[None] = Deferred()
        self._on_state = on_state
        self.client: Client = connect(
            server_url(arguments.server, console.environ),
            reactor=console.reactor,
            name=name,
            token=arguments.token or console.environ.get(TOKEN_VARIABLE, ""),
            reconnect=reconnect,
            on_state=self._told,
            timeout=arguments.timeout,
        )

    def _told(self, state: State) -> None:
        if self._first.called:
            if self._on_state is not None:
                self._on_state(state)
        elif state.state is ConnectionState.CONNECTED:
            self._first.callback(None)
        elif state.state is not ConnectionState.CONNECTING:
            self._first.errback(state.error or Closed("closed"))

    async def established(self) -> Client:
        """The client, connected. Raises ClientError where the first attempt fails."""
        try:
            await self._first
        except BaseException:
            await self.client.close()
            raise
        return self.client


def told_of(state: State) -> str:
    """What to tell people of a connection that changed; "" for nothing."""
    if state.state is ConnectionState.RECONNECTING:
        return f"connection lost: {state.reason}; trying again in {state.retry_in:.0f} s"
    return "connected again" if state.state is ConnectionState.CONNECTED else ""


def told_of_loss(lost: Lost) -> str:
    """What cannot be recovered, in a line."""
    old, new = lost.position, lost.resumed
    if not new.epoch:
        return f"{lost.channel}: what was published while there was no connection cannot be had"
    since = f"what followed {old.epoch}:{old.offset}" if old.epoch else "what was published before"
    return f"{lost.channel}: {since} cannot be had any more; it goes on after {new.epoch}:{new.offset}"


async def all_of(waited: list[Deferred[None]]) -> None:
    """Waits for all; where one fails, the others are cancelled."""
    try:
        await gatherResults(waited, consumeErrors=True)
    except FirstError as error:
        for each in waited:
            each.cancel()
        failure: Failure = error.subFailure
        failure.raiseException()
