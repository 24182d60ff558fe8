"""Each codec on generated input: what is written is read again, and bytes cut anywhere give what one piece gives.

The whole server is cut, too: chat lines, commands, requests and frames get the same answer in any segments.
"""

import json
import re
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from longconn.core.errors import CommandError
from longconn.core.publication import Data, Info, Join, Leave, Position, Publication, Rename
from longconn.protocols.centrifugo import client_pb2 as centrifugo
from longconn.protocols.centrifugo.protobuf import MALFORMED, CentrifugoProtobuf, binary_frame, delimited, split
from longconn.redis import records
from longconn.testing import MemoryServer, client_frame
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.centrifugo import publication_json as centrifugo_json
from longconn.wire.chat import ChatFormat, crlf, safe
from longconn.wire.chat_texts import EN
from longconn.wire.first_bytes import Kind, detect
from longconn.wire.grpc import MessageReader, frame, percent_encoded
from longconn.wire.grpc_messages import MessageFormat
from longconn.wire.grpc_status import StatusError
from longconn.wire.http2 import PREFACE, FrameReader, HTTP2Error
from longconn.wire.http2 import frame as http2_frame
from longconn.wire.sse import EventFormat, StreamFormat, read_position, write_position
from longconn.wire.websocket import take_texts

#: Examples do not depend on the run: a failure is the same everywhere.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("repeatable")

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
JSON_BYTES = st.just(b"") | VALUES.map(lambda value: json.dumps(value).encode())
INFOS = st.builds(Info, TEXTS, TEXTS, TEXTS, JSON_BYTES, JSON_BYTES, st.booleans())
DATA = VALUES.map(Data.of_value)
EPOCHS = st.from_regex(r"[A-Za-z0-9_]{11}", fullmatch=True)
TIMES = st.integers(0, 2**41).map(lambda milliseconds: milliseconds / 1000)
PUBLICATIONS = st.builds(Publication, st.just("news"), EPOCHS, st.integers(1, 10**12), DATA, INFOS, TIMES)
#: Where bytes are cut: parts of the whole.
CUTS = st.lists(st.floats(0, 1), max_size=8)


def pieces(data: bytes, cuts: list[float]) -> list[bytes]:
    at = sorted({int(each * len(data)) for each in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(at)] or [b""]


class RoundTripTests(SynchronousTestCase):
    @given(VALUES)
    def test_data(self, value: Any) -> None:
        self.assertEqual(json.loads(Data.of_value(value).json), json.loads(json.dumps(value)))

    @given(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), st.integers(0, 10**18 - 1))
    def test_a_position(self, epoch: str, offset: int) -> None:
        position = Position(epoch, offset)
        self.assertEqual(read_position(write_position(position)), position)

    @given(PUBLICATIONS)
    def test_a_record_in_redis(self, made: Publication) -> None:
        record = records.write_publication(made.data, made.info)
        read = records.read_publication(made.channel, made.epoch, made.offset, record, made.time)
        self.assertEqual((read.data.json, read.data.size, read.info), (made.data.json, made.data.size, made.info))
        message = b"P%b:%d:%d:%d:%b" % (made.epoch.encode(), made.offset, made.time * 1000, len(record), record)
        (again,) = records.read_publications("news", message)
        self.assertEqual((again.offset, again.epoch, again.data.json), (made.offset, made.epoch, made.data.json))

    @given(INFOS, TEXTS)
    def test_members_and_announcements_in_redis(self, info: Info, old: str) -> None:
        self.assertEqual(records.read_member(records.write_member(info)), info)
        for each in (Join(info), Leave(info), Rename(old, info)):
            self.assertEqual(records.read_announcement(records.write_announcement(each)), each)

    @given(st.lists(st.binary(max_size=300), max_size=6))
    def test_delimited_messages(self, messages: list[bytes]) -> None:
        self.assertEqual(split(b"".join(map(delimited, messages))), messages)

    @given(PUBLICATIONS)
    def test_a_publication_in_each_wire_format(self, made: Publication) -> None:
        value = json.loads(made.data.json)
        self.assertEqual(json.loads(StreamFormat(False).encode("news", [made]))["data"], value)
        event = EventFormat(False).encode("news", [made]).decode()
        self.assertEqual(json.loads(event.partition("data: ")[2])["data"], value)
        self.assertEqual(json.loads(centrifugo_json(made))["data"], value)
        message = MessageFormat().encode("news", [made])
        found = pb.SubscribeResponse.FromString(message[0][5:] if isinstance(message, tuple) else message[5:])
        self.assertEqual(json.loads(found.publication.data), value)
        pushed = CentrifugoProtobuf(binary_frame, 65536).format(False).encode("news", [made])
        frame_size = 2 if pushed[1] < 126 else 4
        (one,) = split(bytes(pushed[frame_size:]))
        self.assertEqual(json.loads(centrifugo.Reply.FromString(one).push.pub.data), value)

    @given(TEXTS)
    def test_a_chat_line_is_one_line_for_each_line_of_its_text(self, text: str) -> None:
        made = Publication("news", "e", 1, Data.of_text(text), Info("mia"), 0.0)
        lines = ChatFormat(EN, crlf).encode("news", [made]).decode().split("\r\n")
        self.assertEqual(lines.pop(), "")
        self.assertTrue(all(each.startswith("mia: ") for each in lines), lines)
        shown = "".join(each.removeprefix("mia: ") for each in lines)
        self.assertEqual(safe(shown), shown)

    @given(st.text(max_size=60))
    def test_percent_encoded_text_is_printable(self, text: str) -> None:
        self.assertRegex(percent_encoded(text), rb"\A[\x20-\x7e]*\Z")


class SegmentTests(SynchronousTestCase):
    """Whole frames, what was taken, and the error, if there is one, are those of one piece."""

    def read_frames(self, parts: list[bytes]) -> Any:
        reader, found = FrameReader(1000), []
        try:
            for part in parts:
                found += reader.feed(part)
        except HTTP2Error as error:
            found.append(str(error))
        return found

    @given(st.lists(st.binary(max_size=60), max_size=6), st.binary(max_size=40), CUTS)
    def test_http2_frames(self, payloads: list[bytes], rest: bytes, cuts: list[float]) -> None:
        data = PREFACE + b"".join(http2_frame(number % 12, 0, 1, each) for number, each in enumerate(payloads)) + rest
        self.assertEqual(self.read_frames(pieces(data, cuts)), self.read_frames([data]))

    @given(st.lists(st.binary(max_size=60), max_size=6), st.binary(max_size=40), CUTS)
    def test_grpc_messages(self, messages: list[bytes], rest: bytes, cuts: list[float]) -> None:
        def read(parts: list[bytes]) -> Any:
            reader, found = MessageReader(1000), []
            try:
                for part in parts:
                    reader.feed(part)
                    while (message := reader.take()) is not None:
                        found.append(message)
            except StatusError as error:
                return found, str(error)
            return found, len(reader)

        data = b"".join(map(frame, messages)) + rest
        self.assertEqual(read(pieces(data, cuts)), read([data]))

    @given(st.lists(st.binary(max_size=200), max_size=6), st.binary(max_size=40), CUTS)
    def test_text_frames(self, payloads: list[bytes], rest: bytes, cuts: list[float]) -> None:
        data = b"".join(map(client_frame, payloads)) + rest
        whole, end = take_texts(data, 1000)
        self.assertEqual(whole[: len(payloads)], payloads)
        found: list[bytes] = []
        waiting = b""
        for part in pieces(data, cuts):
            taken, at = take_texts(waiting + part, 1000)
            found += taken
            waiting = (waiting + part)[at:]
        self.assertEqual((found, waiting), (whole, data[end:]))

    @given(st.binary(max_size=80), CUTS)
    def test_delimited_noise(self, data: bytes, cuts: list[float]) -> None:
        messages = split(data)
        whole = [each for each in messages if each is not MALFORMED]
        self.assertTrue(data.startswith(b"".join(map(delimited, whole))) or MALFORMED in messages or not whole)

    @given(
        st.binary(max_size=30) | st.sampled_from([b"GET / HTTP/1.1\r\n", b"hello\n", PREFACE, b"\x16\x03\x01"]), CUTS
    )
    def test_the_first_bytes_decide_once(self, data: bytes, cuts: list[float]) -> None:
        seen = b""
        decided = Kind.UNDECIDED
        for part in pieces(data, cuts):
            before, seen = len(seen), seen + part
            kind = detect(seen, 100, before if decided is Kind.UNDECIDED else 0)
            if decided not in (Kind.UNDECIDED, Kind.EMPTY):
                self.assertEqual(kind, decided)
            decided = kind


#: What differs between two servers: ids, secrets, epochs, times.
_OWN = re.compile(rb'"(?:client|session|node|version)":"[^"]*"|"epoch":"[^"]*"|"time":[\d.]+|Date: [^\r]*|id: [^:\n]*')
#: The heads of the server's frames, which may hold one line or several.
_FRAMES = re.compile(rb"[\x81\x88](?:\x7e[\x00-\xff]{2}|[\x00-\x7d])|\n")
_LINES = st.lists(
    st.sampled_from(
        ["hello", "ping", "/who", "/nick mia", "/join den", "/history", "/help", "//x", "/json {", "房间", ""]
    )
    | TEXTS.map(lambda text: text.replace("\n", " ").replace("\r", " ")),
    max_size=6,
).map(lambda lines: "".join(each + "\n" for each in lines).encode())
_COMMANDS = st.lists(
    st.sampled_from(
        [{"subscribe": {"channel": "a"}}, {"publish": {"channel": "a", "data": 1}}, {"ping": {}}, {"presence": {}},
         {"history": {"channel": "a", "limit": -1}}, {"nonsense": {}}, {"unsubscribe": {"channel": "a"}}]
    ),
    max_size=6,
).map(lambda bodies: [json.dumps({"id": id, **body}).encode() for id, body in enumerate(bodies, 2)])  # fmt: skip
_REQUESTS = st.lists(
    st.sampled_from(
        [b"GET /PrintHello HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n",
         b"POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
         b"POST /channels/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
         b"GET /channels/a HTTP/1.1\r\nHost: localhost\r\n\r\n", b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n"]
    ),
    max_size=4,
).map(b"".join)  # fmt: skip
_UPGRADE = (
    b"GET %b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class ServerTests(SynchronousTestCase):
    """The answer of a whole server to the same bytes."""

    def answer(self, kind: str, parts: list[bytes]) -> bytes:
        """What comes back. All parts come in one turn: replies and what others say are in order within one."""
        server = MemoryServer()
        connection = server.connect(server._factory(kind), local=IPv4Address("TCP", "127.0.0.1", 50_000))
        for part in parts:
            connection.send(part)
        server.settle()
        answered = bytes(connection.received)
        server.stop()
        return _OWN.sub(b"", answered)

    def compare(self, kind: str, data: bytes, cuts: list[float]) -> None:
        self.assertEqual(self.answer(kind, pieces(data, cuts)), self.answer(kind, [data]))

    @settings(max_examples=30)
    @given(_LINES, CUTS)
    def test_chat_lines(self, data: bytes, cuts: list[float]) -> None:
        self.compare("lines", data, cuts)

    @settings(max_examples=30)
    @given(_REQUESTS, CUTS)
    def test_requests(self, data: bytes, cuts: list[float]) -> None:
        self.compare("http", data, cuts)

    @settings(max_examples=30)
    @given(_COMMANDS, CUTS)
    def test_commands(self, items: list[bytes], cuts: list[float]) -> None:
        self.compare("lines", b"".join(each + b"\n" for each in (b'{"id":1,"connect":{}}', *items)), cuts)

    def compare_frames(self, path: bytes, lines: list[bytes], cuts: list[float]) -> None:
        """The server may put more or fewer lines into a frame."""
        data = _UPGRADE % path + b"".join(map(client_frame, lines))
        whole, cut = (self.answer("http", each).partition(b"\r\n\r\n") for each in ([data], pieces(data, cuts)))
        self.assertEqual(cut[0], whole[0])
        self.assertEqual(_FRAMES.sub(b"", cut[2]), _FRAMES.sub(b"", whole[2]))

    @settings(max_examples=30)
    @given(_COMMANDS, CUTS)
    def test_commands_over_websocket(self, items: list[bytes], cuts: list[float]) -> None:
        self.compare_frames(b"/connection/websocket", [b'{"id":1,"connect":{}}', *items], cuts)

    @settings(max_examples=30)
    @given(_LINES, CUTS)
    def test_chat_over_websocket(self, data: bytes, cuts: list[float]) -> None:
        self.compare_frames(b"/ws", [each for each in data.split(b"\n") if each], cuts)

    def test_what_is_compared_differs_where_the_bytes_do(self) -> None:
        self.assertNotEqual(self.answer("lines", [b"/nick mia\n"]), self.answer("lines", [b"/nick bob\n"]))
        self.assertRaises(CommandError, Data.of_json, b"{")
