"""The suite of Centrifugo's protocol in its Protobuf flavour, over WebSocket."""

from typing import Any

from centrifuge.protocol import client_pb2 as sdk

from longconn.protocols.centrifugo import client_pb2 as pb
from longconn.protocols.centrifugo.protobuf import delimited, split
from tests.behaviour.centrifugo_suite import FramedBehaviour, OwnEndpointBehaviour
from tests.behaviour.protobuf import ProtobufMember
from tests.behaviour.suite import Late
from tests.behaviour.test_centrifugo import MOST_UNDER_WAY


class ProtobufTests(FramedBehaviour, OwnEndpointBehaviour):
    member = ProtobufMember

    def refused(self, member: Any) -> bool:
        return bool(member.client.status == 503 or member.farewell == 3504)

    def test_what_cannot_be_is_refused_by_number(self) -> None:
        """A member of a wrong type makes a message that is no command; so there are fewer cases than in JSON."""
        self.serve(max_subscriptions=2)
        member = self.join()
        for code, method, body in (
            (105, "subscribe", {"channel": "lobby"}),
            (107, "publish", {"channel": "lobby"}),
            (107, "history", {"channel": "lobby", "limit": -2}),
            (108, "subscribe", {"channel": "den", "tf": {"op": "", "key": "a", "cmp": "eq", "val": "b"}}),
            (108, "refresh", {"token": "x"}),
            (108, "subscribe", {"channel": "den", "token": "x"}),
            (108, "rpc", {"method": "x"}),
            (151, "subscribe", {}),
            (151, "subscribe", {"channel": "x" * 256}),
            (151, "publish", {"channel": "a\nb", "data": 1}),
            (151, "presence_stats", {}),
        ):
            with self.subTest(method=method, body=body):
                self.assertEqual(member.refusal(method, **body), code)

    def test_kinds_of_subscriptions_that_are_not_offered_are_refused(self) -> None:
        member = self.join()
        for fields in (
            {"subscribe": pb.SubscribeRequest(channel="den", type=1)},
            {"subscribe": pb.SubscribeRequest(channel="den", phase=1)},
            {"publish": pb.PublishRequest(channel="den", data=b"1", key="a")},
            {"publish": pb.PublishRequest(channel="den", data=b"1", removed=True)},
            {"sub_refresh": pb.SubRefreshRequest(channel="lobby", type=1)},
        ):
            number = next(member._numbers)
            member.client.say(delimited(pb.Command(id=number, **fields).SerializeToString()))
            self.server.advance(1)
            member.hear()
            self.assertEqual(member.replies[number]["error"]["code"], 108)

    def test_data_that_are_no_json_are_refused(self) -> None:
        member, witness = self.join(), self.witness()
        for data in (b"\xff\x00", b"{", b"1 2", b"NaN"):
            number = next(member._numbers)
            command = sdk.Command(id=number, publish=sdk.PublishRequest(channel="lobby", data=data))
            member.client.say(delimited(command.SerializeToString()))
            self.server.advance(1)
            member.hear()
            self.assertEqual(member.replies[number]["error"]["code"], 155)
        self.assertEqual(witness.says(), [])

    def test_a_message_that_is_no_frame_closes(self) -> None:
        for frame in (b"\xff\xff", b"\x05ab", delimited(b"\xff"), b'{"id":1,"connect":{}}'):
            member = self.silent()
            member.client.say(frame)
            self.server.advance(1)
            self.assertEqual(member.farewell, 3501)

    def test_with_pings_of_websocket_the_reply_promises_no_others(self) -> None:
        """An SDK that is promised pings closes the connection if they do not come."""
        path = "/connection/websocket?cf_protocol=protobuf&cf_ws_frame_ping_pong=true"
        client = self.server.websocket_client(path, self.factories["shared"])
        client.say(delimited(sdk.Command(id=1, connect=sdk.ConnectRequest()).SerializeToString()))
        self.server.advance(1)
        (message,) = client.read()
        assert isinstance(message, bytes)
        connect = sdk.Reply.FromString(split(message)[0]).connect
        self.assertEqual((connect.ping, connect.pong), (0, False))
        self.server.advance(27)
        self.assertEqual((client.read(), client.pings), ([], 1))

    def test_the_subprotocol_asks_for_it_too(self) -> None:
        offer = [("Sec-WebSocket-Protocol", "centrifuge-protobuf")]
        client = self.server.websocket_client("/connection/websocket", self.factories["shared"], headers=offer)
        client.say(delimited(sdk.Command(id=1, connect=sdk.ConnectRequest()).SerializeToString()))
        self.server.advance(1)
        (message,) = client.read()
        assert isinstance(message, bytes)
        self.assertEqual(sdk.Reply.FromString(split(message)[0]).id, 1)


class ProtobufOverLateBrokerTests(Late, ProtobufTests):
    most_for_one = MOST_UNDER_WAY


del FramedBehaviour, OwnEndpointBehaviour
