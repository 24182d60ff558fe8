"""Clients over gRPC."""

from typing import Any

from twisted.internet.defer import Deferred, succeed

from longconn import ChatFactory, GrpcFactory, Hub, SharedPortFactory
from longconn.clients import ConnectionState, Disconnected, Lost, Position, Publication, Refused
from longconn.core.disconnects import EXPIRED, SLOW
from longconn.service.embedding import LiveSite
from tests.clients.network import Case
from tests.clients.test_behaviour import Suite
from tests.protocols.grpc.kit import Keys


class GRPCCase(Case):
    """Clients of a server in memory, over gRPC."""

    url = "grpc://127.0.0.1:9999"

    def serve(self, **settings: Any) -> Hub:
        hub = super().serve(**settings)
        self.network.server = SharedPortFactory(ChatFactory(hub), LiveSite(hub), GrpcFactory(hub))
        return hub


class GRPCTests(Suite, GRPCCase):
    """The suite of all transports, with the differences of gRPC."""

    def test_presence_history_and_names(self) -> None:
        """Connect has no command for another name."""
        self.serve()
        ann = self.client(name="ann")
        self.subscribed(ann)
        self.assertEqual([(each.client, each.name) for each in self.get(ann.presence("news"))], [(ann.id, "ann")])
        nobody = self.client()
        self.subscribed(nobody)
        named = {each.client: each.named for each in self.get(ann.presence("news"))}
        self.assertEqual(named, {ann.id: True, nobody.id: False})
        refused = self.fails(Refused, ann.rename("eve"))
        self.assertEqual((refused.code, refused.message), (108, "not available: rpc over gRPC"))
        self.assertEqual(self.fails(Refused, ann.presence("no channel")).code, 151)

    def test_pages_of_history(self) -> None:
        self.serve(history_size=4)
        self.post("1", "2", "3", "4", "5")
        ann = self.client()

        def page(**asked: Any) -> list[str]:
            return [each.data for each in self.get(ann.history("news", **asked)).publications]

        top = self.get(ann.history("news", limit=0))
        self.assertEqual((top.publications, top.position.offset), ([], 5))
        epoch = top.position.epoch
        self.assertEqual(page(limit=2), ["2", "3"])
        self.assertEqual(page(limit=-1), ["2", "3", "4", "5"])
        self.assertEqual(page(limit=-1, since=Position(epoch, 3)), ["4", "5"])
        self.assertEqual(page(limit=1, since=Position("", 3)), ["4"])
        self.assertEqual(page(limit=9, since=Position(epoch, 9)), [])
        self.assertEqual(page(limit=2, reverse=True), ["5", "4"])
        self.assertEqual(page(limit=2, reverse=True, since=Position(epoch, 4)), ["3", "2"])
        self.assertEqual(page(limit=-1, reverse=True), ["5", "4", "3", "2"])
        self.assertEqual(self.fails(Refused, ann.history("news", limit=1, since=Position("other", 3))).code, 112)

    def test_unrecoverable_publications_give_a_loss(self) -> None:
        """Publications that the server still has come, too."""
        self.serve()
        ann = self.client()
        subscription = self.subscribed(ann)
        self.post("1")
        old = self.get(ann.history("news")).position
        self.serve()
        self.post("other")
        self.break_off()
        self.network.advance(1)
        self.post("2")
        events = [self.next(subscription) for _ in range(4)]
        self.assertEqual([type(each) for each in events], [Publication, Lost, Publication, Publication])
        self.assertEqual((events[1].position, [each.data for each in events[2:]]), (old, ["other", "2"]))
        self.assertEqual(events[1].resumed, Position(events[2].epoch, 0))

    def test_without_history_a_lost_connection_gives_a_loss(self) -> None:
        """Over gRPC publications are counted without history, too: a loss is reported only if there was one."""
        self.serve(history_size=0)
        ann = self.client()
        subscription = self.subscribed(ann)
        self.break_off()
        self.network.advance(1)
        self.post("1")
        self.assertEqual(self.next(subscription).data, "1")
        self.break_off()
        self.post("2")
        self.network.advance(2)
        self.post("3")
        lost, after = self.next(subscription), self.next(subscription)
        self.assertEqual(lost, Lost("news", Position(after.epoch, 1), Position(after.epoch, 2)))
        self.assertEqual((after.data, after.offset), ("3", 3))

    def test_unread_events_stop_the_server_and_nothing_is_lost(self) -> None:
        """By flow control: the socket is always read, so that the server's pings are answered."""
        hub = self.serve(
            history_size=5000, publish_rate=0, ping_interval=25.0, pong_timeout=10.0, send_queue=8_000_000,
            write_timeout=0,
        )  # fmt: skip
        ann, bob = self.client(), self.client()
        subscription = self.subscribed(ann)
        for number in range(3000):
            bob.publish("news", [number, "x" * 200])
            if number % 100 == 0:
                self.network.settle()
        self.network.settle()
        waiting = hub.clients[ann.id].outlet.queued
        self.assertGreater(waiting, 300_000)
        self.assertLess(len(subscription._events), 1500)
        self.network.advance(300)  # neither side takes the other for dead
        self.assertEqual(ann.state.state, ConnectionState.CONNECTED)
        self.assertGreater(hub.clients[ann.id].outlet.queued, waiting - 70_000)
        for number in range(3000):
            self.assertEqual(self.next(subscription).data[0], number)
        self.assertEqual(hub.clients[ann.id].outlet.queued, 0)
        self.assertEqual([each.state for each in self.states].count(ConnectionState.RECONNECTING), 0)

    def test_a_client_that_does_not_read_stays_alive(self) -> None:
        self.serve(history_size=5000, publish_rate=0, ping_interval=25.0, pong_timeout=10.0)
        ann, bob = self.client(), self.client()
        subscription = self.subscribed(ann)
        for number in range(1030):
            self.get(bob.publish("news", number))
        self.assertTrue(ann._connection._current._paused)
        self.network.advance(300)
        self.assertEqual([self.next(subscription).data for _ in range(1030)], list(range(1030)))
        self.network.advance(300)
        self.assertEqual([each.state for each in self.states], [ConnectionState.CONNECTED] * 2)

    def test_messages_larger_than_the_window_both_ways(self) -> None:
        self.serve(max_message=1_000_000, history_bytes=10_000_000, publish_rate=0, publish_bytes=0)
        ann = self.client()
        subscription = self.subscribed(ann)
        for letter in "ab":
            self.get(ann.publish("news", letter * 900_000))
        self.assertEqual([self.next(subscription).data[:1] for _ in range(2)], ["a", "b"])
        self.assertEqual(len(self.get(ann.history("news", limit=-1)).publications), 2)
        self.assertEqual(self.fails(Refused, ann.publish("news", "c" * 1_100_000)).code, 154)

    def test_values_without_a_form_in_protobuf(self) -> None:
        self.serve()
        ann = self.client()
        self.assertEqual(self.fails(Refused, ann.publish("news", "half a character: \ud800")).code, 155)
        self.assertEqual(self.fails(Refused, ann.presence("\ud800")).code, 107)
        self.assertEqual(self.fails(Refused, ann.history("news", limit=2**40)).code, 107)
        self.assertEqual(self.fails(Refused, self.client(name="\ud800").connected()).code, 107)
        self.assertIs(ann.state.state, ConnectionState.CONNECTED)

    def test_closing_sends_waiting_commands(self) -> None:
        hub = self.serve()
        ann, bob = self.client(), self.client()
        subscription = self.subscribed(bob)
        self.get(ann.connected())
        ann.publish("news", "last words").addErrback(lambda _: None)
        self.get(ann.close(), 2)
        self.assertEqual(self.next(subscription).data, "last words")
        self.assertEqual(list(hub.clients), [bob.id])


class TokenTests(GRPCCase):
    """Tokens and names."""

    def test_a_token_names_the_user(self) -> None:
        self.serve(anonymous="yes").gate.verifier = Keys()
        ann = self.client(token="ada", name="ann")
        self.subscribed(ann)
        self.assertEqual([(each.user, each.name) for each in self.get(ann.presence("news"))], [("ada", "ann")])
        self.assertEqual(self.get(ann.subscribe("secret:ada")).channel, "secret:ada")

    def test_tokens_that_are_refused(self) -> None:
        self.serve(anonymous="yes").gate.verifier = Keys()
        error = self.fails(Disconnected, self.client(token="forged").connected())
        self.assertEqual((error.code, str(error)), (3500, "disconnected by the server: invalid token (3500)"))
        self.assertEqual(self.fails(Refused, self.client(token="old").connected()).code, 109)
        self.serve(anonymous="no")
        self.assertEqual(self.fails(Refused, self.client().connected()).code, 101)

    def test_an_expired_token_is_replaced_on_a_new_connection(self) -> None:
        self.serve(anonymous="yes").gate.verifier = Keys()
        tokens = ["brief", "old", "ada"]

        def token() -> "Deferred[str]":
            return succeed(tokens.pop(0))

        ann = self.client(token=token)
        subscription = self.subscribed(ann)
        self.network.advance(11)
        self.assertEqual((ann.state.state, ann.state.code), (ConnectionState.RECONNECTING, EXPIRED.code))
        self.post("1")
        self.network.advance(5)
        self.assertEqual((self.next(subscription).data, tokens), ("1", []))

    def test_an_expired_channel_token_is_replaced(self) -> None:
        self.serve(anonymous="yes").gate.verifier = Keys()
        tokens = ["brief", "news"]
        ann = self.client()
        subscription = self.subscribed(ann, token=lambda: succeed(tokens.pop(0)))
        self.network.advance(11)
        self.post("1")
        self.assertEqual((self.next(subscription).data, tokens), ("1", []))
        self.assertEqual(len(self.states), 1)

    def test_names(self) -> None:
        self.serve()
        ann = self.client(name="ann")
        self.get(ann.connected())
        self.assertEqual(self.fails(Refused, self.client(name="ann").connected()).code, 153)
        self.assertEqual(self.fails(Refused, self.client(name="no name").connected()).code, 152)

    def test_a_full_server_is_tried_again(self) -> None:
        hub = self.serve(max_connections=2)
        ann, bob = self.client(), self.client()
        self.get(ann.connected())
        self.get(bob.connected())
        eve = self.client()
        self.network.settle()
        self.assertIs(eve.state.state, ConnectionState.RECONNECTING)
        self.get(ann.close(), 2)
        self.get(eve.connected(), 10)
        self.assertEqual(len(hub.clients), 2)

    def test_a_slow_client_reconnects(self) -> None:
        hub = self.serve()
        ann = self.client()
        subscription = self.subscribed(ann)
        hub.clients[ann.id].close(SLOW)
        self.network.settle()
        self.assertEqual((ann.state.state, ann.state.code), (ConnectionState.RECONNECTING, SLOW.code))
        self.post("1")
        self.network.advance(1)
        self.assertEqual(self.next(subscription).data, "1")
