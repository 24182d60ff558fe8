"""The server API: publish, broadcast."""

from __future__ import annotations

from typing import Any

from longconn import Hub
from longconn.core import idempotency as once
from longconn.core.namespaces import ChannelOptions, Namespaces
from longconn.core.paced_batch import TURN_CALLS
from longconn.core.publication import Data
from longconn.server_api.operations import ServerAPI
from longconn.testing import FakeClock
from tests.behaviour.broker import LateBroker
from tests.server_api.kit import BAD, NOTHING, Case, Program, error


class PublishTests(Case):
    def test_data_is_passed_on_as_it_was_written(self) -> None:
        program, person = Program(self.server, channels=("lobby",)), self.server.line_client()
        self.server.settle()
        written = b'{"data": {"a": 1.50, "a": 1e2, "n": 123456789012345678901234567890}, "channel" : "lobby"}'
        response = self.post("/api/publish", written)
        self.assertEqual(response.json()["result"]["offset"], 1)
        data = '{"a":1.50,"a":1e2,"n":123456789012345678901234567890}'
        self.assertEqual(person.read(), [f"(server): {data}"])
        (frame,) = program.socket.read()
        # The server published it: there is no info.
        self.assertEqual(
            frame, '{"push":{"channel":"lobby","pub":{"data":' + data + ',"offset":1,"time":1700000000000}}}'
        )

    def test_no_client_can_take_the_servers_name(self) -> None:
        client = self.server.line_client()
        client.say("/nick (server)")
        self.assertTrue(client.read()[0].startswith("!"))

    def test_null_is_a_value(self) -> None:
        self.call("publish", channel="c", data=None)
        self.assertEqual(self.kept(), [None])

    def test_refused_requests(self) -> None:
        for body in ({"channel": "c"}, {"data": 1}, {"channel": "", "data": 1}, {"channel": "a b", "data": 1}):
            self.assertEqual(self.call("publish", **body), BAD)
        self.assertEqual(self.call("publish", channel="c", data="x" * (self.hub.settings.max_message + 1)), BAD)
        self.assertEqual(self.kept(), [])

    def test_unsupported_members_are_refused(self) -> None:
        for name, value in (
            ("tags", {"a": "b"}), ("delta", True), ("b64data", "MQ=="), ("version", 1), ("version_epoch", "e"),
        ):  # fmt: skip
            for method, target in (("publish", {"channel": "c"}), ("broadcast", {"channels": ["c"]})):
                answer = self.call(method, **target, data=1, **{name: value})
                self.assertEqual(answer, error(108, "not available"), name)
        self.assertIn("result", self.call("publish", channel="c", data=1, tags={}, delta=False, version=0))

    def test_rights_do_not_apply_but_namespaces_must_exist(self) -> None:
        closed = ChannelOptions(allow_publish_for_client=False, allow_publish_for_subscriber=False)
        self.serve(namespaces=Namespaces(plain=closed, named={"news": closed}))
        self.assertIn("result", self.call("publish", channel="news:c", data=1))
        self.assertIn("result", self.call("publish", channel="c", data=1))
        self.assertEqual(self.call("publish", channel="olds:c", data=1), error(102, "unknown channel"))

    def test_skip_history_reaches_subscribers_and_changes_no_position(self) -> None:
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
    def test_a_key_is_published_once_in_a_channel_and_gets_the_same_answer(self) -> None:
        first = self.call("publish", channel="c", data=1, idempotency_key="k")
        self.call("publish", channel="c", data=2)
        self.assertEqual(self.call("publish", channel="c", data=3, idempotency_key="k"), first)
        self.assertNotEqual(self.call("publish", channel="d", data=4, idempotency_key="k"), first)
        self.assertEqual(self.kept(), [1, 2])

    def test_it_is_forgotten_after_five_minutes(self) -> None:
        first = self.call("publish", channel="c", data=1, idempotency_key="k")
        self.server.advance(once.REMEMBERED - 1)
        self.assertEqual(self.call("publish", channel="c", data=2, idempotency_key="k"), first)
        self.server.advance(1)
        self.assertEqual(self.call("publish", channel="c", data=3, idempotency_key="k")["result"]["offset"], 2)

    def test_the_number_of_remembered_keys_is_bounded(self) -> None:
        self.patch(once, "MOST", 3)
        for key in "abcd":
            self.call("publish", channel="c", data=key, idempotency_key=key)
        for key in "dca":  # the first of them was forgotten
            self.call("publish", channel="c", data=key, idempotency_key=key)
        self.assertEqual(self.kept(), ["a", "b", "c", "d", "a"])

    def test_a_broadcast_publishes_where_its_key_is_new(self) -> None:
        self.call("publish", channel="c", data=1, idempotency_key="k")
        self.call("broadcast", channels=["c", "d"], data=2, idempotency_key="k")
        self.assertEqual((self.kept("c"), self.kept("d")), ([1], [2]))

    def test_two_requests_at_once_publish_once(self) -> None:
        self.serve(lambda settings: Hub(clock := FakeClock(), settings, LateBroker(clock, settings, failures=0)))
        got: list[Any] = []
        api = ServerAPI(self.hub)
        for _ in range(2):
            api.publish("c", Data.of_json("1"), got.append, idempotency_key="k")
        self.assertEqual(got, [])
        self.server.settle()
        self.assertEqual((len(got), got[0], got[0].offset), (2, got[1], 1))

    def test_a_refused_publication_is_tried_again(self) -> None:
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

    def test_a_large_broadcast_takes_several_turns(self) -> None:
        count = 3 * TURN_CALLS
        got: list[Any] = []
        ServerAPI(self.hub).broadcast([f"c{each}" for each in range(count)], Data.of_json("1"), got.append)
        self.assertEqual(self.hub.counters.publications, TURN_CALLS)
        self.server.advance(1)
        self.assertEqual((self.hub.counters.publications, len(got[0])), (count, count))

    def test_a_stop_in_the_middle_leaves_nothing(self) -> None:
        got: list[Any] = []
        ServerAPI(self.hub).broadcast([f"c{each}" for each in range(3 * TURN_CALLS)], Data.of_json("1"), got.append)
        self.server.stop()  # raises if a delayed call is left
        self.assertEqual(got, [])
