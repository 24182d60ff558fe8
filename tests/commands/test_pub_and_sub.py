"""`longconn pub` and `longconn sub`, against the server."""

import getpass
import json
from typing import Any

import jwt
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from longconn.clients import Client, ClientError
from longconn.commands.progress import Progress, duration
from longconn.commands.running import Console
from longconn.commands.standard_streams import LineTooLong, ReadError
from tests.commands.kit import Case, Command, Typed, Written, until


class PubTests(Case):
    def setUp(self) -> None:
        self.serve(history_size=100)

    async def kept(self, channel: str = "news", *more: Any) -> list[object]:
        """The data in the history of the channel."""
        client = await self.http_client()
        epoch = (await self.answer(client, "GET", f"/channels/{channel}", *more)).json()["epoch"]
        answer = await self.answer(client, "GET", f"/channels/{channel}?since={epoch}:0", *more)
        return [each["data"] for each in answer.json()["publications"]]

    async def test_one(self) -> None:
        chatter = await self.line_client()
        status, out, err = await self.run_command("pub", *self.at, "lobby", "good morning", "--name", "cron")
        self.assertEqual((status, out, err), (0, "", ""))
        await chatter.connection.until(lambda: "cron: good morning" in chatter.lines)

    async def test_it_speaks_as_the_login_name_as_often_as_it_runs(self) -> None:
        self.patch(getpass, "getuser", lambda: "mia")
        chatter = await self.line_client()
        for text in ("one", "two"):
            status, out, err = await self.run_command("pub", *self.at, "lobby", text)
            self.assertEqual((status, out, err), (0, "", ""))
        await chatter.connection.until(lambda: "mia: two" in chatter.lines)
        self.assertEqual(chatter.lines[-2:], ["mia: one", "mia: two"])  # nobody came or left

    async def test_a_name_of_the_chat_is_not_taken_for_a_label(self) -> None:
        self.patch(getpass, "getuser", lambda: "mia")
        chatter = await self.line_client()
        chatter.say("/nick mia")
        await chatter.connection.until(lambda: self.hub.names.owners)
        status, out, err = await self.run_command("pub", *self.at, "lobby", "one")
        self.assertEqual((status, out, err), (0, "", "longconn: the name mia is taken: you are mia-2\n"))
        await chatter.connection.until(lambda: "mia-2: one" in chatter.lines)
        offer = "longconn: the name mia is taken (153); another one, as --name=mia-2, may be free"
        await self.assert_one_line(offer, "pub", *self.at, "lobby", "x", "--name", "mia")

    async def test_with_a_token(self) -> None:
        await self.service.stopService()
        secret = "a secret of at least thirty-two bytes"
        self.serve(token_hmac_secret_key=secret, anonymous="no")
        token = jwt.encode({"sub": "ann"}, secret, "HS256")
        for arguments, environ in ((("--token", token), {}), ((), {"LONGCONN_TOKEN": token})):
            status, out, err = await self.run_command("pub", *self.at, "news", "x", *arguments, environ=environ)
            self.assertEqual((status, out, err), (0, "", ""))
        await self.assert_one_line("invalid token", "pub", *self.at, "news", "x")
        self.assertEqual(await self.kept("news", "", [("Authorization", f"Bearer {token}")]), ["x", "x"])

    async def test_one_of_json(self) -> None:
        await self.run_command("pub", *self.at, "news", '{"free":[1.5,"ü"]}', "--json")
        self.assertEqual(await self.kept(), [{"free": [1.5, "ü"]}])

    async def test_data_that_cannot_be_published(self) -> None:
        await self.assert_one_line("longconn: a channel is ", "pub", *self.at, "bad channel", "x")
        await self.assert_one_line("longconn: not JSON: ", "pub", *self.at, "news", "{", "--json")
        await self.assert_one_line("longconn: not JSON: NaN is no", "pub", *self.at, "news", "NaN", "--json")
        await self.assert_one_line("no address", "pub", *self.at, "news", "x", "--name", "127.0.0.1")

    async def test_lines_keep_their_order(self) -> None:
        lines = [str(number).encode() for number in range(500)]
        for arguments in ((), ("-",)):
            status, out, err = await self.run_command("pub", *self.at, "news", *arguments, lines=lines)
            self.assertEqual((status, out, err), (0, "", ""))
        self.assertEqual(await self.kept(), [str(number) for number in range(400, 500)])

    async def test_refused_lines_are_reported_by_number(self) -> None:
        await self.service.stopService()
        self.serve(max_message=100)
        lines = [b"one", b"a" * 200, b"", b"\xff", b"five"]
        status, out, err = await self.run_command("pub", *self.at, "news", lines=lines)
        self.assertEqual((status, out), (1, ""))
        errors = sorted(err.splitlines())
        self.assertEqual(len(errors), 2, errors)
        self.assertTrue(errors[0].startswith("longconn: line 2: too large"), errors)
        self.assertEqual(errors[1], "longconn: line 4: not UTF-8")
        self.assertEqual(await self.kept(), ["one", "five"])

    async def test_input_that_cannot_be_read(self) -> None:
        """The lines before the error are published."""
        lines = [b"one", LineTooLong("too large"), b"three", ReadError("cannot read: Input/output error"), b"five"]
        status, out, err = await self.run_command("pub", *self.at, "news", lines=lines)
        self.assertEqual((status, out), (1, ""))
        self.assertEqual(err, "longconn: line 2: too large\nlongconn: cannot read: Input/output error\n")
        self.assertEqual(await self.kept(), ["one", "three"])

    async def test_lines_of_json(self) -> None:
        lines = [b"\xef\xbb\xbf1", b"[1,", b'"x"', b"[" * 501 + b"]" * 501, b'{"last":1}']
        status, _, err = await self.run_command("pub", *self.at, "news", "--json", lines=lines)
        self.assertEqual(
            (status, [each.split(":")[1] for each in sorted(err.splitlines())]), (1, [" line 2", " line 4"])
        )
        self.assertEqual(await self.kept(), [1, "x", {"last": 1}])

    async def test_progress(self) -> None:
        lines = [b"a" * 9] * 50
        options = {"lines": lines, "size": 500}
        status, out, err = await self.run_command("pub", *self.at, "news", terminal=True, **options)
        self.assertEqual((status, out), (0, ""))
        self.assertTrue(err.startswith("\r\x1b[K2 %, 1 lines"), err)
        self.assertTrue(err.endswith("\r\x1b[K100 %, 50 lines in 0 s\n"), err)
        for unseen in ({"terminal": False, **options}, {"terminal": True, "lines": lines}):
            self.assertEqual((await self.run_command("pub", *self.at, "news", **unseen))[2], "")

    async def test_time_left(self) -> None:
        clock, err = Clock(), Written(is_terminal=True)
        progress = Progress(Console(clock, Typed([], 2000, True), Written(), err, {}))  # type: ignore[arg-type]
        for number in range(1, 101):
            clock.advance(0.5)
            # Each answer of a slow network takes the same time.
            await progress.on_line(10, 0.5)
            shown = err.text.rpartition("\x1b[K")[2]
            if number == 2:
                self.assertEqual(shown, "1 %, 2 lines, 2.0 lines/s, 1 min 39 s left")
        self.assertEqual(shown, "50 %, 100 lines, 2.0 lines/s, 50 s left")
        # The server slows down, and the time is that of lately.
        for _ in range(10):
            clock.advance(5)
            await progress.on_line(10, 5)
        shown = err.text.rpartition("\x1b[K")[2]
        self.assertEqual(shown, "55 %, 110 lines, 0.2 lines/s, 7 min 30 s left, the server's limit holds it back")
        self.assertEqual(duration(7500), "2 h 5 min")

    async def test_more_lines_than_the_rate_allows(self) -> None:
        """The server reads more slowly then, and every line is published."""
        await self.service.stopService()
        self.serve(publish_rate=100, publish_burst=1, history_size=1000)
        lines = [b"%d" % number for number in range(300)]
        status, _, err = await self.run_command("pub", *self.at, "news", "--timeout=1", lines=lines)
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(len(await self.kept()), 300)

    async def test_a_terminal_is_told_that_the_limit_holds_lines_back(self) -> None:
        """The first answers come at once. Later ones take more than a second, which no busy machine makes of those."""
        await self.service.stopService()
        self.serve(publish_rate=20, publish_burst=50, history_size=1000)
        options: dict[str, Any] = {"lines": [b"%d" % number for number in range(110)], "terminal": True}
        status, _, err = await self.run_command("pub", *self.at, "news", **options)
        self.assertRegex(err, r"^longconn: the server's limit holds it back: [\d.]+ lines/s\n$")
        status, _, err = await self.run_command("pub", *self.at, "news", size=330, **options)
        self.assertEqual(status, 0)
        self.assertRegex(err, r", [\d.]+ lines/s, [^,]+ left, the server's limit holds it back\r")
        self.assertRegex(err, r"\x1b\[K100 %, 110 lines in \d+ s, [\d.]+ lines/s\n$")

    async def test_input_is_read_no_faster_than_the_server_accepts_it(self) -> None:
        for line, most in ((b"a", 32), (b"a" * 100_000, 2), (b"a" * 1_000_000, 1)):
            asked: list[Deferred[None]] = []

            def publish(client: Client, channel: str, data: str, asked: list[Deferred[None]] = asked) -> Deferred[None]:
                asked.append(Deferred())
                return asked[-1]

            self.patch(Client, "publish", publish)
            self.command("pub", *self.at, "news", lines=[line] * 50)
            await until(lambda asked=asked, most=most: len(asked) == most)
            asked[0].callback(None)
            self.assertEqual(len(asked), most + 1)

    async def test_the_connection_is_lost(self) -> None:
        command = self.command("pub", *self.at, "news")
        command.input.type("one")
        while await self.kept() != ["one"]:
            pass
        await self.service.stopService()
        command.input.type("two")
        self.assertEqual(await command.status, 1)
        self.assertEqual(len(command.err.lines), 1)
        self.assertTrue(command.err.text.startswith("longconn: line 2: "), command.err.text)


class SubTests(Case):
    def setUp(self) -> None:
        self.serve()

    async def publish(self, channel: str, *values: object) -> None:
        client = await self.http_client()
        for each in values:
            path = f"/channels/{channel}?name=ann"
            answer = await self.answer(
                client, "POST", path, json.dumps(each).encode(), [("Content-Type", "application/json")]
            )
            self.assertEqual(answer.status, 200)

    async def started(self, *arguments: str) -> Command:
        """A `sub` that has subscribed to all its channels."""
        command = self.command("sub", *self.at, *arguments)
        channels = [each for each in arguments if each.isalpha()]
        while not all(self.hub.channels.get(each) for each in channels):
            await self.answer(await self.http_client(), "GET", "/health/live")
        return command

    async def test_lines(self) -> None:
        command = await self.started("news")
        await self.publish("news", "good morning", {"free": 1.5}, "two\nlines")
        await command.prints("two", "lines\n")
        self.assertEqual(
            command.out.lines, ["ann: good morning", 'ann: {"free":1.5}', "ann: two", "ann: lines"]
        )  # fmt: skip

    async def test_lines_of_several_channels(self) -> None:
        command = await self.started("news", "lobby")
        await self.publish("news", "one")
        await self.publish("lobby", "two")
        await command.prints("[news] ann: one\n", "[lobby] ann: two\n")

    async def test_json(self) -> None:
        command = await self.started("news", "--json")
        await self.publish("news", "a\u2028\x1b[31m", [1, None], "ü\x9b\u202e")
        await command.prints("ü\\u009b\\u202e")
        found = [json.loads(each) for each in command.out.lines]
        self.assertEqual([each["data"] for each in found], ["a\u2028\x1b[31m", [1, None], "ü\x9b\u202e"])
        self.assertEqual([each["offset"] for each in found], [1, 2, 3])
        self.assertEqual({(each["channel"], each["name"]) for each in found}, {("news", "ann")})
        self.assertEqual(sorted(found[0]), ["channel", "data", "epoch", "name", "offset", "time"])

    async def test_values_are_printed_and_published_as_they_were_written(self) -> None:
        texts = ["1.50", "1e999", "7" * 5000, '{"a":1,"a":2}', "12345678901234567890123", "[" * 500 + "]" * 500]
        lines = await self.started("news")
        objects = await self.started("news", "copy", "--json")
        for channel in ("news", "copy"):
            status, _, err = await self.run_command(
                "pub", *self.at, channel, "--json", lines=[each.encode() for each in texts]
            )
            self.assertEqual((status, err), (0, ""))
        await lines.prints("]" * 500 + "\n")
        self.assertEqual([each.partition(": ")[2] for each in lines.out.lines], texts)
        while len(objects.out.lines) < 2 * len(texts):
            await self.answer(await self.http_client(), "GET", "/health/live")
        for channel in ("news", "copy"):
            found = [each for each in objects.out.lines if f'"channel":"{channel}"' in each]
            printed = [each.partition('"data":')[2].rpartition(',"name"')[0] for each in found]
            self.assertEqual(printed, texts)

    async def test_count(self) -> None:
        command = await self.started("news", "lobby", "--count=3")
        await self.publish("news", "one")
        await self.publish("lobby", "two")
        await self.publish("news", "three", "four")
        self.assertEqual(await command.status, 0)
        self.assertEqual(command.out.lines, ["[news] ann: one", "[lobby] ann: two", "[news] ann: three"])

    async def test_last(self) -> None:
        await self.publish("news", "one", "two", "three")
        command = await self.started("news", "--last=2")
        await self.publish("news", "four")
        await command.prints("four")
        self.assertEqual(command.out.lines, ["ann: two", "ann: three", "ann: four"])
        # It ends with the history, and a channel may have less of it than was asked for.
        status, out, _ = await self.run_command("sub", *self.at, "news", "--last=9", "--count=2", "--raw")
        self.assertEqual((status, out), (0, "one\ntwo\n"))

    async def test_time(self) -> None:
        await self.publish("news", "two\nlines")
        status, out, _ = await self.run_command("sub", *self.at, "news", "--last=1", "--count=1", "--time")
        self.assertEqual(status, 0)
        stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
        self.assertRegex(out, f"^{stamp} ann: two\n{stamp} ann: lines\n$")

    async def test_raw(self) -> None:
        """A program reads it: nothing is replaced, and JSON is as it was written."""
        command = await self.started("news", "--raw", "--count=3")
        await self.publish("news", "a\x1b[31m\tb\nc", [1.5], "ü")
        self.assertEqual(await command.status, 0)
        self.assertEqual(command.out.text, "a\x1b[31m\tb\nc\n[1.5]\nü\n")

    async def test_format(self) -> None:
        command = await self.started(
            "news", "--count=2", "--format", r"{channel}\t{name}\t{offset} {{{json}}} {data} {time:%Y} \x"
        )
        await self.publish("news", {"a": 1}, "x\x1b")
        self.assertEqual(await command.status, 0)
        year = command.out.lines[0].split(" ")[-2]
        self.assertRegex(year, r"^\d{4}$")
        self.assertEqual(
            command.out.lines,
            [
                f'news\tann\t1 {{{{"a":1}}}} {{"a":1}} {year} \\x',
                f'news\tann\t2 {{"x\\u001b"}} x\ufffd {year} \\x',
            ],
        )
        for text in ("{", "}", "{other}", "{}", "{name!r}", "{name:>9}", "{data.real}", "{json[0]}"):
            with self.assertRaises(ClientError):
                self.command("sub", "news", f"--format={text}")

    async def test_colours_in_a_terminal(self) -> None:
        await self.publish("news", "one")
        asked = ("sub", *self.at, "news", "--last=1", "--count=1", "--time")
        _, out, _ = await self.run_command(*asked, interactive=True)
        self.assertRegex(out, r"^\x1b\[2m[-0-9 :]+\x1b\[0m \x1b\[[0-9;]+mann\x1b\[0m: one\n$")
        for environ in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            _, out, _ = await self.run_command(*asked, interactive=True, environ=environ)
            self.assertNotIn("\x1b", out)

    async def test_forms_that_exclude_each_other(self) -> None:
        for each in (("--json", "--raw"), ("--raw", "--format=x"), ("--last=1", "--since=a:1"), ("--count=0",)):
            with self.assertRaises(ClientError):
                self.command("sub", "news", *each)
        await self.assert_one_line("--time is for lines", "sub", *self.at, "news", "--json", "--time", usage=True)

    async def test_any_failure_is_one_line(self) -> None:
        command = await self.started("news")

        def fail(text: str) -> "Deferred[None]":
            raise RecursionError("too\ndeep")

        command.out.write = fail  # type: ignore[method-assign]
        await self.publish("news", "x")
        self.assertEqual(await command.status, 1)
        self.assertEqual(command.err.text, "longconn: internal error: RecursionError: too deep\n")

    async def test_control_characters_are_replaced(self) -> None:
        command = await self.started("news")
        await self.publish("news", "a\x1b]0;title\x07b\x9bc\u202ed\te\r\nf")
        await command.prints("f\n")
        self.assertEqual(command.out.lines, ["ann: a\ufffd]0;title\ufffdb\ufffdc\ufffdd\te", "ann: f"])

    async def test_since(self) -> None:
        await self.publish("news", "one", "two", "three")
        epoch = (await self.answer(await self.http_client(), "GET", "/channels/news")).json()["epoch"]
        later = await self.started("news", f"--since={epoch}:1")  # an epoch may begin with a hyphen
        await self.publish("news", "four")
        await later.prints("four")
        self.assertEqual(later.out.lines, ["ann: two", "ann: three", "ann: four"])

    async def test_since_an_unrecoverable_position(self) -> None:
        await self.publish("news", "one")
        command = await self.started("news", "--since=elsewhere:7")
        await command.says("\n")
        self.assertRegex(
            command.err.text,
            r"^longconn: news: what followed elsewhere:7 cannot be had any more; it goes on after \S+:1\n$",
        )
        await self.publish("news", "two")
        await command.prints("two")
        self.assertEqual(command.out.lines, ["ann: two"])

    async def test_goes_on_after_a_lost_connection(self) -> None:
        command = await self.started("news")
        await self.publish("news", "one")
        await command.prints("one")
        self.cut()
        await command.says("connection lost: ")
        await self.publish("news", "two")
        await command.says("longconn: connected again\n")
        await self.publish("news", "three")
        await command.prints("three")
        self.assertEqual(command.out.lines, ["ann: one", "ann: two", "ann: three"])
        self.assertRegex(command.err.lines[0], r"^longconn: connection lost: .*; trying again in \d+ s$")

    async def test_wrong_command_lines_and_servers(self) -> None:
        await self.assert_one_line("longconn: a channel is ", "sub", *self.at, "news", "bad channel")
        await self.assert_one_line("--since is for one channel", "sub", *self.at, "a", "b", "--since=x:1", usage=True)
        for text in ("x", ":1x", "x:", "x:-1", "x:1.5"):
            with self.assertRaises(ClientError):
                self.command("sub", "news", f"--since={text}")
        port = self.port
        await self.service.stopService()
        await self.assert_one_line("connection refused", "sub", "-s", f"127.0.0.1:{port}", "news")

    async def test_a_closed_output(self) -> None:
        command = await self.started("news")
        command.out.broken = True
        await self.publish("news", "one")
        self.assertEqual((await command.status, command.err.text), (141, ""))
