"""JSON objects as lines and messages."""

import json

from twisted.trial.unittest import SynchronousTestCase

from longconn.clients import JSONText, NotLongconn
from longconn.clients.transports.json_frames import Lines, raw_json, read_frame, write_frame


class FrameTests(SynchronousTestCase):
    def test_objects_written_and_read(self) -> None:
        objects = [{"id": 1, "error": {"message": "é\n大"}}, {}, {"id": 2, "connect": {"client": "c", "ping": 25}}]
        self.assertEqual(read_frame(write_frame(objects)), objects)
        self.assertEqual(
            json.loads(write_frame([{"half": "\ud800", "data": raw_json(1)}])), {"half": "\ud800", "data": 1}
        )

    def test_what_is_no_object_of_the_protocol_is_an_error_of_one_line(self) -> None:
        for other in (
            b"hello", b"[1]", b'{"id":1}\n"b"', b"\xff", b"[" * 100_000, 2 * b"\xef\xbb\xbf" + b"{}", b'{"id":NaN}',
            b'{"push":{"channel":"\\ud800"}}', b'{"push":{"channel":"c","pub":{"data":["\\udc00"]}}}',
            b'{"push":{"channel":"c","pub":{"data":"\xff"}}}', b'{"id":' + b"7" * 5000 + b"}", b'{"push":[]}',
        ):  # fmt: skip
            with self.subTest(other=other[:60]), self.assertRaises(NotLongconn) as caught:
                read_frame(other)
            self.assertNotIn("\n", str(caught.exception))

    def test_what_clients_do_not_read_is_skipped_whatever_it_holds(self) -> None:
        number = b"7" * 5000
        for line in (
            b'{"id":1,"connect":{"client":"c","data":%b,"subs":{"x":{"data":%b}}}}',
            b'{"push":{"channel":"c","join":{"info":{"client":"c","conn_info":[%b],"chan_info":%b}}}}',
            b'{"push":{"channel":"c","pub":{"data":1,"tags":%b,"delta":%b}}}',
        ):
            self.assertEqual(len(read_frame(line % (number, number))), 1)

    def test_values_that_are_not_json(self) -> None:
        for value in (object(), float("nan"), {1, 2}, b"bytes"):
            with self.assertRaisesRegex(Exception, "that is no JSON value"):
                raw_json(value)
        for text in ("", "{", "NaN", "[1] 2", "[" * 501 + "]" * 501, '["\\ud800"]'):
            with self.subTest(text=text[:20]), self.assertRaisesRegex(Exception, "that is no JSON value"):
                raw_json(JSONText(text))

    def test_texts_are_written_as_they_are_in_one_line(self) -> None:
        for text in ("1.50", "1e999", "7" * 5000, '{"a":1,"a":2}', "[" * 500 + "]" * 500):
            self.assertEqual(bytes(raw_json(JSONText(text))).decode(), text)
        self.assertEqual(bytes(raw_json(JSONText(' [1,\n "a b"] '))), b'[1,"a b"]')
        self.assertEqual(bytes(raw_json("1.50")), b'"1.50"')

    def test_lines_in_pieces(self) -> None:
        lines, found = Lines(), []
        for at in range(0, 20, 3):
            found += lines.feed(b"one\n\ntwo\r\nthree\nfour"[at : at + 3])
        self.assertEqual(found, [b"one", b"", b"two\r", b"three"])
        self.assertEqual(lines.feed(b"\nfive"), [b"four"])
