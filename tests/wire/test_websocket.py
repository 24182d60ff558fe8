"""Frames, compared with those of the `websockets` library."""

import random

from twisted.trial.unittest import SynchronousTestCase
from websockets.frames import Frame, Opcode

from longconn.testing import client_frame
from longconn.wire.websocket import PING, frame, take_texts, text_frames

LIMIT = 65_536
SIZES = (0, 1, 2, 3, 4, 5, 7, 124, 125, 126, 127, 128, 255, 256, 1_000, 1_001, 65_534, 65_535)


def theirs(payload: bytes, opcode: Opcode = Opcode.TEXT, fin: bool = True, mask: bool = True) -> bytes:
    """A frame as the `websockets` library writes it."""
    return Frame(opcode, payload, fin).serialize(mask=mask)


class WriteTests(SynchronousTestCase):
    def test_frames_equal_those_of_another_library(self) -> None:
        for size in (*SIZES, 65_536, 65_537, 100_000):
            payload = b"x" * size
            self.assertEqual(frame(payload), theirs(payload, mask=False))
            self.assertEqual(frame(payload, 0x82), theirs(payload, Opcode.BINARY, mask=False))
        self.assertEqual(PING, theirs(b"", Opcode.PING, mask=False))

    def test_each_line_is_a_frame(self) -> None:
        self.assertEqual(text_frames(["a", "é"]), theirs(b"a", mask=False) + theirs("é".encode(), mask=False))


class TakeTests(SynchronousTestCase):
    def test_every_length(self) -> None:
        for size in SIZES:
            payload = random.Random(size).randbytes(size)
            for data in (theirs(payload), client_frame(payload)):
                self.assertEqual(take_texts(data, LIMIT), ([payload], len(data)))

    def test_many_frames_in_a_row(self) -> None:
        payloads = [b"x" * size for size in SIZES]
        data = b"".join(map(theirs, payloads))
        self.assertEqual(take_texts(data, LIMIT), (payloads, len(data)))

    def test_a_key_of_zeros_and_payloads_of_zeros(self) -> None:
        self.assertEqual(take_texts(b"\x81\x83\0\0\0\0abc", LIMIT), ([b"abc"], 9))
        data = theirs(b"\0\0\0\0\0")
        self.assertEqual(take_texts(data, LIMIT), ([b"\0\0\0\0\0"], len(data)))

    def test_a_frame_that_is_cut_off_is_not_taken(self) -> None:
        first = theirs(b"first")
        for payload in (b"", b"x", b"x" * 126, b"x" * 300):
            second = theirs(payload)
            for size in range(len(second)):
                self.assertEqual(take_texts(first + second[:size], LIMIT), ([b"first"], len(first)))

    def test_an_unusual_frame_is_left_for_the_full_parser(self) -> None:
        plain = theirs(b"plain")
        unusual = {
            "unmasked": theirs(b"x", mask=False),
            "binary": theirs(b"x", Opcode.BINARY),
            "a fragment": theirs(b"x", fin=False),
            "a continuation": theirs(b"x", Opcode.CONT),
            "a close": theirs(b"\x03\xe8", Opcode.CLOSE),
            "a ping": theirs(b"", Opcode.PING),
            "a pong": theirs(b"", Opcode.PONG),
            "a reserved bit": bytes([theirs(b"x")[0] | 0x40]) + theirs(b"x")[1:],
            "a reserved opcode": b"\x83" + theirs(b"x")[1:],
            "eight bytes of length": theirs(b"x" * 70_000),
            "a length that is not the shortest": b"\x81\xfe\x00\x05\0\0\0\0hello",
        }
        for name, data in unusual.items():
            with self.subTest(name=name):
                self.assertEqual(take_texts(plain + data + plain, 1_000_000), ([b"plain"], len(plain)))

    def test_a_frame_over_the_limit_is_left_for_the_full_parser(self) -> None:
        data = theirs(b"x" * 101)
        self.assertEqual(take_texts(data, 100), ([], 0))
        self.assertEqual(take_texts(data, 101), ([b"x" * 101], len(data)))

    def test_random_streams_cut_at_random_are_never_misread(self) -> None:
        source = random.Random(7)
        for _ in range(300):
            payloads = [source.randbytes(source.choice((0, 1, 5, 125, 126, 200))) for _ in range(source.randrange(6))]
            data = b"".join(map(theirs, payloads))
            cut = data[: source.randrange(len(data) + 1)]
            texts, end = take_texts(cut, LIMIT)
            self.assertEqual(texts, payloads[: len(texts)])
            self.assertEqual(end, sum(len(theirs(each)) for each in texts))
            self.assertTrue(len(texts) == len(payloads) or len(cut) < end + len(theirs(payloads[len(texts)])))
