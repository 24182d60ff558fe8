"""Clients of Centrifugo's client protocol: names in the chat, tokens of channels, and what follows from rights."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import jwt
from twisted.trial.unittest import SynchronousTestCase

from longconn import Hub, Settings
from longconn.auth.jwt import JWTVerifier
from longconn.core.namespaces import ChannelOptions, Namespaces
from longconn.testing import FakeClock, HTTPClient, HTTPResponse, LineClient, MemoryServer

SECRET = "a secret of at least thirty-two bytes"


class Program:
    """A client over WebSocket; `connected` is the reply to its connect, or the error."""

    def __init__(self, server: MemoryServer, **connect: Any) -> None:
        self.socket = server.websocket_client("/connection/websocket", server._factory("http"))
        self.pushes: list[Any] = []
        self._number = self._answered = 0
        self.connected = self.ask("connect", **connect)
        self.id = self.connected.get("connect", {}).get("client", "")

    def ask(self, method: str, /, **body: Any) -> Any:
        self._number += 1
        self.socket.say(json.dumps({"id": self._number, method: body}))
        return next((each for each in self.read() if each.get("id") == self._number), None)

    def number_answered(self) -> int:
        """How many commands were answered since this was asked last."""
        self.read()
        answered, self._answered = self._answered, 0
        return answered

    def read(self) -> list[Any]:
        came = [json.loads(line) for each in self.socket.read() for line in str(each).split("\n")]
        self.pushes += [each["push"] for each in came if "push" in each]
        self._answered += sum("id" in each for each in came)
        return came

    def take(self, kind: str) -> list[Any]:
        """What the pushes of one kind held, of those that came since."""
        self.read()
        found = [each[kind] for each in self.pushes if kind in each]
        self.pushes.clear()
        return found

    @property
    def close_code(self) -> int | None:
        self.socket.read()
        return self.socket.close_code


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.serve()

    def serve(self, **options: Any) -> None:
        """A server with tokens; `options` are those of all channels."""
        settings = Settings(
            ping_interval=0,
            token_hmac_secret_key=SECRET,
            anonymous="yes",
            namespaces=Namespaces(ChannelOptions(**options)),
        )
        self.clock = FakeClock()
        self.server = MemoryServer(hub=Hub(self.clock, settings))
        self.server.hub.gate.verifier = JWTVerifier(settings)
        self.addCleanup(self.server.stop)

    def person(self) -> LineClient:
        person = self.server.line_client()
        self.server.advance(1)
        self.addCleanup(person.read)
        return person

    def token(self, **claims: Any) -> str:
        return jwt.encode(claims, SECRET, "HS256")

    def in_ten(self) -> float:
        return self.clock.seconds() + 10


class NameTests(Case):
    def test_who_takes_a_name_is_somebody_of_the_chat(self) -> None:
        person, nobody = self.person(), Program(self.server)
        nobody.ask("subscribe", channel="lobby", join_leave=True)
        mia = Program(self.server, data={"chat": {"name": "mia"}})
        mia.ask("subscribe", channel="lobby")
        mia.ask("publish", channel="lobby", data="hi")
        nobody.ask("publish", channel="lobby", data="who?")
        address = self.server.hub.clients[nobody.id].name
        self.assertEqual(person.read(), ["* mia joined", "mia: hi", f"{address}: who?"])
        (said, asked) = nobody.take("pub")
        self.assertEqual(said["info"], {"client": mia.id, "conn_info": {"name": "mia"}})
        self.assertEqual(asked["info"], {"client": nobody.id, "conn_info": {"name": address}})
        mia.socket.connection.reset()
        self.server.settle()
        self.assertEqual(person.read(), ["* mia left"])

    def test_a_name_that_is_taken_or_none_is_refused_and_may_be_given_again(self) -> None:
        Program(self.server, data={"chat": {"name": "mia"}})
        for name, code in (("Mia", 153), ("no name", 152), ("", 152), (7, 107)):
            other = Program(self.server, data={"chat": {"name": name}})
            self.assertEqual(other.connected["error"]["code"], code)
            self.assertEqual(other.ask("connect", data={"chat": {"name": "bo"}})["connect"]["version"], "longconn")
            other.socket.connection.reset()
        self.server.settle()

    def test_positions_of_another_shape_are_refused_and_it_may_ask_again(self) -> None:
        for subs in (5, "lobby", [], {"lobby": 5}, {"lobby": [1]}):
            program = Program(self.server, subs=subs)
            self.assertEqual(program.connected["error"]["code"], 107, subs)
            token = self.token(sub="42", channels=["lobby"])
            found = program.ask("connect", token=token, subs={"lobby": None, "other": {"recover": True}})
            self.assertEqual(list(found["connect"]["subs"]), ["lobby"])

    def test_other_data_is_the_applications(self) -> None:
        for data in (
            None,
            1,
            "chat",
            [],
            {"chat": None},
            {"chat": "mia"},
            {"chat": {}},
            {"chat": {"name": None}},
            {"name": "mia"},
        ):
            program = Program(self.server, data=data)
            self.assertTrue(program.id, data)
            self.assertFalse(self.server.hub.clients[program.id].chat)

    def test_it_takes_another_name(self) -> None:
        person, witness = self.person(), Program(self.server)
        witness.ask("subscribe", channel="lobby", join_leave=True)
        mia, late = Program(self.server, data={"chat": {"name": "mia"}}), Program(self.server)
        for each in (mia, late):
            each.ask("subscribe", channel="lobby")
        witness.take("join")
        address = self.server.hub.clients[late.id].name
        self.assertEqual(mia.ask("rpc", method="chat.rename", data={"name": "ann"})["rpc"], {"data": {"name": "ann"}})
        self.assertEqual(late.ask("rpc", method="chat.rename", data={"name": "bo"})["rpc"], {"data": {"name": "bo"}})
        self.assertEqual(person.read(), ["* mia joined", "* mia is now ann", f"* {address} is now bo"])
        names = [each["info"]["conn_info"]["name"] for each in witness.take("join")]
        self.assertEqual(names, ["ann", "bo"])
        for data, code in (({"name": "BO"}, 153), ({"name": ""}, 152), ({"name": 1}, 107), ("x", 107), (None, 107)):
            self.assertEqual(mia.ask("rpc", method="chat.rename", data=data)["error"]["code"], code)

    def test_a_programs_own_callable_of_that_name_goes_before(self) -> None:
        self.server.hub.rpc["chat.rename"] = lambda client, data, done: done("mine")
        self.assertEqual(Program(self.server).ask("rpc", method="chat.rename")["rpc"], {"data": "mine"})
        self.assertEqual(Program(self.server).ask("rpc", method="other")["error"]["code"], 104)


class SubscriptionTokenTests(Case):
    def test_its_info_is_seen_by_others(self) -> None:
        witness = Program(self.server)
        witness.ask("subscribe", channel="c", join_leave=True)
        ann = Program(self.server, token=self.token(sub="ann", info={"n": "Ann"}))
        ann.ask("subscribe", channel="c", token=self.token(sub="ann", channel="c", info={"role": "host"}))
        ann.ask("publish", channel="c", data=1)
        ann.ask("publish", channel="d", data=2)
        witness.ask("subscribe", channel="d")
        everywhere = {"user": "ann", "client": ann.id, "conn_info": {"name": "ann", "n": "Ann"}}
        here = everywhere | {"chan_info": {"role": "host"}}
        there = here | {"chat": False}
        self.assertEqual(witness.ask("presence", channel="c")["presence"]["presence"][ann.id], there)
        ann.ask("unsubscribe", channel="c")
        witness.read()
        told = [(kind, each[kind]["info"]) for each in witness.pushes for kind in each if kind != "channel"]
        name = self.server.hub.clients[witness.id].name
        own = {"client": witness.id, "conn_info": {"name": name}, "chat": False}
        self.assertEqual(told, [("join", own), ("join", there), ("pub", here), ("leave", there)])
        kept = witness.ask("history", channel="d", limit=1)["history"]["publications"]
        self.assertEqual(kept[0]["info"], everywhere)

    def test_a_good_one_for_somebody_else_ends_the_connection(self) -> None:
        for claims in ({"sub": "bo", "channel": "c"}, {"sub": "ann", "channel": "d"}):
            ann = Program(self.server, token=self.token(sub="ann"))
            with self.assertLogs("longconn", "INFO"):
                self.assertIsNone(ann.ask("subscribe", channel="c", token=self.token(**claims)))
            self.assertEqual(ann.close_code, 3500)

    def test_one_that_cannot_be_read_is_refused(self) -> None:
        ann = Program(self.server, token=self.token(sub="ann"))
        self.assertEqual(ann.ask("subscribe", channel="c", token="x.y.z")["error"]["code"], 103)
        self.assertIsNone(ann.close_code)

    def test_a_newer_one_brings_newer_info_and_more_time(self) -> None:
        ann = Program(self.server, token=self.token(sub="ann"))

        def token(role: str, seconds: float) -> str:
            exp = self.clock.seconds() + seconds
            return self.token(sub="ann", channel="c", info={"role": role}, exp=exp)

        first = ann.ask("subscribe", channel="c", token=token("guest", 10))["subscribe"]
        self.assertEqual((first["expires"], first["ttl"]), (True, 10))
        self.server.advance(4)
        refreshed = ann.ask("sub_refresh", channel="c", token=token("host", 60))["sub_refresh"]
        self.assertEqual(refreshed, {"expires": True, "ttl": 60})
        presence = ann.ask("presence", channel="c")["presence"]["presence"]
        self.assertEqual(presence[ann.id]["chan_info"], {"role": "host"})

    def test_an_expired_one_changes_nothing(self) -> None:
        ann = Program(self.server, token=self.token(sub="ann"))
        claims = {"sub": "ann", "channel": "c"}
        ann.ask("subscribe", channel="c", token=self.token(**claims, exp=self.in_ten()))
        old = self.token(**claims, exp=self.clock.seconds() - 1)
        self.assertEqual(ann.ask("sub_refresh", channel="c", token=old)["sub_refresh"], {"expires": True, "ttl": 10})
        self.server.advance(100)
        self.assertEqual([each["code"] for each in ann.take("unsubscribe")], [2501])

    def test_they_expire_by_the_wall_clock(self) -> None:
        hour = 3_600
        ann = Program(self.server, token=self.token(sub="ann", exp=self.clock.seconds() + hour))
        ann.ask("subscribe", channel="c", token=self.token(sub="ann", channel="c", exp=self.clock.seconds() + hour / 2))
        self.clock.wall_ahead = -hour
        self.server.advance(hour)
        self.assertEqual(ann.take("unsubscribe"), [])
        self.clock.wall_ahead = -hour / 2
        self.server.advance(100)
        self.assertEqual([each["code"] for each in ann.take("unsubscribe")], [2501])
        self.assertIsNone(ann.close_code)
        self.clock.wall_ahead = 0
        self.server.advance(100)
        self.assertEqual(ann.close_code, 3005)

    def test_a_bad_one_to_refresh_by_ends_the_connection(self) -> None:
        ann = Program(self.server, token=self.token(sub="ann"))
        ann.ask("subscribe", channel="c", token=self.token(sub="ann", channel="c", exp=self.in_ten()))
        with self.assertLogs("longconn", "INFO"):
            ann.ask("sub_refresh", channel="c", token="x.y.z")
        self.assertEqual(ann.close_code, 3500)


class PositionTests(Case):
    """What a subscriber is told of its place follows from what it may recover."""

    def subscribed(self, **options: Any) -> Any:
        self.serve(**options)
        program = Program(self.server)
        program.ask("publish", channel="c", data=1)
        return program.ask("subscribe", channel="c")["subscribe"]

    def test_recoverable_without_asking(self) -> None:
        result = self.subscribed()
        self.assertEqual((result["recoverable"], result["positioned"], result["offset"]), (True, True, 1))

    def test_not_without_the_right_to_history(self) -> None:
        closed = {"allow_history_for_client": False, "allow_history_for_subscriber": False}
        self.assertEqual(self.subscribed(**closed), {})
        for option in ("allow_recovery", "force_recovery"):
            self.assertTrue(self.subscribed(**closed, **{option: True})["recoverable"], option)
        positioned = self.subscribed(**closed, force_positioning=True)
        self.assertEqual((positioned.pop("epoch") != "", positioned), (True, {"positioned": True, "offset": 1}))

    def test_not_where_nothing_is_kept(self) -> None:
        self.assertEqual(self.subscribed(history_size=0, force_recovery=True, force_positioning=True), {})
        self.assertEqual(Program(self.server).ask("history", channel="c", limit=1)["error"]["code"], 108)


class URLTests(Case):
    """The first commands of `/connection/sse` in the URL: any page can make a browser send them."""

    def open(self, *commands: str, accept: str | None = None) -> HTTPResponse:
        client = HTTPClient(self.server.connect(self.server._factory("http")), self.server.settle)
        headers = [] if accept is None else [("Accept", accept)]
        return client.get("/connection/sse?cf_connect=" + quote("\n".join(commands)), headers)

    def test_a_get_connects_and_subscribes_and_changes_nothing(self) -> None:
        person = self.person()
        refused = (
            '"publish":{"channel":"lobby","data":"no"}', '"rpc":{"method":"chat.rename","data":{"name":"no"}}',
            '"presence":{"channel":"lobby"}', '"unsubscribe":{"channel":"lobby"}',
            '"refresh":{"token":"x"}', '"ping":{}',
        )  # fmt: skip
        commands = [f'{{"id":{number},{body}}}' for number, body in enumerate(refused, 3)]
        answer = self.open(
            '{"id":1,"connect":{}}', '{"id":2,"subscribe":{"channel":"lobby"}}', *commands, '{"send":{"data":1}}', "{}"
        )
        self.assertEqual(answer.status, 200)
        written = [json.loads(each.removeprefix("data: ")) for each in answer.text.split("\n") if each]
        replies = {each["id"]: each for each in written if "id" in each}
        codes = [replies[number]["error"]["code"] for number in range(3, 3 + len(refused))]
        self.assertTrue("connect" in replies[1] and "subscribe" in replies[2])
        self.assertEqual(codes, [108] * len(refused))
        self.assertEqual(person.read(), [])

    def test_later_commands_of_that_session_come_by_post(self) -> None:
        person = self.person()
        answer = self.open('{"id":1,"connect":{}}')
        session = json.loads(answer.text.removeprefix("data: "))["connect"]["session"]
        body = {"session": session, "data": '{"id":2,"publish":{"channel":"lobby","data":"hi"}}'}
        posted = HTTPClient(self.server.connect(self.server._factory("http")), self.server.settle).post(
            "/emulation", json.dumps(body)
        )
        self.assertEqual((posted.status, [each[-2:] for each in person.read()]), (204, ["hi"]))

    def test_accept(self) -> None:
        for accept, status in (
            (None, 200), ("text/event-stream", 200), ("*/*", 200), ("text/*;q=0.5", 200),
            ("text/html, text/event-stream", 200), ("application/json", 406),
            ("image/avif,image/webp,*/*;q=0.8", 406), ("text/html,application/xhtml+xml,*/*;q=0.8", 406),
        ):  # fmt: skip
            self.assertEqual(self.open('{"id":1,"connect":{}}', accept=accept).status, status, accept)


class CostTests(SynchronousTestCase):
    def test_presence_of_very_many_counts_for_more(self) -> None:
        settings = Settings(publish_rate=10, publish_burst=10, channel_rate=0, ping_interval=0)
        server = MemoryServer(hub=Hub(FakeClock(), settings))
        self.addCleanup(server.stop)
        for _ in range(400):
            server.line_client()
        server.advance(1)
        for method in ("presence", "presence_stats"):
            program = Program(server)
            server.advance(1)
            program.number_answered()
            for _ in range(10):
                program.ask(method, channel="lobby")
            self.assertEqual(program.number_answered(), 2)
            server.advance(1.9)
            self.assertEqual(program.number_answered(), 4)
