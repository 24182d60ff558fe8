"""Hostile HTTP/2: the connection ends with the right error, little is kept, and others are undisturbed."""

import gzip
import struct
from typing import Any

from hyperframe.frame import Frame, GoAwayFrame, RstStreamFrame
from twisted.internet.address import IPv4Address

from longconn.core.publication import Data, Info
from longconn.protocols.grpc.limits import MAX_STREAMS
from longconn.v1 import longconn_pb2 as pb
from tests.protocols.grpc import frames
from tests.protocols.grpc.frames import (
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    prefixed,
)
from tests.protocols.grpc.http2_kit import Case as Kit
from tests.protocols.grpc.http2_kit import Peer

PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 0x1, 0x3, 0x5, 0x6
COMPRESSION_ERROR, CALM = 0x9, 0xB
OPEN = frames.PREFACE + frames.settings({})
REQUEST = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/t/Stall"),
    (b":authority", b"localhost"),
    (b"content-type", b"application/grpc"),
]
BLOCK = frames.encode_headers(REQUEST)
ECHO = frames.encode_headers([*REQUEST[:2], (b":path", b"/t/Echo"), *REQUEST[3:]])


def head(stream: int, block: bytes = BLOCK, flags: int = frames.END_HEADERS) -> bytes:
    return frames.frame(HEADERS, flags, stream, block)


class Case(Kit):
    """Somebody else has a stream on a connection of its own, before and after."""

    def setUp(self) -> None:
        super().setUp()
        self.witness = self.peer()
        self.stream = self.witness.begin("/t/Both")

    def undisturbed(self) -> None:
        self.witness.send(self.stream, prefixed(b"still here"))
        self.assertIn(b"still here", self.witness.messages(self.stream))

    def rogue(self, data: bytes = OPEN) -> Any:
        connection = self.server.connect(self.factory)
        connection.send(data)
        self.server.settle()
        return connection

    def verdict(self, connection: Any) -> tuple[int, str]:
        """The error and the text of the GOAWAY that is the last thing that was sent."""
        self.server.settle()
        found = sent(connection.received)
        (goaway,) = [each for each in found if isinstance(each, GoAwayFrame)]
        self.assertIs(found[-1], goaway)
        self.server.advance(3)
        self.assertTrue(connection.closed)
        self.undisturbed()
        return goaway.error_code, goaway.additional_data.decode()

    def error(self, data: bytes) -> int:
        """The error with which a connection ends that sends this."""
        return self.verdict(self.rogue(data))[0]


def sent(data: bytes) -> list[Frame]:
    """What a server sent: whole frames alone."""
    found, rest = frames.read(bytes(data))
    assert not rest, rest
    return [each for each, _ in found]


def resets(data: bytes) -> list[tuple[int, int]]:
    """Stream and error of each RST_STREAM that a server sent."""
    return [(each.stream_id, each.error_code) for each in sent(data) if isinstance(each, RstStreamFrame)]


class HandshakeTests(Case):
    def test_a_preface_and_nothing_more(self) -> None:
        self.serve(handshake_timeout=3)
        self.witness = self.peer()
        self.stream = self.witness.begin("/t/Both")
        for data in (b"", frames.PREFACE[:10], frames.PREFACE, frames.PREFACE + frames.settings({})[:5]):
            connection = self.rogue(data)
            self.server.advance(2)
            self.assertFalse(connection.closed)
            self.server.advance(2)
            self.assertEqual(self.verdict(connection), (PROTOCOL_ERROR, "no settings in time"))

    def test_no_preface(self) -> None:
        self.assertEqual(self.error(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), PROTOCOL_ERROR)
        self.assertEqual(self.error(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"), PROTOCOL_ERROR)

    def test_settings_are_first(self) -> None:
        for first in (frames.ping(b"12345678"), head(1), frames.frame(SETTINGS, frames.ACK, 0, b"")):
            self.assertEqual(self.error(frames.PREFACE + first), PROTOCOL_ERROR)


class FormTests(Case):
    def test_sizes_that_are_wrong(self) -> None:
        for number, data in enumerate(
            (
                frames.frame(PING, 0, 0, b"1234567"),
                frames.frame(PING, 0, 0, b"123456789"),
                frames.frame(SETTINGS, 0, 0, b"12345"),
                frames.frame(SETTINGS, frames.ACK, 0, b"123456"),
                frames.frame(WINDOW_UPDATE, 0, 0, b"123"),
                frames.frame(WINDOW_UPDATE, 0, 0, b""),
                head(1) + frames.frame(RST_STREAM, 0, 1, b"12345"),
                head(1) + frames.frame(PRIORITY, 0, 1, b"1234"),
                frames.head(16_385, DATA, 0, 1),
                frames.head(2**24 - 1, HEADERS, 0, 1),
            )
        ):
            self.assertEqual(self.error(OPEN + data), FRAME_SIZE_ERROR, number)

    def test_a_frame_that_is_too_large_is_not_waited_for(self) -> None:
        self.assertEqual(self.error(OPEN + frames.head(16_385, DATA, 0, 1)), FRAME_SIZE_ERROR)

    def test_an_order_that_is_wrong(self) -> None:
        cases = {
            "data on an idle stream": frames.frame(DATA, 0, 1, b"x"),
            "data on stream 0": frames.frame(DATA, 0, 0, b"x"),
            "a request on stream 0": head(0),
            "a request on an even stream": head(2),
            "a stream that is older": head(5) + head(3),
            "a reset of an idle stream": frames.frame(RST_STREAM, 0, 7, bytes(4)),
            "a window for an idle stream": frames.window_update(7, 1),
            "a window of nothing": frames.window_update(0, 0),
            "a continuation of nothing": frames.frame(frames.CONTINUATION, 4, 1, b""),
            "something else within a block": head(1, flags=0) + frames.ping(b"12345678"),
            "another stream within a block": head(1, flags=0) + frames.frame(frames.CONTINUATION, 4, 3, b""),
            "a goaway within a block": head(1, flags=0) + frames.goaway(0, 0),
            "a push by a client": frames.frame(frames.PUSH_PROMISE, 4, 1, bytes(4)),
            "settings on a stream": frames.frame(SETTINGS, 0, 1, b""),
            "a ping on a stream": frames.frame(PING, 0, 1, bytes(8)),
            "trailers that are not the end": head(1) + head(1, frames.encode_headers([(b"a", b"b")])),
            "padding that is too long": head(1) + frames.frame(DATA, 8, 1, b"\x09abc"),
            "a frame size that cannot be": frames.settings({5: 1}),
            "a push setting that cannot be": frames.settings({2: 2}),
        }
        for name, data in cases.items():
            self.assertEqual(self.error(OPEN + data), PROTOCOL_ERROR, name)

    def test_windows_that_cannot_be(self) -> None:
        self.assertEqual(self.error(OPEN + frames.settings({4: 2**31})), FLOW_CONTROL_ERROR)
        self.assertEqual(self.error(OPEN + frames.window_update(0, 2**31 - 1)), FLOW_CONTROL_ERROR)

    def test_a_reserved_bit_says_nothing(self) -> None:
        """RFC 9113, sections 4.1 and 6.9."""
        connection = self.rogue(frames.PREFACE + frames.settings({4: 0}) + head(1, ECHO))
        connection.send(frames.frame(DATA, 1, 1, prefixed(b"hello")))
        update = bytearray(frames.window_update(1, 2**31 | 10))
        update[5] |= 0x80
        connection.send(bytes(update))
        self.server.settle()
        self.assertIn(frames.frame(DATA, 0, 1, prefixed(b"hello")), bytes(connection.received))

    def test_a_malformed_request_is_the_end_of_its_stream_alone(self) -> None:
        for each in (
            REQUEST[1:], [*REQUEST[1:], REQUEST[0]], [*REQUEST, (b"X-A", b"b")], [*REQUEST, (b"te", b"gzip")],
            [*REQUEST, (b"content-length", b"-1")], [*REQUEST, (b"content-length", b"1" * 9_000)],
            [*REQUEST, (b"content-length", b"0"), (b"content-length", b"1")], [*REQUEST, (b"content-length", b"1")],
        ):  # fmt: skip
            connection = self.rogue(OPEN + head(1, ECHO) + head(3, frames.encode_headers(each), flags=5))
            connection.send(frames.frame(DATA, 1, 1, prefixed(b"still here")))
            self.server.settle()
            self.assertEqual(resets(connection.received), [(3, PROTOCOL_ERROR)], each)
            self.assertIn(frames.frame(DATA, 0, 1, prefixed(b"still here")), bytes(connection.received))

    def test_malformed_trailers_end_their_call(self) -> None:
        peer = self.peer()
        streams = [peer.begin("/t/Both") for _ in range(2)]
        peer.raw(head(streams[0], frames.encode_headers([(b"fine", b"yes")]), flags=5))
        peer.raw(head(streams[1], frames.encode_headers([(b":path", b"/")]), flags=5))
        self.assertEqual([peer.resets(each) for each in streams], [[], [PROTOCOL_ERROR]])
        self.assertEqual([each.cancelled for each in self.calls[-2:]], [False, True])
        self.works(peer)

    def test_a_body_is_as_long_as_its_head_says(self) -> None:
        """RFC 9113, section 8.1.1."""
        whole = prefixed(b"hello")
        for parts, trailers, right in (
            ([whole], False, True), ([whole[:4], whole[4:], b""], False, True), ([whole], True, True),
            ([whole[:4]], False, False), ([whole[:4]], True, False), ([whole[:4], whole], False, False),
            ([whole + b"x"], False, False),
        ):  # fmt: skip
            block = frames.encode_headers(
                [*REQUEST[:2], (b":path", b"/t/Both"), *REQUEST[3:], (b"content-length", b"10")]
            )
            connection = self.rogue(OPEN + head(1, block) + head(3, ECHO))
            for part in parts[:-1]:
                connection.send(frames.frame(DATA, 0, 1, part))
            connection.send(frames.frame(DATA, 0 if trailers else 1, 1, parts[-1]))
            if trailers:
                connection.send(head(1, b"", flags=5))
            connection.send(frames.frame(DATA, 1, 3, prefixed(b"still here")))
            self.server.settle()
            self.assertEqual(resets(connection.received), [] if right else [(1, PROTOCOL_ERROR)], parts)
            self.assertEqual(self.calls[-2].cancelled, not right)
            self.assertIn(frames.frame(DATA, 0, 3, prefixed(b"still here")), bytes(connection.received))

    def test_malformed_requests_count_as_resets(self) -> None:
        connection = self.rogue(OPEN)
        for number in range(10_000):
            connection.send(head(2 * number + 1, frames.encode_headers(REQUEST[1:]), flags=5))
            if not number % 50:
                self.server.settle()
            if connection.transport.protocol.ended:
                break
        self.assertEqual(self.verdict(connection), (CALM, "too many resets"))
        self.assertLess(number, 2_100)

    def test_data_after_the_end_is_the_end_of_its_stream(self) -> None:
        connection = self.rogue(OPEN + head(1, flags=5) + head(3) + frames.frame(DATA, 0, 1, b"x"))
        self.assertEqual(resets(connection.received), [(1, STREAM_CLOSED)])
        self.assertEqual([each.cancelled for each in self.calls[-2:]], [True, False])
        self.undisturbed()

    def test_frames_that_are_not_known_are_ignored(self) -> None:
        peer = self.peer()
        peer.raw(frames.frame(0x42, 0, 0, b"x" * 100) + frames.frame(0x43, 255, 9, b""))
        self.works(peer)

    def test_an_error_while_a_call_waits_to_send(self) -> None:
        """The window opens in the segment that breaks a rule: there is no answer but the GOAWAY."""
        connection = self.rogue(frames.PREFACE + frames.settings({4: 0}))
        connection.send(head(1, ECHO) + frames.frame(DATA, 1, 1, prefixed(b"hello")))
        self.server.settle()
        connection.send(frames.window_update(1, 1_000) + frames.frame(SETTINGS, 0, 0, b"12345"))
        self.assertEqual(self.verdict(connection)[0], FRAME_SIZE_ERROR)

    def test_what_the_peer_sent_is_told_back_in_part(self) -> None:
        peer = self.peer()
        stream = peer.begin("/" + "x" * 10_000)
        self.assertEqual(peer.status(stream), (12, "there is no method /" + "x" * 199))

    def test_header_blocks_that_cannot_be_read(self) -> None:
        for block in (b"\x80", b"\xff" * 9, b"\x3f\xff\xff\xff\x7f", b"\x3f\xff\xff\x7f" + BLOCK):
            self.assertEqual(self.error(OPEN + head(1, block)), COMPRESSION_ERROR, block)

    def test_the_log_says_what_was_wrong(self) -> None:
        for data, text in (
            (frames.window_update(7, 1), "NoSuchStreamError: 7"),
            (head(5) + head(3), "StreamIDTooLowError: 3 is lower than 5"),
            (head(1, b"\xff" * 9), "ProtocolError: Error decoding header block: Variable integer .* too long: bytes"),
            (head(1, b"\x40" + b"\xff" * 9_000), r"ProtocolError: .* too long: b'[\\xf]{80,130}"),
        ):
            with self.assertLogs("longconn", "INFO") as logs:
                self.error(OPEN + data)
            self.assertRegex(logs.output[0], f"^INFO:longconn:grpc connection from [0-9.:]+ closed: {text}$")

    def test_a_goaway_that_cannot_be(self) -> None:
        self.assertEqual(self.error(OPEN + frames.frame(GOAWAY, 0, 0, b"abc")), FRAME_SIZE_ERROR)
        self.assertEqual(self.error(OPEN + frames.frame(GOAWAY, 0, 1, b"\0" * 8)), PROTOCOL_ERROR)
        self.assertEqual(self.error(OPEN + frames.frame(SETTINGS, 1, 0, b"\0" * 6)), FRAME_SIZE_ERROR)

    def test_a_goaway_of_the_peer_ends_no_call(self) -> None:
        peer = self.peer()
        stream = peer.begin("/t/Both")
        peer.raw(frames.goaway(0, 0))
        peer.send(stream, prefixed(b"still here"), end=True)
        self.assertEqual((peer.messages(stream), peer.status(stream)), ([b"still here"], (0, "")))

    def test_more_than_the_window(self) -> None:
        data = head(1) + b"".join(frames.frame(DATA, 0, 1, b"x" * 16_384) for _ in range(4))
        connection = self.rogue(OPEN + data)
        self.assertEqual(self.verdict(connection)[0], FLOW_CONTROL_ERROR)

    def test_in_pieces_of_a_byte(self) -> None:
        connection = self.rogue(b"")
        whole = frames.frame(DATA, frames.END_STREAM, 1, prefixed(b"hello"))
        for each in OPEN + head(1, ECHO) + whole:
            connection.send(bytes((each,)))
        self.server.settle()
        self.assertIn(prefixed(b"hello"), bytes(connection.received))


class EndTests(Case):
    def test_the_end_follows_the_goaway_of_an_error(self) -> None:
        """RFC 9113, section 5.4.1: after the GOAWAY for an error the connection is closed. No time passes."""
        for bad in (frames.window_update(0, 0), frames.frame(DATA, 0, 0, b""), frames.frame(PING, 0, 3, bytes(8))):
            connection = self.rogue(OPEN + bad)
            self.assertIsInstance(sent(connection.received)[-1], GoAwayFrame)
            self.assertTrue(connection.closed)
            self.undisturbed()


class FloodTests(Case):
    def test_ten_thousand_resets(self) -> None:
        connection = self.rogue(OPEN)
        sent = 0
        for number in range(10_000):
            stream = 2 * number + 1
            connection.send(head(stream) + frames.frame(RST_STREAM, 0, stream, struct.pack(">I", 8)))
            sent = number
            if number % 20 == 0:
                self.server.settle()  # it reads a share in a turn
            if connection.transport.protocol.ended:
                break
        self.assertEqual(self.verdict(connection), (CALM, "too many resets"))
        self.assertLess(sent, 2_100)

    def test_resets_that_the_server_is_made_to_send(self) -> None:
        """A stream that the peer breaks is reset by us: that counts alike (CVE-2025-8671)."""
        connection = self.rogue(OPEN)
        for number in range(10_000):
            stream = 2 * number + 1
            connection.send(head(stream) + frames.window_update(stream, 2**31 - 1))
            if not number % 50:
                self.server.settle()
            if connection.transport.protocol.ended:
                break
        self.assertEqual(self.verdict(connection)[0], CALM)
        self.assertLess(number, 2_100)

    def test_streams_beyond_the_limit_are_refused_one_by_one(self) -> None:
        peer = self.peer()
        peer.begin("/t/Stall")
        # As one does that has not read the server's settings yet.
        peer.h2.remote_settings[3] = 1 << 20
        peer.h2.remote_settings.acknowledge()
        streams = [peer.begin("/t/Stall") for _ in range(MAX_STREAMS + 2)]
        self.assertEqual([peer.resets(each) for each in streams[-4:]], [[], [7], [7], [7]])
        peer.h2.reset_stream(streams[0], 8)
        peer.flush()
        self.works(peer)
        self.undisturbed()

    def test_a_flood_of_streams_beyond_the_limit(self) -> None:
        connection = self.rogue(OPEN)
        for number in range(10_000):
            connection.send(head(2 * number + 1))
            if not number % 50:
                self.server.settle()
            if connection.transport.protocol.ended:
                break
        self.assertEqual(self.verdict(connection), (CALM, "too many resets"))
        self.assertLess(number, 3 * MAX_STREAMS + 100)

    def test_a_megabyte_of_headers(self) -> None:
        many = b"".join(frames.encode_headers([(b"x-%d" % number, b"y" * 100)]) for number in range(9_000))
        parts = [many[at : at + 16_384] for at in range(0, len(many), 16_384)]
        connection = self.rogue(OPEN + head(1, BLOCK, flags=0))
        for part in parts:
            connection.send(frames.frame(frames.CONTINUATION, 0, 1, part))
            if connection.transport.protocol.ended:
                break
        self.assertEqual(self.verdict(connection), (CALM, "too many headers"))

    def test_headers_that_are_small_and_become_large(self) -> None:
        """One entry of the table, and thousands of references to it (RFC 7541, section 7.3)."""
        value = b"y" * 3_000
        entry = b"\x40\x01x" + b"\x7f" + bytes(((len(value) - 127) & 127 | 128, (len(value) - 127) >> 7)) + value
        connection = self.rogue(OPEN + head(1, BLOCK + entry + b"\xbe" * 10_000))
        self.assertEqual(self.verdict(connection)[0], CALM)

    def test_a_flood_of_continuations(self) -> None:
        data = b"".join(frames.frame(frames.CONTINUATION, 0, 1, b"") for _ in range(100))
        self.assertEqual(self.error(OPEN + head(1, flags=0) + data), CALM)

    def test_a_flood_of_settings(self) -> None:
        connection = self.rogue(OPEN + frames.settings({4: 70_000}) * 10_000)
        self.assertEqual(self.verdict(connection), (CALM, "too many settings"))
        self.assertLess(len(connection.received), 2_000)

    def test_settings_that_nobody_knows_are_not_kept(self) -> None:
        connection = self.rogue(OPEN)
        for number in range(20):
            connection.send(frames.settings({1_000 + 1_000 * number + each: each for each in range(1_000)}))
        connection.send(frames.settings({8: 2}))  # not of ours (RFC 8441)
        self.server.settle()
        self.assertEqual(len(sent(connection.received)), 2 + 22)  # each is acknowledged
        self.assertLess(len(connection.transport.protocol._h2.remote_settings), 10)

    def test_a_flood_of_acknowledgements(self) -> None:
        data = frames.frame(SETTINGS, frames.ACK, 0, b"") * 12_000
        self.assertEqual(self.verdict(self.rogue(OPEN + data)), (CALM, "too many settings"))

    def test_very_much_at_once_is_read_by_slices(self) -> None:
        """Others have their turn before all of it is served."""
        whole = b"".join(
            head(stream, ECHO) + frames.frame(DATA, 1, stream, prefixed(b"hello")) for stream in range(1, 801, 2)
        )
        connection = self.server.connect(self.factory)
        connection.transport.protocol.dataReceived(OPEN + whole[:-5])
        begun = len(self.calls)
        self.assertLess(begun, 50)
        self.assertFalse(connection.transport._reading)
        connection.transport.protocol.dataReceived(whole[-5:])
        self.assertEqual(len(self.calls), begun)
        self.server.settle()
        self.assertEqual(len(self.calls), 1 + 400)
        self.assertEqual(connection.received.count(prefixed(b"hello")), 400)
        self.assertTrue(connection.transport._reading)

    def test_the_connection_is_lost_between_two_slices(self) -> None:
        whole = b"".join(head(stream, ECHO) for stream in range(1, 801, 2))
        connection = self.server.connect(self.factory)
        connection.transport.protocol.dataReceived(OPEN + whole)
        connection.reset()
        self.server.settle()
        self.assertLess(len(self.calls), 50)
        self.undisturbed()

    def test_a_flood_of_pings(self) -> None:
        connection = self.rogue(OPEN + frames.ping(b"12345678") * 10_000)
        self.assertEqual(self.verdict(connection), (CALM, "too_many_pings"))

    def test_pings_at_a_proper_pace_or_while_something_is_sent_are_no_flood(self) -> None:
        peer = self.peer()
        for _ in range(20):
            self.server.advance(10)
            peer.h2.ping(b"12345678")
            peer.flush()
        for _ in range(20):
            self.works(peer)
            peer.h2.ping(b"12345678")
            peer.flush()
        self.server.settle()
        self.assertEqual(peer.goaways, [])

    def test_floods_of_frames_without_content(self) -> None:
        for data in (
            frames.frame(DATA, 0, 1, b""),
            frames.frame(PRIORITY, 0, 1, b"\0\0\0\0\1"),
            frames.frame(0x42, 0, 0, b""),
            frames.window_update(0, 1),
        ):
            connection = self.rogue(OPEN + head(1))
            for _ in range(12):
                connection.send(data * 1_000)
            self.assertEqual(self.verdict(connection), (CALM, "too many frames without content"))

    def test_a_peer_that_makes_us_answer_and_reads_nothing(self) -> None:
        connection = self.rogue(OPEN)
        connection.stop_reading()
        missing = frames.encode_headers([*REQUEST[:2], (b":path", b"/" + b"x" * 199), *REQUEST[3:]])
        with self.assertLogs("longconn", "WARNING"):
            for number in range(5_000):
                connection.send(head(2 * number + 1, missing, flags=5))
                self.server.settle()
                if connection.aborted:
                    break
        self.assertTrue(connection.aborted)
        self.assertLess(number, 3_000)
        self.undisturbed()

    def test_calls_may_have_so_much_metadata_together(self) -> None:
        """Three bytes name four thousand each (RFC 7541, section 6.1): what is kept is bounded by what it becomes."""
        peer = self.peer()
        streams = [peer.begin("/t/Stall", ("x-a", "a" * 4_000), ("x-b", "b" * 4_000)) for _ in range(600)]
        statuses = [peer.status(each) for each in streams]
        served = statuses.count(None)
        self.assertTrue(480 < served < 530, served)
        self.assertEqual({each and each[0] for each in statuses[served:]}, {8})
        self.undisturbed()
        for each in streams[:served]:
            peer.h2.reset_stream(each)
        peer.flush()
        self.server.settle()
        self.works(peer)

    def test_one_address_cannot_have_all_the_room_for_messages(self) -> None:
        """Messages beyond its part are held back by their windows; those of others come."""
        self.serve(max_body_total=64 * 1024 * 1024)
        peer = self.peer()
        other = self.peer(local=IPv4Address("TCP", "192.0.2.9", 50_000))
        part = prefixed(b"x" * 4_000_000)[:-1]
        streams = [peer.begin("/t/Echo") for _ in range(8)]
        for each in streams:
            peer.send(each, part)
        self.assertEqual([peer.status(each) for each in streams], [None] * 8)
        self.assertEqual([each in peer._unsent for each in streams], [False] * 4 + [True] * 4)
        self.assertLess(self.factory.budget.kept, 17 * 1024 * 1024)
        stream = other.call("/t/Echo", b"y" * 1_000_000)
        self.assertEqual(other.messages(stream), [b"y" * 1_000_000])
        self.server.advance(80)
        self.assertEqual({peer.status(each) for each in streams}, {(4, "the message did not come in time")})

    def test_messages_beyond_the_room_wait_and_are_not_refused(self) -> None:
        self.serve(max_body_total=4 * 1024 * 1024)
        peer = self.peer()
        streams = [peer.begin("/t/Echo") for _ in range(100)]
        message = prefixed(b"x" * 60_000)
        for part in (message[:-1], message[-1:]):  # all of them are under way at once
            for each in streams:
                peer.send(each, part, end=part is not message[:-1] and len(part) == 1)
                self.assertLess(self.factory.budget.kept, 3 * 1024 * 1024)
        self.assertEqual({peer.status(each) for each in streams}, {(0, "")})

    def test_a_peer_that_ignores_the_first_window_until_it_knows_it(self) -> None:
        """The window of a stream is 65,535 bytes until the peer has acknowledged another (RFC 9113, section 6.5.3)."""
        connection = self.server.connect(self.factory)
        data = prefixed(b"x" * 40_000)
        connection.send(OPEN + head(1, ECHO))
        for at in range(0, len(data), 16_000):
            connection.send(frames.frame(DATA, int(at >= 32_000), 1, data[at : at + 16_000]))
        self.server.settle()
        self.assertIn(b"x" * 16_000, connection.received)
        self.assertFalse(connection.transport.protocol.ended)

    def test_data_on_its_way_to_a_refused_call(self) -> None:
        """The call is reset once, whatever still comes, and nothing of that counts as a fault."""
        missing = frames.encode_headers([*REQUEST[:2], (b":path", b"/t/Missing"), *REQUEST[3:]])
        connection = self.rogue(OPEN + head(1, missing))
        for _ in range(3_000):
            connection.send(frames.frame(DATA, 0, 1, b"x" * 1_000))
        self.server.settle()
        self.assertEqual(resets(connection.received), [(1, 0)])
        self.assertFalse(connection.transport.protocol.ended)

    def test_compressed_messages_are_inflated_by_slices(self) -> None:
        """Many at once wait for their turns; meanwhile the others have theirs."""
        peer = self.peer()
        bomb = gzip.compress(bytes(500_000))
        streams = [peer.begin("/t/Echo", ("grpc-encoding", "gzip")) for _ in range(20)]
        for each in streams:
            peer.h2.send_data(each, prefixed(bomb, compressed=True), end_stream=True)
        peer.connection.transport.protocol.dataReceived(peer.h2.data_to_send())
        self.assertEqual([each.over for each in self.calls[-20:]].count(True), 2)
        self.assertGreater(self.factory.budget.kept, 500_000)  # they are counted before they are inflated
        self.server.settle()
        self.assertEqual({peer.status(each) for each in streams}, {(0, "")})

    def test_a_command_that_waits_is_kept_as_it_came(self) -> None:
        """It is inflated when it is executed; and it counts while it waits."""
        self.serve(publish_bytes=0, max_message=200_000)
        self.hub.publish("full", Data.of_text("x" * 150_000), Info("p"), lambda position: None)
        peer = self.peer(window=0)
        stream = peer.begin("/longconn.v1.LongConn/Connect", ("grpc-encoding", "gzip"))
        history = pb.ConnectRequest(id=2, history=pb.HistoryRequest(channel="full"))
        for request in (pb.ConnectRequest(id=1, connect=pb.ConnectCommand()), history):
            peer.send(stream, prefixed(request.SerializeToString()))
        # A field that is not known, which the library keeps.
        large = (
            pb.ConnectRequest(id=3, ping=pb.PingRequest()).SerializeToString()
            + b"\xc2\x3e\x80\xb5\x18"
            + bytes(400_000)
        )
        bomb = gzip.compress(large)
        peer.send(stream, prefixed(bomb, compressed=True))
        (session,) = self.hub.sessions.values()
        (waiting,) = session.queue.waiting
        self.assertEqual(len(waiting), len(bomb))
        self.assertEqual(self.factory.budget.kept, len(bomb))
        peer.h2.increment_flow_control_window(300_000)
        peer.h2.increment_flow_control_window(300_000, stream)
        peer.flush()
        answers = [pb.ConnectResponse.FromString(each) for each in peer.messages(stream)]
        self.assertEqual([each.WhichOneof("event") for each in answers], ["connected", "history", "pong"])
        peer.reset(stream)


class WindowTests(Case):
    def stalled(self, peer: Peer, size: int) -> int:
        """A call that asks for more than it lets come."""
        stream = peer.begin("/t/Both")
        peer.send(stream, prefixed(b"x" * size))
        return stream

    def test_a_window_of_zero_for_ever(self) -> None:
        self.serve(write_timeout=30)
        self.witness = self.peer()
        self.stream = self.witness.begin("/t/Both")
        peer = self.peer(window=0)
        stream = self.stalled(peer, 1_000)
        self.server.advance(25)
        self.assertEqual((peer.data(stream), peer.status(stream)), (b"", None))
        self.server.advance(10)
        status = peer.status(stream)
        assert status is not None
        self.assertEqual((status[0], peer.trailers(stream)["longconn-code"]), (14, "3009"))
        self.assertTrue(self.calls[-1].cancelled)
        self.undisturbed()

    def test_calls_that_are_no_clients_make_no_noise(self) -> None:
        self.serve(write_timeout=30)
        self.witness = self.peer()
        self.stream = self.witness.begin("/t/Both")
        peer = self.peer(window=0)
        streams = [peer.call("/t/Echo", b"hello") for _ in range(MAX_STREAMS)]
        with self.assertNoLogs("longconn", "INFO"):
            self.server.advance(40)
        self.assertEqual({peer.status(each) for each in streams}, {(14, "no progress in sending")})
        with self.assertLogs("longconn", "DEBUG") as logs:
            peer.call("/t/Echo", b"hello")
            self.server.advance(40)
        self.assertIn("grpc call /t/Echo from", str(logs.output))
        self.assertIn("(3009 no progress in sending) with 10 bytes waiting", str(logs.output))
        self.undisturbed()

    def test_a_deadline_holds_for_an_answer_that_waits(self) -> None:
        peer = self.peer(window=0)
        stream = peer.begin("/t/Echo", ("grpc-timeout", "500m"))
        peer.send(stream, prefixed(b"hello"), end=True)
        self.assertIsNone(peer.status(stream))
        self.server.advance(0.6)
        self.assertEqual(peer.status(stream), (4, "deadline exceeded"))

    def test_a_window_in_the_middle_of_a_message(self) -> None:
        """There is no place for a status: the stream is reset."""
        self.serve(write_timeout=30)
        self.witness = self.peer()
        self.stream = self.witness.begin("/t/Both")
        peer = self.peer(window=500)
        stream = self.stalled(peer, 1_000)
        self.assertEqual(len(peer.data(stream)), 500)
        self.server.advance(35)
        self.assertEqual((peer.status(stream), peer.resets(stream)), (None, [8]))
        self.undisturbed()

    def test_windows_of_a_byte(self) -> None:
        peer = self.peer(window=0)
        stream = self.stalled(peer, 20)
        for _ in range(25):
            peer.h2.increment_flow_control_window(1, stream)
            peer.flush()
            self.server.settle()
        self.assertEqual(peer.messages(stream), [b"x" * 20])
        self.undisturbed()

    def test_a_window_that_becomes_negative(self) -> None:
        """RFC 9113, section 6.9.2."""
        peer = self.peer(window=1_000)
        stream = self.stalled(peer, 2_000)
        peer.h2.update_settings({4: 100})
        peer.flush()
        self.server.settle()
        peer.raw(frames.window_update(stream, 900))
        self.assertEqual(len(peer.data(stream)), 1_000)
        self.undisturbed()
