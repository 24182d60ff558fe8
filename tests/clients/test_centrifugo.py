"""The protocol's parts that need neither a clock nor a connection."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn.clients import AddressError, Joined, Lost, NotLongconn, Position, Publication, Refused
from longconn.clients.address import parse_address
from longconn.clients.backoff import Backoff
from longconn.clients.centrifugo import Answer, Command, Ping, Push, ReplyMatcher
from longconn.clients.recovery import GapError, RecoveryPosition, read_member
from longconn.clients.transports.json_frames import Lines, check_json, read_frame, write_frame


class ConversationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.conversation = ReplyMatcher()

    def say(self, method: str, **body: Any) -> tuple[Command, Any]:
        command = Command(method, body, lambda answer: None)
        return command, self.conversation.say(command)

    def test_commands_are_numbered_and_answered(self) -> None:
        connect, said = self.say("connect")
        self.assertEqual(said, {"id": 1, "connect": {}})
        publish, said = self.say("publish", channel="c", data=1)
        self.assertEqual(said, {"id": 2, "publish": {"channel": "c", "data": 1}})
        self.assertEqual(self.conversation.hear({"id": 2, "publish": {}}), Answer(publish, {}))
        heard = self.conversation.hear({"id": 1, "error": {"code": 111, "message": "slowly", "temporary": True}})
        assert isinstance(heard, Answer)
        refused = heard.result
        assert isinstance(refused, Refused)
        self.assertEqual((heard.command, refused.code, refused.temporary), (connect, 111, True))
        self.assertEqual(str(refused), "slowly (111)")
        self.assertIsNone(self.conversation.hear({"id": 2, "publish": {}}))

    def test_pushes_and_pings(self) -> None:
        self.assertEqual(self.conversation.hear({}), Ping())
        push = {"channel": "c", "pub": {"data": 1}}
        self.assertEqual(self.conversation.hear({"push": push}), Push("c", "pub", {"data": 1}))
        self.assertEqual(
            self.conversation.hear({"push": {"disconnect": {"code": 1}}}), Push("", "disconnect", {"code": 1})
        )
        self.assertIsNone(self.conversation.hear({"push": {"channel": "c", "message": {}}}))

    def test_what_is_none_of_the_protocol(self) -> None:
        self.say("connect")
        pushes: list[Any] = [1, {"channel": 1, "pub": {}}, {"pub": []}]
        for value in ({"a": 1}, {"id": 1, "connect": 2}, *({"push": each} for each in pushes)):
            with self.assertRaises(NotLongconn):
                self.conversation.hear(value)


class PlaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.place = RecoveryPosition("c", None, True, False)
        self.assertEqual(self.place.on_subscribed({"recoverable": True, "epoch": "e", "offset": 3}), [])

    def push(self, offset: int) -> list[Any]:
        return self.place.on_push("pub", {"data": offset, "offset": offset})

    def test_from_one_publication_to_the_next(self) -> None:
        self.assertEqual(self.push(4), [Publication("c", 4, "e", 4, "", "")])
        self.assertEqual(self.push(4), [])
        self.assertEqual(self.place.position, Position("e", 4))
        self.assertEqual(self.place.request(""), {"channel": "c", "recover": True, "epoch": "e", "offset": 4})
        with self.assertRaises(GapError):
            self.push(6)
        self.assertEqual(self.place.position, Position("e", 4))

    def test_recovered_or_lost(self) -> None:
        told = {"recoverable": True, "epoch": "e", "offset": 5, "recovered": True, "was_recovering": True}
        events = self.place.on_subscribed(told | {"publications": [{"data": 1, "offset": 4}, {"data": 2, "offset": 5}]})
        self.assertEqual(
            [(each.offset, each.data) for each in events if isinstance(each, Publication)], [(4, 1), (5, 2)]
        )
        self.assertEqual(self.place.on_subscribed(told), [])
        told = {"recoverable": True, "epoch": "f", "offset": 1, "was_recovering": True}
        self.assertEqual(self.place.on_subscribed(told), [Lost("c", Position("e", 5), Position("f", 1))])

    def test_a_refused_position_is_a_loss(self) -> None:
        self.place.forget()
        self.assertEqual(self.place.request("t"), {"channel": "c", "token": "t"})
        events = self.place.on_subscribed({"recoverable": True, "epoch": "f"})
        self.assertEqual(events, [Lost("c", Position("e", 3), Position("f", 0))])

    def test_who_it_was(self) -> None:
        def name(**info: Any) -> str:
            (event,) = self.place.on_push("join", {"info": info})
            assert isinstance(event, Joined)
            return event.member.name

        self.assertEqual(name(client="i", user="u", conn_info={"name": "ann"}), "ann")
        self.assertEqual(name(client="i", user="u", conn_info={"name": 1}), "u")
        self.assertEqual(name(client="i", conn_info=[]), "i")
        self.assertEqual(name(client="i", conn_info={"name": ""}), "i")
        named = [
            read_member({"client": "i"} | more).named for more in ({}, {"user": "u"}, {"conn_info": {"name": "i"}})
        ]
        self.assertEqual(named, [False, True, True])
        (event,) = self.place.on_push("pub", {"data": None, "offset": 4, "time": 1_700_000_000_500})
        assert isinstance(event, Publication)
        self.assertEqual((event.name, event.time), ("", 1_700_000_000.5))

    def test_answers_that_are_none(self) -> None:
        for result in ({"recoverable": 1}, {"recoverable": True, "epoch": 5}, {"recovered": True, "publications": [1]}):
            place = RecoveryPosition("c", Position("e", 1), True, False)
            with self.assertRaises(NotLongconn):
                place.on_subscribed(result)


class FrameTests(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        objects = [{"a": "é\n大"}, {}, {"b": [1.5, None]}]
        self.assertEqual(read_frame(write_frame(objects)), objects)
        self.assertEqual(read_frame(write_frame([{"half": "\ud800"}])), [{"half": "\ud800"}])
        for other in (b"hello", b"[1]", b'{"a":1}\n"b"', b"\xff", b"[" * 100_000):
            with self.assertRaises(NotLongconn):
                read_frame(other)

    def test_what_is_no_json(self) -> None:
        for value in (object(), float("nan"), {1, 2}, b"bytes"):
            with self.assertRaisesRegex(Exception, "that is no JSON value"):
                check_json(value)

    def test_lines_in_pieces(self) -> None:
        lines, found = Lines(), []
        for at in range(0, 20, 3):
            found += lines.feed(b"one\n\ntwo\r\nthree\nfour"[at : at + 3])
        self.assertEqual(found, [b"one", b"", b"two\r", b"three"])
        self.assertEqual(lines.feed(b"\nfive"), [b"four"])


class AddressTests(SynchronousTestCase):
    def test_parts(self) -> None:
        for url, netloc, path in (
            ("tcp://localhost", "localhost:9999", ""),
            ("wss://Example.ORG/x?y=1", "example.org:443", "/x?y=1"),
            ("http://[::1]:80/", "[::1]:80", "/"),
            ("ws://bücher.example:1", "xn--bcher-kva.example:1", ""),
        ):
            address = parse_address(url)
            self.assertEqual((address.netloc, address.path), (netloc, path))

    def test_none(self) -> None:
        wrong = "localhost:9999 tcp:// tcp://h:x tcp://h:0 tcp://h:65536 ws://u:p@h ws://h#f tcp://[::1 ://h tcp://h^i"
        for url in (*wrong.split(), "", "ws://h/a b", "tcp://a b", "tcp://h\r\nx", "ws://h/\u00e9"):
            with self.assertRaises(AddressError) as caught:
                parse_address(url)
            self.assertNotIn("\n", str(caught.exception))


class BackoffTests(SynchronousTestCase):
    def test_bounds(self) -> None:
        most, least = Backoff(lambda: 1.0), Backoff(lambda: 0.0)
        self.assertEqual([most.delay() for _ in range(8)], [1.0, 1.5, 2.5, 4.5, 8.5, 16.5, 20.0, 20.0])
        self.assertEqual([least.delay() for _ in range(8)], [0.5] * 8)
        most.reset()
        self.assertEqual(most.delay(), 1.0)
