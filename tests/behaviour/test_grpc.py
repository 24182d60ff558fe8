"""The suite for calls of gRPC, over the embedded broker and over one that answers late."""

import logging
from typing import Any

from longconn import GrpcFactory, SharedPortFactory
from longconn.core.disconnects import SLOW
from longconn.core.errors import BAD_CHANNEL, INTERNAL, TOO_LARGE, TOO_MANY_REQUESTS
from longconn.core.publication import Position
from longconn.service.embedding import LiveSite
from longconn.v1 import longconn_pb2 as pb
from tests.behaviour.grpc_members import ConnectMember, NamedMember, SubscribeMember
from tests.behaviour.suite import Late, ResumingBehaviour, StayingBehaviour
from tests.protocols.grpc.http2_kit import LARGE


class CallBehaviour(StayingBehaviour, ResumingBehaviour):
    """For a call that reads a channel, and can speak beside."""

    def serve(self, **settings: Any) -> None:
        super().serve(**settings)
        grpc = GrpcFactory(self.server.hub)
        self.factories["shared"] = SharedPortFactory(self.factories["chat"], LiveSite(self.server.hub), grpc)

    def refused(self, member: Any) -> bool:
        return bool(member.closed)

    def was_told(self, member: Any, disconnect: Any) -> bool:
        return bool(member.farewell == disconnect.code or (disconnect is SLOW and member.exhausted))

    def slow_ends(self, slow: Any) -> None:
        """A slow call is ended and named, and the others read on."""
        witness, other = self.witness(), self.join()
        with self.assertLogs("longconn", logging.WARNING) as logs:
            texts = [f"{number:03}" + "x" * 5_000 for number in range(60)]
            for text in texts:
                self.post(text)
        self.assertEqual((witness.says(), other.says()), (texts, texts))
        self.assertEqual(len(logs.output), 1)
        self.assertIn(f"grpc client {slow.name} from {slow.name} is disconnected ({SLOW.code} ", logs.output[0])
        self.assertEqual(len(self.server.hub.clients), 2)

    def test_a_slow_one_is_disconnected_and_named_and_the_others_read_on(self) -> None:
        """But its connection is there for other calls."""
        self.serve(send_queue=100_000, history_bytes=0)
        slow = self.join()
        slow.connection.stop_reading()
        self.slow_ends(slow)
        slow.connection.start_reading()
        self.server.settle()
        self.assertTrue(self.was_told(slow, SLOW))
        self.assert_serves(slow)

    def assert_serves(self, member: Any) -> None:
        """Its connection takes another call."""
        request = pb.PresenceRequest(channel="lobby").SerializeToString()
        stream = member.client.call("/longconn.v1.LongConn/Presence", request)
        self.assertEqual(member.client.status(stream), (0, ""))

    def test_one_that_gives_no_credit_is_slow_and_calls_beside_it_are_not(self) -> None:
        self.serve(send_queue=100_000, history_bytes=0)
        slow = self.join(credit=65_535)
        self.slow_ends(slow)
        self.assertTrue(self.was_told(slow, SLOW))
        self.assertLessEqual(len(slow.client.data(slow.client.stream)), 65_535)
        slow.client.h2.increment_flow_control_window(65_535)
        slow.client.flush()
        self.assert_serves(slow)

    def test_one_that_gives_credit_late_reads_all(self) -> None:
        self.serve(send_queue=500_000)
        member = self.join(credit=20_000)
        texts = [f"{number:03}" + "x" * 5_000 for number in range(40)]
        for text in texts:
            self.post(text)
        self.assertLess(len(member.says()), 4)
        member.client.h2.increment_flow_control_window(LARGE - 65_535)
        member.client.h2.increment_flow_control_window(1_000_000, member.client.stream)
        member.client.flush()
        self.clear(member)
        self.assertEqual([each[2] for each in member.history if each[0] == "said"], texts)

    # Speaking.

    def test_what_it_says_is_read_by_all_in_the_channel(self) -> None:
        member, witness = self.join(), self.witness()
        self.clear(member, witness)
        self.say(member, "größer \U0001f600")
        self.assertEqual(witness.hears(), [("said", member.name, "größer \U0001f600")])
        self.assertIn(("said", member.name, "größer \U0001f600"), member.history)

    def test_an_over_long_message_is_answered_and_never_published(self) -> None:
        self.serve(max_message=1_000)
        witness, member = self.witness(), self.join()
        self.say(member, "x" * 998)
        self.assertEqual(len(witness.says()), 1)
        member.refusals.clear()
        member.say("y" * 1_001)
        member.hear()
        self.assertEqual(member.refusals, [TOO_LARGE.code])
        self.assertEqual(witness.says(), [])

    def test_a_bad_channel_is_refused(self) -> None:
        member = self.join()
        member.channel = "no channel"
        member.say("hello")
        member.hear()
        self.assertEqual(member.refusals[-1:], [BAD_CHANNEL.code])


class ConnectTests(CallBehaviour):
    member = ConnectMember

    def test_over_its_rate_it_is_slowed_and_nothing_is_lost(self) -> None:
        self.serve(publish_rate=10, publish_burst=5)
        witness, member = self.witness(), self.join()
        member.say(*map(str, range(35)))
        self.assertLessEqual(len(witness.says()), 5)
        self.server.advance(1)
        self.assertTrue(5 <= len(witness.says()) <= 11)
        self.server.advance(10)
        self.clear(witness)
        heard = [each[2] for each in witness.history if each[0] == "said"]
        self.assertEqual(heard, sorted(set(heard), key=int))
        self.assertEqual(len(heard) + len(member.hears("error")), 35)
        self.assertFalse(member.closed)

    def test_people_hear_nothing_of_one_without_a_name(self) -> None:
        witness = self.witness()
        member = self.join()
        self.lost_for(member)
        self.assertEqual(witness.hear(), [])

    def test_people_hear_of_one_with_a_name(self) -> None:
        witness = self.witness()
        member = self.join(kind=NamedMember)
        self.say(member, "hello")
        self.lost_for(member)
        heard = [each for each in witness.hear() if each[0] != "error"]
        self.assertEqual(heard, [("joined", "ada"), ("said", "ada", "hello"), ("left", "ada")])

    def test_what_was_said_is_answered_when_it_has_no_more_to_say(self) -> None:
        member, witness = self.join(), self.witness()
        for number in range(20):
            member.ask(publish=pb.PublishRequest(channel="lobby", text=str(number)))
        member.client.ask(end=True)
        self.server.settle()
        member.hear()
        taken = [each for each in member.answers.values() if each.WhichOneof("event") == "published"]
        self.assertEqual(len(taken) + len([each for each in member.refusals if each == INTERNAL.code]), 20)
        self.assertEqual(len(witness.says()), len(taken))
        self.assertEqual(member.client.status(member.client.stream), (0, ""))


class ConnectOverLateBrokerTests(Late, ConnectTests):
    pass


class SubscribeTests(CallBehaviour):
    member = SubscribeMember

    def test_over_its_rate_it_is_refused(self) -> None:
        """A call of Publish is as a POST."""
        self.serve(publish_rate=10, publish_burst=5)
        witness, member = self.witness(), self.join()
        member.say(*map(str, range(35)))
        member.hear()
        self.assertGreater(member.refusals.count(TOO_MANY_REQUESTS.code), 20)
        self.assertLess(len(witness.says()), 15)
        self.assertFalse(member.closed)

    def test_it_may_speak_by_a_name(self) -> None:
        member, witness = self.join(), self.witness()
        answers: list[Any] = []
        while not answers or answers[-1] != (0, ""):
            request = pb.PublishRequest(channel="lobby", text="hello", name="cron").SerializeToString()
            stream = member.client.call("/longconn.v1.LongConn/Publish", request)
            answers.append(member.client.status(stream))
        self.assertEqual(witness.hears(), [("said", "cron", "hello")])
        (message,) = member.client.messages(stream)
        position = pb.PublishResponse.FromString(message).position
        self.assertEqual(Position(position.epoch, position.offset), self.top())

    def top(self) -> Any:
        answers: list[Any] = []
        while not answers or not hasattr(answers[-1], "position"):
            self.server.hub.history("lobby", answers.append, limit=0)
            self.server.settle()
        return answers[-1].position


class SubscribeOverLateBrokerTests(Late, SubscribeTests):
    pass


del CallBehaviour, StayingBehaviour, ResumingBehaviour
