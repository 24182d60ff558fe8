"""LongConn.Subscribe: one channel as a stream. The call is a client of the hub."""

from longconn.core.disconnects import SHUTDOWN
from longconn.core.expiry import GRACE
from longconn.core.namespaces import ChannelOptions, Namespaces
from longconn.core.publication import Data, Info
from longconn.server_api.operations import ServerAPI, Target
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.grpc_status import StatusCode
from tests.protocols.grpc.kit import BRIEF, Case, Keys, publications, subscribed, texts

NAMED = {
    "secret": ChannelOptions(allow_subscribe_for_client=False),
    "forgetful": ChannelOptions(allow_history_for_anonymous=False, allow_history_for_client=False),
}


class LiveTests(Case):
    def test_publications_of_others(self) -> None:
        call = self.subscribe("lobby")
        answer = subscribed(call)
        self.assertEqual((answer.channel, answer.position.offset), ("lobby", 0))
        self.assertFalse(answer.was_recovering or answer.recovered)
        chat = self.server.line_client()
        chat.say("/nick ann", "hello", '/json {"a": 1}')
        chat.read()
        self.server.http_client().post("/channels/lobby?name=cron", "posted")
        self.publish("lobby", "by Publish")
        found = publications(call)
        self.assertEqual([each.data for each in found], ['"hello"', '{"a":1}', '"posted"', '"by Publish"'])
        self.assertEqual([each.offset for each in found], [1, 2, 3, 4])
        self.assertEqual([each.name for each in found], ["ann", "ann", "cron", "guest-3"])
        (ann,) = [each for each in self.hub.clients.values() if each.name == "ann"]
        self.assertEqual([each.client for each in found], [ann.id, ann.id, "", ""])
        self.assertEqual({each.epoch for each in found}, {answer.position.epoch})
        self.assertEqual({each.channel for each in found}, {"lobby"})
        self.assertEqual(found[0].time, self.clock.seconds())

    def test_one_encoding_serves_all(self) -> None:
        calls = [self.subscribe("lobby") for _ in range(3)]
        self.publish("lobby", "x")
        self.publish("lobby", "y")
        first, *others = [each.outlet.written for each in calls]
        self.assertEqual(len(first), 3)
        for each in others:
            self.assertIs(each[1], first[1])
            self.assertIs(each[2], first[2])

    def test_a_batch_is_one_write(self) -> None:
        call = self.subscribe("lobby")
        for each in "abc":
            self.hub.publish("lobby", Data.of_text(each), Info("p"), lambda position: None)
        self.server.settle()
        self.assertEqual(len(call.outlet.written), 2)
        subscribed_and_three = call.read_all(pb.SubscribeResponse)
        self.assertEqual([each.publication.data for each in subscribed_and_three[1:]], ['"a"', '"b"', '"c"'])

    def test_joins_and_leaves_are_not_sent(self) -> None:
        call = self.subscribe("lobby")
        subscribed(call)
        ann = self.server.line_client()
        ann.say("/nick ann", "")
        self.assertEqual(call.read_frames(), [])

    def test_publications_without_history_have_no_offset(self) -> None:
        call = self.subscribe("lobby")
        subscribed(call)
        ServerAPI(self.hub).publish("lobby", Data.of_text("x"), lambda position: None, skip_history=True)
        self.assertEqual([each.offset for each in publications(call)], [0])


class RecoveryTests(Case):
    def test_missed_publications_come_first(self) -> None:
        call = self.subscribe("lobby")
        start = subscribed(call).position
        for each in range(200):
            self.publish("lobby", str(each), address=f"192.0.2.{each}:1")
        self.assertEqual(len(publications(call)), 200)
        call.cancel()
        since = pb.Position(epoch=start.epoch, offset=150)
        again = self.subscribe("lobby", since)
        self.publish("lobby", "live")
        first, *rest = again.read_all(pb.SubscribeResponse)
        self.assertTrue(first.subscribed.was_recovering)
        self.assertTrue(first.subscribed.recovered)
        # Whoever is cut off before the first publication comes back with this.
        self.assertEqual(first.subscribed.position, since)
        self.assertEqual([each.publication.offset for each in rest], list(range(151, 202)))
        self.assertEqual(rest[-1].publication.data, '"live"')

    def test_any_epoch(self) -> None:
        epoch = self.publish("lobby", "a").epoch
        call = self.subscribe("lobby", pb.Position())
        first, missed = call.read_all(pb.SubscribeResponse)
        self.assertEqual(first.subscribed.position, pb.Position(epoch=epoch, offset=0))
        self.assertEqual(missed.publication.data, '"a"')

    def test_nothing_was_missed(self) -> None:
        position = self.publish("lobby", "a")
        call = self.subscribe("lobby", position)
        answer = subscribed(call)
        self.assertEqual((answer.position, answer.recovered), (position, True))

    def test_a_lost_position_is_not_recovered(self) -> None:
        self.serve(history_size=3)
        for each in range(10):
            epoch = self.publish("lobby", str(each)).epoch
        for lost in (pb.Position(epoch=epoch, offset=2), pb.Position(epoch="another", offset=9)):
            first, *rest = self.subscribe("lobby", lost).read_all(pb.SubscribeResponse)
            self.assertTrue(first.subscribed.was_recovering)
            self.assertFalse(first.subscribed.recovered)
            self.assertEqual(first.subscribed.position, pb.Position(epoch=epoch, offset=7))
            self.assertEqual([each.publication.offset for each in rest], [8, 9, 10])

    def test_a_position_without_the_right_to_history(self) -> None:
        self.serve(namespaces=Namespaces(named=NAMED))
        self.publish("forgetful:a", "x")
        position = self.publish("forgetful:a", "y")
        call = self.subscribe("forgetful:a", pb.Position(epoch=position.epoch, offset=1))
        answer = subscribed(call)
        self.assertEqual((answer.position, answer.recovered), (position, False))
        self.assertTrue(subscribed(self.subscribe("forgetful:a", position)).recovered)

    def test_a_large_backlog_is_paced(self) -> None:
        self.serve(publish_bytes=0)
        for each in range(60):
            epoch = self.publish("lobby", "x" * 10_000 + str(each)).epoch
        call = self.call("Subscribe")
        call.outlet.full = True
        call.send(pb.SubscribeRequest(channel="lobby", since=pb.Position(epoch=epoch)))
        call.half_close()
        self.assertTrue(subscribed(call).recovered)
        call.outlet.go_on()
        self.assertEqual([each.offset for each in publications(call)], list(range(1, 61)))
        self.assertLess(max(map(len, call.outlet.written)), 80_000)


class ClientTests(Case):
    def test_the_call_is_a_client(self) -> None:
        call = self.subscribe("lobby", channel_name="bo")
        (client,) = self.hub.clients.values()
        self.assertEqual((client.protocol, client.name, client.address), ("grpc", "bo", "192.0.2.1:40000"))
        self.assertIs(call.outlet.client, client)
        chat = self.server.line_client()
        chat.say("/nick ann", "/who")
        self.assertEqual(chat.read()[-1], "* 2 in lobby: bo, ann")
        call.cancel()
        self.assertFalse(client.live)
        chat.say("/who")
        self.assertEqual(chat.read(), ["* 1 in lobby: ann"])

    def test_the_call_is_not_announced_to_chat_clients(self) -> None:
        chat = self.server.line_client()
        chat.say("/nick ann")
        chat.read()
        self.subscribe("lobby", channel_name="bo").cancel()
        self.assertEqual(chat.read(), [])

    def test_refusals(self) -> None:
        self.serve(namespaces=Namespaces(named=NAMED), max_connections=1)
        invalid = StatusCode.INVALID_ARGUMENT
        for fields, status in (
            ({"channel": "two words"}, invalid),
            ({"channel": "a", "name": "two words"}, invalid),
            ({"channel": "secret:a"}, StatusCode.PERMISSION_DENIED),
            ({"channel": "unknown:a"}, StatusCode.NOT_FOUND),
        ):
            self.assertEqual(self.refusal("Subscribe", pb.SubscribeRequest(**fields))[0], status)
            self.assertEqual(self.hub.clients, {})
        self.subscribe("a", channel_name="bo")
        found = self.refusal("Subscribe", pb.SubscribeRequest(channel="a"))
        self.assertEqual(found, (StatusCode.RESOURCE_EXHAUSTED, "limit exceeded: connections"))

    def test_a_name_that_is_taken(self) -> None:
        self.subscribe("a", channel_name="bo")
        found = self.refusal("Subscribe", pb.SubscribeRequest(channel="a", name="BO"))
        self.assertEqual(found, (StatusCode.UNAVAILABLE, "the name BO is taken"))

    def test_a_disconnect_is_the_status(self) -> None:
        call = self.subscribe("lobby")
        (client,) = self.hub.clients.values()
        client.close(SHUTDOWN)
        self.assertEqual(call.ended, (StatusCode.UNAVAILABLE, "shutdown"))


class TokenTests(Case):
    def setUp(self) -> None:
        self.serve(Keys(), anonymous="yes", namespaces=Namespaces(named=NAMED))

    def test_the_user_and_the_info_of_a_token(self) -> None:
        call = self.subscribe("secret:ada", token="ada")
        subscribed(call)
        (found,) = self.answer(
            "Presence", pb.PresenceRequest(channel="secret:ada"), pb.PresenceResponse, token="ada"
        ).clients
        self.assertEqual(
            (found.user, found.conn_info, found.chan_info), ("ada", '{"name":"ada","role":"x"}', '{"seat":1}')
        )

    def test_a_subscription_token(self) -> None:
        call = self.subscribe("secret:a", channel_token="secret:a")
        self.assertEqual(subscribed(call).data, '{"x":1}')
        found = self.refusal("Subscribe", pb.SubscribeRequest(channel="secret:a", token="secret:b"))
        self.assertEqual(found, (StatusCode.UNAUTHENTICATED, "invalid token"))

    def test_the_call_ends_when_its_token_expires(self) -> None:
        call = self.subscribe("lobby", token="brief")
        self.server.advance(BRIEF + GRACE - 1)
        self.assertIsNone(call.ended)
        self.server.advance(2)
        self.assertEqual(call.ended, (StatusCode.UNAUTHENTICATED, "connection expired"))

    def test_the_call_ends_when_its_subscription_token_expires(self) -> None:
        call = self.subscribe("lobby", channel_token="brief")
        self.server.advance(BRIEF + 1)
        self.assertEqual(call.ended, (StatusCode.UNAUTHENTICATED, "subscription expired"))

    def test_tokens_expire_by_the_wall_clock(self) -> None:
        call = self.subscribe("lobby", token="brief")
        self.clock.wall_ahead = -100
        self.server.advance(BRIEF + GRACE + 2)
        self.assertIsNone(call.ended)
        self.clock.wall_ahead = 0
        self.server.advance(61)
        self.assertEqual(call.ended, (StatusCode.UNAUTHENTICATED, "connection expired"))

    def test_actions_of_the_server_api(self) -> None:
        call, other = self.subscribe("lobby", token="brief"), self.subscribe("other", token="brief")
        results: list[object] = []
        ServerAPI(self.hub).refresh(Target("brief"), expires_at=self.clock.seconds() + 100)
        self.server.advance(BRIEF * 2)
        self.assertEqual((call.ended, other.ended), (None, None))
        ServerAPI(self.hub).subscribe(Keys().subscription("x", "x", "brief", 0), Target("brief"), results.append)
        self.assertEqual(results, [None])
        ServerAPI(self.hub).unsubscribe("lobby", Target("brief"))
        self.assertEqual((call.ended, other.ended), ((StatusCode.ABORTED, "force disconnect"), None))
        ServerAPI(self.hub).disconnect(Target("brief"))
        self.assertEqual(other.ended, (StatusCode.ABORTED, "force disconnect"))


class OrderTests(Case):
    def test_all_calls_see_one_order(self) -> None:
        one, two = self.subscribe("lobby"), self.subscribe("lobby")
        subscribed(one), subscribed(two)
        chat = self.server.line_client()
        stream = self.server.http_client().get("/channels/lobby/stream")
        stream.lines()
        for each in range(20):
            chat.say(f"c{each}")
            self.publish("lobby", f"p{each}")
        found = texts(one)
        self.assertEqual(len(found), 40)
        self.assertEqual(found, texts(two))
