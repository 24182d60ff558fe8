"""WebSocket: frames of every shape, and the deadlines."""

from typing import Any

from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from longconn import ChatFactory, Settings, SharedPortFactory, WebSocketFactory
from longconn.service.embedding import LiveSite
from longconn.testing import HTTPClient, MemoryServer, WebSocketClient, client_frame

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.serve()

    def serve(self, **settings: Any) -> None:
        self.server = MemoryServer(Settings(**settings))
        self.addCleanup(self.server.stop)
        hub = self.server.hub
        self.port = SharedPortFactory(ChatFactory(hub), LiveSite(hub))
        self.own = WebSocketFactory(hub)

    def client(self, path: str = "/ws", own: bool = False, **options: Any) -> WebSocketClient:
        return self.server.websocket_client(path, self.own if own else self.port, **options)

    def send(self, client: WebSocketClient, data: bytes) -> list[str | bytes]:
        client.connection.send(data)
        return client.read()


class StructuredTests(Case):
    path = "/connection/websocket"

    def test_the_subprotocol_is_named_in_the_answer(self) -> None:
        for offered in ("centrifuge-json", "x, centrifuge-json", "centrifuge-protobuf, centrifuge-json"):
            client = self.client(self.path, headers=[("Sec-WebSocket-Protocol", offered)])
            self.assertEqual((client.status, client.headers["sec-websocket-protocol"]), (101, "centrifuge-json"))
        for path, offered in ((self.path, "x"), ("/echo", "centrifuge-json"), ("/ws", "centrifuge-json")):
            client = self.client(path, headers=[("Sec-WebSocket-Protocol", offered)])
            self.assertEqual((client.status, client.headers.get("sec-websocket-protocol")), (101, None))
        client = self.client(self.path, headers=[("Sec-WebSocket-Protocol", "centrifuge-protobuf")])
        self.assertEqual((client.status, client.headers["sec-websocket-protocol"]), (101, "centrifuge-protobuf"))

    def test_pings_of_websocket_in_place_of_those_of_the_session(self) -> None:
        for query, own in (("?cf_ws_frame_ping_pong=true", False), ("?cf_ws_frame_ping_pong=false", True), ("", True)):
            client = self.client(self.path + query)
            client.say('{"id":1,"connect":{}}')
            (reply,) = client.read()
            self.assertEqual('"ping":25,"pong":true' in str(reply), own)
            self.server.advance(24.0)
            self.server.advance(3.0)
            self.assertEqual((client.read(), client.pings), (["{}"], 0) if own else ([], 1))
            client.answers_pings = False
            self.server.advance(100.0)
            self.assertEqual(client.close_code, 3012)

    def test_a_client_that_answers_pings_of_websocket_stays(self) -> None:
        client = self.client(self.path + "?cf_ws_frame_ping_pong=true")
        client.say('{"id":1,"connect":{}}')
        for _ in range(20):
            self.server.advance(20.0)
        self.assertIsNone(client.close_code)
        self.assertGreater(client.pings, 10)


class MessageTests(Case):
    def test_frames_in_pieces_of_a_byte(self) -> None:
        client = self.client("/echo")
        data = client_frame(b"hello") + client_frame(b"x" * 200) + client_frame(b"\0", BINARY)
        for each in data:
            client.connection.send(bytes([each]))
        self.assertEqual(client.read(), ["hello", "x" * 200, b"\0"])

    def test_all_lengths_of_text_and_binary_come_back_as_they_went(self) -> None:
        self.serve(publish_bytes=0)
        client = self.client("/echo")
        for size in (0, 1, 125, 126, 127, 65_535, 65_536):
            self.assertEqual(self.send(client, client_frame(b"x" * size)), ["x" * size])
            self.assertEqual(self.send(client, client_frame(b"\xff" * size, BINARY)), [b"\xff" * size])

    def test_a_message_in_fragments_with_a_ping_between(self) -> None:
        client = self.client("/echo")
        parts = client_frame("é".encode()[:1], final=False) + client_frame(b"?", PING)
        parts += client_frame("é".encode()[1:], 0, final=False) + client_frame(b"", 0)
        self.assertEqual(self.send(client, parts), ["é"])
        self.assertEqual(client.pongs, [b"?"])

    def test_plain_frames_and_unusual_ones_in_one_segment_keep_their_order(self) -> None:
        client = self.client("/echo")
        data = client_frame(b"1") + client_frame(b"2", BINARY) + client_frame(b"3") + client_frame(b"", PING)
        data += client_frame(b"4", final=False) + client_frame(b"", 0) + client_frame(b"5")
        self.assertEqual(self.send(client, data), ["1", b"2", "3", "4", "5"])

    def test_a_frame_may_hold_several_lines(self) -> None:
        client = self.client("/ws?name=ada")
        for payload in (b"one\ntwo", b"one\r\ntwo\r\n", b"one\ntwo\n"):
            self.assertEqual(self.send(client, client_frame(payload)), ["ada: one", "ada: two"])

    def test_a_first_message_that_is_a_connect_of_the_structured_protocol_closes_and_is_not_said(self) -> None:
        witness = self.client("/ws?name=ann")
        for payload in (
            b'{"id":1,"connect":{"token":"secret"}}',
            b'\xef\xbb\xbf [{"connect":{"token":"secret"},}]\n{}',
        ):
            client = self.client("/ws?name=bo")
            with self.assertLogs("longconn", "INFO"):
                self.send(client, client_frame(payload))
            self.assertTrue(client.closed)
        self.assertEqual([line for line in witness.read() if "secret" in line], [])
        client = self.client("/ws?name=bo")
        said = self.send(client, client_frame(b'{"t":21}\n{"connect":1}'))
        self.assertEqual(said, ['bo: {"t":21}', 'bo: {"connect":1}'])

    def test_an_empty_frame_is_an_empty_line(self) -> None:
        for payload in (b"", b"\n", b"\r\n"):
            with self.subTest(payload=payload):
                client = self.client()
                self.send(client, client_frame(payload))
                self.assertEqual((client.close_code, client.closed), (1000, True))

    def test_query_parameters(self) -> None:
        for own in (False, True):
            with self.subTest(own=own):
                client = self.client(f"/ws?channel=a%2Fb%20c&name=bo{own}".replace("%20", "-"), own)
                client.say("hi")
                self.assertEqual(client.read(), [f"bo{own}: hi"])
                self.assertEqual([each.name for each in self.server.hub.presence("a/b-c")], [f"bo{own}"])
                self.assertEqual(self.client("/ws?channel=a%20b", own).status, 400)
                self.assertEqual(self.client(f"/ws?name=BO{own}", own).status, 503)
                self.assertEqual(self.client("/ws?name=127.0.0.1", own).status, 400)
                client.connection.reset()

    def test_echo_is_at_two_paths(self) -> None:
        for own in (False, True):
            for path in ("/echo", "/websocket"):
                client = self.client(path, own)
                client.say("hi")
                self.assertEqual(client.read(), ["hi"])

    def test_echo_is_slowed_over_its_rate_and_loses_nothing(self) -> None:
        self.serve(publish_rate=10, publish_burst=5)
        client = self.client("/echo")
        client.say(*map(str, range(30)))
        self.assertLessEqual(len(client.read()), 6)
        self.server.advance(5)
        self.assertEqual(client.messages, [str(each) for each in range(30)])

    def test_deflate_is_not_agreed_to(self) -> None:
        client = self.client(headers=[("Sec-WebSocket-Extensions", "permessage-deflate")])
        self.assertNotIn("sec-websocket-extensions", client.headers)


class UpgradeTests(Case):
    def test_as_a_later_request_of_a_connection(self) -> None:
        http = self.server.http_client(self.port)
        self.assertEqual(http.get("/PrintHello").text, "hello word")
        self.assertEqual(http.get("/PrintHello").headers["x-connection"], f"{http.address}; request=2")
        client = WebSocketClient(http.connection, "/ws?name=ada", settle=self.server.settle)
        self.server.settle()
        client.say("hi")
        self.assertEqual((client.status, client.read()), (101, ["ada: hi"]))

    def test_frames_that_come_with_the_request(self) -> None:
        for later in (False, True):
            connection = self.server.connect(self.port)
            if later:
                HTTPClient(connection).get("/PrintHello")
                self.server.settle()
            send, sent = connection.send, []
            connection.send = sent.append  # type: ignore[method-assign]
            client = WebSocketClient(connection, "/echo", settle=self.server.settle)
            connection.send = send  # type: ignore[method-assign]
            connection.send(sent[0] + client_frame(b"early") + client_frame(b"x" * 100_000)[:500])
            self.assertEqual(client.read(), ["early"])

    def test_a_request_without_an_upgrade_is_answered_426(self) -> None:
        answer = self.server.http_client(self.port).get("/ws")
        self.assertEqual((answer.status, answer.headers["upgrade"]), (426, "websocket"))

    def test_a_foreign_origin_is_refused_before_any_effect(self) -> None:
        witness = self.client()
        for own in (False, True):
            for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
                client = self.client(own=own, headers=[("Origin", origin)])
                self.assertEqual(client.status, 403)
                self.assertEqual(self.client(own=own, headers=[("Host", "evil.example")]).status, 403)
            self.assertEqual(self.client(own=own, headers=[("Origin", "http://localhost:8000")]).status, 101)
        self.assertEqual([each for each in witness.read() if "joined" not in str(each)], [])

    def test_too_many_connections(self) -> None:
        self.serve(max_connections=1)
        self.client()
        self.assertEqual(self.client().status, 503)


class ViolationTests(Case):
    """Each closes its connection with its code, and no other."""

    def check(self, code: int, data: bytes, path: str = "/ws") -> None:
        witness = self.client()
        client = self.client(path)
        witness.read()
        self.send(client, data)
        self.server.advance(6)
        self.assertEqual((client.close_code, client.closed), (code, True))
        left = [] if path == "/echo" else [f"* {client.address} left"]
        self.assertEqual(witness.read(), left)
        self.assertEqual(len(self.server.hub.clients), 1)
        witness.connection.reset()

    def test_an_unmasked_frame(self) -> None:
        self.check(1002, client_frame(b"hello", masked=False))

    def test_reserved_bits_and_opcodes(self) -> None:
        self.check(1002, b"\xc1" + client_frame(b"hello")[1:])
        self.check(1002, b"\x83" + client_frame(b"hello")[1:])

    def test_a_continuation_of_nothing_and_a_message_within_one(self) -> None:
        self.check(1002, client_frame(b"x", 0))
        self.check(1002, client_frame(b"x", final=False) + client_frame(b"y"))

    def test_control_frames_that_are_too_long_or_in_fragments(self) -> None:
        self.check(1002, client_frame(b"x" * 126, PING))
        self.check(1002, client_frame(b"x", PING, final=False))

    def test_text_that_is_not_utf8(self) -> None:
        self.check(1007, client_frame(b"a\xff"))
        self.check(1007, client_frame(b"a", final=False) + client_frame(b"\xff", 0))
        self.check(1007, client_frame(b"\xed\xa0\x80"), "/echo")

    def test_text_before_text_that_is_not_utf8_in_the_same_segment(self) -> None:
        client = self.client("/echo")
        self.send(client, client_frame(b"good") + client_frame(b"\xff"))
        self.assertEqual(client.close_code, 1007)

    def test_a_binary_message_to_the_chat(self) -> None:
        self.check(1003, client_frame(b"x", BINARY))

    def test_a_message_over_the_limit(self) -> None:
        self.check(1009, client_frame(b"x" * 65_537))
        self.check(1009, b"\x81\xff" + (1 << 40).to_bytes(8) + b"abcd")
        self.check(1009, client_frame(b"x" * 40_000, final=False) + client_frame(b"x" * 40_000, 0))

    def test_bad_close_codes(self) -> None:
        self.check(1002, client_frame(b"\x03", CLOSE))
        self.check(1002, client_frame((1005).to_bytes(2), CLOSE))

    def test_a_client_that_never_answers_a_close_is_aborted(self) -> None:
        client = self.client("/echo")
        client.connection.on_data = lambda data: None
        client.connection.send(client_frame(b"\xff"))
        self.server.advance(4)
        self.assertFalse(client.closed)
        self.server.advance(2)
        self.assertTrue(client.closed)


class HeadTests(Case):
    """On a port of its own Autobahn reads the handshake, and the server bounds it."""

    def test_a_head_without_an_end_is_refused_and_not_kept(self) -> None:
        connection = self.server.connect(self.own)
        connection.send(b"GET /ws HTTP/1.1\r\nX: ")
        for _ in range(100):
            connection.send(b"y" * 1_000)
        self.server.settle()
        self.assertTrue(connection.received.startswith(b"HTTP/1.1 431 "))
        self.assertTrue(connection.closed)
        protocol: Any = connection.transport.protocol
        self.assertLess(len(protocol.data), 20_000)

    def test_the_limit_is_for_the_head_alone(self) -> None:
        frames = client_frame(b"x" * 60_000)
        for size, status in ((16_000, 101), (17_000, 431)):
            connection = self.server.connect(self.own)
            sent: list[bytes] = []
            send = connection.send
            connection.send = sent.append  # type: ignore[method-assign]
            client = WebSocketClient(connection, "/echo", [("X", "y" * (size - 200))], self.server.settle)
            connection.send = send  # type: ignore[method-assign]
            connection.send(sent[0] + frames)
            self.server.settle()
            self.assertEqual(client.status, status)
            self.assertEqual(client.messages, ["x" * 60_000] if status == 101 else [])

    def test_bytes_that_are_no_handshake_are_logged_without_control_characters(self) -> None:
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        connection = self.server.connect(self.own)
        connection.send(b"\x1b[2J" + b"x" * 5_000 + b"\r\n\r\n")
        self.server.settle()
        self.assertTrue(connection.received.startswith(b"HTTP/1.1 400 "))
        self.assertTrue(events)
        for text in [str(formatEvent(each)) for each in events]:
            self.assertNotIn("\x1b", text)
            self.assertLess(len(text), 500)


class DeadlineTests(Case):
    def test_a_handshake_has_a_deadline(self) -> None:
        connection = self.server.connect(self.own)
        connection.send(b"GET /ws HTTP/1.1\r\n")
        self.server.advance(9)
        self.assertFalse(connection.closed)
        self.server.advance(2)
        self.assertTrue(connection.closed)

    def test_pings_come_in_time_and_a_client_that_does_not_answer_is_closed(self) -> None:
        good, dead = self.client(), self.client()
        dead.answers_pings = False
        self.server.advance(24)
        self.assertEqual((good.pings, dead.pings), (0, 0))
        self.server.advance(3)
        self.assertEqual((good.pings, dead.pings), (1, 1))
        self.server.advance(12)
        self.assertEqual((good.closed, dead.close_code), (False, 3012))
        self.server.advance(600)
        self.assertFalse(good.closed)

    def test_while_a_client_is_not_read_its_pong_is_not_waited_for(self) -> None:
        self.serve(publish_rate=1, publish_burst=1, ping_interval=10, pong_timeout=5)
        client = self.client()
        client.say(*map(str, range(90)))
        self.server.advance(100)
        self.assertEqual((len(client.messages), client.closed), (90, False))

    def test_any_message_counts_as_a_pong(self) -> None:
        self.serve(idle_timeout=0)
        client = self.client("/echo")
        client.answers_pings = False
        for _ in range(60):
            self.server.advance(5)
            client.say("here")
        self.assertFalse(client.closed)

    def test_a_pong_that_waited_to_be_read_counts(self) -> None:
        self.serve(publish_rate=10, publish_burst=1, ping_interval=10, pong_timeout=5)
        client = self.client()
        client.answers_pings = False
        self.server.advance(9)
        client.say(*map(str, range(70)))  # seven seconds' worth: from before the ping to after the time for a pong
        client.ping()
        self.server.advance(7.5)
        self.assertEqual((len(client.messages), client.closed), (70, False))

    def test_without_a_pong_timeout_no_pong_is_required(self) -> None:
        self.serve(pong_timeout=0)
        client = self.client()
        client.answers_pings = False
        self.server.advance(600)
        self.assertFalse(client.closed)
        self.assertGreater(client.pings, 20)

    def test_without_a_ping_interval_no_pings_are_sent(self) -> None:
        self.serve(ping_interval=0)
        client = self.client()
        self.server.advance(600)
        self.assertEqual((client.pings, client.closed), (0, False))

    def test_an_idle_echo_client_is_closed(self) -> None:
        self.serve(idle_timeout=100, ping_interval=0)
        client, talker = self.client("/echo"), self.client("/echo")
        for _ in range(6):
            self.server.advance(40)
            talker.say("x")
        self.assertEqual((client.close_code, talker.closed), (3502, False))

    def test_no_end_of_a_connection_leaves_a_delayed_call(self) -> None:
        clients = [self.client(), self.client("/echo"), self.client(own=True)]
        clients[0].send_close()
        clients[1].connection.close()
        clients[2].connection.send(client_frame(b"half")[:3])
        clients[2].connection.reset()
        self.server.advance(10)
        left = [each for each in self.server.clock.getDelayedCalls() if "_on_sweep" not in str(each)]
        self.assertEqual((self.server.hub.clients, left), ({}, []))


class FloodTests(Case):
    """Frames beyond a connection's share of a turn, or beyond its rate, wait. Nothing is lost."""

    def test_pings_are_answered_in_several_turns(self) -> None:
        self.serve(publish_rate=0)
        client = self.client()
        client.connection.send(client_frame(b"", PING) * 2_000 + client_frame(b"after"))
        self.assertTrue(len(client.pongs) < 200)
        self.server.clock.turn()
        self.assertTrue(0 < len(client.pongs) < 400)
        self.server.settle()
        self.assertEqual((len(client.pongs), client.read()[-1][-5:]), (2_000, "after"))

    def test_pings_have_a_rate(self) -> None:
        self.serve(publish_rate=10, publish_burst=20, ping_interval=5, pong_timeout=5)
        client = self.client()
        client.connection.send(client_frame(b"", PING) * 2_000)
        self.server.settle()
        self.assertTrue(0 < len(client.pongs) < 200)
        self.server.advance(20)  # longer than a pong may take
        self.assertTrue(200 < len(client.pongs) < 800, len(client.pongs))
        self.server.advance(120)
        self.assertEqual((len(client.pongs), client.closed), (2_000, False))

    def test_while_frames_wait_no_pong_is_awaited(self) -> None:
        self.serve(publish_rate=1, publish_burst=1, ping_interval=2, pong_timeout=2)
        client = self.client()
        client.answers_pings = False
        client.connection.send(client_frame(b"", PING) * 100)
        self.server.advance(15)  # frames wait for six seconds at a time
        self.assertTrue(0 < len(client.pongs) < 100)
        self.assertFalse(client.closed)

    def test_what_comes_while_frames_wait_keeps_its_order(self) -> None:
        self.serve(publish_rate=0)
        client = self.client()
        client.connection.send(client_frame(b"a", final=False) + client_frame(b"b", 0, final=False) * 500)
        client.connection.send(client_frame(b"c", 0) + client_frame(b"d"))
        said = [str(each).rpartition(" ")[2] for each in client.read()][-2:]
        self.assertEqual(said, ["a" + "b" * 500 + "c", "d"])

    def test_a_client_that_leaves_meanwhile(self) -> None:
        self.serve(publish_rate=0)
        client = self.client()
        client.connection.send(client_frame(b"", PING) * 2_000)
        client.connection.reset()
        self.server.settle()
        self.assertTrue(len(client.pongs) < 200)
        self.assertEqual(self.server.hub.clients, {})
