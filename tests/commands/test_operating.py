"""`longconn top`, `info`, `channels` and `disconnect`, against a real server."""

import json
from typing import Any

from longconn.commands.operating import short, span
from longconn.commands.top import KEYS, Look, Orders, lines
from tests.commands.kit import Case

_KEY: dict[str, Any] = {"environ": {"LONGCONN_API_KEY": "a key"}}
_OPERATOR: dict[str, Any] = {"environ": {"LONGCONN_PASSWORD": "secret"}}
#: The arguments that name the server, by command.
_COMMANDS = {"top": ("{}",), "info": ("-s", "{}"), "channels": ("-s", "{}"), "disconnect": ("mia", "-s", "{}")}


class OperatingTests(Case):
    def setUp(self) -> None:
        self.serve(api_key="a key", anonymous="yes", auth=("memory:ops:secret:bob:other",), admin_user=("ops",))
        self.url = f"http://127.0.0.1:{self.port}"

    def arguments(self, command: str, url: str = "") -> tuple[str, ...]:
        return (command, *(each.format(url or self.url) for each in _COMMANDS[command]))

    async def talker(self, name: str, channel: str) -> Any:
        client = await self.line_client()
        for line in (f"/nick {name}", f"/join {channel}", "ping"):
            client.say(line)
        await client.connection.until(lambda: "pong" in client.lines)
        return client

    async def test_info(self) -> None:
        await self.talker("mia", "games")
        for options, further in ((_KEY, ()), (_OPERATOR, ("--user=ops",))):
            status, out, err = await self.run_command("info", "-s", self.url, *further, **options)
            self.assertEqual((status, err), (0, ""))
            self.assertIn("clients       1 (1 users)\nchannels      1 (1 subscriptions)\n", out)
        _, out, _ = await self.run_command("info", "-s", self.url, "--json", **_KEY)
        self.assertEqual(json.loads(out)["nodes"][0]["num_clients"], 1)

    async def test_channels(self) -> None:
        for name, channel in (("mia", "games"), ("bob", "games"), ("eve", "art")):
            await self.talker(name, channel)
        found = await self.run_command("channels", "-s", self.url, **_KEY)
        rows = ["CHANNEL  CLIENTS  PUBLICATIONS", "games          2             0", "art            1             0"]
        self.assertEqual(found, (0, "\n".join([*rows, ""]), ""))
        found = await self.run_command("channels", "a*", "--json", "-s", self.url, **_KEY)
        self.assertEqual((found[0], json.loads(found[1])["name"]), (0, "art"))
        found = await self.run_command("channels", "--limit=1", "-s", self.url, **_KEY)
        self.assertEqual(found[2], "longconn: 1 of 2 channels; --limit shows more\n")
        await self.assert_one_line("not available", "channels", "{a}", "-s", self.url, **_KEY)

    async def test_disconnect(self) -> None:
        mia, bob = await self.talker("mia", "games"), await self.talker("bob", "games")
        (id_of_mia,) = [each.id for each in self.hub.clients.values() if each.name == "mia"]
        found = await self.run_command("disconnect", "--client", id_of_mia, "-s", self.url, **_KEY)
        self.assertEqual(found, (0, "disconnected 1 client\n", ""))
        await mia.connection.until(lambda: mia.connection.closed)
        bob.say("/login bob")
        bob.say("other")
        await bob.connection.until(lambda: any("logged in" in each for each in bob.lines))
        found = await self.run_command("disconnect", "bob", "-s", self.url, **_KEY)
        self.assertEqual(found, (0, "disconnected 1 client\n", ""))
        await bob.connection.until(lambda: bob.connection.closed)
        await self.assert_one_line("no user 'bob'", "disconnect", "bob", "-s", self.url, **_KEY)
        await self.assert_one_line("no client 'x'", "disconnect", "--client=x", "-s", self.url, **_KEY)
        for wrong in (("",), (), ("bob", "--client=x")):
            await self.assert_one_line("USER", "disconnect", *wrong, "-s", self.url, usage=True, **_KEY)

    async def test_top_without_a_terminal(self) -> None:
        await self.talker("mia", "games")
        status, out, err = await self.run_command("top", self.url, **_KEY)
        self.assertEqual((status, err), (0, ""))
        self.assertRegex(out, r"(?m)^mia +127\.0\.0\.1:\d+ +tcp +0 s +0  games$")
        found = self.command("top", self.url, "--json", "--times=2", "--every=0.01", **_KEY)
        self.assertEqual(await found.status, 0)
        values = [json.loads(each) for each in found.out.lines]
        self.assertEqual([each["clients"][0]["name"] for each in values], ["mia", "mia"])

    async def test_what_is_wrong_is_one_line(self) -> None:
        for command in _COMMANDS:
            arguments = self.arguments(command)
            wrong: dict[str, Any] = {"environ": {"LONGCONN_API_KEY": "another"}}
            await self.assert_one_line("the key or the password is not right", *arguments, **wrong)
            await self.assert_one_line("$LONGCONN_API_KEY", *arguments, usage=True)
            other = self.arguments(command, "tcp://127.0.0.1:1")
            await self.assert_one_line("is at http://", *other, usage=True, **_KEY)
            await self.assert_one_line("127.0.0.1:1", *self.arguments(command, "http://127.0.0.1:1"), **_KEY)

    async def test_a_server_without_the_api(self) -> None:
        self.serve()
        url = f"http://127.0.0.1:{self.port}"
        for command in _COMMANDS:
            await self.assert_one_line("the server API is off there", *self.arguments(command, url), **_KEY)


class ScreenTests(Case):
    def found(self, clients: int, channels: int, at: float = 0.0, publications: int = 0) -> Look:
        client = {
            "client": "id", "name": "a\x1b[2J界", "user": "", "address": "192.0.2.1:1", "protocol": "tcp", "age": 7200,
            "queued": 65536, "num_channels": 1, "channels": ["lobby"],
        }  # fmt: skip
        node = {
            "name": "n",
            "version": "1",
            "uptime": 3,
            "num_clients": clients,
            "num_users": 1,
            "num_channels": channels,
        }
        names = [{"name": f"c{each}", "num_clients": 1, "num_publications": publications} for each in range(channels)]
        return Look(
            at, node, {}, {"num_clients": clients, "clients": [client] * clients},
            {"num_channels": channels, "channels": names},
        )  # fmt: skip

    def test_a_screen_fits_its_terminal(self) -> None:
        for clients, channels in ((0, 0), (1, 1), (500, 3), (3, 500), (500, 500)):
            for width, height in ((100, 24), (20, 8), (300, 60)):
                shown = lines(self.found(clients, channels), None, width, height, Orders())
                self.assertEqual(len(shown), height)
                self.assertFalse([each for each in shown if len(each) > width or "\x1b" in each])
                self.assertTrue(shown[-1].startswith("clients: slowest"[: width - 1]))

    def test_rates_are_of_the_time_between_two_looks(self) -> None:
        shown = lines(self.found(0, 1, 4.0, 30), self.found(0, 1, 2.0, 10), 100, 24)
        self.assertIn("c0             1              10", shown)

    def test_orders(self) -> None:
        orders = Orders()
        for key, (what, order, name) in KEYS.items():
            orders.press(key)
            self.assertEqual((getattr(orders, what), orders.names[what]), (order, name))

    def test_numbers(self) -> None:
        self.assertEqual([short(each) for each in (0, 7, 999, 1234, 2_500_000)], ["0", "7", "999", "1.23k", "2.5M"])
        self.assertEqual([span(each) for each in (0, 119, 120, 7200, 180000)], ["0 s", "119 s", "2 min", "2 h", "2 d"])
