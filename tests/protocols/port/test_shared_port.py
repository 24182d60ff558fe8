"""The shared port: each connection gets the protocol that its first bytes show, whenever they come."""

import logging
from typing import Any

from h2.events import TrailersReceived
from twisted.trial.unittest import SynchronousTestCase

from longconn import ChatFactory, GrpcFactory, Settings, SharedPortFactory
from longconn.protocols.port.shared_port import SILENCE
from longconn.service.embedding import LiveSite
from longconn.testing import HTTPClient, LineClient, MemoryServer, WebSocketClient
from longconn.wire.http2 import PREFACE
from tests.protocols.grpc.http2_kit import Peer

GET = b"GET /PrintHello HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.serve()

    def serve(self, **settings: Any) -> None:
        self.server = MemoryServer(Settings(**settings))
        self.addCleanup(self.server.stop)
        hub = self.server.hub
        self.port = SharedPortFactory(ChatFactory(hub), LiveSite(hub), GrpcFactory(hub))

    def connect(self) -> Any:
        return self.server.connect(self.port)

    def witness(self) -> LineClient:
        client = self.server.line_client(self.port)
        client.say("ping")
        self.assertEqual(client.read(), ["pong"])
        return client

    def listener(self) -> Any:
        connection = self.connect()
        self.server.advance(SILENCE + 0.01)
        return connection


class TableTests(Case):
    def test_one_port_serves_all(self) -> None:
        line = self.witness()
        web = WebSocketClient(self.connect(), "/ws?name=web")
        http = HTTPClient(self.connect())
        events = HTTPClient(self.connect()).get("/channels/lobby/events")
        self.server.settle()
        line.say("one")
        web.say("two")
        http.post("/channels/lobby", "three")
        self.assertEqual([text.split(": ")[-1] for text in line.read()], ["* web joined", "one", "two", "three"])
        self.server.settle()
        self.assertEqual(
            [each.json()["data"] for each in events.events() if each.event == "message"], ["one", "two", "three"]
        )

    def test_first_bytes_may_come_one_by_one(self) -> None:
        line, http = self.connect(), self.connect()
        client, answers = LineClient(line), HTTPClient(http)
        answer = answers.expect()
        for each in GET:
            http.send(bytes([each]))
        for each in b"hello there\n":
            line.send(bytes([each]))
        self.server.settle()
        self.assertEqual(answer.text, "hello word")
        self.assertEqual(client.lines, [f"{client.address}: hello there"])

    def test_a_request_line_in_two_segments_at_every_place_and_however_late(self) -> None:
        for size in range(1, len(GET)):
            http = HTTPClient(self.connect())
            answer = http.expect()
            http.connection.send(GET[:size])
            self.server.advance(1.5)
            http.connection.send(GET[size:])
            self.server.settle()
            self.assertEqual(answer.text, "hello word", size)

    def greets(self, peer: Peer) -> None:
        stream = peer.call("/helloworld.Greeter/SayHello", b"\x0a\x03Ada")
        self.assertEqual(peer.messages(stream), [b"\x0a\x0aHello Ada!"])
        self.assertEqual(len(peer.of(TrailersReceived, stream)), 1)

    def test_grpc_however_late_and_in_pieces(self) -> None:
        self.greets(Peer(self.server, self.port))
        for wait in (0, 1):
            connection = self.connect()
            self.server.advance(wait)
            for each in PREFACE[:-1]:
                connection.send(bytes((each,)))
            self.server.settle()
            # The server has begun to speak HTTP/2 too, with its settings.
            self.assertEqual(bytes(connection.received[3:9]), b"\4\0\0\0\0\0")
        self.assertEqual(self.server.hub.places.guests, 3)

    def test_grpc_on_a_connection_that_was_written_to(self) -> None:
        connection = self.listener()
        self.witness().say("hello")
        self.server.settle()
        with self.assertLogs("longconn", logging.INFO) as logs:
            connection.send(PREFACE)
            self.server.settle()
        self.assertIn("HTTP/2 on a connection that was written to", str(logs.output))
        self.assertNotIn(b"\4\0\0\0\0\0", bytes(connection.received))

    def test_tls_and_http2_that_are_not_served_are_closed_and_logged_at_once(self) -> None:
        hub = self.server.hub
        self.port = SharedPortFactory(ChatFactory(hub), LiveSite(hub))
        for data, name in ((b"\x16\x03\x01", "TLS"), (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2")):
            for wait in (0, 1):
                connection = self.connect()
                self.server.advance(wait)
                with self.assertLogs("longconn", logging.INFO) as logs:
                    connection.send(data)
                    self.server.settle()
                self.assertTrue(connection.aborted)
                self.assertIn(f"{name} is not served here", str(logs.output))

    def test_a_line_that_only_starts_like_a_request_is_chat(self) -> None:
        client = self.witness()
        client.say("GET / HTTP/1.1")  # no first line any more
        other = self.server.line_client(self.port)
        other.say("GET me a beer")
        self.assertEqual(
            client.read(),
            [f"{client.address}: GET / HTTP/1.1", f"* {other.address} joined", f"{other.address}: GET me a beer"],
        )

    def test_a_request_that_a_browser_is_made_to_post_is_never_published(self) -> None:
        witness = self.witness()
        for wait in (0, 1):
            connection = self.connect()
            self.server.advance(wait)
            connection.send(b"POST / HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 6\r\n\r\nhello\nhello\n")
            self.server.advance(1)
        self.assertEqual(witness.read(), [])

    def test_a_request_line_longer_than_any_chat_line_is_never_published(self) -> None:
        self.serve(max_message=1_000)
        witness = self.witness()
        data = b"POST /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\nhello\nhello\n"
        for wait in (0, 1):
            connection = self.connect()
            self.server.advance(wait)
            for start in range(0, len(data), 700):
                connection.send(data[start : start + 700])
                self.server.settle()
            self.assertTrue(connection.received.startswith(b"HTTP/1.1 414 "), connection.received)
        alone = self.server.connect(ChatFactory(self.server.hub))
        for start in range(0, len(data), 700):
            alone.send(data[start : start + 700])
        self.assertEqual([line for line in witness.read() if "Host" in line or "hello" in line], [])

    def test_what_looks_like_another_protocol_is_never_said_on_any_port(self) -> None:
        head = b"\r\nHost: localhost\r\nCookie: secret\r\n\r\nsecret\r\n"
        openings = (
            b"GET  /secret HTTP/1.1", b"GET /secret HTTP/1.1 ", b"GET /secret HTTP/2.0", b"GET /secret HTTP/1.10",
            b" GET /secret HTTP/1.1", b"post /secret http/1.1", b"GET /a secret HTTP/1.1", b"POST /secret",
            b"\r\nGET /secret HTTP/1.1", b"POST http://a.example/secret HTTP/1.1", b"\xef\xbb\xbfGET /secret HTTP/1.1",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nGET / HTTP/1.1", b"SSH-2.0-secret", b"a1 LOGIN secret secret",
            b"PASS secret",
            b"CONNECT", b"*2", b"OPTIONS rtsp://secret RTSP/1.0", b"\5\1\0secret", b"\xff\xfes\0", b"[secret",
            b"{secret",
        )  # fmt: skip
        for settings in ({}, {"empty_line": "ignore"}):
            self.serve(**settings)
            chat = ChatFactory(self.server.hub)
            witness = self.witness()
            for opening in openings:
                for factory, wait in ((self.port, 0), (self.port, 1), (chat, 0)):
                    for size in (1, 1000):
                        connection = self.server.connect(factory)
                        self.server.advance(wait)
                        for start in range(0, len(opening + head), size):
                            connection.send((opening + head)[start : start + size])
                        self.server.advance(1)
                        # An empty line that came alone has ended the connection as it ends any chat.
                        self.assertTrue(connection.closed or connection.transport.disconnecting, opening)
            self.assertNotIn("secret", "".join(witness.read()))
            history = HTTPClient(self.connect(), self.server.settle).get("/channels/lobby?since=x:0").json()
            self.assertEqual(history["publications"], [])

    def test_almost_a_request_is_answered_400(self) -> None:
        for line in (
            b"GET  / HTTP/1.1",
            b"GET / HTTP/2.0",
            b"\xef\xbb\xbfGET / HTTP/1.1",
            b"POST /api/info",
            b"get / http/1.1",
        ):
            for wait in (0, 1):
                connection = self.connect()
                self.server.advance(wait)
                connection.send(line + b"\r\n")
                self.server.settle()
                self.assertTrue(connection.received.startswith(b"HTTP/1.1 400 "), line)

    def test_a_request_after_empty_lines_is_served(self) -> None:
        for settings in ({}, {"empty_line": "ignore"}):
            self.serve(**settings)
            for wait in (0, 1):
                connection = self.connect()
                self.server.advance(wait)
                connection.send(b"\r\n" + GET)
                self.server.settle()
                self.assertIn(b"hello word", connection.received)

    def test_empty_lines_that_are_ignored_leave_a_connection_undecided(self) -> None:
        self.serve(empty_line="ignore")
        witness = self.witness()
        for wait in (0, 1):
            connection = self.connect()
            connection.send(b"\r\n")
            self.server.advance(wait)
            connection.send(b"\n")
            connection.send(GET)
            self.server.settle()
            self.assertIn(b"hello word", connection.received)
            listener = self.server.line_client(self.port)
            listener.connection.send(b"\n")
            self.server.advance(1)
            witness.say(str(wait))
            self.assertEqual([line[-1] for line in listener.read()], [str(wait)])
            listener.say("", "hello")
            self.assertEqual(witness.read()[-1], f"{listener.address}: hello")
            listener.connection.close()
            witness.read()

    def test_a_byte_order_mark_before_chat_counts_as_nothing(self) -> None:
        bom = b"\xef\xbb\xbf"
        for wait in (0, 1):
            witness, connection = self.witness(), self.connect()
            client = LineClient(connection)
            self.server.advance(wait)
            connection.send(bom + b"/nick ann%d\r\n" % wait + bom + b"hello\n")
            self.assertEqual(witness.read()[-1], f"ann{wait}: hello")
            connection.send(bom + b"ping")
            self.server.advance(1)
            self.assertEqual(client.lines[-1], "pong")
            first = self.connect()
            first.send(bom + b"pingping")
            self.server.advance(1)
            self.assertEqual(first.received, b"pong\r\npong\r\n")

    def test_a_byte_order_mark_before_a_connect_counts_as_nothing(self) -> None:
        for wait in (0, 1):
            connection = self.connect()
            self.server.advance(wait)
            connection.send(b'\xef\xbb\xbf{"id":1,"connect":{}}\r\n')
            self.server.settle()
            self.assertTrue(connection.received.startswith(b'{"id":1,"connect":{"client":'))

    def test_after_the_first_line_of_chat_json_is_text(self) -> None:
        witness, client = self.witness(), self.server.line_client(self.port)
        client.say("/who", '{"id":1,"connect":{}}', "[1]")
        self.assertEqual(
            witness.read()[-2:], [f"{client.address}: " + each for each in ('{"id":1,"connect":{}}', "[1]")]
        )

    def test_a_connection_that_ends_before_it_is_decided_leaves_nothing_behind(self) -> None:
        for data in (b"", b"G", b"ping"):
            connection = self.connect()
            connection.send(data)
            connection.close()
        self.server.advance(1)
        self.assertEqual((self.server.hub.clients, self.server.clock.getDelayedCalls()), ({}, []))


class SilenceTests(Case):
    def test_a_silent_client_becomes_a_listener_that_is_not_announced(self) -> None:
        witness = self.witness()
        connection = self.connect()
        self.server.advance(SILENCE - 0.01)
        witness.say("too early")
        self.server.advance(0.02)
        witness.say("heard")
        self.server.settle()
        self.assertEqual(connection.received, f"{witness.address}: heard\r\n".encode())
        self.assertEqual(witness.read(), [f"{witness.address}: too early", f"{witness.address}: heard"])
        self.assertEqual(len(self.server.hub.presence("lobby")), 2)
        connection.close()
        self.assertEqual(witness.read(), [])

    def test_a_reactor_that_was_busy_looks_at_the_socket_first(self) -> None:
        for size in (len(GET), 5):
            connection = self.connect()
            # One turn of a reactor that was busy for long: it runs the calls that are due, then it reads.
            self.server.clock.rightNow += 5
            self.server.clock.turn()
            self.assertEqual(self.server.hub.clients, {})
            connection.send(GET[:size])
            self.server.advance(1)
            self.assertEqual(self.server.hub.clients, {})
            connection.send(GET[size:])
            self.server.settle()
            self.assertIn(b"hello word", connection.received)

    def test_its_first_line_announces_a_listener(self) -> None:
        witness = self.witness()
        connection = self.listener()
        connection.send(b"hello\n")
        name = f"{connection.local.host}:{connection.local.port}"
        self.assertEqual(witness.read(), [f"* {name} joined", f"{name}: hello"])

    def test_a_command_announces_a_listener_but_an_empty_line_or_a_bare_ping_does_not(self) -> None:
        witness = self.witness()
        for data, told in ((b"/who\n", True), (b"ping\n", True), (b"\n", False), (b"ping", False)):
            with self.subTest(data=data):
                connection = self.listener()
                connection.send(data)
                self.server.advance(1)
                self.assertEqual(bool(witness.read()), told)
                connection.close()
                witness.read()

    def test_a_browser_that_opened_a_socket_ahead_of_need_is_served(self) -> None:
        connection = self.connect()
        self.server.advance(1)
        self.assertEqual(len(self.server.hub.clients), 1)
        http = HTTPClient(connection, self.server.settle)
        self.assertEqual([http.get("/PrintHello").text for _ in range(2)], ["hello word"] * 2)
        self.assertEqual(self.server.hub.clients, {})

    def test_a_late_websocket_and_a_late_stream_are_served(self) -> None:
        for make in (
            lambda connection: WebSocketClient(connection, "/ws"),
            lambda connection: HTTPClient(connection).get("/channels/lobby/events"),
        ):
            client = make(self.listener())
            self.server.settle()
            self.assertIn(client.status, (101, 200))
        self.assertEqual(len(self.server.hub.clients), 2)

    def test_a_late_request_in_two_segments_is_served(self) -> None:
        connection = self.listener()
        http = HTTPClient(connection)
        answer = http.expect()
        connection.send(GET[:7])
        self.server.advance(3)
        connection.send(GET[7:])
        self.server.settle()
        self.assertEqual(answer.text, "hello word")

    def test_a_late_request_is_closed_if_something_was_written(self) -> None:
        witness = self.witness()
        connection = self.listener()
        witness.say("hello")
        self.server.settle()
        with self.assertLogs("longconn", logging.INFO) as logs:
            connection.send(GET)
            self.server.settle()
        self.assertTrue(connection.aborted)
        self.assertEqual(connection.received, f"{witness.address}: hello\r\n".encode())
        self.assertIn("HTTP/1 on a connection that was written to", str(logs.output))

    def test_a_listener_that_becomes_a_request_is_no_client_any_more(self) -> None:
        witness = self.witness()
        connection = self.listener()
        connection.send(GET)
        witness.say("hello")
        self.server.advance(100)
        self.assertNotIn(b": hello\r\n", connection.received)
        self.assertEqual(len(self.server.hub.presence("lobby")), 1)


class PartTests(Case):
    def test_no_timer_decides_on_a_part_of_a_line(self) -> None:
        for part in (b"h", b"GET /", b"\x16", b"PRI *"):
            connection = self.connect()
            connection.send(part)
            self.server.advance(9)
            self.assertEqual((connection.received, connection.closed), (b"", False))
            connection.close()

    def test_a_first_line_that_does_not_end_in_time_is_closed_and_logged(self) -> None:
        for settings in ({"handshake_timeout": 100}, {"handshake_timeout": 0, "idle_timeout": 100}):
            self.serve(**settings)
            connection = self.connect()
            # Further bytes do not prolong its time.
            for _ in range(11):
                connection.send(b"unfinished")
                self.server.advance(9)
            self.assertFalse(connection.closed)
            with self.assertLogs("longconn", logging.INFO) as logs:
                self.server.advance(2)
            self.assertTrue(connection.aborted)
            self.assertIn("began a line and did not end it", str(logs.output))

    def test_a_bare_ping_first_is_answered_and_makes_a_listener(self) -> None:
        witness = self.witness()
        connection = self.connect()
        connection.send(b"ping")
        self.server.advance(0.25)
        self.assertEqual(connection.received, b"pong\r\n")
        witness.say("hello")
        self.server.settle()
        self.assertTrue(connection.received.endswith(b": hello\r\n"))
        self.assertEqual(witness.read(), [f"{witness.address}: hello"])
        connection.send(b"ping")
        self.server.advance(0.25)
        self.assertTrue(connection.received.endswith(b"pong\r\n"))

    def test_the_first_line_of_a_listener_ends_in_time(self) -> None:
        slow, typist = self.listener(), LineClient(self.listener())
        slow.send(b"h")
        for _ in range(55):
            self.server.advance(1)
            slow.send(b"m")
        typist.connection.send(b"hello")
        self.server.advance(6)
        self.assertTrue(slow.closed)
        self.assertIn(b"! ", slow.received)
        typist.connection.send(b"\n/who\n")
        self.server.advance(100)
        typist.connection.send(b"an unfinished second line")
        self.server.advance(100)
        self.assertFalse(typist.connection.closed)

    def test_an_endless_first_line_is_chat_and_too_long(self) -> None:
        self.serve(max_message=1_000)
        client = LineClient(self.connect())
        for _ in range(100):
            client.connection.send(b"x" * 100)
        self.server.settle()
        self.assertEqual(client.lines, ["! too large: at most 1000 bytes"])
        client.connection.send(b"\nping\n")
        self.server.settle()
        self.assertEqual(client.lines[1:], ["pong"])
