"""The server API: POST /api/METHOD."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn import Hub, Settings, __version__
from longconn.core import once
from longconn.core.api import Target
from longconn.core.disconnects import DISCONNECTS, Disconnect
from longconn.core.errors import INTERNAL, CommandError
from longconn.core.namespaces import ChannelOptions, Namespaces
from longconn.core.paced import TURN_CALLS
from longconn.core.publication import Data
from longconn.core.tokens import ConnectionToken, SubscriptionToken
from longconn.protocols.http_api import NAMES
from longconn.testing import FakeClock, MemoryServer
from tests.behaviour.broker import LateBroker
from tests.http_kit import HTTPTestCase

KEY = "a key: ü"
NOTHING: dict[str, Any] = {"result": {}}


def error(code: int, message: str) -> Any:
    return {"error": {"code": code, "message": message}}


BAD = error(107, "bad request")


class Users:
    """A verifier whose tokens are the users' names."""

    def connection(self, token: str, now: float) -> ConnectionToken:
        return ConnectionToken(token, now + 1000 if token == "mortal" else None, b'{"role":"x"}')

    def subscription(self, *args: Any) -> SubscriptionToken:
        raise NotImplementedError


class Program:
    """A client of the structured protocol over WebSocket."""

    def __init__(self, server: MemoryServer, user: str = "", channels: tuple[str, ...] = ()) -> None:
        self._client = server.websocket_client("/connection/websocket", server._factory("http"))
        self._number = 0
        self.id = self.session = ""
        connected = self.ask("connect", {"token": user})["connect"]
        self.id, self.session = connected["client"], connected["session"]
        for each in channels:
            self.ask("subscribe", {"channel": each})

    def ask(self, method: str, body: Any) -> Any:
        self._number += 1
        self._client.say(json.dumps({"id": self._number, method: body}))
        return next(each for each in self.read() if each.get("id") == self._number)

    def read(self) -> list[Any]:
        return [json.loads(line) for each in self._client.read() for line in str(each).split("\n") if line != "{}"]

    def pushes(self) -> list[Any]:
        return [each["push"] for each in self.read()]

    @property
    def close(self) -> tuple[int | None, str]:
        self._client.read()
        return self._client.close_code, self._client.close_reason


class Case(SynchronousTestCase):
    """A server with a key; at its end nothing may be left."""

    def setUp(self) -> None:
        self.serve()

    def serve(self, hub: Callable[[Settings], Hub] | None = None, **settings: Any) -> None:
        settings = {"ping_interval": 0, "allow_anonymous_connect_without_token": True, **settings}
        configured = Settings(api_key=KEY, **settings)
        self.server = MemoryServer(hub=hub(configured) if hub else Hub(FakeClock(), configured))
        self.hub = self.server.hub
        self.hub.verifier = Users()
        self.addCleanup(self.server.stop)

    def post(self, path: str, body: Any, *headers: tuple[str, str]) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body)
        response = self.server.http_client().post(path, data, headers or (("X-API-Key", KEY),))
        for _ in range(20):
            if response.complete:
                break
            self.server.advance(0.02)
        self.assertTrue(response.complete)
        return response

    def call(self, method: str, **body: Any) -> Any:
        response = self.post(f"/api/{method}", body)
        self.assertEqual((response.status, response.headers["content-type"]), (200, "application/json"))
        return response.json()

    def kept(self, channel: str = "c") -> list[Any]:
        return [each["data"] for each in self.call("history", channel=channel, limit=-1)["result"]["publications"]]


class KeyTests(Case):
    def test_without_a_key_there_is_nothing_and_the_log_says_once_why(self) -> None:
        server = MemoryServer(Settings())
        self.addCleanup(server.stop)
        with self.assertLogs("longconn", "WARNING") as logged:
            for method in ("GET", "POST"):
                for path in ("/api/publish", "/api/info", "/api"):
                    response = server.http_client().request(method, path, "{}", [("X-API-Key", "")])
                    self.assertEqual((response.status, response.json()["error"]["code"]), (404, 404), path)
        self.assertEqual(len(logged.output), 1)
        for word in ("--api-key", "LONGCONN_API_KEY"):
            self.assertIn(word, logged.output[0])

    def test_a_wrong_key_or_none_is_refused_before_anything_is_read(self) -> None:
        wrong = (
            ("X-API-Key", "a key"), ("X-API-Key", KEY + "x"), ("X-API-Key", ""), ("Authorization", f"Bearer {KEY}"),
            ("Authorization", "apikey"), ("Authorization", KEY), ("X-Other", KEY),
        )  # fmt: skip
        with self.assertLogs("longconn", "INFO") as logged:
            for header in wrong:
                response = self.post("/api/publish", b"{", header)
                self.assertEqual(response.status, 401)
                self.assertEqual(response.json(), error(101, "unauthorized"))
                self.assertTrue(response.headers["www-authenticate"].startswith("apikey"))
        self.assertNotIn(KEY, "".join(logged.output))

    def test_either_header_is_read(self) -> None:
        for header in (("X-API-Key", KEY), ("Authorization", f"apikey {KEY}"), ("Authorization", f"ApiKey  {KEY} ")):
            self.assertEqual(self.post("/api/channels", {}, header).json(), {"result": {"channels": {}}})

    def test_the_key_is_in_no_text_about_the_settings(self) -> None:
        self.assertNotIn(KEY, repr(self.hub.settings))

    def test_methods_and_paths_that_are_not_there(self) -> None:
        for path in ("/api", "/api/", "/api/nothing", "/api/rpc", "/api/publish/x", "/api/Publish"):
            self.assertEqual(self.post(path, {}).status, 404, path)
        response = self.server.http_client().get("/api/publish")
        self.assertEqual((response.status, response.headers["allow"]), (405, "OPTIONS, POST"))

    def test_pages_of_other_sites_are_refused_even_with_the_key(self) -> None:
        self.assertEqual(self.post("/api/info", {}, ("X-API-Key", KEY), ("Origin", "https://evil.org")).status, 403)


class BodyTests(Case):
    def test_what_is_malformed_is_400_and_has_no_effect(self) -> None:
        bad = (
            b"", b"{", b"[]", b"1", b"null", b"\xff", b'{"channel":5,"data":1}', b'{"channel":"\\ud800","data":1}',
            b'{"channel":"c","data":1,"skip_history":1}', b'{"channel":"c","data":1,"idempotency_key":{}}',
            b'{"channel":"c","data":1}x', b"[" * 100_000,
        )  # fmt: skip
        for body in bad:
            response = self.post("/api/publish", body)
            self.assertEqual((response.status, response.json()["error"]["code"]), (400, 107), body[:50])
        for method, body in (
            ("broadcast", b'{"channels":"c","data":1}'), ("broadcast", b'{"channels":[1],"data":1}'),
            ("history", b'{"channel":"c","limit":1.5}'), ("history", b'{"channel":"c","limit":true}'),
            ("history", b'{"channel":"c","limit":-2}'), ("history", b'{"channel":"c","since":{"offset":-1}}'),
            ("disconnect", b'{"user":"u","disconnect":3000}'), ("disconnect", b'{"user":"u","whitelist":[null]}'),
            ("batch", b'{"commands":{}}'), ("batch", b'{"commands":[1]}'), ("batch", b'{"commands":[],"parallel":0}'),
            ("batch", b'{"commands":[{"publish":{"channel":"c","data":1}},{"publish":[]}]}'),
        ):  # fmt: skip
            self.assertEqual(self.post(f"/api/{method}", body).status, 400, body)
        self.assertEqual(self.kept(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_null_is_absent_and_what_is_unknown_is_ignored(self) -> None:
        answer = self.call("publish", channel="c", data=1, idempotency_key=None, skip_history=None, tags=None, more=[1])
        self.assertEqual(answer["result"]["offset"], 1)

    def test_nesting_is_published_or_refused_however_deep(self) -> None:
        for depth in (10, 100, 800, 900, 950, 980, 1000, 5000):
            nested = b"[" * depth + b"]" * depth
            self.assertIn(self.post("/api/publish", b'{"channel":"c","data":%b}' % nested).status, (200, 400))
            command = b'{"commands":[{"publish":{"channel":"c","data":%b}}]}' % nested
            self.assertIn(self.post("/api/batch", command).status, (200, 400))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_refused_command_has_a_status_in_transport_mode_alone(self) -> None:
        self.serve(namespaces=Namespaces(named={"news": ChannelOptions()}), history_size=0)
        for method, body, code, status in (
            ("publish", {"channel": "", "data": 1}, 107, 400), ("publish", {"channel": "x:c", "data": 1}, 102, 404),
            ("history", {"channel": "c"}, 108, 400), ("presence", {"channel": "a b"}, 107, 400),
        ):  # fmt: skip
            plain = self.call(method, **body)
            moved = self.post(f"/api/{method}", body, ("X-API-Key", KEY), ("X-Centrifugo-Error-Mode", "transport"))
            self.assertEqual((moved.status, moved.json()), (status, plain["error"]))
            self.assertEqual(plain["error"]["code"], code)


class LimitTests(HTTPTestCase):
    def test_bodies_are_bounded(self) -> None:
        self.start(api_key="k", max_body=100)
        answer = self.request("POST /api/publish", "X-API-Key: k", body=b"{" + b" " * 100 + b"}")
        self.assertEqual(answer.status, 413)

    def test_the_rates_of_others_do_not_count(self) -> None:
        self.start(api_key="k", publish_rate=1, publish_burst=1, publish_bytes=1, channel_rate=0.001)
        for number in range(300):
            body = b'{"channel":"c%d","data":1}' % number
            answer = self.request("POST /api/publish", "X-API-Key: k", body=body)
            self.assertIn("result", answer.json)

    def test_an_error_of_ours(self) -> None:
        self.start(api_key="k")
        self.patch(self.hub, "visit", lambda *args: 1 / 0)
        with self.assertLogs("longconn", "ERROR"):
            answer = self.request("POST /api/publish", "X-API-Key: k", body=b'{"channel":"c","data":1}')
        self.assertEqual(answer.status, 500)


class PublishTests(Case):
    def test_it_reaches_all_as_it_was_written(self) -> None:
        program, person = Program(self.server, channels=("lobby",)), self.server.line_client()
        self.server.settle()
        written = b'{"data": {"a": 1.50, "a": 1e2, "n": 123456789012345678901234567890}, "channel" : "lobby"}'
        response = self.post("/api/publish", written)
        self.assertEqual(response.json()["result"]["offset"], 1)
        data = '{"a":1.50,"a":1e2,"n":123456789012345678901234567890}'
        self.assertEqual(person.read(), [f"(server): {data}"])
        (frame,) = program._client.read()
        # Nobody published it: there is no info.
        self.assertEqual(frame, '{"push":{"channel":"lobby","pub":{"data":' + data + ',"offset":1}}}')

    def test_no_client_can_be_called_as_the_server_is(self) -> None:
        client = self.server.line_client()
        client.say("/nick (server)")
        self.assertTrue(client.read()[0].startswith("!"))

    def test_null_is_a_value(self) -> None:
        self.call("publish", channel="c", data=None)
        self.assertEqual(self.kept(), [None])

    def test_what_cannot_be(self) -> None:
        for body in ({"channel": "c"}, {"data": 1}, {"channel": "", "data": 1}, {"channel": "a b", "data": 1}):
            self.assertEqual(self.call("publish", **body), BAD)
        self.assertEqual(self.post("/api/publish", b'{"channel":"c","data":NaN}').json(), BAD)
        self.assertEqual(self.call("publish", channel="c", data="x" * (self.hub.settings.max_message + 1)), BAD)
        self.assertEqual(self.kept(), [])

    def test_what_is_not_supported_is_refused(self) -> None:
        for name, value in (
            ("tags", {"a": "b"}), ("delta", True), ("b64data", "MQ=="), ("version", 1), ("version_epoch", "e"),
        ):  # fmt: skip
            for method, target in (("publish", {"channel": "c"}), ("broadcast", {"channels": ["c"]})):
                answer = self.call(method, **target, data=1, **{name: value})
                self.assertEqual(answer, error(108, "not available"), name)
        self.assertIn("result", self.call("publish", channel="c", data=1, tags={}, delta=False, version=0))

    def test_rights_do_not_apply_but_namespaces_must_be_there(self) -> None:
        closed = ChannelOptions(allow_publish_for_client=False, allow_publish_for_subscriber=False)
        self.serve(namespaces=Namespaces(plain=closed, named={"news": closed}))
        self.assertIn("result", self.call("publish", channel="news:c", data=1))
        self.assertIn("result", self.call("publish", channel="c", data=1))
        self.assertEqual(self.call("publish", channel="olds:c", data=1), error(102, "unknown channel"))

    def test_skipping_history_reaches_those_who_are_there_and_disturbs_no_position(self) -> None:
        program = Program(self.server, channels=("c",))
        events = self.server.http_client().get("/channels/c/events")
        self.call("publish", channel="c", data="kept")
        self.assertEqual(self.call("publish", channel="c", data="skipped", skip_history=True), NOTHING)
        self.call("publish", channel="c", data="kept too")
        pubs = [(each["pub"]["data"], each["pub"].get("offset")) for each in program.pushes()]
        self.assertEqual(pubs, [("kept", 1), ("skipped", None), ("kept too", 2)])
        self.assertEqual(self.kept(), ["kept", "kept too"])
        seen = [each for each in events.read() if each.data != ""][-3:]
        self.assertEqual([(each.json()["data"], each.id is None) for each in seen],
                         [("kept", False), ("skipped", True), ("kept too", False)])  # fmt: skip


class IdempotencyTests(Case):
    def test_a_key_is_done_once_in_a_channel_and_answered_the_same(self) -> None:
        first = self.call("publish", channel="c", data=1, idempotency_key="k")
        self.call("publish", channel="c", data=2)
        self.assertEqual(self.call("publish", channel="c", data=3, idempotency_key="k"), first)
        self.assertNotEqual(self.call("publish", channel="d", data=4, idempotency_key="k"), first)
        self.assertEqual(self.kept(), [1, 2])

    def test_it_is_forgotten_after_five_minutes(self) -> None:
        self.call("publish", channel="c", data=1, idempotency_key="k")
        self.server.advance(once.REMEMBERED - 1)
        self.call("publish", channel="c", data=2, idempotency_key="k")
        self.server.advance(1)
        self.call("publish", channel="c", data=3, idempotency_key="k")
        self.assertEqual(self.hub.total_publications, 2)

    def test_so_many_are_remembered(self) -> None:
        self.patch(once, "MOST", 3)
        for key in "abcd":
            self.call("publish", channel="c", data=key, idempotency_key=key)
        for key in "dca":  # the first of them was forgotten
            self.call("publish", channel="c", data=key, idempotency_key=key)
        self.assertEqual(self.kept(), ["a", "b", "c", "d", "a"])

    def test_a_broadcast_repeats_where_it_was_not_done(self) -> None:
        self.call("publish", channel="c", data=1, idempotency_key="k")
        self.call("broadcast", channels=["c", "d"], data=2, idempotency_key="k")
        self.assertEqual((self.kept("c"), self.kept("d")), ([1], [2]))

    def test_two_at_once_are_one(self) -> None:
        self.serve(lambda settings: Hub(clock := FakeClock(), settings, LateBroker(clock, settings, failures=0)))
        got: list[Any] = []
        for _ in range(2):
            self.hub.api.publish("c", Data.of_json("1"), got.append, idempotency_key="k")
        self.assertEqual(got, [])
        self.server.settle()
        self.assertEqual((len(got), got[0], got[0].offset), (2, got[1], 1))

    def test_what_was_refused_is_tried_again(self) -> None:
        self.serve(lambda settings: Hub(clock := FakeClock(), settings, LateBroker(clock, settings, failures=1)))
        self.assertEqual(
            self.call("publish", channel="c", data=1, idempotency_key="k"), error(100, "internal server error")
        )
        self.hub.broker.failures = 0  # type: ignore[attr-defined]
        self.assertEqual(self.call("publish", channel="c", data=1, idempotency_key="k")["result"]["offset"], 1)


class BroadcastTests(Case):
    def test_each_channel_has_its_answer(self) -> None:
        self.call("publish", channel="b", data=0)
        responses = self.call("broadcast", channels=["a", "", "b"], data={"x": 1})["result"]["responses"]
        self.assertEqual([each.get("result", {}).get("offset") for each in responses], [1, None, 2])
        self.assertEqual(responses[1], BAD)
        self.assertEqual((self.kept("a"), self.kept("b")), ([{"x": 1}], [0, {"x": 1}]))

    def test_channels_and_data_are_needed(self) -> None:
        for body in ({"data": 1}, {"channels": [], "data": 1}, {"channels": ["c"]}):
            self.assertEqual(self.call("broadcast", **body), BAD)

    def test_very_many_take_turns(self) -> None:
        count = 3 * TURN_CALLS
        got: list[Any] = []
        self.hub.api.broadcast([f"c{each}" for each in range(count)], Data.of_json("1"), got.append)
        self.assertEqual(self.hub.total_publications, TURN_CALLS)
        self.server.advance(1)
        self.assertEqual((self.hub.total_publications, len(got[0])), (count, count))

    def test_a_stop_in_the_middle_leaves_nothing(self) -> None:
        got: list[Any] = []
        self.hub.api.broadcast([f"c{each}" for each in range(3 * TURN_CALLS)], Data.of_json("1"), got.append)
        self.server.stop()  # raises if a delayed call is left
        self.assertEqual(got, [])


class SubscribeTests(Case):
    def test_all_connections_of_a_user_are_subscribed_and_told_before_what_follows(self) -> None:
        ours = [Program(self.server, "ann"), Program(self.server, "ann")]
        others = [Program(self.server, "bo"), Program(self.server)]
        self.call("publish", channel="c", data=0)
        self.assertEqual(self.call("subscribe", user="ann", channel="c", data={"hi": 1}), NOTHING)
        self.call("publish", channel="c", data=1)
        for each in ours:
            told, *pubs = each.pushes()
            self.assertEqual((told["channel"], told["subscribe"]["data"]), ("c", {"hi": 1}))
            self.assertEqual((told["subscribe"]["recoverable"], told["subscribe"]["offset"]), (True, 1))
            self.assertEqual([push["pub"]["data"] for push in pubs if "pub" in push], [1])
        for each in others:
            self.assertEqual(each.pushes(), [])

    def test_to_be_subscribed_already_is_no_error(self) -> None:
        ann = Program(self.server, "ann", ("c",))
        self.assertEqual(self.call("subscribe", user="ann", channel="c"), NOTHING)
        self.assertEqual(ann.pushes(), [])

    def test_the_rights_of_a_channel_do_not_matter(self) -> None:
        self.serve(namespaces=Namespaces(plain=ChannelOptions(allow_subscribe_for_client=False)))
        ann = Program(self.server, "ann")
        self.assertEqual(ann.ask("subscribe", {"channel": "c"})["error"]["code"], 103)
        self.assertEqual(self.call("subscribe", user="ann", channel="c"), NOTHING)
        self.assertIn("subscribe", ann.pushes()[0])

    def test_by_client_and_by_session(self) -> None:
        one, two, three = (Program(self.server, "ann") for _ in range(3))
        self.call("subscribe", user="ann", client=one.id, channel="c")
        self.call("subscribe", user="ann", session=two.session, channel="c")
        self.call("subscribe", user="bo", client=three.id, channel="c")  # it is none of bo's
        self.assertEqual([len(each.pushes()) > 0 for each in (one, two, three)], [True, True, False])

    def test_the_anonymous(self) -> None:
        one, two, ann = Program(self.server), Program(self.server), Program(self.server, "ann")
        self.server.line_client()  # people cannot be subscribed
        self.assertEqual(self.call("subscribe", client=one.id, channel="c"), NOTHING)
        self.assertEqual(self.call("subscribe", user="", channel="d"), NOTHING)
        self.assertEqual([each["channel"] for each in one.pushes() if "subscribe" in each], ["c", "d"])
        self.assertEqual([each["channel"] for each in two.pushes() if "subscribe" in each], ["d"])
        self.assertEqual(ann.pushes(), [])

    def test_what_cannot_be(self) -> None:
        self.serve(namespaces=Namespaces(named={"news": ChannelOptions()}), max_subscriptions=1)
        ann = Program(self.server, "ann", ("c",))
        self.assertEqual(self.call("subscribe", user="ann", channel="x:c"), error(102, "unknown channel"))
        self.assertEqual(self.call("subscribe", user="ann", channel=""), BAD)
        self.assertEqual(self.call("subscribe", channel="d"), BAD)
        self.assertEqual(self.call("subscribe", user="ann", channel="d"), error(106, "limit exceeded"))
        for name, value in (
            ("all_users", True), ("label_filter", {"op": "x"}), ("b64data", "MQ=="), ("b64info", "MQ=="),
            ("recover_since", {"offset": 1}), ("override", {"presence": {"value": True}}),
        ):  # fmt: skip
            answer = self.call("subscribe", user="ann", channel="d", **{name: value})
            self.assertEqual(answer, error(108, "not available"), name)
        self.assertEqual(ann.pushes(), [])

    def test_who_leaves_before_it_is_done_keeps_no_answer(self) -> None:
        self.serve(lambda settings: Hub(clock := FakeClock(), settings, LateBroker(clock, settings, failures=0)))
        ann, bo = Program(self.server, "ann"), Program(self.server, "bo")
        got: list[Any] = []
        for program, user in ((ann, "ann"), (bo, "bo")):
            self.hub.api.subscribe(SubscriptionToken("c", user), Target(user), got.append)
            self.assertEqual(program.id in self.hub.clients, True)
        ann._client.connection.reset()
        self.hub.api.unsubscribe("c", Target("bo"))
        self.server.settle()
        self.assertEqual([each.reason for each in got], [INTERNAL, INTERNAL])
        self.assertEqual(bo.pushes()[-1]["unsubscribe"]["code"], 2000)

    def test_unsubscribe(self) -> None:
        ann, bo = Program(self.server, "ann", ("c", "d")), Program(self.server, "bo", ("c",))
        ann.read()
        self.call("publish", channel="c", data=1)
        self.assertEqual(self.call("unsubscribe", user="ann", channel="c"), NOTHING)
        self.call("publish", channel="c", data=2)
        pushes = [each for each in ann.pushes() if "join" not in each]
        self.assertEqual(pushes[0]["pub"]["data"], 1)
        told = {"channel": "c", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}
        self.assertEqual(pushes[1:], [told])
        self.assertEqual([each["pub"]["data"] for each in bo.pushes() if "pub" in each], [1, 2])
        self.assertEqual(self.call("unsubscribe", user="ann", channel="c"), NOTHING)
        self.assertEqual(ann.pushes(), [])
        self.assertEqual(self.call("unsubscribe", user="ann", channel=""), BAD)
        self.assertEqual(self.call("unsubscribe", channel="d"), BAD)


class DisconnectTests(Case):
    def test_a_user_is_told_not_to_come_back(self) -> None:
        ours = [Program(self.server, "ann"), Program(self.server, "ann")]
        bo = Program(self.server, "bo")
        self.assertEqual(self.call("disconnect", user="ann"), NOTHING)
        for each in ours:
            self.assertEqual(each.close, (3503, "force disconnect"))
        self.assertEqual(bo.close[0], None)
        self.assertEqual(set(self.hub.users), {"bo"})

    def test_by_client_session_and_whitelist_for_a_reason(self) -> None:
        one, two, three, four = (Program(self.server, "ann") for _ in range(4))
        reason = {"code": 4321, "reason": "moved"}
        self.call("disconnect", user="ann", client=one.id, disconnect=reason)
        self.call("disconnect", user="ann", session=two.session)
        self.call("disconnect", user="ann", whitelist=[three.id])
        self.assertEqual([each.close[0] for each in (one, two, three, four)], [4321, 3503, None, 3503])
        self.assertEqual(one.close, (4321, "moved"))

    def test_people_can_be_shown_out(self) -> None:
        person, other = self.server.line_client(), self.server.line_client()
        self.server.settle()
        (found,) = [
            client
            for client, each in self.call("presence", channel="lobby")["result"]["presence"].items()
            if each["conn_info"]["name"] == person.address
        ]
        self.call("disconnect", client=found, disconnect={"code": 3500, "reason": "enough"})
        self.assertEqual((person.read()[-1], person.closed, other.closed), ("! disconnected: enough", True, False))

    def test_nobody_is_not_everybody(self) -> None:
        person, program = self.server.line_client(), Program(self.server)
        self.server.settle()
        self.assertEqual(self.call("disconnect"), BAD)
        self.assertEqual((person.closed, program.close[0]), (False, None))
        self.assertEqual(self.call("disconnect", user=""), NOTHING)
        self.server.settle()
        self.assertEqual((person.closed, program.close[0]), (True, 3503))

    def test_codes_are_those_that_clients_understand(self) -> None:
        for bad in ({"code": 2999}, {"code": 5000}, {}, {"code": 3500, "reason": "x" * 124}):
            self.assertEqual(self.call("disconnect", user="ann", disconnect=bad), BAD)
        advice = {code: Disconnect(code, "custom", "").reconnect for code in (4000, 4499, 4500, 4999)}
        self.assertEqual(advice, {4000: True, 4499: True, 4500: False, 4999: False})
        self.assertTrue(all(each.reconnect == (each.code < 3500) for each in DISCONNECTS.values()))


class RefreshTests(Case):
    def test_a_connection_expires_at_another_time(self) -> None:
        ann = Program(self.server, "mortal")
        at = int(self.server.clock.seconds()) + 2000
        self.assertEqual(self.call("refresh", user="mortal", expire_at=at, info={"role": "y"}), NOTHING)
        (told,) = ann.pushes()
        self.assertEqual((told["refresh"]["expires"], round(told["refresh"]["ttl"], -1)), (True, 2000))
        ann.ask("subscribe", {"channel": "c"})
        presence = self.call("presence", channel="c")["result"]["presence"]
        self.assertEqual(presence[ann.id]["conn_info"], {"role": "y"})
        self.server.advance(1500)
        self.assertEqual(ann.close[0], None)
        self.server.advance(600)
        self.assertEqual(ann.close[0], 3005)

    def test_or_never_or_now(self) -> None:
        one, two, three = Program(self.server, "mortal"), Program(self.server, "ann"), Program(self.server, "bo")
        self.call("refresh", user="mortal")
        self.call("refresh", user="ann", expired=True)
        self.call("refresh", user="bo", expire_at=1)
        self.assertEqual(one.pushes(), [{"refresh": {}}])
        self.server.advance(1500)
        self.assertEqual([each.close[0] for each in (one, two, three)], [None, 3005, 3005])


class ChannelTests(Case):
    def test_presence(self) -> None:
        ann, ann2, nobody = (
            Program(self.server, "ann", ("c",)),
            Program(self.server, "ann", ("c",)),
            Program(self.server),
        )
        nobody.ask("subscribe", {"channel": "c"})
        presence = self.call("presence", channel="c")["result"]["presence"]
        self.assertEqual(set(presence), {ann.id, ann2.id, nobody.id})
        self.assertEqual(presence[ann.id], {"user": "ann", "client": ann.id, "conn_info": {"role": "x"}})
        stats = self.call("presence_stats", channel="c")
        self.assertEqual(stats, {"result": {"num_clients": 3, "num_users": 2}})
        self.assertEqual(self.call("presence", channel="empty"), {"result": {"presence": {}}})
        empty = self.call("presence_stats", channel="empty")
        self.assertEqual(empty, {"result": {"num_clients": 0, "num_users": 0}})

    def test_presence_that_is_off(self) -> None:
        self.serve(namespaces=Namespaces(plain=ChannelOptions(presence=False)))
        for method in ("presence", "presence_stats"):
            self.assertEqual(self.call(method, channel="c"), error(108, "not available"))
            self.assertEqual(self.call(method), BAD)

    def test_history_in_parts(self) -> None:
        first = self.call("publish", channel="c", data=1)["result"]
        for data in (2, 3, 4):
            self.call("publish", channel="c", data=data)
        epoch = first["epoch"]

        def page(**body: Any) -> list[Any]:
            result = self.call("history", channel="c", **body)["result"]
            self.assertEqual((result["epoch"], result["offset"]), (epoch, 4))
            return [each["data"] for each in result["publications"]]

        self.assertEqual(page(), [])
        self.assertEqual(page(limit=-1), [1, 2, 3, 4])
        self.assertEqual(page(limit=2), [1, 2])
        self.assertEqual(page(limit=2, reverse=True), [4, 3])
        self.assertEqual(page(limit=2, since={"offset": 1, "epoch": epoch}), [2, 3])
        self.assertEqual(page(limit=-1, since={"offset": 3}, reverse=True), [2, 1])
        lost = self.call("history", channel="c", limit=1, since={"offset": 1, "epoch": "other"})
        self.assertEqual(lost, error(112, "unrecoverable position"))
        self.assertEqual(self.call("history", channel="c", limit=1, since={"offset": 0}, reverse=True), BAD)

    def test_history_says_who_published(self) -> None:
        ann = Program(self.server, "ann")
        ann.ask("publish", {"channel": "c", "data": {"x": 1}})
        self.call("publish", channel="c", data=2)
        theirs, ours = self.call("history", channel="c", limit=-1)["result"]["publications"]
        info = {"user": "ann", "client": ann.id, "conn_info": {"role": "x"}}
        self.assertEqual(theirs, {"data": {"x": 1}, "info": info, "offset": 1})
        self.assertEqual(ours, {"data": 2, "offset": 2})

    def test_history_that_is_off(self) -> None:
        self.serve(namespaces=Namespaces(plain=ChannelOptions(history_size=0)))
        for method in ("history", "history_remove"):
            self.assertEqual(self.call(method, channel="c"), error(108, "not available"))
            self.assertEqual(self.call(method), BAD)

    def test_removing_history_leaves_the_position(self) -> None:
        for data in (1, 2):
            before = self.call("publish", channel="c", data=data)["result"]
        self.assertEqual(self.call("history_remove", channel="c"), NOTHING)
        empty = {"publications": [], "epoch": before["epoch"], "offset": 2}
        self.assertEqual(self.call("history", channel="c", limit=-1), {"result": empty})
        program = Program(self.server)
        for offset, recovered in ((2, True), (1, False)):
            body = {"channel": "c", "recover": True, "epoch": before["epoch"], "offset": offset}
            self.assertEqual(program.ask("subscribe", body)["subscribe"].get("recovered", False), recovered)
            program.ask("unsubscribe", {"channel": "c"})
        after = self.call("publish", channel="c", data=3)["result"]
        self.assertEqual(after, {"epoch": before["epoch"], "offset": 3})
        self.assertEqual(self.kept(), [3])
        self.assertEqual(self.call("history_remove", channel="never met"), BAD)
        self.assertEqual(self.call("history_remove", channel="never-met"), NOTHING)
        self.server.advance(400)
        self.assertEqual(self.kept(), [])

    def test_channels_by_pattern(self) -> None:
        Program(self.server, channels=("a", "b:1", "b:2"))
        Program(self.server, channels=("b:2",))
        self.call("publish", channel="nobody-there", data=1)
        for pattern, names in (
            ("", ["a", "b:1", "b:2"]), ("*", ["a", "b:1", "b:2"]), ("b:*", ["b:1", "b:2"]), ("b", []),
            ("?", ["a"]), ("b:[!1]", ["b:2"]),
        ):  # fmt: skip
            found = self.call("channels", pattern=pattern)["result"]["channels"]
            self.assertEqual(sorted(found), names, pattern)
        self.assertEqual(self.call("channels")["result"]["channels"]["b:2"], {"num_clients": 2})
        self.assertEqual(self.call("channels", pattern="{a,b}"), error(108, "not available"))

    def test_info_counts(self) -> None:
        Program(self.server, "ann", ("c", "d"))
        Program(self.server, "ann", ("c",))
        gone = Program(self.server, "bo")
        self.server.line_client()
        gone._client.connection.reset()
        self.server.advance(90)
        self.call("publish", channel="c", data=1)
        self.call("publish", channel="", data=1)
        (node,) = self.call("info")["result"]["nodes"]
        self.assertEqual((node["uid"], node["version"]), (self.hub.node, __version__))
        self.assertGreaterEqual(node["uptime"], 90)
        counts = {name: node[f"num_{name}"] for name in ("clients", "users", "channels", "subs")}
        self.assertEqual(counts, {"clients": 3, "users": 2, "channels": 3, "subs": 4})
        items = node["metrics"]["items"]
        expected = {
            "connections": 4, "publications": 1, "api_calls": 3, "api_refused": 1, "api_calls_publish": 2,
            "api_calls_info": 1, "indirect_sends": self.hub.indirect_sends,
        }  # fmt: skip
        self.assertEqual(items, expected)


class BatchTests(Case):
    def test_commands_are_done_in_order_and_answered_each(self) -> None:
        written = (
            b'{"commands": [ {"publish": {"channel": "c", "data": {"a":  1}}}, {"history": {"channel":"c","limit":-1}},'
            b'{"publish": {"channel": "", "data": 1}}, null, {}, {"rpc": {}}, {"history_remove": {"channel":"c"}} ] }'
        )
        replies = self.post("/api/batch", written).json()["replies"]
        self.assertEqual(replies[0]["publish"]["offset"], 1)
        self.assertEqual(replies[1]["history"]["publications"], [{"data": {"a": 1}, "offset": 1}])
        missing = error(104, "not found")
        self.assertEqual(replies[2:], [BAD, BAD, missing, missing, {"history_remove": {}}])
        self.assertEqual(self.call("batch"), {"replies": []})

    def test_every_method_can_be_in_one(self) -> None:
        commands = [{name: {}} for name in NAMES]
        replies = self.call("batch", commands=commands)["replies"]
        missing = [name for name, each in zip(NAMES, replies, strict=True) if each == error(104, "not found")]
        self.assertEqual(missing, ["batch"])

    def test_one_waits_for_the_other_unless_parallel(self) -> None:
        for parallel, at_once in ((False, 1), (True, 3)):
            self.serve(lambda settings: Hub(clock := FakeClock(), settings, LateBroker(clock, settings, failures=0)))
            asked: list[int] = []
            calls = [(1, asked.append), (1, asked.append), (1, asked.append)]
            got: list[Any] = []
            self.hub.api.many(calls, got.append, parallel)
            self.assertEqual((len(asked), got), (at_once, []))
            publish = {"publish": {"channel": "c", "data": 1}}
            read = {"history": {"channel": "c", "limit": -1}}
            replies = self.call("batch", commands=[publish, read, publish, read], parallel=parallel)["replies"]
            found = [each["history"]["publications"] for each in replies[1::2]]
            self.assertEqual([len(each) for each in found], [1, 2])

    def test_very_many_take_turns_and_all_is_answered(self) -> None:
        count = 2 * TURN_CALLS + 1
        replies = self.call("batch", commands=[{"publish": {"channel": "c", "data": 1}}] * count)["replies"]
        self.assertEqual([each["publish"]["offset"] for each in replies], list(range(1, count + 1)))

    def test_one_that_fails_is_that_ones_alone(self) -> None:
        self.patch(self.hub.api, "info", lambda: 1 / 0)
        with self.assertLogs("longconn", "ERROR"):
            replies = self.call("batch", commands=[{"info": {}}, {"channels": {}}])["replies"]
        self.assertEqual(replies, [error(100, "internal server error"), {"channels": {"channels": {}}}])

    def test_what_was_refused_is_a_line_in_the_log(self) -> None:
        with self.assertLogs("longconn", "INFO") as logged:
            self.call("batch", commands=[{"publish": {}}] * 50)
        lines = [each for each in logged.output if "refused" in each]
        self.assertEqual(len(lines), 1)
        self.assertIn("50 of 50", lines[0])


class EmbeddingTests(SynchronousTestCase):
    def test_a_program_has_the_same_without_http(self) -> None:
        server = MemoryServer(Settings())
        self.addCleanup(server.stop)
        client = server.line_client()
        server.settle()
        got: list[Any] = []
        server.hub.api.broadcast(["lobby", "a b"], Data.of_text("hello"), got.append)
        self.assertEqual(client.read(), ["(server): hello"])
        self.assertEqual(got[0][0].offset, 1)
        self.assertIsInstance(got[0][1], CommandError)
        self.assertNotEqual(got[0][1].reason, INTERNAL)
        self.assertEqual(server.hub.api.channels(), {"lobby": 1})
