"""Positions, publications as JSON, and the bytes of streams."""

import json

from twisted.trial.unittest import SynchronousTestCase

from longconn.core.publication import Counts, Data, Info, Join, Leave, Position, Publication, Rename
from longconn.wire.sse import (
    EventFormat,
    StreamFormat,
    chunk,
    publication_json,
    quoted,
    read_position,
    write_position,
)

ADA = Info('a"da')
SAID = Publication("room", "ep_o-ch", 7, Data.of_text("héllo\n"), ADA, 1_700_000_000.25)
VALUE = Publication("room", "ep_o-ch", 8, Data.of_json(b'{"a": 1.50}'), ADA, 1_700_000_001.0)


class PositionTests(SynchronousTestCase):
    def test_what_is_written_is_read(self) -> None:
        for position in (Position("abc_-9", 0), Position("x", 10**18 - 1)):
            self.assertEqual(read_position(write_position(position)), position)

    def test_malformed_positions(self) -> None:
        bad = (
            "",
            ":",
            "a",
            "a:",
            ":1",
            "a:-1",
            "a:1.0",
            "a:b",
            "a:1\n",
            " a:1",
            "a:1 ",
            "a:1:2",
            "a:" + "9" * 19,
            "a" * 65 + ":1",
            "a:\u0661",
            "é:1",
            "a:+1",
            "a:1_0",
        )
        for text in bad:
            with self.subTest(text=text):
                self.assertIsNone(read_position(text))


class JSONTests(SynchronousTestCase):
    def test_the_members_and_their_order(self) -> None:
        written = publication_json(SAID, quoted("room"))
        self.assertEqual(
            written.decode(),
            '{"channel":"room","offset":7,"epoch":"ep_o-ch","data":"héllo\\n","name":"a\\"da","time":1700000000.250}',
        )

    def test_data_stays_as_it_was_written(self) -> None:
        self.assertIn(b'"data":{"a":1.50},', publication_json(VALUE, quoted("room")))

    def test_names_of_channels_are_quoted(self) -> None:
        self.assertEqual(json.loads(publication_json(SAID, quoted('a"b\\房')))["channel"], 'a"b\\房')


class StreamTests(SynchronousTestCase):
    def test_only_publications_are_written_as_lines(self) -> None:
        written = StreamFormat(chunked=False).encode("room", [Join(ADA), SAID, Counts(1, 2), VALUE, Leave(ADA)])
        first, second, rest = written.split(b"\n")
        self.assertEqual((json.loads(first)["data"], json.loads(second)["offset"], rest), ("héllo\n", 8, b""))

    def test_a_batch_is_one_chunk(self) -> None:
        plain = StreamFormat(chunked=False).encode("room", [SAID, VALUE])
        self.assertEqual(StreamFormat(chunked=True).encode("room", [SAID, VALUE]), chunk(plain))
        self.assertEqual(chunk(b"x" * 26), b"1a\r\n" + b"x" * 26 + b"\r\n")

    def test_an_empty_chunk_is_not_written_because_it_would_end_the_body(self) -> None:
        for make in (StreamFormat, EventFormat):
            self.assertEqual(make(chunked=True).encode("room", []), b"")
        self.assertEqual(StreamFormat(chunked=True).encode("room", [Join(ADA)]), b"")

    def test_formats_of_one_kind_are_equal(self) -> None:
        formats = {StreamFormat(True), StreamFormat(True), StreamFormat(False), EventFormat(True), EventFormat(False)}
        self.assertEqual(len(formats), 4)

    def test_heartbeats(self) -> None:
        self.assertEqual((StreamFormat(True).heartbeat, EventFormat(True).heartbeat), (b"\n", b":\n\n"))


class EventTests(SynchronousTestCase):
    def test_the_id_of_a_publication_is_its_position(self) -> None:
        written = EventFormat(chunked=False).encode("room", [SAID])
        self.assertTrue(written.startswith(b'id: ep_o-ch:7\ndata: {"channel":"room","offset":7,'))
        self.assertTrue(written.endswith(b"}\n\n"))
        self.assertEqual(written.count(b"\n"), 3)

    def test_joins_and_leaves_have_no_id(self) -> None:
        written = EventFormat(chunked=False).encode("room", [Join(ADA), Leave(ADA), Rename("b\no", ADA)]).decode()
        self.assertEqual(
            written.split("\n\n"),
            [
                'event: join\ndata: {"channel":"room","name":"a\\"da"}',
                'event: leave\ndata: {"channel":"room","name":"a\\"da"}',
                'event: leave\ndata: {"channel":"room","name":"b\\no"}',
                'event: join\ndata: {"channel":"room","name":"a\\"da"}',
                "",
            ],
        )

    def test_counts(self) -> None:
        written = EventFormat(chunked=False).encode("room", [Counts(3, 0), Counts(0, 2), Counts(1, 1)])
        self.assertEqual(written.count(b"event: join"), 2)
        self.assertEqual(written.count(b"event: leave"), 2)
        self.assertIn(b'event: join\ndata: {"channel":"room","count":3}\n\n', written)
