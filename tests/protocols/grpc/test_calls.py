"""Calls of gRPC, in memory: messages, statuses, deadlines, windows, pings, the end."""

import gzip
import logging
import os
from typing import Any

from h2 import events
from h2.settings import SettingCodes
from twisted.internet.defer import CancelledError, Deferred

from longconn.core.disconnects import FORCE_RECONNECT, SHUTDOWN
from longconn.core.errors import PERMISSION_DENIED, CommandError
from longconn.protocols.grpc.call import GrpcCall
from longconn.wire.grpc_status import StatusCode, StatusError
from tests.protocols.grpc.frames import prefixed
from tests.protocols.grpc.http2_kit import Case, Peer

MIB = 1024 * 1024


class RequestTests(Case):
    def refused(self, *headers: tuple[str, str]) -> dict[str, str]:
        """The headers of the answer to a request that is refused without a call."""
        peer = self.peer()
        stream = peer.begin("/t/Echo", *headers)
        self.assertEqual(self.calls, [])
        self.assertEqual(peer.resets(stream), [0])
        self.assertEqual(len(peer.of(events.ResponseReceived, stream)), 1)
        self.works(peer)
        self.calls.clear()
        return peer.headers(stream)

    def test_a_request_that_is_not_grpc_is_answered_as_http(self) -> None:
        for method in ("GET", "PUT", "OPTIONS", "HEAD"):
            found = self.refused((":method", method))
            self.assertEqual((found[":status"], found["allow"]), ("405", "POST"))
        for kind in ("", "application/json", "application/grpc-web", "application/grpcx", "text/plain"):
            found = self.refused(("content-type", kind))
            self.assertEqual(found[":status"], "415", kind)
            self.assertNotIn("grpc-status", found)

    def test_the_answer_says_which_protocol_is_meant(self) -> None:
        peer = self.peer()
        stream = peer.begin("/", (":method", "GET"))
        self.assertIn(b"use HTTP/1.1 for this path\n", peer.data(stream))
        stream = peer.begin("/", (":method", "HEAD"))
        self.assertEqual(peer.data(stream), b"")
        # Without room for the text the status is all.
        narrow = self.peer(window=5)
        stream = narrow.begin("/", (":method", "GET"))
        self.assertEqual((narrow.headers(stream)[":status"], narrow.data(stream)), ("405", b""))

    def test_content_types(self) -> None:
        for kind in (
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;charset=utf-8",
            "Application/gRPC",
        ):
            peer = self.peer()
            stream = peer.call("/t/Echo", b"a", headers=(("content-type", kind),))
            self.assertEqual(peer.messages(stream), [b"a"])
        self.calls.clear()
        self.assertEqual(self.refused(("content-type", "application/grpc+json"))["grpc-status"], "12")

    def test_unknown_methods(self) -> None:
        for path in ("/t/Nothing", "/", "*", "/t/Echo/", "/T/echo"):
            found = self.refused((":path", path))
            self.assertEqual((found[":status"], found["grpc-status"]), ("200", "12"))
            self.assertIn(path, found["grpc-message"])

    def test_unknown_encodings(self) -> None:
        found = self.refused(("grpc-encoding", "snappy"))
        self.assertEqual((found["grpc-status"], found["grpc-accept-encoding"]), ("12", "identity,gzip"))

    def test_malformed_timeouts(self) -> None:
        for timeout in ("1", "S", "-1S", "123456789S", "1 S", "1s", "1.5S"):
            self.assertEqual(self.refused(("grpc-timeout", timeout))["grpc-status"], "13", timeout)

    def test_metadata(self) -> None:
        peer = self.peer()
        peer.call(
            "/t/Echo",
            b"a",
            headers=(
                ("user-agent", "x/1"),
                ("grpc-secret", "1"),
                ("a-bin", "AAE,/w=="),
                ("b-bin", "AAE="),
                ("c", "d e"),
            ),
        )
        wanted = [("user-agent", "x/1"), ("a-bin", b"\0\1"), ("a-bin", b"\xff"), ("b-bin", b"\0\1"), ("c", "d e")]
        self.assertEqual(list(self.calls[0].metadata), wanted)
        self.assertEqual((self.calls[0].path, self.calls[0].host), ("/t/Echo", "127.0.0.1"))
        self.assertRegex(self.calls[0].address, r"^127\.0\.0\.1:\d+$")
        self.calls.clear()
        self.assertEqual(self.refused(("a-bin", "!"))["grpc-status"], "13")


class StatusTests(Case):
    def end(self, handler: Any) -> tuple[Peer, int]:
        self.services["/t/This"] = handler
        peer = self.peer()
        return peer, peer.call("/t/This", b"")

    def test_ok_with_and_without_messages(self) -> None:
        async def nothing(call: GrpcCall) -> None:
            call.trailing.append(("seen", "all"))
            call.trailing.append(("raw-bin", b"\0\xff"))

        peer, stream = self.end(nothing)
        found = peer.trailers(stream)
        # One block of headers is all of it ("Trailers-Only").
        self.assertEqual(len(peer.of(events.TrailersReceived)), 0)
        self.assertEqual((found[":status"], found["content-type"]), ("200", "application/grpc"))
        self.assertEqual((found["grpc-status"], found["seen"], found["raw-bin"]), ("0", "all", "AP8"))
        stream = peer.call("/t/Echo", b"")
        self.assertEqual((peer.messages(stream), peer.trailers(stream)), ([b""], {"grpc-status": "0"}))

    def test_exceptions_of_a_handler(self) -> None:
        async def status(call: GrpcCall) -> None:
            raise StatusError(StatusCode.ABORTED, "50 % ä\n", [("why", "so")])

        peer, stream = self.end(status)
        self.assertEqual(peer.status(stream), (10, "50 % ä\n"))
        self.assertEqual(peer.trailers(stream)["grpc-message"], "50 %25 %C3%A4%0A")
        self.assertEqual(peer.trailers(stream)["why"], "so")

        async def command(call: GrpcCall) -> None:
            call.write(b"first")
            raise CommandError(PERMISSION_DENIED, what="publish", channel="x")

        peer, stream = self.end(command)
        self.assertEqual(peer.messages(stream), [b"first"])
        self.assertEqual(peer.status(stream), (7, "permission denied: publish x"))
        self.assertEqual(peer.trailers(stream)["longconn-code"], "103")

    def test_an_unexpected_exception_is_logged_and_hidden_from_the_client(self) -> None:
        async def bug(call: GrpcCall) -> None:
            raise KeyError("secret")

        with self.assertLogs("longconn", logging.ERROR) as logs:
            peer, stream = self.end(bug)
        self.assertEqual(len(logs.records), 1)
        self.assertIn("KeyError: 'secret'", logs.output[0])
        self.assertEqual(peer.trailers(stream)["grpc-status"], "2")
        self.assertNotIn("secret", str(peer.trailers(stream)))

    def test_reserved_metadata_is_an_error_of_the_handler(self) -> None:
        async def bug(call: GrpcCall) -> None:
            call.trailing.append(("grpc-status", "0"))

        with self.assertLogs("longconn", logging.ERROR):
            peer, stream = self.end(bug)
        self.assertEqual(peer.trailers(stream)["grpc-status"], "2")

        async def start(call: GrpcCall) -> None:
            for name, value in (("te", "x"), ("grpc-x", "y"), ("A", "b"), ("a", "ä"), ("a-bin", "b"), ("a", b"b")):
                self.assertRaises(ValueError, call.start, [(name, value)])
            call.start([("a", "b")])
            self.assertRaises(RuntimeError, call.start)

        peer, stream = self.end(start)
        self.assertEqual((peer.headers(stream)["a"], peer.status(stream)), ("b", (0, "")))

    def test_a_status_before_the_client_half_closes(self) -> None:
        """The stream is reset ("Early Server Closure"), and later DATA is ignored."""

        async def hasty(call: GrpcCall) -> None:
            raise StatusError(StatusCode.NOT_FOUND)

        self.services["/t/This"] = hasty
        peer = self.peer()
        stream = peer.begin("/t/This")
        self.assertEqual((peer.status(stream), peer.resets(stream)), ((5, ""), [0]))
        self.works(peer)


class CompressionTests(Case):
    def test_gzip_both_ways_if_the_client_begins(self) -> None:
        text = b"hello " * 100
        peer = self.peer()
        stream = peer.begin("/t/Both", ("grpc-encoding", "gzip"), ("grpc-accept-encoding", "identity, deflate, gzip"))
        for message in (text, b"small"):
            data = gzip.compress(message)
            peer.send(stream, b"\1" + len(data).to_bytes(4, "big") + data)
        peer.send(stream, prefixed(text), end=True)
        self.assertEqual(peer.headers(stream)["grpc-encoding"], "gzip")
        self.assertEqual(peer.messages(stream), [text, b"small", text])
        self.assertLess(len(peer.data(stream)), 300)
        self.assertEqual(peer.data(stream).count(b"small"), 1)

    def test_a_client_that_only_accepts_gzip_is_sent_none(self) -> None:
        peer = self.peer()
        stream = peer.call("/t/Echo", b"hello " * 100, headers=(("grpc-accept-encoding", "gzip"),))
        self.assertNotIn("grpc-encoding", peer.headers(stream))
        self.assertEqual(len(peer.data(stream)), 605)

    def bad(self, data: bytes, encoding: str = "gzip", flag: int = 1) -> int:
        peer = self.peer()
        stream = peer.begin("/t/Echo", ("grpc-encoding", encoding))
        peer.send(stream, bytes((flag,)) + len(data).to_bytes(4, "big") + data, end=True)
        status = peer.status(stream)
        assert status is not None
        return status[0]

    def test_malformed_gzip(self) -> None:
        good = gzip.compress(b"hello")
        self.assertEqual(self.bad(good), 0)
        self.assertEqual(self.bad(b"hello"), 13)
        self.assertEqual(self.bad(good[:-1]), 13)
        self.assertEqual(self.bad(good + b"x"), 13)
        self.assertEqual(self.bad(b""), 13)
        self.assertEqual(self.bad(good, "identity"), 13)
        self.assertEqual(self.bad(b"x", flag=2), 13)

    def test_a_decompression_bomb(self) -> None:
        """What is inflated is bounded by the size of a message, and by a ratio above half a MiB."""
        whole = os.urandom(MIB)
        self.assertEqual(self.bad(gzip.compress(bytes(MIB // 2))), 0)
        self.assertEqual(self.bad(gzip.compress(whole + bytes(3 * MIB))), 0)
        self.assertEqual(self.bad(gzip.compress(whole + bytes(3 * MIB + 1))), 8)
        self.assertEqual(self.bad(gzip.compress(bytes(4 * MIB))), 8)
        self.assertEqual(self.bad(gzip.compress(bytes(100 * MIB), 9)), 8)


class ReceivingTests(Case):
    def test_messages_in_pieces_and_several_at_once(self) -> None:
        peer = self.peer()
        stream = peer.begin("/t/Both")
        for each in prefixed(b"one") + prefixed(b""):
            peer.send(stream, bytes((each,)))
        peer.send(stream, prefixed(b"two") * 3 + prefixed(b"x" * 100_000)[:-1])
        self.assertEqual(peer.messages(stream), [b"one", b"", b"two", b"two", b"two"])
        peer.send(stream, b"x", end=True)
        self.assertEqual((peer.messages(stream)[-1], peer.status(stream)), (b"x" * 100_000, (0, "")))

    def test_an_incomplete_message(self) -> None:
        for size in (1, 5, 9):
            peer = self.peer()
            stream = peer.begin("/t/Both")
            peer.send(stream, prefixed(b"hello")[:size], end=True)
            self.assertEqual(peer.status(stream), (13, "the last message is not whole"))

    def test_the_number_of_messages_of_a_unary_call(self) -> None:
        for messages in ((), (b"a", b"b")):
            peer = self.peer()
            self.assertEqual(peer.status(peer.call("/t/Echo", *messages)), (12, "this method takes one message"))

    def test_a_message_that_is_too_large_is_refused_by_its_first_bytes(self) -> None:
        peer = self.peer()
        stream = peer.begin("/t/Echo")
        peer.send(stream, prefixed(b"x" * 4 * MIB)[:1000])
        self.assertEqual(peer.status(stream), None)
        stream = peer.begin("/t/Echo")
        peer.send(stream, b"\0" + (4 * MIB + 1).to_bytes(4, "big"))
        status = peer.status(stream)
        assert status is not None
        self.assertEqual((status[0], peer.resets(stream)), (8, [0]))
        self.works(peer)

    def test_a_large_message_passes_all_windows(self) -> None:
        peer = self.peer()
        stream = peer.begin("/t/Echo")
        data = prefixed(b"x" * 4 * MIB)
        while data:
            room = peer.h2.local_flow_control_window(stream)
            self.assertGreater(room, 0)
            peer.send(stream, data[: min(room, 10_000)], end=len(data) <= min(room, 10_000))
            data = data[min(room, 10_000) :]
        self.assertEqual(len(peer.messages(stream)[0]), 4 * MIB)

    def fill(self, peer: Peer, stream: int) -> int:
        """Send messages until the window of the stream is used up. Returns the bytes that were sent."""
        sent = 0
        while (room := peer.h2.local_flow_control_window(stream)) > 0:
            peer.send(stream, prefixed(b"x" * 95)[: min(room, 100)])
            sent += min(room, 100)
        return sent

    def test_a_handler_that_stalls_stops_its_sender_within_one_window(self) -> None:
        peer = self.peer()
        stalled = [peer.begin("/t/Stall") for _ in range(20)]
        for stream in stalled:
            self.assertEqual(self.fill(peer, stream), self.factory.budget.first_window)
        # The others do not wait for those.
        self.works(peer)

    def test_the_sender_goes_on_when_the_handler_does(self) -> None:
        gate: Deferred[None] = Deferred()
        read: list[bytes] = []

        async def late(call: GrpcCall) -> None:
            await gate
            while (message := await call.read()) is not None:
                read.append(message)

        self.services["/t/This"] = late
        peer = self.peer()
        stream = peer.begin("/t/This")
        sent = self.fill(peer, stream)
        self.assertEqual((sent, read), (8_192, []))
        gate.callback(None)
        self.server.settle()
        self.assertGreater(peer.h2.local_flow_control_window(stream), 4_000)
        peer.send(stream, prefixed(b"x" * 95)[sent % 100 :], end=True)
        self.assertEqual((len(read), peer.status(stream)), (82, (0, "")))

    def test_incomplete_messages_of_all_calls_are_bounded(self) -> None:
        """The window of a message opens when there is room for it; what comes unasked is bounded as well."""
        self.serve(max_body_total=1 * MIB)
        peer = self.peer()
        streams = [peer.begin("/t/Echo") for _ in range(20)]
        for stream in streams:
            peer.send(stream, prefixed(b"x" * 200_000)[:60_000])
        self.assertEqual([peer.status(each) for each in streams], [None] * 20)
        self.assertLessEqual(self.factory.budget.kept, 1 * MIB // 4)
        for stream in streams:
            peer.reset(stream)
        self.assertEqual(self.factory.budget.kept, 0)
        self.works(peer)

    def test_a_message_that_is_being_handled_counts(self) -> None:
        """It counts until the handler reads on, waits for the end, or returns."""
        counts: list[int] = []

        async def handler(call: GrpcCall) -> None:
            for _ in range(2):
                await call.read()
                counts.append(self.factory.budget.kept)
            await call.wait()

        self.services["/t/This"] = handler
        peer = self.peer()
        stream = peer.begin("/t/This", ("grpc-encoding", "gzip"))
        peer.send(stream, prefixed(gzip.compress(bytes(400_000)), compressed=True) + prefixed(b"x" * 100_000))
        # Of the second message, the first bytes had come.
        self.assertEqual([each // 10_000 for each in counts], [40, 10])
        self.assertEqual(self.factory.budget.kept, 0)
        peer.reset(stream)


class SendingTests(Case):
    def test_backpressure_of_a_handler_that_awaits(self) -> None:
        written = 0

        async def many(call: GrpcCall) -> None:
            nonlocal written
            for _ in range(1000):
                call.write(b"x" * 1000)
                written += 1
                await call.drained()

        self.services["/t/Many"] = many
        peer = self.peer(window=10_000)
        stream = peer.call("/t/Many", b"")
        self.assertLess(written, 60)
        while peer.status(stream) is None:
            peer.h2.increment_flow_control_window(10_000, stream)
            peer.h2.increment_flow_control_window(10_000)
            peer.flush()
            self.server.settle()
        self.assertEqual(peer.messages(stream), [b"x" * 1000] * 1000)

    def test_a_handler_that_does_not_await_is_slow(self) -> None:
        self.serve(send_queue=100_000)

        async def many(call: GrpcCall) -> None:
            self.calls.append(call)
            for _ in range(1000):
                call.write(b"x" * 1000)
            await call.read()

        self.services["/t/Many"] = many
        peer = self.peer(window=0)
        with self.assertLogs("longconn", logging.DEBUG) as logs:
            stream = peer.call("/t/Many", b"")
        self.assertIn("3008 slow", str(logs.output))
        self.assertEqual((peer.status(stream), peer.trailers(stream)["longconn-code"]), ((8, "slow"), "3008"))
        self.assertEqual((self.calls[0].cancelled, self.calls[0].outlet.queued), (True, 0))

    def test_one_message_may_be_larger_than_the_queue(self) -> None:
        self.serve(send_queue=1000)

        async def large(call: GrpcCall) -> None:
            call.write(b"x" * 100_000)

        self.services["/t/Large"] = large
        peer = self.peer(window=30_000)
        stream = peer.call("/t/Large", b"")
        while peer.status(stream) is None:
            peer.h2.increment_flow_control_window(30_000, stream)
            peer.h2.increment_flow_control_window(30_000)
            peer.flush()
            self.server.settle()
        self.assertEqual((peer.messages(stream), peer.status(stream)), ([b"x" * 100_000], (0, "")))

    def client(self, call: GrpcCall) -> None:
        call.outlet.client = self.hub.connect(call.outlet, "grpc", call.host, call.address)
        self.calls.append(call)

    async def member(self, call: GrpcCall) -> None:
        self.client(call)
        await call.wait()

    def test_a_client_of_the_hub(self) -> None:
        self.services["/t/Member"] = self.member
        peer = self.peer()
        self.assertEqual((self.hub.places.guests, len(self.hub.clients)), (1, 0))
        streams = [peer.begin("/t/Member") for _ in range(3)]
        self.assertEqual((self.hub.places.guests, len(self.hub.clients)), (0, 3))
        self.calls[0].outlet.write(prefixed(b"one") + prefixed(b"two"))
        self.assertEqual(peer.messages(streams[0]), [b"one", b"two"])
        for call in self.calls:
            call.outlet.write(prefixed(b"all"))
        self.assertEqual(peer.messages(streams[2]), [b"all"])
        client = self.calls[0].outlet.client
        assert client is not None
        client.close(FORCE_RECONNECT)
        self.assertEqual(peer.status(streams[0]), (14, "force reconnect"))
        self.assertEqual(peer.trailers(streams[0])["longconn-code"], "3011")
        self.assertEqual((self.hub.places.guests, len(self.hub.clients)), (0, 2))
        peer.h2.reset_stream(streams[1], 8)
        peer.flush()
        self.assertEqual((self.hub.places.guests, len(self.hub.clients)), (0, 1))
        peer.connection.close()
        self.server.settle()
        self.assertEqual((self.hub.places.guests, len(self.hub.clients)), (0, 0))

    def test_messages_that_wait_are_sent_before_the_status(self) -> None:
        self.services["/t/Member"] = self.member
        peer = self.peer(window=4)
        stream = peer.begin("/t/Member")
        self.calls[0].outlet.write(prefixed(b"bye"))
        self.calls[0].outlet.close(SHUTDOWN)
        self.calls[0].outlet.write(prefixed(b"no more"))
        self.assertEqual((peer.data(stream), peer.status(stream)), (b"\0\0\0\0", None))
        peer.h2.increment_flow_control_window(100, stream)
        peer.flush()
        self.assertEqual((peer.messages(stream), peer.status(stream)), ([b"bye"], (14, "shutdown")))

    def test_a_slow_client_is_disconnected_and_its_neighbours_are_not(self) -> None:
        self.serve(send_queue=100_000)
        self.services["/t/Member"] = self.member
        peer = self.peer(window=1000)
        slow, quick = (peer.begin("/t/Member") for _ in range(2))
        with self.assertLogs("longconn", logging.WARNING) as logs:
            for _ in range(150):
                for call in self.calls:
                    call.outlet.write(prefixed(b"x" * 995))
                peer.h2.increment_flow_control_window(1000, quick)
                peer.h2.increment_flow_control_window(1000)
                peer.flush()
                self.server.settle()
        self.assertEqual(len(logs.output), 1)
        self.assertIn("is disconnected (3008 slow)", logs.output[0])
        self.assertEqual((peer.status(slow), peer.status(quick)), ((8, "slow"), None))
        self.assertEqual(len(peer.messages(quick)), 150)

    def test_a_connection_that_is_not_read_at_all(self) -> None:
        self.serve(send_queue=100_000, write_timeout=30)
        self.services["/t/Member"] = self.member
        rogue, other = self.peer(), self.peer()
        rogue.begin("/t/Member")
        stream = other.begin("/t/Member")
        rogue.connection.stop_reading()
        with self.assertLogs("longconn", logging.WARNING) as logs:
            for _ in range(400):
                for call in self.calls:
                    call.outlet.write(prefixed(b"x" * 995))
                self.server.settle()
            self.assertIn("3008", logs.output[0])
            self.assertEqual(len(other.messages(stream)), 400)
            self.server.advance(40)
            self.assertIn("3009", logs.output[1])
        self.assertTrue(rogue.connection.aborted)

    def test_a_backlog_is_asked_for_as_it_is_read(self) -> None:
        asked = 0

        def source() -> Any:
            nonlocal asked
            for _ in range(1000):
                asked += 1
                yield prefixed(b"x" * 995)

        self.services["/t/Member"] = self.member
        peer = self.peer(window=1_000)
        stream = peer.begin("/t/Member")
        self.calls[0].outlet.write_backlog(source())
        self.calls[0].outlet.write(prefixed(b"live"))
        self.server.settle()
        self.assertLess(asked, 3)
        self.assertEqual(self.calls[0].outlet.queued, 9)
        peer.h2.increment_flow_control_window(1_500_000, stream)
        peer.h2.increment_flow_control_window(1_500_000)
        peer.flush()
        self.assertEqual(peer.messages(stream), [b"x" * 995] * 1000 + [b"live"])

    def test_the_window_of_the_connection(self) -> None:
        self.services["/t/Member"] = self.member
        peer = self.peer(window=1_000_000)
        streams = [peer.begin("/t/Member") for _ in range(3)]
        for _ in range(4):
            for call in self.calls:
                call.outlet.write(prefixed(b"x" * 9_995))
            self.server.settle()
        self.assertEqual(sum(len(peer.data(each)) for each in streams), 65_535)
        peer.h2.increment_flow_control_window(1_000_000)
        peer.flush()
        for stream in streams:
            self.assertEqual(peer.messages(stream), [b"x" * 9_995] * 4)

    def test_a_full_connection_takes_little_from_its_calls(self) -> None:
        asked = 0

        def source() -> Any:
            nonlocal asked
            for _ in range(1000):
                asked += 1
                yield prefixed(b"x" * 9_995)

        self.services["/t/Member"] = self.member
        peer = self.peer()
        for _ in range(50):
            peer.begin("/t/Member")
        peer.connection.stop_reading()
        for call in self.calls:
            call.outlet.write_backlog(source())
        self.server.settle()
        # What is on its way, in the transport and in the outlet; and a part that each call has begun.
        self.assertLess(asked, 75)

    def test_a_window_that_becomes_negative_while_the_kernel_takes_nothing(self) -> None:
        """RFC 9113, section 6.9.2."""
        self.services["/t/Member"] = self.member
        peer = self.peer(window=1_000_000)
        peer.h2.increment_flow_control_window(1_000_000)
        stream = peer.begin("/t/Member")
        peer.connection.stop_reading()
        self.calls[0].outlet.write_backlog(iter([prefixed(b"x" * 499_995)]))
        self.server.settle()
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        peer.flush()
        self.server.settle()
        peer.connection.start_reading()
        begun = len(peer.data(stream))
        self.assertGreater(begun, 0)
        self.assertLess(begun, 500_000)
        peer.h2.increment_flow_control_window(500_000, stream)
        peer.flush()
        self.assertEqual(peer.messages(stream), [b"x" * 499_995])

    def test_calls_take_turns(self) -> None:
        """A call with much to send does not keep the others of its connection waiting."""
        self.services["/t/Member"] = self.member
        peer = self.peer()
        streams = [peer.begin("/t/Member") for _ in range(3)]
        peer.connection.stop_reading()
        for call in self.calls:
            call.outlet.write_backlog(prefixed(b"x" * 9_995) for _ in range(100))
        peer.connection.start_reading()
        self.server.clock.turn()
        for _ in range(20):
            self.server.clock.turn()
        sizes = [len(peer.data(each)) for each in streams]
        self.assertLess(max(sizes) - min(sizes), 40_000)


class EndTests(Case):
    async def watched(self, call: GrpcCall) -> None:
        self.calls.append(call)
        call.on_end(lambda: self.heard.append("end"))
        try:
            await call.read()
        except CancelledError:
            self.heard.append("cancelled")
            raise

    def setUp(self) -> None:
        super().setUp()
        self.heard: list[str] = []
        self.services["/t/This"] = self.watched

    def test_cancelled_by_the_client(self) -> None:
        peer = self.peer()
        stream = peer.begin("/t/This")
        peer.h2.reset_stream(stream, 8)
        peer.flush()
        self.assertEqual((self.heard, self.calls[0].cancelled), (["end", "cancelled"], True))
        self.assertEqual(peer.of(events.TrailersReceived), [])
        self.works(peer)

    def test_the_connection_is_lost(self) -> None:
        peer = self.peer()
        peer.begin("/t/This")
        peer.connection.reset()
        self.assertEqual(self.heard, ["end", "cancelled"])

    def test_the_deadline_passes(self) -> None:
        peer = self.peer()
        stream = peer.begin("/t/This", ("grpc-timeout", "1500m"))
        self.assertEqual(self.calls[0].deadline, self.clock.seconds() + 1.5)
        self.server.advance(1.4)
        self.assertEqual(self.heard, [])
        self.server.advance(0.2)
        self.assertEqual((self.heard, peer.status(stream)), (["end", "cancelled"], (4, "deadline exceeded")))

    def test_a_deadline_that_has_passed_already(self) -> None:
        peer = self.peer()
        stream = peer.begin("/t/This", ("grpc-timeout", "0n"))
        self.assertEqual(peer.status(stream), (4, "deadline exceeded"))

    def test_a_deadline_in_the_middle_of_a_message(self) -> None:
        peer = self.peer(window=3)
        stream = peer.begin("/t/Both", ("grpc-timeout", "1S"))
        peer.send(stream, prefixed(b"hello"))
        self.server.advance(2)
        self.assertEqual((peer.data(stream), peer.status(stream), peer.resets(stream)), (b"\0\0\0", None, [8]))

    def test_a_handler_that_returns(self) -> None:
        peer = self.peer()
        peer.call("/t/This", b"", headers=(("grpc-timeout", "1S"),))
        self.assertEqual((self.heard, self.calls[0].cancelled), (["end"], False))
        self.server.advance(5)
        self.assertEqual(self.heard, ["end"])

    def test_a_handler_that_continues_after_the_end(self) -> None:
        gate: Deferred[None] = Deferred()
        done: list[str] = []

        async def stubborn(call: GrpcCall) -> None:
            try:
                await call.wait()
            except CancelledError:
                await gate
            call.start()
            call.write(b"x")
            call.on_end(lambda: done.append("end"))
            for wait in (call.read, call.drained, call.wait):
                try:
                    await wait()
                except CancelledError:
                    done.append("cancelled")

        self.services["/t/This"] = stubborn
        peer = self.peer()
        stream = peer.begin("/t/This")
        peer.h2.reset_stream(stream, 8)
        peer.flush()
        gate.callback(None)
        self.assertEqual(done, ["end", "cancelled", "cancelled", "cancelled"])
        self.works(peer)


class TimeTests(Case):
    def test_a_peer_that_does_not_answer_pings(self) -> None:
        self.serve(ping_interval=20, pong_timeout=5)
        peer, dead = self.peer(), self.peer()
        stream = dead.begin("/t/Stall")
        self.assertIsNone(dead.status(stream))
        dead.connection.on_data = None
        for _ in range(60):
            self.server.advance(1)
        self.assertTrue(dead.connection.aborted)
        self.assertFalse(peer.connection.closed)
        self.assertTrue(self.calls[0].cancelled)
        self.assertEqual(len(peer.of(events.PingReceived)), 2)
        self.works(peer)

    def test_a_peer_that_sends_is_not_pinged(self) -> None:
        self.serve(ping_interval=20)
        peer = self.peer()
        for _ in range(30):
            self.server.advance(5)
            self.works(peer)
        self.assertEqual(peer.of(events.PingReceived), [])

    def test_an_idle_connection_is_closed(self) -> None:
        self.serve(idle_timeout=100)
        peer, busy = self.peer(), self.peer()
        busy.begin("/t/Stall")
        self.server.advance(60)
        self.works(peer)
        self.server.advance(60)
        self.assertFalse(peer.connection.closed)
        for _ in range(4):
            self.server.advance(30)
        self.assertEqual(peer.goaways, [(0, 1, "idle")])
        self.assertTrue(peer.connection.closed)
        self.assertFalse(busy.connection.closed)
        # Which is pinged as before.
        pings = len(busy.of(events.PingReceived))
        self.server.advance(60)
        self.assertGreater(len(busy.of(events.PingReceived)), pings)

    def test_too_many_connections(self) -> None:
        self.serve(max_connections=1)
        peers = [self.peer() for _ in range(60)]
        self.server.settle()
        self.assertEqual([each.connection.closed for each in peers], [True] * 9 + [False] * 51)


class ShutdownTests(Case):
    def test_goaway_in_two_steps(self) -> None:
        peer = self.peer()
        stream = peer.begin("/t/Both")
        self.factory.drain()
        self.server.settle()
        self.assertEqual(peer.goaways, [(0, 2**31 - 1, "shutdown"), (0, stream, "shutdown")])
        peer.send(stream, prefixed(b"still here"), end=True)
        self.assertEqual((peer.messages(stream), peer.status(stream)), ([b"still here"], (0, "")))
        self.server.settle()
        self.assertTrue(peer.connection.closed)

    def test_a_call_in_flight_is_served_and_a_later_one_is_refused(self) -> None:
        peer = self.peer()
        peer.begin("/t/Stall")
        data = peer.connection.on_data
        assert data is not None
        held: list[bytes] = []
        peer.connection.on_data = held.append  # what the server says is on its way
        self.factory.drain()
        self.server.settle()
        on_its_way = peer.begin("/t/Both")
        peer.connection.on_data = data
        data(b"".join(held))  # the answer to the ping makes the server say which was the last
        self.server.settle()
        self.assertEqual([each[1] for each in peer.goaways], [2**31 - 1, on_its_way])
        peer.send(on_its_way, prefixed(b"hello"), end=True)
        self.assertEqual(peer.messages(on_its_way), [b"hello"])
        self.assertEqual(peer.resets(peer.begin("/t/Both")), [7])

    def test_the_second_goaway_without_an_answer_to_the_ping(self) -> None:
        peer = self.peer()
        stream = peer.begin("/t/Stall")
        peer.connection.on_data = None
        for _ in range(30):
            self.factory.drain()
            self.server.advance(0.1)
        self.assertTrue(self.calls[0].over)
        self.assertTrue(peer.connection.closed)
        self.assertEqual(stream, 1)

    def test_calls_that_are_not_clients_end_half_a_second_after_the_last_client(self) -> None:
        async def member(call: GrpcCall) -> None:
            call.outlet.client = self.hub.connect(call.outlet, "grpc", call.host, call.address)
            await call.wait()

        self.services["/t/Member"] = member
        peer = self.peer()
        streams = [peer.begin("/t/Stall"), peer.begin("/t/Member")]
        for _ in range(20):
            self.factory.drain()
            self.server.advance(0.1)
        self.assertEqual([peer.status(each) for each in streams], [None, None])
        next(iter(self.hub.clients.values())).close(SHUTDOWN)
        for _ in range(10):
            self.factory.drain()
            self.server.advance(0.1)
        self.assertEqual([peer.status(each) for each in streams], [(14, "shutdown")] * 2)
        self.assertTrue(peer.connection.closed)
