"""JSON objects as lines and messages."""

from twisted.trial.unittest import SynchronousTestCase

from longconn.clients import NotLongconn
from longconn.clients.transports.json_frames import Lines, check_json, read_frame, write_frame


class FrameTests(SynchronousTestCase):
    def test_objects_written_and_read(self) -> None:
        objects = [{"a": "é\n大"}, {}, {"b": [1.5, None]}]
        self.assertEqual(read_frame(write_frame(objects)), objects)
        self.assertEqual(read_frame(write_frame([{"half": "\ud800"}])), [{"half": "\ud800"}])
        for other in (b"hello", b"[1]", b'{"a":1}\n"b"', b"\xff", b"[" * 100_000):
            with self.assertRaises(NotLongconn):
                read_frame(other)

    def test_values_that_are_not_json(self) -> None:
        for value in (object(), float("nan"), {1, 2}, b"bytes"):
            with self.assertRaisesRegex(Exception, "that is no JSON value"):
                check_json(value)

    def test_lines_in_pieces(self) -> None:
        lines, found = Lines(), []
        for at in range(0, 20, 3):
            found += lines.feed(b"one\n\ntwo\r\nthree\nfour"[at : at + 3])
        self.assertEqual(found, [b"one", b"", b"two\r", b"three"])
        self.assertEqual(lines.feed(b"\nfive"), [b"four"])
