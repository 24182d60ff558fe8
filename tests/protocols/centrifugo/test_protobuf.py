"""The Protobuf flavour of Centrifugo's protocol: the codec, and http_stream with emulation."""

from typing import Any

from centrifuge.protocol import client_pb2 as sdk
from twisted.trial.unittest import SynchronousTestCase

from longconn import Settings
from longconn.core import commands
from longconn.core.commands import MalformedCommandError, RefusedCommand
from longconn.core.disconnects import SHUTDOWN
from longconn.core.errors import ALREADY_SUBSCRIBED, INTERNAL, CommandError
from longconn.core.publication import Data, History, Info, Join, Leave, Position, Publication, Rename
from longconn.protocols.centrifugo import client_pb2
from longconn.protocols.centrifugo.protobuf import MALFORMED, CentrifugoProtobuf, body_part, delimited, split
from longconn.testing import MemoryServer

ANN = Info("ann", "id-1", "42", b'{"name":"Ann"}', b'{"role":"host"}')
SAID = Publication("room", "ep", 7, Data.of_json(b'{"a": 1.50}'), ANN, 1_700_000_000.25)


def replies(data: bytes) -> list[Any]:
    """Whole messages, read by the SDK's own module."""
    return [sdk.Reply.FromString(each) for each in split(data)]


#: Fields that the SDK for Python does not know yet. centrifuge-js 5.8.0 has them (its build/protobuf).
NEWER = ("type", "phase", "cursor", "key", "removed")


def is_repeated(field: Any) -> bool:
    # Protobuf 6.30 has only the label, which later versions deprecate.
    return bool(field.is_repeated) if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


class DefinitionTests(SynchronousTestCase):
    def test_every_field_has_the_number_and_type_that_the_sdk_has(self) -> None:
        for name, ours in client_pb2.DESCRIPTOR.message_types_by_name.items():
            theirs = sdk.DESCRIPTOR.message_types_by_name[name]
            for field in ours.fields:
                if field.name in NEWER and field.name not in theirs.fields_by_name:
                    continue
                other = theirs.fields_by_name[field.name]
                self.assertEqual(field.number, other.number, field.full_name)
                self.assertEqual(is_repeated(field), is_repeated(other), field.full_name)
                if field.name != "tf":  # a message there; here only whether it is set is read
                    self.assertEqual(field.type, other.type, field.full_name)


class FrameTests(SynchronousTestCase):
    def test_messages_and_their_lengths(self) -> None:
        messages = [b"", b"x", b"y" * 127, b"z" * 128, b"w" * 70_000]
        self.assertEqual(split(b"".join(map(delimited, messages))), messages)

    def test_a_malformed_frame_ends_with_what_is_no_message(self) -> None:
        for end in (b"\x80", b"\x05abc", b"\xff" * 5 + b"\x01", b"\xff\xff\xff\xff\x0f"):
            self.assertEqual(split(delimited(b"ok") + end), [b"ok", MALFORMED], end)


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.codec = CentrifugoProtobuf(body_part, 1_000)

    def read(self, **fields: Any) -> Any:
        return self.codec.read(sdk.Command(**fields).SerializeToString())

    def test_every_command(self) -> None:
        since = Position("ep", 5)
        for fields, expected in (
            ({"subscribe": {"channel": "c", "token": "t", "recover": True, "epoch": "ep", "offset": 5, "flag": 2}},
             commands.Subscribe(1, "c", "t", since, refuses_loss=True)),
            ({"subscribe": {"channel": "c", "join_leave": True, "delta": "fossil"}},
             commands.Subscribe(1, "c", join_leave=True)),
            ({"subscribe": {"channel": "c", "tf": {"key": "a"}}}, commands.Subscribe(1, "c", unsupported="tf")),
            ({"unsubscribe": {"channel": "c"}}, commands.Unsubscribe(1, "c")),
            ({"presence": {"channel": "c"}}, commands.Presence(1, "c")),
            ({"presence_stats": {"channel": "c"}}, commands.PresenceStats(1, "c")),
            ({"history": {"channel": "c", "limit": -1, "reverse": True, "since": {"offset": 5, "epoch": "ep"}}},
             commands.ReadHistory(1, "c", since, -1, True)),
            ({"ping": {}}, commands.Ping(1)),
            ({"rpc": {"method": "m", "data": b" [1.50] "}}, commands.RPC(1, "m", b"[1.50]")),
            ({"refresh": {"token": "t"}}, commands.Refresh(1, "t")),
            ({"sub_refresh": {"channel": "c", "token": "t"}}, commands.SubRefresh(1, "c", "t")),
        ):  # fmt: skip
            self.assertEqual(self.read(id=1, **fields), expected)
        self.assertEqual(self.read(send={"data": b"1"}), commands.Send(b"1"))
        connect = self.read(id=1, connect={"token": "t", "data": b'{"chat":{"name":"mia"}}', "subs": {"c": {}}})
        self.assertEqual((connect.token, connect.name, list(connect.subs)), ("t", "mia", ["c"]))
        publish = self.read(id=1, publish={"channel": "c", "data": b'{"a": 1.50}'})
        self.assertEqual((publish.channel, publish.data.json), ("c", b'{"a":1.50}'))
        self.assertIsNone(self.read())

    def test_what_is_no_command(self) -> None:
        for item in (MALFORMED, b'{"id":1,"connect":{}}', sdk.Command(id=1).SerializeToString(),
                     sdk.Command(ping={}).SerializeToString()):  # fmt: skip
            self.assertRaises(MalformedCommandError, self.codec.read, item)

    def test_a_command_that_is_refused(self) -> None:
        for fields, key in (
            ({"publish": {"channel": "c", "data": b"\x00\x01"}}, "bad_data"),
            ({"publish": {"channel": "c"}}, "bad_request"),
            ({"publish": {"channel": "c", "data": b'"%b"' % (b"x" * 1_000)}}, "too_large"),
            ({"rpc": {"method": "m", "data": b"{"}}, "bad_data"),
            ({"history": {"channel": "c", "limit": -2}}, "bad_request"),
        ):
            command = self.read(id=3, **fields)
            self.assertIsInstance(command, RefusedCommand)
            self.assertEqual((command.id, command.error.reason.key), (3, key))


class ReplyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.codec = CentrifugoProtobuf(body_part, 1_000)

    def test_errors_and_pings(self) -> None:
        (reply,) = replies(self.codec.refusal(4, CommandError(ALREADY_SUBSCRIBED, channel="c")))
        self.assertEqual((reply.id, reply.error.code, reply.error.temporary), (4, 105, False))
        self.assertTrue(replies(self.codec.refusal(4, CommandError(INTERNAL)))[0].error.temporary)
        self.assertEqual(replies(self.codec.frame((self.codec.ping,))), [sdk.Reply()])

    def test_results(self) -> None:
        history = History([SAID], Position("ep", 7))
        subscribed = commands.SubscribeResult("c", history, Position("ep", 6), True, True, b'{"x":1}', 30)
        (reply,) = replies(self.codec.reply(5, subscribed))
        found = reply.subscribe
        self.assertEqual(
            (found.epoch, found.offset, found.recovered, found.expires, found.ttl), ("ep", 6, True, True, 30)
        )
        (publication,) = found.publications
        self.assertEqual(
            (publication.data, publication.offset, publication.time), (b'{"a":1.50}', 7, 1_700_000_000_250)
        )
        self.assertEqual((publication.info.user, publication.info.chan_info), ("42", b'{"role":"host"}'))
        history.recovered = False
        self.assertEqual(len(replies(self.codec.reply(5, subscribed))[0].subscribe.publications), 0)
        (reply,) = replies(self.codec.reply(6, commands.PresenceResult([ANN])))
        self.assertEqual(reply.presence.presence["id-1"].user, "42")
        (reply,) = replies(self.codec.reply(7, commands.HistoryResult(history)))
        self.assertEqual((reply.history.offset, reply.history.publications[0].offset), (7, 7))

    def test_pushes(self) -> None:
        (reply,) = replies(self.codec.push(commands.DisconnectPush(SHUTDOWN)))
        self.assertEqual((reply.push.disconnect.code, reply.push.disconnect.reconnect), (3001, True))
        (reply,) = replies(self.codec.push(commands.UnsubscribePush("c", 2501, "x")))
        self.assertEqual((reply.push.channel, reply.push.unsubscribe.code), ("c", 2501))
        events = [SAID, Join(ANN), Rename("an", ANN), Leave(ANN)]
        pushes = [each.push for each in replies(self.codec.format(True).encode("room", events))]
        kinds = [next(name for name in ("pub", "join", "leave") if each.HasField(name)) for each in pushes]
        self.assertEqual(kinds, ["pub", "join", "leave", "join", "leave"])
        self.assertEqual(len(replies(self.codec.format(False).encode("room", events))), 1)
        self.assertEqual(self.codec.format(False).encode("room", [Join(ANN)]), b"")
        self.assertEqual(self.codec.format(True), self.codec.format(True))


class StreamTests(SynchronousTestCase):
    """Over http_stream: commands up by `/emulation`."""

    def setUp(self) -> None:
        self.server = MemoryServer()
        self.addCleanup(lambda: self.server.stop())
        self.kind = [("Content-Type", "application/octet-stream")]

    def post(self, path: str, body: bytes) -> Any:
        return self.server.http_client().request("POST", path, body, self.kind)

    def open(self, *first: Any) -> Any:
        body = b"".join(delimited(each.SerializeToString()) for each in first)
        return self.post("/connection/http_stream", body)

    def test_a_conversation(self) -> None:
        stream = self.open(sdk.Command(id=1, connect={}), sdk.Command(id=2, subscribe={"channel": "lobby"}))
        self.assertEqual((stream.status, stream.headers["content-type"]), (200, "application/octet-stream"))
        connected, subscribed = replies(stream.body)
        self.assertEqual(subscribed.id, 2)
        publish = sdk.Command(id=3, publish={"channel": "lobby", "data": b'"hi"'})
        up = sdk.EmulationRequest(
            session=connected.connect.session,
            node=connected.connect.node,
            data=delimited(publish.SerializeToString()),
        )
        self.assertEqual(self.post("/emulation", up.SerializeToString()).status, 204)
        self.server.settle()
        published, pushed = replies(stream.body)[2:]
        self.assertEqual((published.id, pushed.push.pub.data, pushed.push.pub.offset), (3, b'"hi"', 1))

    def test_a_malformed_frame_behind_commands_that_wait(self) -> None:
        """It waits with them: the next request is answered, and the session ends when its turn comes."""
        self.server.stop()
        self.server = MemoryServer(Settings(publish_rate=1, publish_burst=1))
        stream = self.open(sdk.Command(id=1, connect={}))
        (connected,) = replies(stream.body)
        ping = delimited(sdk.Command(id=2, ping={}).SerializeToString())
        for data in (ping + b"\x80", ping):
            up = sdk.EmulationRequest(session=connected.connect.session, data=data)
            self.assertEqual(self.post("/emulation", up.SerializeToString()).status, 204)
        self.server.advance(5)
        pong, end = replies(stream.body)[1:]
        self.assertEqual((pong.id, end.push.disconnect.code), (2, 3501))

    def test_a_malformed_request(self) -> None:
        self.assertEqual(self.post("/emulation", b"\xff").status, 400)
        stream = self.open(sdk.Command(id=1, ping={}))
        self.server.settle()
        self.assertEqual(replies(stream.body)[-1].push.disconnect.code, 3501)
