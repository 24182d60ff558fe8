"""Chat lines over TCP: the bytes of a line, its limits, and `ping` without a line end."""

import logging
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from longconn import ChatFactory, Settings
from longconn.testing import LineClient, MemoryServer


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.serve()

    def serve(self, **settings: Any) -> None:
        self.server = MemoryServer(Settings(**settings))
        self.addCleanup(self.server.stop)
        self.factory = ChatFactory(self.server.hub)

    def client(self, **options: Any) -> LineClient:
        client = self.server.line_client(self.factory, **options)
        client.read()
        return client

    def send(self, client: LineClient, data: bytes) -> list[str]:
        """Send bytes; return the lines that came back."""
        client.connection.send(data)
        return client.read()


class LineTests(Case):
    def test_lf_and_crlf_end_a_line_and_lines_are_written_with_crlf(self) -> None:
        client = self.client()
        raw = self.server.connect(self.factory)
        name = client.address
        client.connection.send(b"one\ntwo\r\n")
        self.server.settle()
        self.assertEqual(raw.received, f"{name}: one\r\n{name}: two\r\n".encode())

    def test_a_line_in_pieces_of_a_byte(self) -> None:
        client = self.client()
        for each in "héllo 房间\n".encode():
            client.connection.send(bytes([each]))
        self.assertEqual(client.read(), [f"{client.address}: héllo 房间"])

    def test_a_joiner_is_sent_nothing_unasked(self) -> None:
        first = self.client()
        first.say("before")
        second = self.client()
        self.server.advance(60)
        self.assertEqual(second.lines, [])
        self.assertEqual(first.read(), [f"{first.address}: before", f"* {second.address} joined"])

    def test_an_unfinished_line_at_the_end_is_dropped(self) -> None:
        witness, client = self.client(), self.client()
        client.connection.send(b"whole\nunfinished")
        client.connection.close()
        self.assertEqual(
            witness.read(), [f"* {client.address} joined", f"{client.address}: whole", f"* {client.address} left"]
        )

    def test_a_half_close_reads_its_own_last_words_and_answers(self) -> None:
        client = self.client()
        client.connection.send(b"last words\n/who\n")
        client.connection.half_close()
        self.server.settle()
        self.assertEqual(client.lines, [f"{client.address}: last words", f"* 1 in lobby: {client.address}"])
        self.assertTrue(client.closed)

    def test_a_client_that_leaves_reads_its_own_last_words_and_answers(self) -> None:
        for last in ("", "/quit"):
            witness, client = self.client(), self.client()
            witness.read()
            client.say("last words", "/who", last, "never")
            who = f"* 2 in lobby: {witness.address}, {client.address}"
            self.assertEqual(client.read(), [f"{client.address}: last words", who])
            self.assertEqual(witness.read(), [f"{client.address}: last words", f"* {client.address} left"])
            self.assertTrue(client.closed)
            witness.connection.close()

    def test_empty_lines_by_the_thousand_cost_no_time(self) -> None:
        self.serve(empty_line="ignore", publish_rate=0)
        client = self.client()
        self.assertEqual(self.send(client, b"\n" * 65_536 + b"ping\n"), ["pong"])

    def test_a_client_is_called_by_its_address_and_a_unix_one_by_a_number(self) -> None:
        clients = [self.client(local=UNIXAddress(b"")) for _ in range(2)]
        self.assertEqual(self.send(clients[1], b"hi\n"), ["unix:2: hi"])
        self.assertEqual(clients[0].read(), ["* unix:2 joined", "unix:2: hi"])

    def test_in_chinese_to_the_letter(self) -> None:
        self.serve(locale="zh")
        first, second = self.client(), self.client()
        second.say("大家好")
        second.say("")
        name = second.address
        self.assertEqual(first.read(), [f"{name}进入房间", f"{name}说:大家好", f"{name}离开了房间"])
        self.assertEqual(self.send(first, b"/foo\n"), ["! 未知命令 /foo;/help 列出所有命令"])

    def test_lines_are_logged_at_debug_only(self) -> None:
        with self.assertLogs("longconn", logging.INFO) as logs:
            client = self.client()
            client.say("a secret")
        self.assertNotIn("secret", str(logs.output))
        with self.assertLogs("longconn", logging.DEBUG) as logs:
            client.say('/json "a\\u001b[2J"')
        self.assertNotIn("\x1b", str(logs.output))


class LimitTests(Case):
    def test_a_mebibyte_without_a_line_end_is_answered_once_and_not_kept(self) -> None:
        witness, client = self.client(), self.client()
        witness.read()
        for _ in range(64):
            client.connection.send(b"x" * 16_384)
        protocol: Any = client.connection.transport.protocol
        self.assertLess(len(protocol._partial), 70_000)
        client.say("", "still here")
        self.assertEqual(client.read(), ["! too large: at most 65536 bytes", f"{client.address}: still here"])
        self.assertEqual(witness.read(), [f"{client.address}: still here"])

    def test_the_limit_is_exact_and_line_ends_do_not_count(self) -> None:
        self.serve(max_message=100)
        client = self.client()
        for end in (b"\n", b"\r\n"):
            for step in (1, 7, 1000):
                data = b"x" * 100 + end
                for start in range(0, len(data), step):
                    client.connection.send(data[start : start + step])
                self.assertEqual(client.read(), [f"{client.address}: " + "x" * 100])
                self.assertEqual(self.send(client, b"x" * 101 + end), ["! too large: at most 100 bytes"])

    def test_a_command_that_looks_at_very_many_counts_for_more(self) -> None:
        self.serve(publish_rate=10, publish_burst=10, channel_rate=0)
        others = [self.server.line_client(self.factory) for _ in range(400)]
        self.server.settle()
        for command in ("/who", "/channels"):
            client = self.client()
            client.say(*[command] * 10)
            self.assertEqual(len(client.read()), 2)
            for _ in range(2):
                self.server.advance(2.1)
                self.assertEqual(len(client.read()), 4)
            client.connection.close()
            for number, each in enumerate(others):
                each.say(f"/join {number}")
            self.server.advance(2)

    def test_history_is_sent_again_only_when_the_last_answer_was_read(self) -> None:
        client = self.client(window=1_000)
        talker = self.client()
        talker.say(*(f"{number:03}" + "x" * 500 for number in range(100)))
        client.read()
        client.lines.clear()
        client.connection.stop_reading()
        for _ in range(30):
            client.say("/history 100")
            self.server.advance(0.02)
        outlet: Any = client.connection.transport.protocol._outlet
        self.assertLessEqual(len(outlet._queue._parts), 2)
        client.say("ping")
        client.connection.start_reading()
        self.server.advance(1)
        numbers = [line.removeprefix(talker.address + ": ")[:3] for line in client.lines]
        self.assertEqual(numbers, [f"{number:03}" for number in range(100)] * 30 + ["pon"])

    def test_too_many_connections(self) -> None:
        self.serve(max_connections=1)
        first = self.client()
        second = self.client()
        self.assertEqual((second.lines, second.closed), (["! limit exceeded: connections"], True))
        second.say("hello")
        self.assertEqual(first.read(), [])


class PingTests(Case):
    """`ping` without a line end, from programs that wait for any reply before they go on."""

    def test_a_ping_is_answered_when_nothing_follows(self) -> None:
        client = self.client()
        for _ in range(3):
            self.assertEqual(self.send(client, b"ping"), [])
            self.server.advance(0.19)
            self.assertEqual(client.read(), [])
            self.server.advance(0.02)
            self.assertEqual(client.read(), ["pong"])

    def test_each_of_several_pings_is_answered(self) -> None:
        client = self.client()
        client.connection.send(b"pi")
        client.connection.send(b"ngpingping")
        self.server.advance(0.3)
        self.assertEqual(client.read(), ["pong"] * 3)

    def test_a_ping_is_answered_while_others_talk(self) -> None:
        client, other = self.client(), self.client()
        client.read()
        client.connection.send(b"ping")
        for _ in range(5):
            other.say("talk")
            self.server.advance(0.1)
        self.assertEqual(sorted(set(client.read())), [f"{other.address}: talk", "pong"])

    def test_bytes_that_follow_in_time_belong_to_the_same_line(self) -> None:
        client = self.client()
        client.connection.send(b"ping")
        self.server.advance(0.1)
        self.assertEqual(self.send(client, b" pong\n"), [f"{client.address}: ping pong"])
        client.connection.send(b"ping")
        self.server.advance(0.1)
        self.assertEqual(self.send(client, b"\n"), ["pong"])
        self.server.advance(1)
        self.assertEqual(client.read(), [])

    def test_very_many_pings_are_the_start_of_a_line(self) -> None:
        """They would be looked through again with each packet."""
        client = self.client()
        client.connection.send(b"ping" * 64)
        self.server.advance(1)
        self.assertEqual(client.read(), ["pong"] * 64)
        client.connection.send(b"ping" * 65)
        self.server.advance(1)
        self.assertEqual(client.read(), [])

    def test_the_rest_of_a_line_is_no_ping(self) -> None:
        client = self.client()
        for data in (b"pin", b"pingp", b"ring", b"ping "):
            client.connection.send(data)
            self.server.advance(1)
            self.assertEqual(client.read(), [])
            client.connection.send(b"\n")
            client.read()

    def test_pings_have_a_rate(self) -> None:
        self.serve(publish_rate=10, publish_burst=5)
        client = self.client()
        client.connection.send(b"ping" * 20)
        self.server.advance(0.25)
        self.assertLessEqual(len(client.read()), 7)
        self.server.advance(3)
        self.assertEqual(len(client.lines), 20)

    def test_a_ping_that_is_not_yet_answered_is_forgotten_with_its_client(self) -> None:
        client = self.client()
        client.connection.send(b"ping")
        client.connection.close()
        self.server.advance(1)
        self.assertEqual(client.lines, [])


class OtherProtocolTests(Case):
    """A port for chat lines alone."""

    def test_any_other_protocol_is_closed_and_logged_and_never_published(self) -> None:
        witness = self.client()
        cases = {
            b"POST /x HTTP/1.1\r\nHost: localhost\r\n\r\nhello\nworld\n": "HTTP/1",
            b"\x16\x03\x01\x02\x00hello\n": "TLS",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nhello\n": "HTTP/2",
        }
        for data, kind in cases.items():
            for step in (1, len(data)):
                with self.subTest(kind=kind, step=step), self.assertLogs("longconn", logging.INFO) as logs:
                    connection = self.server.connect(self.factory)
                    for start in range(0, len(data), step):
                        connection.send(data[start : start + step])
                    self.server.settle()
                    self.assertTrue(connection.aborted)
                    self.assertEqual(connection.received, b"")
                    self.assertIn(f"{kind} on a port for chat lines", str(logs.output))
        self.assertEqual([line for line in witness.read() if not line.startswith("* ")], [])

    def test_after_a_line_of_chat_a_request_line_is_text(self) -> None:
        client = self.client()
        client.say("hello", "GET / HTTP/1.1")
        self.assertEqual(client.read(), [f"{client.address}: hello", f"{client.address}: GET / HTTP/1.1"])
