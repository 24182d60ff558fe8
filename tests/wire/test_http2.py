"""Frames of HTTP/2: written, and read."""

from hpack import Decoder
from twisted.trial.unittest import SynchronousTestCase

from longconn.wire import http2
from longconn.wire.http2 import ErrorCode, FrameReader, HTTP2Error


class WritingTests(SynchronousTestCase):
    def test_frames(self) -> None:
        self.assertEqual(http2.frame_header(0x010203, http2.DATA, 1, 5), b"\1\2\3\0\1\0\0\0\5")
        self.assertEqual(
            http2.goaway(7, ErrorCode.ENHANCE_YOUR_CALM, "no"), b"\0\0\x0a\7\0\0\0\0\0\0\0\0\7\0\0\0\x0bno"
        )
        self.assertEqual(http2.ping(b"12345678", ack=True), b"\0\0\x08\6\1\0\0\0\x0012345678")
        self.assertEqual(http2.window_update(3, 1000), b"\0\0\4\x08\0\0\0\0\3\0\0\3\xe8")
        self.assertEqual(http2.settings({3: 1}), b"\0\0\6\4\0\0\0\0\0\0\3\0\0\0\1")

    def test_header_blocks_are_read_by_hpack_and_fill_no_table(self) -> None:
        headers = [
            (b":status", b"200"),
            (b"a", b""),
            *((b"x" * size, b"y" * size) for size in (126, 127, 128, 300, 20_000)),
        ]
        reader = Decoder(max_header_list_size=100_000)
        self.assertEqual(list(reader.decode(http2.encode_headers(headers), raw=True)), headers)
        self.assertEqual(reader.header_table.maxsize, 4096)
        self.assertEqual(len(reader.header_table.dynamic_entries), 0)


class ReadingTests(SynchronousTestCase):
    def error(self, reader: FrameReader, data: bytes) -> ErrorCode:
        return self.assertRaises(HTTP2Error, lambda: list(reader.feed(data))).code

    def begun(self, limit: int = 1000) -> FrameReader:
        reader = FrameReader(limit)
        list(reader.feed(http2.PREFACE))
        return reader

    def test_frames_cut_at_every_byte(self) -> None:
        frames = [http2.ping(b"12345678"), http2.frame(http2.DATA, 1, 3, b"hello"), http2.settings({})]
        data = http2.PREFACE + b"".join(frames)
        whole = list(FrameReader(1000).feed(data))
        self.assertEqual([each[3] for each in whole], [http2.PREFACE, *frames])
        self.assertEqual([each[:3] for each in whole], [(-1, 0, 0), (6, 0, 0), (0, 1, 3), (4, 0, 0)])
        for cut in range(len(data)):
            reader = FrameReader(1000)
            self.assertEqual([*reader.feed(data[:cut]), *reader.feed(data[cut:])], whole)

    def test_an_iteration_that_is_left_goes_on(self) -> None:
        frames = [http2.ping(b"%08d" % number) for number in range(5)]
        reader = FrameReader(1000)
        first = next(reader.feed(http2.PREFACE + frames[0] + frames[1][:9]))
        self.assertEqual(first[0], -1)
        self.assertEqual(next(iter(reader))[3], frames[0])
        reader.feed(frames[1][9:] + frames[2])
        self.assertEqual(next(iter(reader))[3], frames[1])
        self.assertEqual([each[3] for each in reader.feed(frames[3] + frames[4][:1])], frames[2:4])
        self.assertEqual([each[3] for each in reader.feed(frames[4][1:])], frames[4:])

    def test_a_header_block(self) -> None:
        reader = self.begun()
        told = []
        data = http2.frame(http2.HEADERS, 0, 1, b"") + http2.ping(bytes(8)) + http2.frame(http2.CONTINUATION, 4, 1, b"")
        for _ in reader.feed(data):
            told.append(reader.in_block)
        self.assertEqual(told, [True, True, False])

    def test_parts_that_are_ignored(self) -> None:
        known = http2.settings({1: 0, 4: 2**31, 6: 7})
        self.assertEqual(http2.without_ignored(http2.SETTINGS, known), known)
        more = http2.settings({0: 1, 1: 0, 8: 1, 0x104: 9, 4: 2**31, 7: 1, 6: 7, 0xFFFF: 1})
        self.assertEqual(http2.without_ignored(http2.SETTINGS, more), known)
        for frame in (http2.frame(http2.SETTINGS, 0, 0, bytes(5)), http2.window_update(1, 2**31 - 1)):
            self.assertEqual(http2.without_ignored(frame[3], frame), frame)
        reserved = http2.frame(http2.WINDOW_UPDATE, 0, 3, b"\x80\0\0\5")
        self.assertEqual(http2.without_ignored(http2.WINDOW_UPDATE, reserved), http2.window_update(3, 5))

    def test_the_reserved_bit_is_ignored(self) -> None:
        ((_, _, stream, _),) = self.begun().feed(http2.frame_header(0, http2.DATA, 0, 0x80000003))
        self.assertEqual(stream, 3)

    def test_a_wrong_preface(self) -> None:
        self.assertEqual(self.error(FrameReader(1000), b"GET"), ErrorCode.PROTOCOL_ERROR)
        self.assertEqual(self.error(FrameReader(1000), http2.PREFACE[:-1] + b"x"), ErrorCode.PROTOCOL_ERROR)

    def test_sizes_of_frames(self) -> None:
        largest = http2.frame(http2.DATA, 0, 1, bytes(http2.MAX_FRAME_SIZE))
        self.assertEqual(len(list(self.begun().feed(largest))), 1)
        self.assertEqual(
            self.error(self.begun(), http2.frame_header(http2.MAX_FRAME_SIZE + 1, 0, 0, 1)), ErrorCode.FRAME_SIZE_ERROR
        )

    def test_limits_of_header_blocks(self) -> None:
        reader = self.begun()
        first, more = http2.frame(http2.HEADERS, 0, 1, bytes(600)), http2.frame(http2.CONTINUATION, 4, 1, bytes(400))
        for _ in range(3):
            self.assertEqual(len(list(reader.feed(first + more))), 2)
        list(reader.feed(first + more))
        last = http2.frame(http2.CONTINUATION, 0, 1, b"x")
        self.assertEqual(self.error(reader, last), ErrorCode.ENHANCE_YOUR_CALM)
        empty = http2.frame(http2.CONTINUATION, 0, 1, b"")
        self.assertEqual(self.error(self.begun(), first + empty * 33), ErrorCode.ENHANCE_YOUR_CALM)
