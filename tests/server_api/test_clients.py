"""The server API: subscribe, unsubscribe, disconnect, refresh."""

from __future__ import annotations

from typing import Any

from longconn import Hub
from longconn.core.disconnects import DISCONNECTS, Disconnect
from longconn.core.errors import INTERNAL
from longconn.core.namespaces import ChannelOptions, Namespaces
from longconn.core.tokens import SubscriptionToken
from longconn.server_api.operations import ServerAPI, Target
from longconn.testing import FakeClock
from tests.behaviour.broker import LateBroker
from tests.server_api.kit import BAD, NOTHING, Case, Program, error


class SubscribeTests(Case):
    def test_all_connections_of_a_user_get_the_push_before_publications(self) -> None:
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

    def test_a_client_that_is_subscribed_already_is_no_error(self) -> None:
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

    def test_clients_without_a_user(self) -> None:
        one, two, ann = Program(self.server), Program(self.server), Program(self.server, "ann")
        self.server.line_client()  # people cannot be subscribed
        self.assertEqual(self.call("subscribe", client=one.id, channel="c"), NOTHING)
        self.assertEqual(self.call("subscribe", user="", channel="d"), NOTHING)
        self.assertEqual([each["channel"] for each in one.pushes() if "subscribe" in each], ["c", "d"])
        self.assertEqual([each["channel"] for each in two.pushes() if "subscribe" in each], ["d"])
        self.assertEqual(ann.pushes(), [])

    def test_refused_requests(self) -> None:
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

    def test_a_client_that_leaves_meanwhile_does_not_block_the_answer(self) -> None:
        self.serve(lambda settings: Hub(clock := FakeClock(), settings, LateBroker(clock, settings, failures=0)))
        ann, bo = Program(self.server, "ann"), Program(self.server, "bo")
        got: list[Any] = []
        for program, user in ((ann, "ann"), (bo, "bo")):
            ServerAPI(self.hub).subscribe(SubscriptionToken("c", user), Target(user), got.append)
            self.assertEqual(program.id in self.hub.clients, True)
        ann.socket.connection.reset()
        ServerAPI(self.hub).unsubscribe("c", Target("bo"))
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
    def test_a_user_is_closed_and_does_not_reconnect(self) -> None:
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

    def test_chat_clients_can_be_disconnected(self) -> None:
        person, other = self.server.line_client(), self.server.line_client()
        self.server.settle()
        (found,) = [
            client
            for client, each in self.call("presence", channel="lobby")["result"]["presence"].items()
            if each["conn_info"]["name"] == person.address
        ]
        self.call("disconnect", client=found, disconnect={"code": 3500, "reason": "enough"})
        self.assertEqual((person.read()[-1], person.closed, other.closed), ("! disconnected: enough", True, False))

    def test_a_request_without_a_target_is_refused(self) -> None:
        person, program = self.server.line_client(), Program(self.server)
        self.server.settle()
        self.assertEqual(self.call("disconnect"), BAD)
        self.assertEqual((person.closed, program.close[0]), (False, None))
        self.assertEqual(self.call("disconnect", user=""), NOTHING)
        self.server.settle()
        self.assertEqual((person.closed, program.close[0]), (True, 3503))

    def test_codes_of_disconnects(self) -> None:
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
        self.assertEqual(presence[ann.id]["conn_info"], {"name": "mortal", "role": "y"})
        self.server.advance(1500)
        self.assertEqual(ann.close[0], None)
        self.server.advance(600)
        self.assertEqual(ann.close[0], 3005)

    def test_a_connection_expires_never_or_now(self) -> None:
        one, two, three = Program(self.server, "mortal"), Program(self.server, "ann"), Program(self.server, "bo")
        self.call("refresh", user="mortal")
        self.call("refresh", user="ann", expired=True)
        self.call("refresh", user="bo", expire_at=1)
        self.assertEqual(one.pushes(), [{"refresh": {}}])
        self.server.advance(1500)
        self.assertEqual([each.close[0] for each in (one, two, three)], [None, 3005, 3005])
