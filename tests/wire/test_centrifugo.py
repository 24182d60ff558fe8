"""Commands, replies and pushes of Centrifugo's client protocol, as bytes."""

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn.core import commands
from longconn.core.disconnects import FORCE_DISCONNECT, SHUTDOWN
from longconn.core.errors import ALREADY_SUBSCRIBED, INTERNAL, CommandError
from longconn.core.publication import Counts, Data, Event, History, Info, Join, Leave, Position, Publication, Rename
from longconn.wire.centrifugo import (
    CentrifugoFormat,
    CentrifugoJSON,
    channel_push,
    disconnect_push,
    error_reply,
    fields,
    info_json,
    lines,
    presence_result,
    publication_json,
    stream_events,
    stream_lines,
    subscribe_result,
    text_frame,
)
from longconn.wire.centrifugo_commands import read_command

ANN = Info("ann", "id-1")
USER = Info("127.0.0.1:5", "id-2", "42", b'{"name":"Bo"}', b'{"role":"host"}')
SAID = Publication("room", "ep", 7, Data.of_text("hé\n"), ANN, 1_700_000_000.25)
VALUE = Publication("room", "ep", 8, Data.of_json(b'{"a": 1.50}'), USER, 1_700_000_001.0)


MAX_MESSAGE = 65_536
METHODS = (
    "connect", "subscribe", "unsubscribe", "publish", "presence", "presence_stats",
    "history", "ping", "send", "rpc", "refresh", "sub_refresh",
)  # fmt: skip


def read(line: bytes | str) -> Any:
    return read_command(line if isinstance(line, bytes) else line.encode(), MAX_MESSAGE)


class CommandTests(SynchronousTestCase):
    def test_every_command_is_read(self) -> None:
        kinds = set()
        for method in METHODS:
            command = read(b'{"id":7,"%b":{"channel":"c","data":1,"token":"t"}}' % method.encode())
            self.assertEqual(command.id, 0 if method == "send" else 7)
            self.assertEqual(getattr(command, "channel", "c"), "c")
            kinds.add(type(command))
        self.assertEqual(len(kinds), len(METHODS))

    def test_members_of_a_subscribe(self) -> None:
        body = b'{"channel":"c","token":"t","recover":true,"epoch":"e","offset":5,"join_leave":true,"flag":3}'
        self.assertEqual(
            read(b'{"id":1,"subscribe":%b}' % body),
            commands.Subscribe(1, "c", "t", Position("e", 5), join_leave=True, refuses_loss=True),
        )
        nulls = b'{"channel":"c","token":null,"recover":null,"epoch":null,"offset":null,"flag":null,"delta":null}'
        self.assertEqual(read(b'{"id":1,"subscribe":%b}' % nulls), commands.Subscribe(1, "c"))
        self.assertEqual(read(b'{"id":1,"subscribe":{"channel":"c","tf":{}}}').unsupported, "tf")

    def test_members_of_a_connect(self) -> None:
        command = read(b'{"id":1,"connect":{"token":"t","data":{"chat":{"name":"mia"}},"subs":{"a":null,"b":{}}}}')
        self.assertEqual((command.token, command.name, list(command.subs)), ("t", "mia", ["a", "b"]))

    def test_data_of_a_connect_are_the_applications(self) -> None:
        for data in (
            b"null",
            b"[]",
            b'{"chat":1}',
            b'{"chat":{"name":null}}',
            b'{"chat":1e999}',
            b'{"chat":%b}' % (b"9" * 5_000),
        ):
            self.assertIsNone(read(b'{"id":1,"connect":{"data":%b}}' % data).name)

    def test_a_pong_is_no_command(self) -> None:
        for pong in (b"{}", b" { } ", b'{"unknown":1}', b'{"id":0}', b'{"ping":null}'):
            self.assertIsNone(read(pong))

    def test_the_first_of_several_bodies_counts_as_in_the_definitions(self) -> None:
        self.assertIsInstance(read(b'{"id":1,"publish":{},"subscribe":{}}'), commands.Subscribe)
        self.assertIsInstance(read(b'{"id":1,"subscribe":null,"publish":{"data":1}}'), commands.Publish)

    def test_unknown_members_and_white_space_are_ignored(self) -> None:
        self.assertEqual(read(b' { "id" : 2 , "new" : [1] , "ping" : { "x" : 1 } }\r'), commands.Ping(2))

    def test_what_is_no_command(self) -> None:
        nested = b'{"id":1,"publish":{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
        bad: dict[bytes, str] = {
            b"": "not JSON",
            b"{": "not JSON",
            b"hello": "not JSON",
            b"{'id':1}": "not JSON",
            b'{"id":1} {"id":2}': "not JSON",
            b'\xff{"id":1}': "not JSON",
            b'{"id":1,"ping":{}}\x00': "not JSON",
            nested: "not JSON",
            b"[" * (1 << 20): "not an object",
            b"[]": "not an object",
            b"1": "not an object",
            b"null": "not an object",
            b'"{}"': "not an object",
            b'{"id":"1","ping":{}}': "an id is a number from 1",
            b'{"id":-1,"ping":{}}': "an id is a number from 1",
            b'{"id":1.0,"ping":{}}': "an id is a number from 1",
            b'{"id":true,"ping":{}}': "an id is a number from 1",
            b'{"id":null,"ping":{}}': "an id is a number from 1",
            b'{"id":4294967296,"ping":{}}': "an id is a number from 1",
            b'{"id":1,"ping":[]}': "the body of ping is no object",
            b'{"id":1,"ping":true}': "the body of ping is no object",
            b'{"id":1,"connect":"now"}': "the body of connect is no object",
            b'{"ping":{}}': "a command without an id",
            b'{"id":0,"publish":{}}': "a command without an id",
            b'{"id":1}': "a command without a known body",
            b'{"id":1,"dance":{}}': "a command without a known body",
        }
        for line, why in bad.items():
            with self.assertRaises(commands.MalformedCommandError, msg=line[:60]) as caught:
                read(line)
            self.assertEqual(str(caught.exception), why, line[:60])

    def test_the_largest_id(self) -> None:
        self.assertEqual(read(b'{"id":4294967295,"ping":{}}').id, 2**32 - 1)

    def refused(self, line: bytes | str) -> CommandError:
        command = read(line)
        self.assertIsInstance(command, commands.RefusedCommand, line)
        self.assertEqual(command.id, 1)
        error: CommandError = command.error
        return error

    def test_a_command_of_more_bytes_than_a_message_may_have(self) -> None:
        line = b'{"id":1,"presence":{"channel":"%b"}}'
        room = MAX_MESSAGE - len(line % b"")
        self.assertIsInstance(read(line % (b"x" * room)), commands.Presence)
        self.assertEqual(self.refused(line % (b"x" * (room + 1))).reason.key, "too_large")

    def test_half_of_a_surrogate_pair_is_an_error_of_its_command(self) -> None:
        self.assertEqual(self.refused(rb'{"id":1,"publish":{"channel":"c","data":["\ud800"]}}').reason.key, "bad_data")
        self.assertEqual(read(rb'{"id":1,"presence":{"channel":"\ud800"}}').channel, "\0")

    def data(self, line: bytes | str) -> str:
        return str(read(line).data.json.decode())

    def test_data_is_kept_as_it_was_written(self) -> None:
        for data in (
            "1.50", "-0", "1E400", "1e+2", "0.1000", "12345678901234567890123", "null", "true", '""', '"}"',
            "1" * 10_000, '{"b":1,"a":[1,2.0,{"a":{}}]}', "[]", '"é\u2028"', '{"a":1,"a":2}',
        ):  # fmt: skip
            with self.subTest(data=data):
                self.assertEqual(self.data(f'{{"id":1,"publish":{{"channel":"c","data":{data}}}}}'), data)
                self.assertEqual(self.data(f'{{"publish" : {{ "data" : {data} , "channel" : "c" }}, "id":1 }}'), data)
        self.assertEqual(self.data('{"id":1,"publish":{"data": {"a": 1.50, "b": "x  y"} }}'), '{"a":1.50,"b":"x  y"}')

    def test_it_is_found_whatever_stands_around_it(self) -> None:
        for line in (
            '{"x":{"publish":{"data":0}},"id":1,"publish":{"x":{"data":0},"data":2}}',
            '{"id":1,"publish":{"data":2},"x":{"data":3}}',
            '{"id":1,"data":5,"publish":{"data":2}}',
            '{"id":1,"pub\\u006cish":{"d\\u0061ta":2}}',
            '{"x":"\\"publish\\":{","id":1,"publish":{"y":"\\\\","data":2}}',
            # Of a repeated member the last counts.
            '{"id":1,"publish":{"data":1},"publish":{"data":2}}',
            '{"id":1,"publish":{"data":1,"data":2}}',
            '\t{\n"id"\r:1,"publish" :{  "data"  :  2  }  }  ',
        ):
            self.assertEqual(self.data(line), "2", line)
        for line in ('{"id":1,"publish":{}}', '{"id":1,"publish":{"x":{"data":1}}}'):
            self.assertEqual(self.refused(line).reason.key, "bad_request")

    def test_an_offer_of_delta_is_passed_over(self) -> None:
        for delta in ('"fossil"', '"zip"', '""', "null"):
            command = read(f'{{"id":1,"subscribe":{{"channel":"c","delta":{delta}}}}}')
            self.assertEqual(command, commands.Subscribe(1, "c"))

    def test_connect_data_of_the_application_are_not_read(self) -> None:
        for number in ("7" * 5000, "1e999"):
            for chat, name in ((f'{{"x":{number}}}', None), ('{"name":"ann"}', "ann"), (number, None)):
                command = read(f'{{"id":1,"connect":{{"data":{{"chat":{chat},"y":{number}}}}}}}')
                assert isinstance(command, commands.Connect)
                self.assertEqual(command.name, name)

    def test_however_deep_it_is_either_no_command_or_has_its_data(self) -> None:
        """The parser's limit depends on the depth of the program's stack: nothing else may be raised near it."""
        outcomes = set()
        for depth in (*range(0, 2_000, 7), *range(880, 1_000)):
            nested = "[" * depth + "1" + "]" * depth
            try:
                command = read(f'{{"id":1,"publish":{{"data":{nested}}}}}')
            except commands.MalformedCommandError:
                outcomes.add("malformed")
                continue
            outcomes.add(type(command).__name__)
            if isinstance(command, commands.Publish):
                self.assertEqual(command.data.json.decode(), nested)
        self.assertLessEqual({"Publish", "malformed"}, outcomes)

    def test_a_byte_order_mark_before_a_command_counts_as_nothing(self) -> None:
        self.assertEqual(read('\ufeff{"id":7,"ping":{}}'), commands.Ping(7))


class ReplyTests(SynchronousTestCase):
    def test_a_reply_and_a_refusal(self) -> None:
        codec = CentrifugoJSON(lines, MAX_MESSAGE)
        self.assertEqual(codec.reply(3, commands.PublishResult(Position("ep", 1))), b'{"id":3,"publish":{}}')
        self.assertEqual(codec.reply(3, commands.RPCResult(b"1")), b'{"id":3,"rpc":{"data":1}}')
        self.assertEqual(
            codec.reply(3, commands.PresenceStatsResult(2, 0)),
            b'{"id":3,"presence_stats":{"num_clients":2,"num_users":0}}',
        )
        self.assertEqual(
            json.loads(codec.refusal(4, CommandError(ALREADY_SUBSCRIBED, channel='c"é'))),
            {"id": 4, "error": {"code": 105, "message": 'already in c"é'}},
        )
        self.assertEqual(
            json.loads(error_reply(4, CommandError(INTERNAL)))["error"],
            {"code": 100, "message": "internal error; try again", "temporary": True},
        )

    def test_pushes_of_the_session(self) -> None:
        codec = CentrifugoJSON(lines, MAX_MESSAGE)
        self.assertEqual(
            codec.push(commands.UnsubscribePush("c", 2501, "x")),
            b'{"push":{"channel":"c","unsubscribe":{"code":2501,"reason":"x"}}}',
        )
        self.assertEqual(codec.push(commands.RefreshPush(7)), b'{"push":{"refresh":{"expires":true,"ttl":7}}}')
        self.assertEqual(codec.push(commands.RefreshPush(None)), b'{"push":{"refresh":{}}}')
        self.assertEqual(codec.push(commands.DisconnectPush(SHUTDOWN)), disconnect_push(SHUTDOWN))

    def test_a_refusal_can_name_what_has_no_utf8(self) -> None:
        """JSON can spell half a character; what echoes it must still be text."""
        error_reply(4, CommandError(ALREADY_SUBSCRIBED, channel="\ud800")).decode()

    def test_zero_fields_are_left_out(self) -> None:
        self.assertEqual(fields(a=0, b="", c=False, d=b"", e=None), b"{}")
        self.assertEqual(fields(a=1, b="x", c=True, d=b"[]"), b'{"a":1,"b":"x","c":true,"d":[]}')

    def test_who_it_was(self) -> None:
        self.assertEqual(json.loads(info_json(ANN)), {"client": "id-1", "conn_info": {"name": "ann"}})
        self.assertEqual(
            json.loads(info_json(USER)),
            {"user": "42", "client": "id-2", "conn_info": {"name": "Bo"}, "chan_info": {"role": "host"}},
        )
        self.assertEqual(info_json(Info("")), b"{}")

    def test_a_publication(self) -> None:
        self.assertEqual(
            json.loads(publication_json(SAID)),
            {
                "data": "hé\n",
                "info": {"client": "id-1", "conn_info": {"name": "ann"}},
                "offset": 7,
                "time": 1_700_000_000_250,
            },
        )
        self.assertIn(b'"data":{"a":1.50}', publication_json(VALUE))
        unkept = Publication("room", "ep", 0, Data.of_text("x"), ANN, 0.0)
        self.assertNotIn(b"offset", publication_json(unkept))

    def result(self, **values: Any) -> Any:
        since = Position("ep", 6) if values.pop("recovering", False) else None
        history = History([SAID, VALUE], Position("ep", 8), values.pop("recovered", True))
        known: dict[str, Any] = {"recoverable": True, "positioned": True, "data": b"", "ttl": None}
        return json.loads(subscribe_result(commands.SubscribeResult("c", history, since, **(known | values))))

    def test_the_result_of_a_subscribe(self) -> None:
        stands = {"recoverable": True, "positioned": True, "epoch": "ep", "offset": 8}
        self.assertEqual(self.result(), stands)
        recovered = self.result(recovering=True)
        self.assertEqual([each["offset"] for each in recovered.pop("publications")], [7, 8])
        self.assertEqual(recovered, stands | {"was_recovering": True, "recovered": True, "offset": 6})
        self.assertEqual(self.result(ttl=30), stands | {"expires": True, "ttl": 30})
        lost = self.result(recovering=True, recovered=False)
        self.assertEqual((lost["was_recovering"], "recovered" in lost, "publications" in lost), (True, False, False))
        self.assertEqual(self.result(recoverable=False, positioned=False), {})
        self.assertEqual(self.result(recoverable=False), {"positioned": True, "epoch": "ep", "offset": 8})

    def test_presence(self) -> None:
        self.assertEqual(
            json.loads(presence_result([ANN, USER])),
            {"presence": {"id-1": json.loads(info_json(ANN)), "id-2": json.loads(info_json(USER))}},
        )
        self.assertEqual(json.loads(presence_result([])), {"presence": {}})


class PushTests(SynchronousTestCase):
    def test_a_push(self) -> None:
        self.assertEqual(channel_push(b'"c\\""', "pub", b"{}"), b'{"push":{"channel":"c\\"","pub":{}}}')

    def test_a_disconnect_advises_whether_to_come_back(self) -> None:
        self.assertEqual(
            json.loads(disconnect_push(SHUTDOWN)),
            {"push": {"disconnect": {"code": 3001, "reason": "shutdown", "reconnect": True}}},
        )
        self.assertNotIn("reconnect", json.loads(disconnect_push(FORCE_DISCONNECT))["push"]["disconnect"])

    def pushes(self, events: list[Event], join_leave: bool = True, channel: str = "room") -> list[Any]:
        written = CentrifugoFormat(lines, join_leave).encode(channel, events)
        return [json.loads(each)["push"] for each in written.splitlines()]

    def test_a_batch_is_one_frame(self) -> None:
        for frame, split in (
            (lines, lambda data: data.splitlines()),
            (text_frame, lambda data: data[4:].split(b"\n")),
            (stream_lines, lambda data: data.split(b"\r\n")[1].splitlines()),
            (stream_events, lambda data: [each[6:] for each in data.split(b"\r\n")[1].splitlines() if each]),
        ):
            written = CentrifugoFormat(frame, False).encode('r"oom', [SAID, VALUE])
            values = [json.loads(each)["push"] for each in split(written)]
            self.assertEqual(
                [(each["channel"], each["pub"]["offset"]) for each in values], [('r"oom', 7), ('r"oom', 8)]
            )

    def test_comings_and_goings_only_where_they_were_asked_for(self) -> None:
        events: list[Event] = [Join(ANN), SAID, Rename("ann", Info("bob", "id-1")), Leave(ANN), Counts(200, 3)]
        self.assertEqual([list(each)[1] for each in self.pushes(events)], ["join", "pub", "leave", "join", "leave"])
        renamed = self.pushes(events)[2:4]
        names = [each[kind]["info"]["conn_info"]["name"] for each, kind in zip(renamed, ("leave", "join"), strict=True)]
        self.assertEqual(names, ["ann", "bob"])
        self.assertEqual([list(each)[1] for each in self.pushes(events, join_leave=False)], ["pub"])

    def test_nothing_to_tell_is_no_frame(self) -> None:
        for frame in (lines, text_frame, stream_lines, stream_events):
            self.assertEqual(CentrifugoFormat(frame, False).encode("room", [Join(ANN), Counts(1, 2)]), b"")
            self.assertEqual(CentrifugoFormat(frame, True).encode("room", []), b"")

    def test_formats_of_one_kind_are_one(self) -> None:
        """A channel encodes a batch once for each format: equal ones must count as one."""
        self.assertEqual(len({CentrifugoFormat(lines, True), CentrifugoFormat(lines, True)}), 1)
        self.assertEqual(len({CentrifugoFormat(lines, True), CentrifugoFormat(lines, False)}), 2)
        self.assertEqual(len({CentrifugoFormat(lines, True), CentrifugoFormat(text_frame, True)}), 2)

    def test_no_line_end_is_ever_inside_an_object(self) -> None:
        odd = Publication("room", "ep", 9, Data.of_json(b'{"a":\n[1,\r\n2]}'), Info("a\nb", "i\n"), 0.0)
        for each in (publication_json(odd), publication_json(SAID), presence_result([odd.info])):
            self.assertNotIn(b"\n", each)
            self.assertNotIn(b"\r", each)
