"""`longconn chat`: a line editor in a terminal; plain lines in a pipe, and in a terminal without cursor control."""

from __future__ import annotations

from argparse import Namespace
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.python.failure import Failure

from longconn.clients import Client, State
from longconn.commands.chat_lines import Line, Screen, parse_input
from longconn.commands.chat_room import Room
from longconn.commands.connecting import say_state
from longconn.commands.naming import open_named
from longconn.commands.parser import Parser
from longconn.commands.running import Console

#: The default channel of servers for chat clients.
_CHANNEL = "lobby"
#: Values of TERM for terminals that cannot move their cursor, which a line editor has to.
_DUMB = (None, "", "dumb", "unknown")


def parser() -> Parser:
    """The command line."""
    found = Parser(
        "chat",
        "Talk in a channel. In a terminal it is a line editor; where input or output is a pipe, each line that comes "
        "is said, and each line that is said is printed. /help lists what else can be typed, quit leaves.",
        "The exit status is 1 if the connection was lost for good.",
    )
    found.add_argument("channel", metavar="CHANNEL", nargs="?", default=_CHANNEL, help=f"[{_CHANNEL}]")
    found.add_server()
    found.add_token()
    found.add_argument("--name", metavar="NAME", help="what to be called; else the login name, or one like it")
    found.add_argument(
        "--once", action="store_true", help="end when the connection is lost; so it is in a pipe in any case"
    )  # fmt: skip
    found.add_timeout(10.0, "seconds to wait for a connection, and for an answer")
    return found


class Window(Screen, Protocol):
    """A screen with an input. `patient`: the next line may wait until the line before is carried out."""

    patient: bool

    def line(self) -> Deferred[str | None]:
        """The next line of the input; None at the end."""

    def on_state(self, state: State, room: Room | None) -> None:
        """The connection changed."""

    def open(self, room: Room) -> None:
        """The client has joined the room."""

    def close(self) -> Deferred[None]:
        """Fires when all lines are shown. No call follows."""


class PlainWindow:
    """Reads and writes plain lines. Lines about the connection go to standard error."""

    patient = True

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, line: Line) -> Deferred[None]:
        return self._console.out.write(f"{line}\n")

    def refresh(self) -> None:
        pass

    def open(self, room: Room) -> None:
        pass

    def on_state(self, state: State, room: Room | None) -> None:
        say_state(self._console, state)

    def line(self) -> Deferred[str | None]:
        def decoded(line: bytes | None) -> str | None:
            return None if line is None else line.decode("utf-8", "replace")

        return self._console.input.line().addCallback(decoded)

    def close(self) -> Deferred[None]:
        return self._console.out.write("")


async def main(console: Console, arguments: Namespace) -> int:
    """Chat until the input or the connection ends."""
    interactive = console.input.is_terminal and console.out.is_terminal
    window: Window
    if interactive and console.environ.get("TERM") not in _DUMB:
        # prompt_toolkit takes long to import, and only a terminal needs it.
        from longconn.commands.chat_terminal import TerminalWindow

        window = TerminalWindow(console)
    else:
        window = PlainWindow(console)
    return await _Chat(console, arguments, window, interactive and not arguments.once).run()


class _Chat:
    """Runs a window and a client."""

    def __init__(self, console: Console, arguments: Namespace, window: Window, reconnect: bool) -> None:
        self._console = console
        self._arguments = arguments
        self._window = window
        self._reconnect = reconnect
        self._room: Room | None = None
        self._over: Deferred[None] = Deferred()

    async def run(self) -> int:
        name, client = await self._connected()
        try:
            room = self._room = Room(self._console.reactor, client, name, self._window, self._end)
            await room.join(self._arguments.channel)
            self._window.open(room)
            client.closed().addCallback(lambda state: self._end(state.error))
            typing = Deferred.fromCoroutine(self._type(room))
            typing.addCallbacks(lambda _: self._end(None), self._failed)
            try:
                await self._over
            finally:
                typing.cancel()
        finally:
            try:
                await self._window.close()
            finally:
                await client.close()
        return 0

    async def _connected(self) -> tuple[str, Client]:
        return await open_named(self._console, self._arguments, self._on_state, reconnect=self._reconnect)

    def _on_state(self, state: State) -> None:
        self._window.on_state(state, self._room)
        if self._room is not None:
            self._room.on_state(state)

    async def _type(self, room: Room) -> None:
        """Carry out the lines of the input, one after the other."""
        lock = DeferredLock()
        while True:
            line = await self._window.line()
            if line is None or parse_input(line)[0] == "quit":
                break
            done = lock.run(room.do, line)
            done.addErrback(self._failed)
            if self._window.patient:
                await done
        if room.connected:
            # Earlier lines have to be published, and to come back.
            await lock.acquire()
            await room.catch_up()

    def _end(self, error: Any) -> None:
        over = self._over
        if over.called:
            return
        if error is None:
            over.callback(None)
        else:
            over.errback(Failure(error))

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError) and not self._over.called:
            self._over.errback(failure)
