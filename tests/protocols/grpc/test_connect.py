"""LongConn.Connect: commands with ids, their answers, and what happens in channels."""

import json
import logging
from collections.abc import Callable
from typing import Any

from longconn import Hub
from longconn.core.disconnects import SHUTDOWN
from longconn.core.errors import INTERNAL, CommandError
from longconn.core.memory_broker import MemoryBroker
from longconn.core.namespaces import ChannelOptions, Namespaces
from longconn.core.publication import Data
from longconn.core.settings import Settings
from longconn.server_api.operations import ServerAPI, Target
from longconn.testing import FakeClock, MemoryServer
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.grpc_status import StatusCode
from tests.protocols.grpc.kit import BRIEF, Case, FakeCall, Keys

NAMED = {
    "secret": ChannelOptions(allow_subscribe_for_client=False),
    "told": ChannelOptions(force_push_join_leave=True),
    "untold": ChannelOptions(join_leave=False),
}


class Program:
    """The caller's side of one call."""

    def __init__(self, case: Case, bearer: str = "", **connect: Any) -> None:
        self.call: FakeCall = case.call("Connect", token=bearer)
        self._id = 0
        (self.connected,) = self.ask(connect=connect)

    def tell(self, **command: Any) -> int:
        """Send a command; its id."""
        self._id += 1
        self.call.send(pb.ConnectRequest(id=self._id, **command))
        return self._id

    def ask(self, **command: Any) -> list[pb.ConnectResponse]:
        """Send a command; what comes then."""
        self.tell(**command)
        return self.read()

    def answer(self, **command: Any) -> pb.ConnectResponse:
        """Send a command; its answer, with which nothing else comes."""
        id = self.tell(**command)
        (found,) = self.read()
        assert found.id == id, found
        return found

    def read(self) -> list[pb.ConnectResponse]:
        return self.call.read_all(pb.ConnectResponse)

    def events(self) -> list[tuple[str, str]]:
        """What came, in short: what it is, and its data or whom it is about."""
        found = []
        for each in self.read():
            kind = each.WhichOneof("event") or ""
            event = getattr(each, kind)
            found.append(
                (kind, event.data if kind == "publication" else event.info.name if kind in ("join", "leave") else "")
            )
        return found


class CommandTests(Case):
    def test_connect(self) -> None:
        program = Program(self)
        (client,) = self.hub.clients.values()
        connected = pb.Connected(client=client.id, name="guest-1")
        self.assertEqual(program.connected, pb.ConnectResponse(id=1, connected=connected))
        self.assertEqual(client.protocol, "grpc")

    def test_a_conversation(self) -> None:
        program = Program(self, name="ada")
        subscribed = program.answer(subscribe={"channel": "lobby"}).subscribed
        self.assertEqual((subscribed.channel, subscribed.position.offset), ("lobby", 0))
        answer, push = program.ask(publish={"channel": "lobby", "data": '{"a": 1}'})
        epoch = subscribed.position.epoch
        self.assertEqual((answer.id, answer.published.position), (3, pb.Position(epoch=epoch, offset=1)))
        found = push.publication
        self.assertEqual((push.id, found.data, found.name, found.offset), (0, '{"a":1}', "ada", 1))
        self.assertEqual(found.client, program.connected.connected.client)
        self.assertEqual(program.answer(history={"channel": "lobby"}).history.publications, [found])
        (there,) = program.answer(presence={"channel": "lobby"}).presence.clients
        self.assertEqual(there, pb.ClientInfo(name="ada", client=found.client))
        self.assertEqual(program.answer(ping={}).WhichOneof("event"), "pong")
        self.assertEqual(
            program.answer(unsubscribe={"channel": "lobby"}).unsubscribed, pb.Unsubscribed(channel="lobby")
        )
        self.publish("lobby", "to nobody")
        self.assertEqual(program.read(), [])
        self.assertEqual(program.answer(unsubscribe={"channel": "lobby"}).WhichOneof("event"), "unsubscribed")

    def test_what_is_refused(self) -> None:
        self.serve(namespaces=Namespaces(named=NAMED), max_message=10)
        program = Program(self)
        for code, command in (
            (151, {"subscribe": {"channel": "two words"}}),
            (103, {"subscribe": {"channel": "secret:a"}}),
            (102, {"subscribe": {"channel": "unknown:a"}}),
            (107, {"subscribe": {"channel": "a", "name": "ada"}}),
            (108, {"subscribe": {"channel": "a", "token": "x"}}),
            (107, {"publish": {"channel": "a"}}),
            (107, {"publish": {"channel": "a", "text": "x", "name": "ada"}}),
            (155, {"publish": {"channel": "a", "data": "x"}}),
            (154, {"publish": {"channel": "a", "text": "x" * 11}}),
            (151, {"publish": {"channel": "", "text": "x"}}),
            (103, {"history": {"channel": "secret:a"}}),
            (103, {"presence": {"channel": "secret:a"}}),
            (107, {}),
        ):
            self.assertEqual(program.answer(**command).error.code, code, command)
        self.assertEqual(program.answer(subscribe={"channel": "a"}).WhichOneof("event"), "subscribed")
        error = program.answer(subscribe={"channel": "a"}).error
        self.assertEqual(error, pb.Error(code=105, message="already in a"))
        self.assertIsNone(program.call.ended)

    def test_connect_comes_first_and_once(self) -> None:
        invalid = StatusCode.INVALID_ARGUMENT
        found = self.refusal("Connect", pb.ConnectRequest(id=1, ping={}))
        self.assertEqual(found, (invalid, "the first command is connect"))
        call = self.call("Connect")
        call.half_close()
        self.assertEqual(call.ended, (invalid, "there is no command"))
        program = Program(self)
        program.call.send(
            pb.ConnectRequest(id=2, publish={"channel": "lobby", "text": "x"}), pb.ConnectRequest(id=3, connect={})
        )
        self.assertEqual(program.call.ended, (invalid, "connect again"))
        # What was done before is answered.
        self.assertEqual([each.WhichOneof("event") for each in program.read()], ["published"])

    def test_who_says_nothing(self) -> None:
        call = self.call("Connect")
        self.server.advance(10)
        self.assertEqual(call.ended, (StatusCode.CANCELLED, "idle for too long"))
        self.assertEqual(self.hub.counters.clients.total(), 0)

    def test_the_end(self) -> None:
        program = Program(self)
        program.ask(subscribe={"channel": "lobby"})
        program.tell(publish={"channel": "lobby", "text": "last"})
        program.call.half_close()
        self.assertEqual(program.call.ended, (StatusCode.OK, ""))
        self.assertEqual([each.id for each in program.read()], [3])
        self.assertEqual(self.hub.clients, {})

    def test_a_shutdown(self) -> None:
        program = Program(self)
        (client,) = self.hub.clients.values()
        client.close(SHUTDOWN)
        self.assertEqual(program.call.ended, (StatusCode.UNAVAILABLE, "shutdown"))


class ChannelTests(Case):
    def test_recovery(self) -> None:
        self.serve(history_size=3)
        for each in "abcde":
            epoch = self.publish("lobby", each).epoch
        program = Program(self)
        answer, *missed = program.ask(subscribe={"channel": "lobby", "since": {"epoch": epoch, "offset": 3}})
        self.assertTrue(answer.subscribed.was_recovering)
        self.assertTrue(answer.subscribed.recovered)
        self.assertEqual(answer.subscribed.position.offset, 3)
        self.assertEqual([each.publication.data for each in missed], ['"d"', '"e"'])
        other = Program(self)
        answer, *missed = other.ask(subscribe={"channel": "lobby", "since": {"epoch": epoch, "offset": 1}})
        self.assertEqual((answer.subscribed.recovered, answer.subscribed.position.offset), (False, 2))
        self.assertEqual([each.publication.offset for each in missed], [3, 4, 5])
        self.publish("lobby", "live")
        for each in (program, other):
            self.assertEqual(each.events(), [("publication", '"live"')])

    def test_one_encoding_serves_all(self) -> None:
        programs = [Program(self) for _ in range(3)]
        for each in programs:
            each.answer(subscribe={"channel": "lobby"})
        self.publish("lobby", "x")
        first, *others = [each.call.outlet.written[-1] for each in programs]
        for other in others:
            self.assertIs(other, first)

    def test_comings_and_goings(self) -> None:
        self.serve(namespaces=Namespaces(named=NAMED))
        told, untold = Program(self), Program(self)
        told.ask(subscribe={"channel": "lobby", "join_leave": True})
        self.assertEqual(
            [each.WhichOneof("event") for each in untold.ask(subscribe={"channel": "lobby"})], ["subscribed"]
        )
        told.read()
        ann = self.server.line_client()
        ann.say("/nick ann")
        ann.read()
        program = Program(self)
        program.ask(subscribe={"channel": "lobby"})
        program.call.cancel()
        ann.say("/nick eve", "")
        ann.read()
        ann_came = [("join", "guest-3"), ("leave", "guest-3"), ("join", "ann")]
        other = [("join", "guest-4"), ("leave", "guest-4")]
        ann_left = [("leave", "ann"), ("join", "eve"), ("leave", "eve")]
        self.assertEqual(told.events(), ann_came + other + ann_left)
        self.assertEqual(untold.read(), [])

    def test_the_options_of_the_channel(self) -> None:
        self.serve(namespaces=Namespaces(named=NAMED))
        program = Program(self)
        program.ask(subscribe={"channel": "told:a"})
        program.ask(subscribe={"channel": "untold:a", "join_leave": True})
        other = Program(self, name="bo")
        other.ask(subscribe={"channel": "told:a"})
        other.ask(subscribe={"channel": "untold:a"})
        self.assertEqual(program.events(), [("join", "bo")])

    def test_people_are_told_of_who_has_a_name(self) -> None:
        ann = self.server.line_client()
        ann.say("/nick ann")
        ann.read()
        Program(self).ask(subscribe={"channel": "lobby"})
        self.assertEqual(ann.read(), [])
        program = Program(self, name="bo")
        program.ask(subscribe={"channel": "lobby"})
        self.assertEqual(ann.read(), ["* bo joined"])
        program.ask(publish={"channel": "lobby", "text": "hello"})
        program.call.half_close()
        self.assertEqual(ann.read(), ["bo: hello", "* bo left"])
        ann.say("x")
        found = self.refusal("Connect", pb.ConnectRequest(connect={"name": "ann"}))
        self.assertEqual(found, (StatusCode.UNAVAILABLE, "the name ann is taken"))


class RateTests(Case):
    def test_publications_over_the_rate_wait(self) -> None:
        self.serve(publish_rate=10, publish_burst=5)
        program = Program(self)
        program.ask(subscribe={"channel": "lobby"})
        for each in range(20):
            program.tell(publish={"channel": "lobby", "text": str(each)})
        published = [each.publication.data for each in program.read() if not each.id]
        self.assertEqual(published, [f'"{each}"' for each in range(5)])
        # What may not be acted on is not read: it stays with its sender.
        self.assertEqual(program.call.unread, 14)
        self.server.advance(0.5)
        published += [each.publication.data for each in program.read() if not each.id]
        self.assertEqual(len(published), 10)
        self.server.advance(1.1)
        published += [each.publication.data for each in program.read() if not each.id]
        self.assertEqual(published, [f'"{each}"' for each in range(20)])

    def test_other_commands_have_a_rate_of_their_own(self) -> None:
        self.serve(publish_rate=10, publish_burst=5)
        program = Program(self)
        for _ in range(20):
            program.tell(ping={})
        self.assertEqual(len(program.read()), 4)  # connect is a command too
        self.server.advance(1.6)
        self.assertEqual(len(program.read()), 16)

    def test_who_goes_while_it_waits(self) -> None:
        self.serve(publish_rate=1, publish_burst=1)
        program = Program(self)
        for _ in range(5):
            program.tell(publish={"channel": "lobby", "text": "x"})
        program.call.cancel()
        self.server.advance(10)
        self.assertEqual(self.hub.counters.publications, 1)

    def test_who_reads_nothing_is_not_answered_on(self) -> None:
        self.serve(publish_bytes=0)
        for each in range(10):
            self.publish("lobby", "x" * 10_000, address=f"192.0.2.{each}:1")
        program = Program(self)
        program.call.outlet.full = True
        for _ in range(10):
            program.tell(history={"channel": "lobby"})
            self.server.settle()
        self.assertEqual(program.read(), [])
        self.assertEqual(program.call.unread, 8)
        program.call.outlet.go_on()
        self.assertEqual(len(program.read()), 10)


class TokenTests(Case):
    def setUp(self) -> None:
        self.serve(Keys(), anonymous="yes", namespaces=Namespaces(named=NAMED))

    def test_in_the_command_or_the_metadata(self) -> None:
        users = []
        for program in (
            Program(self, "ada"),
            Program(self, token="bo"),
            Program(self, "ada", token="bo"),
            Program(self),
        ):
            users.append(self.hub.clients[program.connected.connected.client].user)
        self.assertEqual(users, ["ada", "bo", "bo", ""])

    def test_of_a_channel(self) -> None:
        program = Program(self)
        refused = program.answer(subscribe={"channel": "secret:a", "token": "secret:b"})
        self.assertEqual(refused.error.code, 103)
        found = program.answer(subscribe={"channel": "secret:a", "token": "secret:a"}).subscribed
        self.assertEqual(found.data, '{"x":1}')
        (there,) = program.answer(presence={"channel": "secret:a"}).presence.clients
        self.assertEqual(there.chan_info, '{"seat":2}')

    def test_what_it_grants(self) -> None:
        program = Program(self, token="ada")
        self.assertEqual(program.answer(subscribe={"channel": "secret:ada"}).WhichOneof("event"), "subscribed")

    def test_the_end_of_a_token(self) -> None:
        program = Program(self, token="brief")
        self.assertEqual(program.connected.connected.ttl, BRIEF)
        self.server.advance(BRIEF + 1)
        self.assertEqual(program.call.ended, (StatusCode.UNAUTHENTICATED, "connection expired"))

    def test_the_end_of_a_token_of_a_channel(self) -> None:
        program = Program(self)
        program.answer(subscribe={"channel": "a", "token": "brief"})
        program.answer(subscribe={"channel": "b"})
        self.server.advance(BRIEF + 1)
        (found,) = program.read()
        self.assertEqual(found.unsubscribed, pb.Unsubscribed(channel="a", code=2501, reason="subscription expired"))
        self.assertEqual(list(next(iter(self.hub.clients.values())).subscriptions), ["b"])


class RefreshTests(Case):
    """New tokens, before the old ones expire."""

    def setUp(self) -> None:
        self.serve(Keys(), anonymous="yes", namespaces=Namespaces(named=NAMED))

    def test_of_the_connection(self) -> None:
        program = Program(self, token="brief")
        self.server.advance(BRIEF - 2)
        self.assertEqual(program.answer(refresh={"token": "brief"}).refreshed, pb.Refreshed(ttl=int(BRIEF)))
        self.server.advance(BRIEF - 2)
        self.assertIsNone(program.call.ended)
        self.server.advance(3)
        self.assertEqual(program.call.ended, (StatusCode.UNAUTHENTICATED, "connection expired"))

    def test_one_that_never_expires(self) -> None:
        program = Program(self, token="ada")
        answer = program.answer(refresh={"token": "ada"})
        self.assertEqual((answer.WhichOneof("event"), answer.refreshed.ttl), ("refreshed", 0))

    def test_one_that_is_expired_is_refused_and_the_call_goes_on(self) -> None:
        program = Program(self, token="ada")
        self.assertEqual(program.answer(refresh={"token": "old"}).error.code, 109)
        self.assertEqual(program.answer(ping={}).WhichOneof("event"), "pong")

    def test_one_that_is_forged_or_of_another_user_ends_the_call(self) -> None:
        for token in ("forged", "bo"):
            program = Program(self, token="ada")
            program.tell(refresh={"token": token})
            self.server.settle()
            self.assertEqual(program.call.ended, (StatusCode.UNAUTHENTICATED, "invalid token"), token)

    def test_of_a_subscription(self) -> None:
        program = Program(self)
        program.answer(subscribe={"channel": "a", "token": "brief"})
        self.server.advance(BRIEF - 2)
        self.assertEqual(program.answer(sub_refresh={"channel": "a", "token": "brief"}).sub_refreshed.ttl, BRIEF)
        self.server.advance(BRIEF - 2)
        self.assertEqual(program.read(), [])
        answer = program.answer(sub_refresh={"channel": "a", "token": "a"})
        self.assertEqual((answer.WhichOneof("event"), answer.sub_refreshed.ttl), ("sub_refreshed", 0))
        self.server.advance(2 * BRIEF)
        self.publish("a", "x")
        self.assertEqual(program.events(), [("publication", '"x"')])

    def test_of_a_subscription_that_there_is_not(self) -> None:
        program = Program(self)
        self.assertEqual(program.answer(sub_refresh={"channel": "a", "token": "a"}).error.code, 103)

    def test_of_another_channel_ends_the_call(self) -> None:
        program = Program(self)
        program.answer(subscribe={"channel": "a"})
        program.tell(sub_refresh={"channel": "a", "token": "b"})
        self.server.settle()
        self.assertEqual(program.call.ended, (StatusCode.UNAUTHENTICATED, "invalid token"))

    def test_without_a_key(self) -> None:
        self.hub.gate.verifier = None
        program = Program(self)
        program.answer(subscribe={"channel": "a"})
        for command in ({"refresh": {"token": "x"}}, {"sub_refresh": {"channel": "a", "token": "x"}}):
            self.assertEqual(program.answer(**command).error.code, 108)


class RPCTests(Case):
    def test_a_method_of_the_program(self) -> None:
        self.hub.rpc["double"] = lambda client, data, done: done({"for": client.id, "is": data * 2})
        program = Program(self)
        data = program.answer(rpc={"method": "double", "data": "[1.5]"}).rpc.data
        self.assertEqual(json.loads(data), {"for": program.connected.connected.client, "is": [1.5, 1.5]})

    def test_without_data(self) -> None:
        self.hub.rpc["show"] = lambda client, data, done: done(data)
        self.assertEqual(Program(self).answer(rpc={"method": "show"}).rpc.data, "null")

    def test_what_is_refused(self) -> None:
        program = Program(self)
        self.assertEqual(program.answer(rpc={"method": "x"}).error.code, 108)  # the program has no methods

        def fail(*arguments: Any) -> None:
            raise ValueError("broken")

        self.hub.rpc |= {"show": lambda client, data, done: done(data), "fail": fail}
        self.assertEqual(program.answer(rpc={"method": "x"}).error.code, 104)
        self.assertEqual(program.answer(rpc={"method": "show", "data": "{"}).error.code, 155)
        with self.assertLogs("longconn", logging.ERROR):
            self.assertEqual(program.answer(rpc={"method": "fail"}).error, pb.Error(
                code=100, message="internal error; try again", temporary=True
            ))  # fmt: skip
        self.assertIsNone(program.call.ended)

    def test_an_answer_that_comes_later_is_awaited_at_the_end(self) -> None:
        answers: list[Any] = []
        self.hub.rpc["late"] = lambda client, data, done: answers.append(done)
        program = Program(self)
        program.tell(rpc={"method": "late"})
        program.call.half_close()
        self.server.settle()
        self.assertIsNone(program.call.ended)
        answers[0]("now")
        self.server.settle()
        self.assertEqual([each.rpc.data for each in program.read()], ['"now"'])
        self.assertEqual(program.call.ended, (StatusCode.OK, ""))

    def test_another_name(self) -> None:
        program = Program(self)
        program.answer(subscribe={"channel": "lobby"})
        self.assertEqual(
            program.answer(rpc={"method": "chat.rename", "data": '{"name":"mia"}'}).rpc.data, '{"name":"mia"}'
        )
        (there,) = program.answer(presence={"channel": "lobby"}).presence.clients
        self.assertEqual(there.name, "mia")


class ServerTests(Case):
    """What a back end does by the server API."""

    def setUp(self) -> None:
        self.serve(Keys())
        self.program = Program(self, token="ada")

    def test_subscribe_and_unsubscribe(self) -> None:
        results: list[object] = []
        granted = Keys().subscription("news", "news", "ada", 0)
        ServerAPI(self.hub).subscribe(granted, Target("ada"), results.append)
        (pushed,) = self.program.read()
        self.assertEqual((pushed.id, pushed.subscribed.channel, results), (0, "news", [None]))
        self.publish("news", "x", token="ada")
        self.assertEqual(self.program.events(), [("publication", '"x"')])
        ServerAPI(self.hub).unsubscribe("news", Target("ada"))
        (pushed,) = self.program.read()
        self.assertEqual(pushed.id, 0)
        self.assertEqual(pushed.unsubscribed, pb.Unsubscribed(channel="news", code=2000, reason="server unsubscribe"))
        ServerAPI(self.hub).unsubscribe("news", Target("ada"))
        self.assertEqual(self.program.read(), [])

    def test_refresh_and_disconnect(self) -> None:
        for expires_at, ttl in ((None, 0), (self.clock.seconds() + 5, 5)):
            ServerAPI(self.hub).refresh(Target("ada"), expires_at)
            (pushed,) = self.program.read()
            self.assertEqual((pushed.id, pushed.WhichOneof("event"), pushed.refreshed.ttl), (0, "refreshed", ttl))
        self.server.advance(4)
        self.assertIsNone(self.program.call.ended)
        ServerAPI(self.hub).disconnect(Target("ada"))
        self.assertEqual(self.program.call.ended, (StatusCode.ABORTED, "force disconnect"))


class HeartbeatTests(Case):
    def test_as_often_as_was_asked_for(self) -> None:
        program, silent = Program(self, heartbeat=5), Program(self)
        for _ in range(3):
            self.server.advance(6)
            self.assertEqual([each.WhichOneof("event") for each in program.read()], ["heartbeat"])
        self.assertEqual(silent.read(), [])
        program.call.outlet.queued = 1
        self.server.advance(6)
        self.assertEqual(program.read(), [])


class LateBroker(MemoryBroker):
    """Answers when it is told to."""

    def __init__(self, clock: Any, settings: Settings) -> None:
        super().__init__(clock, settings)
        self.late: list[Callable[[], Any]] = []

    def history(self, *arguments: Any) -> None:
        self.late.append(lambda: MemoryBroker.history(self, *arguments))

    def publish(self, *arguments: Any, **options: Any) -> None:
        self.late.append(lambda: MemoryBroker.publish(self, *arguments, **options))

    def go_on(self) -> None:
        while self.late:
            self.late.pop(0)()


class LateTests(Case):
    """A broker over a network."""

    def serve(self, verifier: Any = None, **settings: Any) -> None:
        super().serve(verifier, **settings)
        clock, options = FakeClock(), Settings(**settings)
        self.broker = LateBroker(clock, options)
        self.server = MemoryServer(hub=Hub(clock, options, self.broker))

    def test_live_ones_follow_the_answer(self) -> None:
        program = Program(self)
        self.assertEqual(program.ask(subscribe={"channel": "lobby"}), [])
        self.hub.publish("lobby", Data.of_text("a"), self.info, lambda position: None)
        self.broker.go_on()
        answer, push = program.read()
        self.assertEqual((answer.id, answer.subscribed.position.offset, push.publication.offset), (2, 0, 1))

    @property
    def info(self) -> Any:
        return next(iter(self.hub.clients.values())).info

    def test_an_unsubscribe_waits_for_its_subscribe(self) -> None:
        program = Program(self)
        program.tell(subscribe={"channel": "lobby"})
        program.tell(unsubscribe={"channel": "lobby"})
        program.tell(ping={})
        self.assertEqual(program.read(), [])
        self.broker.go_on()
        kinds = [each.WhichOneof("event") for each in program.read()]
        self.assertEqual(kinds, ["subscribed", "unsubscribed", "pong"])

    def test_one_that_the_server_unsubscribes_meanwhile_is_answered_once(self) -> None:
        program = Program(self)
        number = program.tell(subscribe={"channel": "lobby"})
        ServerAPI(self.hub).unsubscribe("lobby", Target(""))
        answer, push = program.read()
        self.assertEqual((answer.id, answer.error.code), (number, 100))
        self.assertEqual((push.id, push.unsubscribed.channel, push.unsubscribed.code), (0, "lobby", 2000))
        self.broker.go_on()
        self.assertEqual(program.read(), [])
        self.assertEqual((self.hub.presence("lobby"), self.hub.channels), ([], {}))
        program.tell(subscribe={"channel": "lobby"})
        self.broker.go_on()
        self.assertEqual([each.WhichOneof("event") for each in program.read()], ["subscribed"])

    def test_a_second_subscribe_meanwhile_is_refused_and_the_first_is_answered(self) -> None:
        program = Program(self)
        first, second = (program.tell(subscribe={"channel": "lobby"}) for _ in range(2))
        (answer,) = program.read()
        self.assertEqual((answer.id, answer.error.code), (second, 105))
        self.broker.go_on()
        (answer,) = program.read()
        self.assertEqual((answer.id, answer.WhichOneof("event")), (first, "subscribed"))

    def test_few_are_under_way(self) -> None:
        program = Program(self)
        for each in range(12):
            program.tell(subscribe={"channel": f"c{each}"})
        self.server.settle()
        self.assertEqual(len(self.broker.late), 8)
        while self.broker.late:
            self.broker.go_on()
            self.server.settle()
        self.assertEqual(len(program.read()), 12)

    def test_everything_is_answered_before_the_end(self) -> None:
        program = Program(self)
        program.tell(publish={"channel": "lobby", "text": "x"})
        program.call.half_close()
        self.server.settle()
        self.assertIsNone(program.call.ended)
        self.broker.go_on()
        self.server.settle()
        self.assertEqual([each.WhichOneof("event") for each in program.read()], ["published"])
        self.assertEqual(program.call.ended, (StatusCode.OK, ""))

    def test_a_refused_command_is_not_under_way(self) -> None:
        program = Program(self)
        for _ in range(20):
            program.answer(history={"channel": "two words"})
        program.tell(publish={"channel": "two words", "text": "x"})
        program.call.half_close()
        self.server.settle()
        self.assertEqual(program.call.ended, (StatusCode.OK, ""))

    def test_a_back_end_is_told_if_the_client_leaves_meanwhile(self) -> None:
        self.hub.gate.verifier = Keys()
        program = Program(self, token="ada")
        results: list[Any] = []
        ServerAPI(self.hub).subscribe(Keys().subscription("c", "c", "ada", 0), Target("ada"), results.append)
        self.assertEqual(results, [])
        program.call.cancel()
        self.assertIsInstance(results[0], CommandError)
        self.assertIs(results[0].reason, INTERNAL)
        self.broker.go_on()
