"""`longconn chat` in a pipe: input, events of others, output."""

import getpass
from typing import Any

from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from longconn.clients import Client, ConnectionState, State
from longconn.commands.chat_lines import colour_of, parse_input
from longconn.commands.chat_terminal import TerminalWindow, status_line
from longconn.commands.naming import names
from longconn.commands.running import Console
from longconn.testing import LineClient
from tests.commands.kit import Case, Command, Typed, Written


class ChatCase(Case):
    def setUp(self) -> None:
        self.serve()

    async def chat(self, *arguments: str, **options: Any) -> Command:
        """A chat that has joined its channel."""
        command = self.command("chat", *self.at, *arguments, **options)
        self.name = arguments[arguments.index("--name") + 1]
        while not any(each.name == self.name and each.subscriptions for each in self.hub.clients.values()):
            assert not command.ended, command.err.text
            await self.answer(await self.http_client(), "GET", "/health/live")
        return command

    async def other(self, name: str = "ann") -> LineClient:
        """Another member, by chat lines."""
        client = await self.line_client()
        client.say(f"/nick {name}")
        await client.connection.until(lambda: any(f"now {name}" in each for each in client.lines))
        return client

    async def hears(self, client: LineClient, line: str) -> None:
        await client.connection.until(lambda: line in client.lines)


class TalkTests(ChatCase):
    async def test_lines_of_all_members_are_shown(self) -> None:
        ann = await self.other()
        chat = await self.chat("--name", "mia")
        await self.hears(ann, "* mia joined")
        ann.say("good morning")
        await chat.prints("ann: good morning\n")
        chat.input.type("good morning, ann")
        chat.input.type("//who")
        chat.input.type('/json {"a": 1}')
        await self.hears(ann, 'mia: {"a":1}')
        self.assertEqual(ann.lines[-3:], ["mia: good morning, ann", "mia: /who", 'mia: {"a":1}'])
        await chat.prints("mia: good morning, ann\n", "mia: /who\n", 'mia: {"a":1}\n')
        chat.input.type("quit")
        self.assertEqual(await chat.status, 0)
        await self.hears(ann, "* mia left")
        self.assertEqual(chat.err.text, "")

    async def test_a_pipe_that_ends(self) -> None:
        """`echo hi | longconn chat`: the line comes back before the chat leaves."""
        ann = await self.other()
        status, out, err = await self.run_command("chat", *self.at, "--name", "mia", lines=[b"hi", b"", b"there"])
        self.assertEqual((status, out, err), (0, "mia: hi\nmia: there\n", ""))
        await self.hears(ann, "* mia left")
        self.assertEqual(ann.lines[-4:], ["* mia joined", "mia: hi", "mia: there", "* mia left"])

    async def test_joins_leaves_and_renames_are_shown(self) -> None:
        chat = await self.chat("--name", "mia")
        ann = await self.other()
        ann.say("/nick anna")
        await chat.prints(" joined\n", " is now ann\n", "* ann is now anna\n")
        ann.say("/quit")
        await chat.prints("* anna left\n")
        self.assertNotIn("mia", chat.out.text)

    async def test_only_clients_with_a_name_are_announced(self) -> None:
        chat = await self.chat("--name", "mia")
        sub = self.command("sub", *self.at, "lobby")

        async def here(number: int) -> None:
            while sum("lobby" in each.subscriptions for each in self.hub.clients.values()) != number:
                await self.answer(await self.http_client(), "GET", "/health/live")

        await here(2)
        chat.input.type("/who")
        await chat.prints("* 2 in lobby: ")
        sub.status.addErrback(lambda failure: None)
        sub.status.cancel()
        await here(1)
        chat.input.type("/who")
        await chat.prints("* 1 in lobby: mia\n")
        self.assertEqual(len(chat.out.lines), 2, chat.out.text)

    async def test_commands(self) -> None:
        ann = await self.other()
        chat = await self.chat("--name", "mia")
        for typed, shown in (
            ("/who", "* 2 in lobby: ann, mia\n"),
            ("/nick eve", "* mia is now eve\n"),
            ("/nick ann", "! the name ann is taken (153)\n"),
            ("/nick 127.0.0.1", "! a name is "),
            ("/nick", "! usage: /nick NAME\n"),
            ("/channels", "! unknown command /channels; /help lists them\n"),
            ("/history 0", "! /history takes a number from 1 to 100\n"),
            ("/history", "* nothing was said in lobby lately\n"),
            ("/json {", "! not JSON: "),
            ("/join bad channel", "! a channel is "),
            ("/join lobby", "! already in lobby\n"),
            ("x" * 70000, f"! too large: at most 65536 bytes (154); not said: {'x' * 60}…\n"),
            ("/help", "* /quit "),
        ):
            chat.input.type(typed)
            await chat.prints(shown)
        chat.input.type("still here")
        await self.hears(ann, "eve: still here")

    async def test_another_channel(self) -> None:
        ann = await self.other()
        ann.say("/join news")
        await ann.connection.until(lambda: ann.lines)
        chat = await self.chat("--name", "mia")
        chat.input.type("/join news")
        chat.input.type("in news")
        await self.hears(ann, "mia: in news")
        await chat.prints("* now in news\n", "mia: in news\n")
        bob = await self.other("bob")
        bob.say("in lobby")
        await self.hears(bob, "bob: in lobby")
        ann.say("bye")
        await chat.prints("ann: bye\n")
        self.assertNotIn("bob", chat.out.text)
        self.assertNotIn("! ", chat.out.text)

    async def test_history_on_joining_and_by_command(self) -> None:
        ann = await self.other()
        for number in range(30):
            ann.say(f"line {number}")
        await self.hears(ann, "ann: line 29")
        chat = await self.chat("--name", "mia")
        await chat.prints("line 29")
        shown = [f"ann: line {number}" for number in range(30)]
        self.assertEqual(chat.out.lines, shown[-20:])
        chat.input.type("/history 2")
        chat.input.type("/history 100")
        await chat.prints(*["line 29"] * 3)
        self.assertEqual(chat.out.lines, [*shown[-20:], *shown[-2:], *shown])

    async def test_a_message_between_history_and_joining(self) -> None:
        poster, asked = await self.http_client(), Client.history

        def history(client: Client, *arguments: Any, **options: Any) -> Any:
            async def late() -> Any:
                page = await asked(client, *arguments, **options)
                await self.answer(poster, "POST", "/channels/lobby?name=ann", b"in between")
                return page

            return Deferred.fromCoroutine(late())

        self.patch(Client, "history", history)
        chat = await self.chat("--name", "mia")
        await chat.prints("ann: in between\n")
        self.assertEqual((chat.out.text, chat.err.text), ("ann: in between\n", ""))

    async def test_a_channel_without_history(self) -> None:
        await self.service.stopService()
        self.serve(history_size=0)
        ann = await self.other()
        chat = await self.chat("--name", "mia")
        ann.say("now")
        await chat.prints("ann: now\n")
        self.assertEqual((chat.out.text, chat.err.text), ("ann: now\n", ""))

    async def test_control_characters_are_replaced(self) -> None:
        chat = await self.chat("--name", "mia")
        client = await self.http_client()
        body = "\x1b[2J\x1b]0;x\x07\u202eevil\n* ann left\r\n\tlast".encode()
        await self.answer(client, "POST", "/channels/lobby?name=ann", body)
        await chat.prints("last\n")
        self.assertEqual(
            chat.out.lines, ["ann: \ufffd[2J\ufffd]0;x\ufffd\ufffdevil", "ann: * ann left", "ann: \tlast"]
        )  # fmt: skip


class EndTests(ChatCase):
    async def test_the_server_ends_the_subscription(self) -> None:
        for arguments in ((), ("--once",)):
            chat = await self.chat("--name", "mia", *arguments)
            self.cut()
            self.assertEqual(await chat.status, 1)
            self.assertEqual(chat.err.lines, ["longconn: disconnected by the server: force reconnect (3011)"])

    async def test_a_dumb_terminal(self) -> None:
        """It has no line editor, and the chat goes on when the connection is lost."""
        chat = await self.chat("--name", "mia", interactive=True, environ={"TERM": "dumb"})
        self.cut()
        await chat.says("longconn: connected again\n")
        chat.input.type("hi")
        await chat.prints("mia: hi\n")

    async def test_an_output_that_fails(self) -> None:
        full = OSError(28, "No space left on device")
        for name, error, status in (("mia", full, 1), ("ann", BrokenPipeError(), 141)):
            chat = await self.chat("--name", name)
            chat.out.error = error
            chat.input.type("hi")
            self.assertEqual(await chat.status, status)
            self.assertEqual(chat.err.lines, ["longconn: cannot write: No space left on device"] if status == 1 else [])

    async def test_wrong_command_lines_and_servers(self) -> None:
        await self.other()
        offer = "longconn: the name ann is taken (153); another one, as --name=ann-2, may be free"
        await self.assert_one_line(offer, "chat", *self.at, "--name", "ann", lines=[])
        await self.assert_one_line("longconn: a name is ", "chat", *self.at, "--name", "a b", lines=[])
        await self.assert_one_line("longconn: a channel is ", "chat", *self.at, "--name", "mia", "a b", lines=[])
        at = ("-s", f"127.0.0.1:{self.port}")
        await self.service.stopService()
        await self.assert_one_line("connection refused", "chat", *at, "--name", "mia", lines=[])

    async def test_login_names(self) -> None:
        self.patch(getpass, "getuser", lambda: "ann")
        await self.other()
        status, out, err = await self.run_command("chat", *self.at, lines=[b"hi"])
        self.assertEqual((status, out, err), (0, "ann-2: hi\n", "longconn: the name ann is taken: you are ann-2\n"))

    def test_names_made_from_the_login_name(self) -> None:
        self.assertEqual(list(names("mia")), ["mia"])
        for login, first in (
            ("ann", "ann"),
            ("Mia Smith", "MiaSmith"),
            ("127.0.0.1", "somebody"),
            ("x" * 40, "x" * 24),
        ):
            self.patch(getpass, "getuser", lambda login=login: login)
            found = list(names(None))
            self.assertEqual(found[:3], [first, f"{first}-2", f"{first}-3"])
            self.assertEqual(len(found), len(set(found)))

        def nobody() -> str:
            raise KeyError("uid not found")

        self.patch(getpass, "getuser", nobody)
        self.assertEqual(next(names(None)), "somebody")


class WindowTests(SynchronousTestCase):
    def test_a_small_terminal_has_room_for_messages(self) -> None:
        class Screen(DummyOutput):
            rows = 0

            def get_size(self) -> Size:
                return Size(self.rows, 80)

        screen = Screen()
        with create_pipe_input() as keys, create_app_session(keys, screen):
            window = TerminalWindow(Console(Clock(), Typed([], None, True), Written(), Written(), {}))
            for screen.rows, kept in ((8, 0), (11, 0), (12, 4), (15, 5), (50, 7)):
                window._session.app.before_render.fire()
                self.assertEqual(window._session.reserve_space_for_menu, kept)

    def test_the_time_to_the_next_attempt_is_updated(self) -> None:
        class Room:
            channel, name, members = "lobby", "mia", None

        clock, drawn = Clock(), []
        with create_pipe_input() as keys, create_app_session(keys, DummyOutput()):
            window = TerminalWindow(Console(clock, Typed([], None, True), Written(), Written(), {}))
            window._room = Room  # type: ignore[assignment]
            self.patch(window._session.app, "invalidate", lambda: drawn.append(window._toolbar()))
            lost = State(ConnectionState.RECONNECTING, "refused", retry_in=3.0)
            window.on_state(lost, None)
            clock.pump([1.0, 1.0])
            window.on_state(State(ConnectionState.CONNECTED), None)
            clock.pump([1.0, 1.0])
        start = " lobby · mia · "
        times = [f"{start}reconnecting in {seconds} s: refused" for seconds in (3, 2, 1)]
        self.assertEqual(list(dict.fromkeys(drawn)), [*times, f"{start}connected"])
        self.assertEqual(clock.getDelayedCalls(), [])


class LineTests(SynchronousTestCase):
    def test_parsing_of_typed_lines(self) -> None:
        for line, meaning in (
            ("hello", ("say", "hello")),
            (" quitting", ("say", " quitting")),
            ("quit", ("quit", "")),
            (" quit ", ("quit", "")),
            ("/quit", ("quit", "")),
            ("", ("", "")),
            (" ", ("", "")),
            ("//x", ("say", "/x")),
            ("/nick  mia ", ("nick", "mia")),
            ("/history", ("history", "")),
            ("/json", ("error", "usage: /json VALUE")),
            ("/", ("error", "unknown command /; /help lists them")),
        ):
            self.assertEqual(parse_input(line), meaning)

    def test_colours_are_stable(self) -> None:
        found = [colour_of(f"name{number}", 10) for number in range(100)]
        self.assertEqual(found, [colour_of(f"name{number}", 10) for number in range(100)])
        self.assertEqual(set(found), set(range(10)))
        self.assertEqual(colour_of("mia", 10), 5)  # in every process

    def test_the_status_line(self) -> None:
        class Room:
            channel, name, members = "lobby", "mia", {"a": 1, "b": 2}

        room: Any = Room
        waiting = State(ConnectionState.RECONNECTING, "connection\x1b refused", retry_in=4.0)
        here = "lobby · mia · 2 here · connected"
        for columns, shown in (
            (80, here),
            (len(here), here),
            (len(here) - 1, "lobby · mia · connected"),
            (22, "lobby · connected"),
            (16, "connected"),
            (5, "connected"),
        ):
            self.assertEqual(status_line(room, State(ConnectionState.CONNECTED), 0.0, 9.0, columns), shown)
        lost = "reconnecting in 3 s: connection\ufffd refused"
        self.assertEqual(status_line(room, waiting, 12.0, 9.0, 42), f"lobby · mia · 2 here · {lost}")
        self.assertEqual(status_line(room, waiting, 12.0, 9.0, 26), lost)
        Room.members = None  # type: ignore[assignment]
        again = State(ConnectionState.CONNECTING, "connection refused")
        self.assertEqual(status_line(room, again, 12.0, 13.0, 80), "lobby · mia · reconnecting: connection refused")
        Room.name = "张伟"  # two columns for each
        self.assertEqual(status_line(room, State(ConnectionState.CONNECTED), 0.0, 0.0, 24), "lobby · 张伟 · connected")
        self.assertEqual(status_line(room, State(ConnectionState.CONNECTED), 0.0, 0.0, 23), "lobby · connected")
