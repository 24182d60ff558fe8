"""gRPC's wire format: messages, metadata, timeouts, texts, statuses."""

import gzip
import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn.core import errors
from longconn.core.disconnects import DISCONNECTS, SHUTDOWN, Disconnect
from longconn.core.errors import NAME_TAKEN, CommandError, Reason
from longconn.wire import grpc_status
from longconn.wire.grpc import (
    Compressed,
    MessageReader,
    frame,
    percent_encoded,
    read_metadata,
    read_timeout,
    trailers,
    write_metadata,
)
from longconn.wire.grpc_request import NotGRPC, read_request
from longconn.wire.grpc_status import StatusCode, StatusError, status_of_disconnect, status_of_error

REQUEST = {b":method": b"POST", b":path": b"/a.B/C", b"content-type": b"application/grpc"}


def inflated(reader: MessageReader) -> bytes | None:
    """The next message."""
    message = reader.take()
    return message.inflate() if isinstance(message, Compressed) else message


class MessageTests(SynchronousTestCase):
    def refusal(self, reader: MessageReader) -> StatusCode:
        return self.assertRaises(StatusError, inflated, reader).code

    def test_a_frame(self) -> None:
        self.assertEqual(frame(b"hello"), b"\0\0\0\0\5hello")
        self.assertEqual(frame(b""), b"\0\0\0\0\0")

    def test_messages_in_pieces_and_several_at_once(self) -> None:
        reader = MessageReader(100)
        for each in frame(b"one") + frame(b""):
            reader.feed(bytes((each,)))
        reader.feed(frame(b"two")[:7])
        self.assertEqual([reader.take(), reader.take(), reader.take(), len(reader)], [b"one", b"", None, 7])
        reader.feed(frame(b"two")[7:])
        self.assertEqual([reader.take(), reader.take(), len(reader)], [b"two", None, 0])

    def test_only_messages_that_get_smaller_are_compressed(self) -> None:
        text = b"hello " * 100
        data = frame(text, gzip=True)
        self.assertEqual((data[0], gzip.decompress(data[5:])), (1, text))
        self.assertEqual(frame(b"hello", gzip=True), frame(b"hello"))
        noise = bytes((number * number * 7919 >> 5) & 255 for number in range(300))
        self.assertEqual(frame(noise, gzip=True)[0], 0)
        reader = MessageReader(1000, "gzip")
        reader.feed(data + frame(b"plain"))
        self.assertEqual([inflated(reader), reader.take()], [text, b"plain"])

    def test_limits_before_and_after_decompression(self) -> None:
        reader = MessageReader(10)
        reader.feed(frame(b"x" * 10) + frame(b"x" * 11)[:5])
        self.assertEqual(reader.take(), b"x" * 10)
        self.assertIs(self.refusal(reader), StatusCode.RESOURCE_EXHAUSTED)
        for size, fits in ((1000, True), (1001, False)):
            reader = MessageReader(1000, "gzip")
            reader.feed(b"\1" + frame(gzip.compress(bytes(size)))[1:])
            if fits:
                self.assertEqual(inflated(reader), bytes(size))
            else:
                self.assertIs(self.refusal(reader), StatusCode.RESOURCE_EXHAUSTED)

    def test_the_ratio_of_a_compressed_message_is_bounded(self) -> None:
        """Above 512 KiB a message may be a hundred times as large when it is inflated."""
        mib = 1024 * 1024
        for size, code in ((mib // 2, None), (mib // 2 + 1, StatusCode.RESOURCE_EXHAUSTED), (2 * mib, None)):
            reader = MessageReader(4 * mib, "gzip")
            compressed = gzip.compress(bytes(size) if size < mib else bytes(mib) + os.urandom(mib))
            reader.feed(b"\1" + frame(compressed)[1:])
            if code is None:
                self.assertEqual(len(inflated(reader) or b""), size)
            else:
                self.assertIs(self.refusal(reader), code)

    def test_not_more_is_inflated_than_a_message_announces(self) -> None:
        """The size is known before anything is inflated; a size that is a lie is an error."""
        bomb = gzip.compress(bytes(400_000))
        self.assertEqual(Compressed(bomb, 1_000_000).size, 400_000)
        lie = Compressed(bomb[:-4] + (10).to_bytes(4, "little"), 1_000_000)
        self.assertEqual(lie.size, 10)
        self.assertIs(self.assertRaises(StatusError, lie.inflate).code, StatusCode.INTERNAL)

    def test_malformed_messages(self) -> None:
        good = gzip.compress(b"hello")
        cases: list[tuple[str, int, bytes]] = [
            ("gzip", 2, good), ("identity", 1, good), ("gzip", 1, b"hello"), ("gzip", 1, b""), ("gzip", 1, good[:-3]),
            ("gzip", 1, good + good), ("gzip", 1, good[:-8] + bytes(8)),
        ]  # fmt: skip
        for encoding, flag, data in cases:
            reader = MessageReader(1000, encoding)
            reader.feed(bytes((flag,)) + frame(data)[1:])
            self.assertIs(self.refusal(reader), StatusCode.INTERNAL, (encoding, flag, data))


class TextTests(SynchronousTestCase):
    def test_timeouts(self) -> None:
        for text, seconds in (("1S", 1), ("99999999H", 359_999_996_400), ("2M", 120), ("15m", 0.015), ("0u", 0)):
            self.assertAlmostEqual(read_timeout(text) or 0, seconds)
        for text in ("", "S", "1", "1s", "1h", "-1S", "+1S", "1.0S", "123456789S", " 1S", "1S ", "\u0661S", "1S\n"):
            self.assertIsNone(read_timeout(text), text)

    def test_percent_encoding(self) -> None:
        for text, data in ((" ~", b" ~"), ("50%", b"50%25"), ("a\r\nb", b"a%0D%0Ab"), ("ä€", b"%C3%A4%E2%82%AC")):
            self.assertEqual(percent_encoded(text), data)
        self.assertEqual(percent_encoded("\ud800"), b"?")

    def test_metadata_that_is_written_is_read_again(self) -> None:
        metadata = (("a", "b c"), ("a", "~"), ("x.y_z-0", ""), ("raw-bin", b"\0\xff\xfe"), ("raw-bin", b""))
        written = write_metadata(metadata)
        self.assertIn((b"raw-bin", b"AP/+"), written)
        self.assertEqual(read_metadata(written), metadata)

    def test_metadata_that_does_not_conform_is_left_out(self) -> None:
        headers = [
            (b":path", b"/"), (b"te", b"trailers"), (b"content-type", b"x"), (b"grpc-timeout", b"1S"),
            (b"grpc-x", b"x"), (b"host", b"x"), (b"user-agent", b"me"), (b"a", b" padded\t"),
            (b"b-bin", b"AA, AQ==,Ag"), (b"c", b"\xff"), (b"d", b"a\nb"), (b"e!", b"x"), (b"\xff", b"x"),
        ]  # fmt: skip
        wanted = [("user-agent", "me"), ("a", "padded"), ("b-bin", b"\0"), ("b-bin", b"\1"), ("b-bin", b"\2")]
        found = read_metadata(headers)
        self.assertEqual(list(found), wanted)
        # All of it may be sent again.
        self.assertEqual(read_metadata(write_metadata(found)), found)
        for bad in (b"!", b"A", b"AA AA", b"\xff"):
            self.assertIs(self.assertRaises(StatusError, read_metadata, [(b"a-bin", bad)]).code, StatusCode.INTERNAL)

    def test_metadata_that_is_not_allowed(self) -> None:
        values: tuple[Any, ...] = (
            ("grpc-status", "0"), ("te", "x"), (":status", "200"), ("content-type", "x"), ("A", "b"), ("", "b"),
            ("a b", "c"), ("a", "\n"), ("a", "ä"), ("a", b"b"), ("a-bin", "b"), ("a", 1),
        )  # fmt: skip
        for each in values:
            self.assertRaises(ValueError, write_metadata, [each])


class RequestTests(SynchronousTestCase):
    def read(self, **more: bytes) -> Any:
        fields = {**REQUEST, **{key.replace("_", "-").encode(): value for key, value in more.items()}}
        return read_request(fields.items())

    def test_a_request(self) -> None:
        found = self.read(grpc_timeout=b"2S", grpc_encoding=b"gzip", grpc_accept_encoding=b"identity, gzip", x=b"y")
        self.assertEqual((found.path, found.timeout, found.encoding), ("/a.B/C", 2.0, "gzip"))
        self.assertEqual((found.accepts_gzip, found.metadata), (True, (("x", "y"),)))
        found = self.read(grpc_accept_encoding=b"gzipped")
        self.assertEqual((found.timeout, found.encoding, found.accepts_gzip), (None, "identity", False))

    def test_requests_that_are_not_grpc(self) -> None:
        for more, status in (({"content_type": b"text/html"}, 415), ({":method": b"GET"}, 405)):
            self.assertEqual(self.assertRaises(NotGRPC, self.read, **more).status, status)

    def test_requests_that_cannot_be_served(self) -> None:
        for more, code in (
            ({"grpc_encoding": b"br"}, StatusCode.UNIMPLEMENTED),
            ({"content_type": b"application/grpc+json"}, StatusCode.UNIMPLEMENTED),
            ({"grpc_timeout": b"soon"}, StatusCode.INTERNAL),
            ({"a_bin": b"!"}, StatusCode.INTERNAL),
        ):
            self.assertIs(self.assertRaises(StatusError, self.read, **more).code, code)


class StatusTests(SynchronousTestCase):
    def test_every_reason_and_every_disconnect_has_a_status(self) -> None:
        reasons = {each for each in vars(errors).values() if isinstance(each, Reason)}
        self.assertEqual(set(grpc_status.REASONS), reasons)
        self.assertEqual(set(grpc_status.DISCONNECTS), set(DISCONNECTS.values()))

    def test_disconnects_with_advice_to_reconnect_are_unavailable(self) -> None:
        for each in (SHUTDOWN, Disconnect(4000, "", "x")):
            self.assertIs(status_of_disconnect(each).code, StatusCode.UNAVAILABLE)
        self.assertIs(status_of_disconnect(Disconnect(4500, "", "x")).code, StatusCode.ABORTED)

    def test_numbers_and_texts(self) -> None:
        error = status_of_error(CommandError(NAME_TAKEN, name="ada"))
        self.assertEqual(
            trailers(error.code, error.message, error.metadata),
            [(b"grpc-status", b"6"), (b"grpc-message", b"the name ada is taken"), (b"longconn-code", b"153")],
        )
        self.assertEqual(trailers(StatusCode.OK), [(b"grpc-status", b"0")])
