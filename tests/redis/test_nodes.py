"""Two nodes and one Redis, on a fake clock: what is done at one is seen at the other, and nothing is lost between."""

import contextlib
import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn import ChatFactory, Hub, Settings, SharedPortFactory, WebSocketFactory
from longconn.core.client import PROGRAM
from longconn.core.errors import CommandError
from longconn.core.publication import Data, Info, Position
from longconn.redis.scripts import MEMBERS
from longconn.service.embedding import LiveSite
from longconn.testing import FakeClock, MemoryServer
from tests.behaviour.members import EventMember, TCPMember, WebSocketMember
from tests.redis.blocking import new_prefix, redis_broker
from tests.server_api.kit import KEY, Program, Users

POSTER = Info("poster")


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.serve()

    def serve(self, nodes: int = 2, **settings: Any) -> None:
        self.clock = FakeClock()
        prefix = new_prefix()
        made = Settings(**{"api_key": KEY, "anonymous": "yes", "ping_interval": 0, **settings})
        self.servers: list[MemoryServer] = []
        self._made, self._prefix = made, prefix
        for _ in range(nodes):
            self.add_node()
        self.addCleanup(self.stop, self.servers)

    def add_node(self) -> None:
        broker = redis_broker(self.clock, self._made, self._prefix)
        broker._links[0].problem = "the broker is not reached yet"  # type: ignore[misc]
        server = MemoryServer(hub=Hub(self.clock, self._made, broker, f"node{len(self.servers)}"))
        server.hub.gate.verifier = Users()
        server._factory("http")  # it takes commands of other nodes
        broker.start()
        self.servers.append(server)
        self.clock.settle()

    def stop(self, servers: list[MemoryServer]) -> None:
        """Stop all nodes. They share a clock: only after the last one no delayed call may be left."""
        for server in servers[:-1]:
            with contextlib.suppress(RuntimeError):
                server.stop()
        servers[-1].stop()

    def member(self, node: int, kind: Any = TCPMember, **options: Any) -> Any:
        hub = self.servers[node].hub
        chat = ChatFactory(hub)
        factories = {"chat": chat, "shared": SharedPortFactory(chat, LiveSite(hub)), "websocket": WebSocketFactory(hub)}
        return kind(self.servers[node], factories, **options)

    def post(self, node: int, text: str, channel: str = "lobby", **options: Any) -> Any:
        answers: list[Any] = []
        self.servers[node].hub.publish(channel, Data.of_text(text), POSTER, answers.append, **options)
        self.clock.settle()
        return answers[0] if answers else None

    def link(self, node: int) -> Any:
        return self.servers[node].hub.broker._links[0]  # type: ignore[attr-defined]

    def call(self, node: int, method: str, **body: Any) -> Any:
        client = self.servers[node].http_client()
        response = client.post(f"/api/{method}", json.dumps(body), [("X-API-Key", KEY)])
        for _ in range(200):
            if response.complete:
                break
            self.clock.advance(0.02)
        return response.json()


class FeedTests(Case):
    def test_what_is_said_at_one_node_is_read_at_all(self) -> None:
        members = [self.member(0), self.member(1, WebSocketMember), self.member(1, EventMember)]
        members[0].client.say("hello")
        self.post(1, "and from the other")
        for each in members:
            self.assertEqual(each.says(), ["hello", "and from the other"])

    def test_joins_and_leaves_are_heard_at_the_other_node(self) -> None:
        first = self.member(0)
        second = self.member(1)
        self.assertEqual(first.hears("joined"), [("joined", second.name)])
        second.connection.reset()
        self.assertEqual(first.hears("left"), [("left", second.name)])

    def test_a_client_recovers_on_the_other_node(self) -> None:
        reader = self.member(0, EventMember)
        self.post(0, "1")
        self.assertEqual(reader.says(), ["1"])
        reader.connection.reset()
        for text in "234":
            self.post(1, text)
        again = self.member(1, EventMember, since=reader.since)
        self.post(0, "5")
        self.assertEqual(again.says(), ["2", "3", "4", "5"])

    def test_publishers_at_two_nodes_are_read_in_one_order(self) -> None:
        readers = [self.member(0), self.member(1)]
        answers: list[Any] = []
        for number in range(100):
            hub = self.servers[number % 2].hub
            hub.publish("lobby", Data.of_text(str(number)), POSTER, answers.append)
            if number % 7 == 0:
                self.clock.turn()
        self.clock.settle()
        first, second = (each.says() for each in readers)
        self.assertEqual(first, second)
        self.assertEqual(sorted(first, key=int), [str(number) for number in range(100)])
        self.assertEqual(sorted(each.offset for each in answers), list(range(1, 101)))

    def test_what_is_published_in_one_turn_is_one_request(self) -> None:
        sent = self.link(0).sent
        answers: list[Any] = []
        for number in range(50):
            self.servers[0].hub.publish("lobby", Data.of_text(str(number)), POSTER, answers.append)
        self.clock.settle()
        self.assertEqual([each.offset for each in answers], list(range(1, 51)))
        self.assertEqual(self.link(0).sent - sent, 1)

    def test_an_idempotency_key_counts_at_all_nodes(self) -> None:
        reader = self.member(0)
        first = self.post(0, "once", once="k")
        self.assertEqual(self.post(1, "once", once="k"), first)
        self.assertEqual(self.post(1, "unkept", once="l", keep=False), Position("", 0))
        self.assertEqual(self.post(0, "unkept", once="l", keep=False), Position("", 0))
        self.assertEqual(reader.says(), ["once", "unkept"])

    def test_history_is_one(self) -> None:
        self.post(0, "1")
        self.post(1, "2")
        found: list[Any] = []
        for each in self.servers:
            each.hub.history("lobby", found.append)
        self.clock.settle()
        self.assertEqual([[each.data.text for each in history.publications] for history in found], [["1", "2"]] * 2)
        self.assertEqual(found[0].position, found[1].position)


class CutTests(Case):
    """A node loses its connection to Redis."""

    def test_the_gap_is_filled_and_nothing_comes_twice(self) -> None:
        reader = self.member(0)
        self.post(1, "1")
        self.link(0).cut()
        self.post(1, "2")
        self.post(1, "3")
        self.assertEqual(reader.says(), ["1"])
        self.link(0).connect()
        self.post(1, "4")
        self.assertEqual(reader.says(), ["2", "3", "4"])
        self.assertFalse(reader.closed)

    def test_publishing_is_refused_for_now(self) -> None:
        self.link(0).cut()
        refused = self.post(0, "1")
        self.assertIsInstance(refused, CommandError)
        self.assertTrue(refused.reason.temporary)

    def test_a_talker_stays_and_a_newcomer_is_told_to_come_back(self) -> None:
        talker = self.member(0)
        self.link(0).cut()
        talker.client.say("hello")
        self.assertEqual(talker.hears("error"), [("error", "the broker is away; try again")])
        self.assertFalse(talker.closed)
        newcomer = self.member(0)
        self.assertEqual(newcomer.hears("error"), [("error", "the broker is away; try again")])
        self.assertTrue(newcomer.closed)
        self.assertEqual(self.member(0, WebSocketMember).farewell, 3004)
        program = Program(self.servers[0])
        refused = program.ask("subscribe", {"channel": "news"})
        self.assertEqual((refused["error"]["code"], refused["error"]["temporary"]), (157, True))
        self.assertEqual(self.servers[0].http_client().get("/channels/lobby/events").status, 503)
        self.link(0).connect()
        self.clock.settle()
        talker.client.say("hello")
        self.assertEqual(talker.says(), ["hello"])

    def test_an_answer_that_was_lost_is_asked_for_again_and_published_once(self) -> None:
        reader = self.member(1)
        answers: list[Any] = []
        self.servers[0].hub.publish("lobby", Data.of_text("once"), POSTER, answers.append)
        self.clock.turn()  # it is sent, and done
        self.link(0).cut()
        self.clock.settle()
        self.assertEqual((answers, reader.says()), ([], ["once"]))
        self.link(0).connect()
        self.clock.settle()
        self.assertEqual([each.offset for each in answers], [1])
        self.assertEqual(reader.says(), [])

    def test_without_a_connection_it_is_answered_in_time(self) -> None:
        answers: list[Any] = []
        self.servers[0].hub.publish("lobby", Data.of_text("?"), POSTER, answers.append)
        self.clock.turn()
        self.link(0).cut()
        self.clock.advance(5.1)
        self.assertTrue(answers[0].reason.temporary)

    def test_another_generation_is_told_as_lost(self) -> None:
        """The server may have lost writes: each subscriber is disconnected, and learns it when it comes back."""
        reader, chat = self.member(0, EventMember), self.member(0)
        self.post(1, "1")
        self.assertEqual(reader.says(), ["1"])
        # Closing thousands takes several turns, in which publications of the new epoch come.
        hub = self.servers[0].hub
        slow = self.patch(hub.slices, "do", lambda host, work, call: self.clock.callLater(0.1, call))
        self.link(0).cut()
        self.link(0).connect("second")
        self.clock.settle()
        hub.publish("lobby", Data.of_text("2"), POSTER, lambda result: None)
        self.clock.advance(1)
        slow.restore()
        self.assertTrue(reader.closed and chat.closed)
        self.assertEqual((reader.says(), chat.says()), ([], ["1"]))
        again = self.member(0, EventMember, since=reader.since)
        self.assertIn(("lost",), again.hear())

    def test_a_gap_that_is_not_kept_is_told_as_lost(self) -> None:
        self.serve(history_size=2)
        reader = self.member(0)
        self.link(0).cut()
        for text in "123":
            self.post(1, text)
        self.link(0).connect()
        self.clock.settle()
        self.assertTrue(reader.closed)
        self.assertEqual(reader.farewell, "! disconnected: insufficient state")

    def test_without_history_a_gap_is_lost_and_no_gap_is_not(self) -> None:
        self.serve(history_size=0)
        reader = self.member(0)
        self.post(1, "1")
        self.link(0).cut()
        self.link(0).connect()
        self.post(1, "2")
        self.assertEqual((reader.says(), reader.closed), (["1", "2"], False))
        self.clock.advance(40)  # positions are compared
        self.assertFalse(reader.closed)
        self.link(0).cut()
        self.post(1, "3")
        self.link(0).connect()
        self.clock.settle()
        self.assertTrue(reader.closed)

    def test_a_message_that_redis_loses_is_noticed_within_40_seconds(self) -> None:
        reader = self.member(0)
        self.post(1, "1")
        self.link(0).command("UNSUBSCRIBE", f"{self.keys(0).messages('lobby')}")
        self.clock.settle()
        self.post(1, "2")
        self.assertEqual(reader.says(), ["1"])
        self.clock.advance(40)
        self.assertEqual(reader.says(), ["2"])

    def keys(self, node: int) -> Any:
        return self.servers[node].hub.broker._shards[0]._keys  # type: ignore[attr-defined]


class PresenceTests(Case):
    def names(self, node: int, channel: str = "lobby") -> list[str]:
        found: list[Any] = []
        self.servers[node].hub.door.presence(PROGRAM, channel, found.append)
        self.clock.settle()
        return sorted(each.name for each in found[0])

    def test_it_has_the_members_of_all_nodes(self) -> None:
        first, second = self.member(0), self.member(1, WebSocketMember)
        for node in (0, 1):
            self.assertEqual(self.names(node), sorted([first.name, second.name]))
        second.connection.reset()
        self.clock.settle()
        self.assertEqual(self.names(0), [first.name])
        first.client.say("/nick mia")
        self.clock.settle()
        self.assertEqual(self.names(1), ["mia"])

    def test_who_is_answered_in_its_place(self) -> None:
        member = self.member(0)
        self.member(1)
        member.client.say("/who\nping")
        self.assertEqual([each[1][:10] for each in member.hears("info")][-2:], ["2 in lobby", "pong"])

    def test_a_request_that_arrives_after_later_ones_changes_nothing(self) -> None:
        """The network can hold what was sent on a connection that is lost."""
        member, goer = self.member(0), self.member(0)
        link, sent = self.link(0), []
        call = link.call

        def record(*arguments: Any) -> None:
            sent.append(arguments)
            call(*arguments)

        link.call = record
        goer.client.say("/nick mia")
        self.clock.settle()
        late = [each for each in sent if each[0] is MEMBERS]
        self.assertEqual(len(late), 1)
        for gone, left in ((goer, [member.name]), (member, [])):
            gone.connection.reset()
            self.clock.settle()
            call(*late[0][:3], lambda reply: None)
            self.clock.settle()
            self.assertEqual(self.names(1), left)

    def test_a_node_in_place_of_a_killed_one_begins_anew(self) -> None:
        """The requests of a process are counted: those of its successor are not taken for late ones."""
        for number in range(3):
            self.post(0, str(number))
        self.member(0)
        self.link(0).cut()
        self.add_node()
        self.assertEqual(self.post(2, "3").offset, 4)
        member = self.member(2)
        self.assertIn(member.name, self.names(1))

    def test_after_a_cut_they_are_there_again(self) -> None:
        member = self.member(0)
        self.link(0).cut()
        gone = self.member(0, TCPMember)
        self.link(0).connect()
        self.clock.settle()
        gone.connection.reset()
        self.clock.settle()
        self.assertEqual(self.names(1), [member.name])


class APITests(Case):
    """The server API reaches the clients of all nodes."""

    def setUp(self) -> None:
        super().setUp()
        self.programs = [Program(each, "mia", ("news",)) for each in self.servers]
        self.clock.settle()

    def test_disconnect(self) -> None:
        self.assertEqual(self.call(0, "disconnect", user="mia"), {"result": {}})
        self.assertEqual([each.close[0] for each in self.programs], [3503, 3503])

    def test_unsubscribe_and_subscribe(self) -> None:
        self.call(0, "unsubscribe", user="mia", channel="news")
        self.assertEqual([each.pushes()[0]["unsubscribe"]["code"] for each in self.programs], [2000, 2000])
        self.call(1, "subscribe", user="mia", channel="other")
        self.assertEqual([each.pushes()[0]["channel"] for each in self.programs], ["other", "other"])

    def test_refresh(self) -> None:
        self.call(1, "refresh", user="mia", expired=True)
        self.assertEqual([each.close[0] for each in self.programs], [3005, 3005])

    def test_revoke(self) -> None:
        self.assertEqual(self.call(1, "revoke", user="mia"), {"result": {"num_clients": 2}})
        self.assertEqual([each.close[0] for each in self.programs], [3500, 3500])

    def test_a_node_that_comes_later_knows_the_revocations(self) -> None:
        self.call(0, "revoke", user="mia")
        self.add_node()
        late = Program(self.servers[2], "ann")
        self.assertEqual(late.close[0], None)
        self.assertIn("revocations", self.call(2, "info")["result"]["nodes"][0])

    def test_info_has_all_nodes(self) -> None:
        nodes = self.call(1, "info")["result"]["nodes"]
        self.assertEqual(sorted((each["uid"], each["num_clients"]) for each in nodes), [("node0", 1), ("node1", 1)])

    def test_channels_are_summed_up(self) -> None:
        self.assertEqual(self.call(0, "channels"), {"result": {"channels": {"news": {"num_clients": 2}}}})
        busiest = self.call(0, "channels", order="clients", limit=5)["result"]
        self.assertEqual((busiest["num_channels"], busiest["channels"][0]["num_clients"]), (1, 2))

    def test_clients_are_of_all_nodes(self) -> None:
        found = self.call(0, "clients", order="oldest")["result"]
        self.assertEqual(found["num_clients"], 2)
        self.assertEqual({each["client"] for each in found["clients"]}, {each.id for each in self.programs})

    def test_metrics(self) -> None:
        self.post(0, "1")
        text = self.servers[0].http_client().get("/metrics", [("X-API-Key", KEY)]).text
        self.assertIn("longconn_broker_up 1.0\n", text)
        self.assertIn("longconn_broker_seconds_count 1.0\n", text)
        self.link(0).cut()
        self.post(0, "2")
        text = self.servers[0].http_client().get("/metrics", [("X-API-Key", KEY)]).text
        self.assertIn('longconn_broker_failures_total{reason="away"} 1.0\n', text)

    def test_presence(self) -> None:
        found = self.call(0, "presence", channel="news")["result"]["presence"]
        self.assertEqual(set(found), {each.id for each in self.programs})
        self.assertEqual(self.call(1, "presence_stats", channel="news")["result"], {"num_clients": 2, "num_users": 1})

    def test_a_batch_reaches_all_nodes(self) -> None:
        self.call(0, "batch", commands=[{"disconnect": {"user": "mia"}}])
        self.assertEqual([each.close[0] for each in self.programs], [3503, 3503])

    def test_a_node_that_does_not_answer_is_told(self) -> None:
        self.servers[1].hub.nodes.handlers["api"] = lambda body, done: None
        self.assertEqual(self.call(0, "disconnect", user="mia")["error"]["code"], 100)
        self.assertEqual(self.programs[0].close[0], 3503)


class EmulationTests(Case):
    """Commands of a session that reach another node than the one that it reads from."""

    def send(self, node: int, session: str, target: str, data: str) -> int:
        body = json.dumps({"session": session, "node": target, "data": data})
        response = self.servers[node].http_client().post("/emulation", body)
        self.clock.settle()
        status: int = response.status
        return status

    def test_they_are_passed_on(self) -> None:
        stream = self.servers[0].http_client().post("/connection/http_stream", json.dumps({"id": 1, "connect": {}}))
        self.clock.settle()
        connected = json.loads(stream.text.split("\n")[0])["connect"]
        session, node = connected["session"], connected["node"]
        subscribe = json.dumps({"id": 2, "subscribe": {"channel": "news"}})
        self.assertEqual(self.send(1, session, node, subscribe), 204)
        self.assertIn('"subscribe"', stream.text.split("\n")[1])
        self.assertEqual(self.send(1, "unknown", node, subscribe), 404)
        self.assertEqual(self.send(1, session, "gone", subscribe), 404)
