"""HTTP/2 servers that break rules, or end calls, and the errors of a client over gRPC."""

from collections.abc import Callable
from typing import Any

from h2 import events

from longconn.clients import (
    ClientError,
    ConnectionFailed,
    ConnectionState,
    Disconnected,
    NotLongconn,
    Refused,
)
from longconn.v1 import longconn_pb2 as pb
from tests.clients.transports.grpc_server import Answering, frame, serving
from tests.clients.transports.test_grpc import GRPCCase

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
Script = Callable[[Answering], Any]


def goaway(last: int, code: int, text: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + text)


class Base(GRPCCase):
    def other(self, script: Script) -> Any:
        self.network.server = serving(script)
        return self.network.server

    def error(self, script: Script, kind: type[ClientError], **options: Any) -> Any:
        """The error of a client that cannot connect, or loses its connection."""
        self.other(script)
        client = self.client(reconnect=False, **options)
        client.publish("news", "said first when it is connected").addErrback(lambda _: None)
        state = self.get(client.closed(), 11)
        self.assertIsInstance(state.error, kind, str(state))
        self.assertNotIn("\n", state.reason)
        self.assertEqual(self.network.transports, [])
        return state.error


class StatusTests(Base):
    """The ends of calls."""

    def ended(self, kind: type[ClientError], *end: Any) -> Any:
        """The error is the same with headers before the trailers, and without."""

        def after_headers(server: Answering) -> None:
            server.head()
            server.end(*end)

        def without(server: Answering) -> None:
            status, text, code = (*end, "", 0)[:3]
            fields = {"grpc_status": str(status)}
            fields |= {"grpc_message": text} if text else {}
            server.head(end=True, **fields, **({"longconn_code": str(code)} if code else {}))

        error = self.error(after_headers, kind)
        self.assertEqual(str(self.error(without, kind)), str(error))
        return error

    def test_statuses_with_a_number(self) -> None:
        refused = self.ended(Refused, 6, "the name ann is taken", 153)
        self.assertEqual((refused.code, refused.message, refused.temporary), (153, "the name ann is taken", False))
        self.assertTrue(self.ended(Refused, 8, "limit exceeded: connections", 106).temporary)
        self.assertTrue(self.ended(Refused, 14, "internal error; try again", 100).temporary)
        gone = self.ended(Disconnected, 14, "shutdown", 3001)
        self.assertEqual((gone.code, gone.reason, gone.final), (3001, "shutdown", False))
        self.assertTrue(self.ended(Disconnected, 16, "invalid token", 3500).final)

    def test_statuses_without_a_number(self) -> None:
        self.assertEqual(self.ended(Refused, 16, "who are you%3F%0Agr%C3%B6%C3%9Fer").code, 16)
        self.assertEqual(str(self.ended(Refused, 7, "a%0A%0Db%ZZ")), "PERMISSION_DENIED a b%ZZ (7)")
        self.assertFalse(self.ended(Refused, 3, "no").temporary)
        self.assertIn("UNIMPLEMENTED", str(self.ended(NotLongconn, 12, "unknown service")))
        for status, name in ((0, "OK"), (1, "CANCELLED"), (8, "RESOURCE_EXHAUSTED"), (14, "UNAVAILABLE"), (99, "99")):
            self.assertIn(name, str(self.ended(ConnectionFailed, status, "soon")))

    def test_malformed_statuses(self) -> None:
        for status in ("", "x", "-1", "1000", "\N{ARABIC-INDIC DIGIT ONE}"):

            def script(server: Answering, status: str = status) -> None:
                server.head(end=True, grpc_status=status)

            self.assertIn("without a status", str(self.error(script, ConnectionFailed)))

    def test_http_responses_that_are_not_grpc(self) -> None:
        for status, kind in (("404", NotLongconn), ("503", ConnectionFailed), ("401", Refused), ("200", NotLongconn)):

            def script(server: Answering, status: str = status) -> None:
                server.head(status=status, content_type="text/html")
                server.h2.send_data(1, b"<html>")

            self.assertIn("127.0.0.1:9999", str(self.error(script, kind)))

    def test_the_request(self) -> None:
        made = self.other(Answering.greet).made
        client = self.client(name="ann", token="t")
        self.get(client.connected())
        self.assertEqual(
            made[0].request,
            {
                ":method": "POST", ":scheme": "http", ":path": "/longconn.v1.LongConn/Connect",
                ":authority": "127.0.0.1:9999", "te": "trailers", "content-type": "application/grpc",
                "grpc-accept-encoding": "identity",
            },
        )  # fmt: skip
        settings = made[0].h2.remote_settings
        self.assertEqual((settings.enable_push, settings.max_header_list_size), (0, 65_536))
        client.history("news", limit=0).addErrback(lambda _: None)
        self.network.settle()
        parts = [each.data for each in made[0].events if isinstance(each, events.DataReceived)]
        first, second = (pb.ConnectRequest.FromString(each[5:]) for each in parts)
        self.assertEqual((first.connect.name, first.connect.token, first.connect.heartbeat), ("ann", "t", 25))
        self.assertEqual((second.id, second.history.limit), (2, 1))  # of which none is shown


class ConnectionTests(Base):
    """The ends of connections."""

    def connected_then(self, more: Script) -> Any:
        """A client that was connected, when `more` has happened."""

        def script(server: Answering) -> None:
            server.greet()
            server.flush()
            more(server)

        self.other(script)
        client = self.client()
        self.network.settle()
        self.assertIs(self.states[0].state, ConnectionState.CONNECTED)
        return client

    def producer(self, client: Any) -> Any:
        """The producer that Twisted pauses while bytes wait to be sent."""
        return client._connection._current._transport

    def test_goaway_with_an_error(self) -> None:
        client = self.connected_then(lambda server: server.raw(goaway(1, 11, b"too_many\npings")))
        self.assertIs(client.state.state, ConnectionState.RECONNECTING)
        self.assertEqual(client.state.reason, "127.0.0.1:9999 goes away: too_many pings")
        self.network.advance(1)
        self.assertEqual(len(self.network.attempts), 2)
        self.assertIn("ENHANCE_YOUR_CALM", str(self.error(lambda server: server.raw(goaway(1, 11)), ConnectionFailed)))
        self.assertIn("error 99", str(self.error(lambda server: server.raw(goaway(1, 99)), ConnectionFailed)))

    def test_goaway_before_the_call(self) -> None:
        error = self.error(lambda server: server.raw(goaway(0, 0)), ConnectionFailed)
        self.assertEqual(str(error), "127.0.0.1:9999 goes away: NO_ERROR")

    def test_goaway_while_the_call_goes_on(self) -> None:
        """A server that shuts down sends GOAWAY twice."""

        def script(server: Answering) -> None:
            server.greet()
            server.raw(goaway(2**31 - 1, 0, b"shutdown"))
            server.raw(goaway(1, 0, b"shutdown"))
            server.say(id=0, heartbeat=pb.Heartbeat())

        made = self.other(script).made
        client = self.client()
        self.get(client.connected())
        asked = client.presence("news")
        self.network.settle()
        made[0].say(id=2, presence=pb.PresenceResponse(clients=[pb.ClientInfo(client="c", name="ann")]))
        made[0].flush()
        self.assertEqual([each.name for each in self.get(asked)], ["ann"])
        made[0].end(14, "shutdown", 3001)
        made[0].flush()
        self.network.settle()
        self.assertEqual((client.state.state, client.state.code), (ConnectionState.RECONNECTING, 3001))

    def test_resets(self) -> None:
        for code, name in ((8, "CANCEL"), (7, "REFUSED_STREAM"), (11, "ENHANCE_YOUR_CALM"), (99, "error 99")):
            reset = frame(RST_STREAM, 1, code.to_bytes(4, "big"))
            error = self.error(lambda server, reset=reset: server.raw(reset), ConnectionFailed)
            self.assertEqual(str(error), f"127.0.0.1:9999 has broken the call off: {name}")
            self.states.clear()
            client = self.connected_then(lambda server, reset=reset: server.raw(reset))
            self.assertIs(client.state.state, ConnectionState.RECONNECTING)

    def test_a_server_that_never_answers(self) -> None:
        for script in (lambda server: None, Answering.head, lambda server: server.raw(frame(PING, 0, b"12345678"))):
            self.assertEqual(str(self.error(script, ConnectionFailed)), "127.0.0.1:9999: no answer within 10 s")

    def test_a_server_that_falls_silent(self) -> None:
        client = self.connected_then(lambda server: None)
        self.network.advance(34)
        self.assertIs(client.state.state, ConnectionState.CONNECTED)
        self.network.advance(1)
        self.assertEqual(client.state.reason, "nothing came from the server for 35 s")

    def test_a_large_answer_in_pieces_is_a_sign_of_life(self) -> None:
        def script(server: Answering) -> None:
            server.greet()
            server.h2.send_data(1, b"\0\0\1\0\0")

        made = self.other(script).made
        client = self.client()
        self.get(client.connected())
        for _ in range(5):
            self.network.advance(30)
            made[0].h2.send_data(1, b"x" * 1_000)
            made[0].flush()
        self.network.settle()
        self.assertIs(client.state.state, ConnectionState.CONNECTED)

    def test_invalid_frames(self) -> None:
        broken = (
            frame(DATA, 1, b"x" * 16_385),
            b"\xff\xff\xff\0\0\0\0\0\1",  # and its rest is not waited for
            frame(DATA, 3, b"x"),
            frame(HEADERS, 1, b"\xff\xff\xff\xff", flags=4),
            frame(CONTINUATION, 1, b"x"),
            frame(PUSH_PROMISE, 1, b"\0\0\0\2\x82", flags=4),
            frame(SETTINGS, 1, b""),
            frame(SETTINGS, 0, b"x"),
            frame(PING, 0, b"short"),
            frame(WINDOW_UPDATE, 0, (2**31 - 1).to_bytes(4, "big")),
            frame(GOAWAY, 0, b"short"),
            frame(RST_STREAM, 0, b"\0\0\0\0"),
        )
        for each in broken:
            for begun in (False, True):

                def script(server: Answering, each: bytes = each, begun: bool = begun) -> None:
                    if begun:
                        server.greet()
                    server.raw(each)

                with self.subTest(frame=each[:20], begun=begun):
                    self.assertIn("breaks the rules of HTTP/2", str(self.error(script, NotLongconn)))

    def test_a_flood_of_headers(self) -> None:
        head = frame(HEADERS, 1, b"\0\1a\x7f\xff\xff\0" + b"x" * 10_000)
        more = b"".join(frame(CONTINUATION, 1, b"x" * 10_000) for _ in range(100))
        self.error(lambda server: server.raw(head + more), NotLongconn)

    def test_invalid_messages(self) -> None:
        publication = pb.ConnectResponse(publication=pb.Publication(channel="c", data="{")).SerializeToString()
        for data in (
            b"\1\0\0\0\0",  # compressed, though the client does not accept that
            b"\0\xff\xff\xff\xff",
            b"\0\0\0\0\1\xff",
            b"\0" + len(publication).to_bytes(4, "big") + publication,
        ):

            def script(server: Answering, data: bytes = data) -> None:
                server.head()
                server.h2.send_data(1, data)

            self.assertIn("this is no longconn server", str(self.error(script, NotLongconn)))

    def test_answers_to_nothing_are_ignored(self) -> None:
        def script(server: Answering) -> None:
            server.head()
            server.say(id=7, history=pb.HistoryResponse())
            server.say(id=0, subscribed=pb.Subscribed(channel="c"))
            server.say(id=0)
            server.say(id=9, pong=pb.Pong())
            server.say(id=1, connected=pb.Connected(client="me"))

        self.other(script)
        client = self.client()
        self.get(client.connected())
        self.assertEqual(client.id, "me")

    def test_pings_whose_answers_are_not_read(self) -> None:
        """The bytes that wait to be sent are limited."""
        made = self.other(Answering.greet).made
        client = self.client()
        self.get(client.connected())
        self.producer(client).pauseProducing()
        before = client.state
        for _ in range(10):
            made[0].raw(frame(PING, 0, b"12345678") * 1_000)
            self.network.settle()
        self.assertEqual(client.state, before)
        for _ in range(10):
            made[0].raw(frame(PING, 0, b"12345678") * 1_000)
            self.network.settle()
        self.assertEqual(client.state.reason, "127.0.0.1:9999 does not read what it asks for")

    def test_commands_wait_while_the_server_does_not_read(self) -> None:
        made = self.other(Answering.greet).made
        client = self.client()
        self.get(client.connected())
        producer = self.producer(client)

        def heard() -> int:
            return sum(len(each.data) for each in made[0].events if isinstance(each, events.DataReceived))

        start = heard()
        producer.pauseProducing()
        client.publish("news", "x" * 30_000).addErrback(lambda _: None)
        self.network.settle()
        self.assertEqual(heard(), start)
        producer.resumeProducing()
        self.network.settle()
        self.assertGreater(heard(), start + 30_000)
        # And no more than its window.
        client.publish("news", "x" * 90_000).addErrback(lambda _: None)
        self.network.settle()
        self.assertEqual(heard(), 65_535)
        made[0].h2.increment_flow_control_window(100_000)
        made[0].h2.increment_flow_control_window(100_000, 1)
        made[0].flush()
        self.network.settle()
        self.assertGreater(heard(), 120_000)
