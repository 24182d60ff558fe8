"""The server API, POST /api/METHOD: keys, bodies, batches."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn import Hub, Settings
from longconn.core.errors import INTERNAL, CommandError
from longconn.core.namespaces import ChannelOptions, Namespaces
from longconn.core.paced_batch import TURN_CALLS
from longconn.core.publication import Data
from longconn.server_api.http import NAMES
from longconn.server_api.operations import ServerAPI
from longconn.testing import FakeClock, MemoryServer
from tests.behaviour.broker import LateBroker
from tests.protocols.http.kit import HTTPTestCase
from tests.server_api.kit import BAD, KEY, Case, error


class KeyTests(Case):
    def test_without_a_key_the_api_is_404_and_the_log_says_once_why(self) -> None:
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

    def test_a_wrong_key_is_refused_before_the_body_is_read(self) -> None:
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

    def test_the_key_is_not_in_the_repr_of_the_settings(self) -> None:
        self.assertNotIn(KEY, repr(self.hub.settings))

    def test_unknown_methods_and_paths(self) -> None:
        for path in ("/api", "/api/", "/api/nothing", "/api/rpc", "/api/publish/x", "/api/Publish"):
            self.assertEqual(self.post(path, {}).status, 404, path)
        response = self.server.http_client().get("/api/publish")
        self.assertEqual((response.status, response.headers["allow"]), (405, "OPTIONS, POST"))

    def test_pages_of_other_sites_are_refused_even_with_the_key(self) -> None:
        self.assertEqual(self.post("/api/info", {}, ("X-API-Key", KEY), ("Origin", "https://evil.org")).status, 403)


class BodyTests(Case):
    def test_malformed_requests_are_400_and_have_no_effect(self) -> None:
        bad = (
            b"", b"{", b"[]", b"1", b"null", b"\xff", b'{"channel":5,"data":1}', b'{"channel":"\\ud800","data":1}',
            b'{"channel":"c","data":1,"skip_history":1}', b'{"channel":"c","data":1,"idempotency_key":{}}',
            b'{"channel":"c","data":1}x', b"[" * 100_000, b'{"channel":"c","data":NaN}',
            b'{"channel":"c","data":"\\ud800"}',
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

    def test_null_is_absent_and_unknown_members_are_ignored(self) -> None:
        answer = self.call("publish", channel="c", data=1, idempotency_key=None, skip_history=None, tags=None, more=[1])
        self.assertEqual(answer["result"]["offset"], 1)

    def test_nesting_is_published_or_refused_however_deep(self) -> None:
        for depth in (10, *range(700, 1000), 5000):  # somewhere the parser gives up, here or a little later
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

    def test_rates_of_clients_do_not_apply(self) -> None:
        self.start(api_key="k", publish_rate=1, publish_burst=1, publish_bytes=1, channel_rate=0.001)
        for number in range(300):
            body = b'{"channel":"c%d","data":1}' % number
            answer = self.request("POST /api/publish", "X-API-Key: k", body=body)
            self.assertIn("result", answer.json)

    def test_an_unexpected_exception_is_500(self) -> None:
        self.start(api_key="k")
        self.patch(self.hub.rates, "admit_channel", lambda *args: 1 / 0)
        with self.assertLogs("longconn", "ERROR"):
            answer = self.request("POST /api/publish", "X-API-Key: k", body=b'{"channel":"c","data":1}')
        self.assertEqual(answer.status, 500)


class BatchTests(Case):
    def test_commands_are_done_in_order_and_each_is_answered(self) -> None:
        written = (
            b'{"commands": [ {"publish": {"channel": "c", "data": {"a":  1}}}, {"history": {"channel":"c","limit":-1}},'
            b'{"publish": {"channel": "", "data": 1}}, null, {}, {"rpc": {}}, {"history_remove": {"channel":"c"}} ] }'
        )
        replies = self.post("/api/batch", written).json()["replies"]
        self.assertEqual(replies[0]["publish"]["offset"], 1)
        self.assertEqual(
            replies[1]["history"]["publications"], [{"data": {"a": 1}, "offset": 1, "time": 1_700_000_000_000}]
        )
        missing = error(104, "not found")
        self.assertEqual(replies[2:], [BAD, BAD, missing, missing, {"history_remove": {}}])
        self.assertEqual(self.call("batch"), {"replies": []})

    def test_every_method_can_be_in_a_batch(self) -> None:
        commands = [{name: {}} for name in NAMES]
        replies = self.call("batch", commands=commands)["replies"]
        missing = [name for name, each in zip(NAMES, replies, strict=True) if each == error(104, "not found")]
        self.assertEqual(missing, ["batch"])

    def test_commands_wait_for_each_other_unless_parallel(self) -> None:
        for parallel, at_once in ((False, 1), (True, 3)):
            self.serve(lambda settings: Hub(clock := FakeClock(), settings, LateBroker(clock, settings, failures=0)))
            asked: list[int] = []
            calls = [(1, asked.append), (1, asked.append), (1, asked.append)]
            got: list[Any] = []
            ServerAPI(self.hub).many(calls, got.append, parallel)
            self.assertEqual((len(asked), got), (at_once, []))
            publish = {"publish": {"channel": "c", "data": 1}}
            read = {"history": {"channel": "c", "limit": -1}}
            replies = self.call("batch", commands=[publish, read, publish, read], parallel=parallel)["replies"]
            found = [each["history"]["publications"] for each in replies[1::2]]
            self.assertEqual([len(each) for each in found], [1, 2])

    def test_a_large_batch_takes_several_turns(self) -> None:
        count = 2 * TURN_CALLS + 1
        replies = self.call("batch", commands=[{"publish": {"channel": "c", "data": 1}}] * count)["replies"]
        self.assertEqual([each["publish"]["offset"] for each in replies], list(range(1, count + 1)))

    def test_a_command_that_raises_does_not_affect_the_others(self) -> None:
        self.patch(ServerAPI, "info", lambda: 1 / 0)
        with self.assertLogs("longconn", "ERROR"):
            replies = self.call("batch", commands=[{"info": {}}, {"channels": {}}])["replies"]
        self.assertEqual(replies, [error(100, "internal server error"), {"channels": {"channels": {}}}])

    def test_refusals_are_logged_in_one_line(self) -> None:
        with self.assertLogs("longconn", "INFO") as logged:
            self.call("batch", commands=[{"publish": {}}] * 50)
        lines = [each for each in logged.output if "refused" in each]
        self.assertEqual(len(lines), 1)
        self.assertIn("50 of 50", lines[0])


class EmbeddingTests(SynchronousTestCase):
    def test_a_program_uses_the_operations_without_http(self) -> None:
        server = MemoryServer(Settings())
        self.addCleanup(server.stop)
        client = server.line_client()
        server.settle()
        got: list[Any] = []
        ServerAPI(server.hub).broadcast(["lobby", "a b"], Data.of_text("hello"), got.append)
        self.assertEqual(client.read(), ["(server): hello"])
        self.assertEqual(got[0][0].offset, 1)
        self.assertIsInstance(got[0][1], CommandError)
        self.assertNotEqual(got[0][1].reason, INTERNAL)
        listed: list[Any] = []
        ServerAPI(server.hub).channels("", listed.append)
        self.assertEqual(listed, [{"lobby": 1}])
