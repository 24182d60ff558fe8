"""`ChatProtocol` is a `LineReceiver`: each promise of Twisted's documentation to a program that subclasses it."""

from typing import Any

from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import SynchronousTestCase

from longconn import ChatFactory, ChatProtocol, LiveSite, Settings, SharedPortFactory
from longconn.testing import MemoryConnection, MemoryServer


class Recorder(ChatProtocol):
    """Keeps every line, and gives the chat none."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.heard: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        self.heard.append(line)


class Case(SynchronousTestCase):
    def serve(self, protocol: type[ChatProtocol], **settings: Any) -> None:
        self.server = MemoryServer(Settings(**settings))
        self.addCleanup(self.server.stop)
        self.factory = ChatFactory(self.server.hub)
        self.factory.protocol = protocol

    def connect(self, protocol: type[ChatProtocol] = Recorder, **settings: Any) -> MemoryConnection:
        """A connection to a server of this protocol; the protocol itself is `self.protocol`."""
        self.serve(protocol, **settings)
        connection = self.server.connect(self.factory)
        self.protocol: Any = connection.transport.protocol
        self.server.settle()
        return connection


class LineReceivedTests(Case):
    def test_it_is_one(self) -> None:
        self.connect()
        self.assertIsInstance(self.protocol, LineReceiver)

    def test_it_gets_every_line_without_its_end_however_the_bytes_come(self) -> None:
        data = b"one\r\ntwo\n\nthree"
        for size in (1, 2, 3, 100):
            connection = self.connect()
            for start in range(0, len(data), size):
                connection.send(data[start : start + size])
            self.assertEqual(self.protocol.heard, [b"one", b"two", b""], size)
            connection.send(b"\r\n")
            self.assertEqual(self.protocol.heard[3:], [b"three"])

    def test_the_chat_gets_the_lines_that_the_base_class_is_given(self) -> None:
        class Loud(ChatProtocol):
            def lineReceived(self, line: bytes) -> None:
                if line != b"secret":
                    super().lineReceived(line.upper())

        self.serve(Loud)
        client = self.server.line_client(self.factory)
        client.say("hello", "secret", "bye")
        self.assertEqual(client.read(), [f"{client.address}: HELLO", f"{client.address}: BYE"])

    def test_it_may_be_set_on_the_protocol_itself(self) -> None:
        connection = self.connect(ChatProtocol)
        heard: list[bytes] = []
        self.protocol.lineReceived = heard.append
        connection.send(b"one\ntwo\n")
        self.assertEqual(heard, [b"one", b"two"])

    def test_over_its_rate_the_chat_reads_the_rest_of_a_segment_later_in_order(self) -> None:
        class Filter(ChatProtocol):
            def lineReceived(self, line: bytes) -> None:
                super().lineReceived(line)

        self.serve(Filter, publish_rate=10, publish_burst=2)
        client = self.server.line_client(self.factory)
        client.connection.send(b"".join(b"%d\n" % number for number in range(20)))
        self.server.settle()
        self.assertEqual(len(client.lines), 2)
        self.server.advance(5)
        self.assertEqual(client.lines, [f"{client.address}: {number}" for number in range(20)])

    def test_after_lose_connection_no_further_line_is_received(self) -> None:
        class OneLine(Recorder):
            def lineReceived(self, line: bytes) -> None:
                super().lineReceived(line)
                transport: Any = self.transport
                transport.loseConnection()

        connection = self.connect(OneLine)
        connection.send(b"one\ntwo\n")
        self.server.settle()
        self.assertEqual((self.protocol.heard, connection.closed), ([b"one"], True))

    def test_on_the_shared_port_too(self) -> None:
        self.serve(Recorder)
        port = SharedPortFactory(self.factory, LiveSite(self.server.hub))
        connection = self.server.connect(port)
        connection.send(b"one\ntwo\n")
        protocol: Any = connection.transport.protocol
        self.assertEqual(protocol.heard, [b"one", b"two"])


class DelimiterTests(Case):
    def test_set_on_the_class_it_alone_ends_a_line(self) -> None:
        for end in (b"\0", b";", b"\r\n", b"--end--", b"\n"):

            class Delimited(Recorder):
                delimiter = end

            data = b"one" + end + b"t w o\r" + end + end + b"rest"
            for size in (1, 2, 100):
                connection = self.connect(Delimited)
                for start in range(0, len(data), size):
                    connection.send(data[start : start + size])
                self.assertEqual(self.protocol.heard, [b"one", b"t w o\r", b""], (end, size))

    def test_a_bare_lf_ends_no_line_then(self) -> None:
        class Strict(Recorder):
            delimiter = b"\r\n"

        connection = self.connect(Strict)
        connection.send(b"one\ntwo\r\n")
        self.assertEqual(self.protocol.heard, [b"one\ntwo"])

    def test_without_another_override_the_chat_gets_these_lines(self) -> None:
        class Delimited(ChatProtocol):
            delimiter = b"||"

        connection = self.connect(Delimited)
        name = self.protocol._session.client.name
        for part in (b"on", b"e|", b"|two||", b"rest"):
            connection.send(part)
        self.server.settle()
        self.assertEqual(bytes(connection.received), f"{name}: one\r\n{name}: two\r\n".encode())

    def test_it_may_change_between_two_lines(self) -> None:
        class Changing(Recorder):
            def lineReceived(self, line: bytes) -> None:
                super().lineReceived(line)
                self.delimiter = b";"

        connection = self.connect(Changing)
        connection.send(b"one\ntwo\nthree;four;")
        self.assertEqual(self.protocol.heard, [b"one", b"two\nthree", b"four"])

    def test_bytes_that_read_ping_are_the_start_of_a_line_like_any_others(self) -> None:
        connection = self.connect()
        connection.send(b"ping")
        self.server.advance(1)
        connection.send(b" me\n")
        self.assertEqual(self.protocol.heard, [b"ping me"])
        connection = self.connect(type("Delimited", (ChatProtocol,), {"delimiter": b";"}))
        name = self.protocol._session.client.name
        connection.send(b"ping")
        self.server.advance(1)
        connection.send(b" me;")
        self.server.settle()
        self.assertEqual(connection.received.decode(), f"{name}: ping me\r\n")


class LengthTests(Case):
    def test_max_message_is_the_limit_unless_max_length_is_set(self) -> None:
        self.connect(max_message=100)
        self.assertEqual(self.protocol.MAX_LENGTH, 100)
        self.connect(type("Short", (ChatProtocol,), {"MAX_LENGTH": 10}), max_message=100)
        self.assertEqual(self.protocol.MAX_LENGTH, 10)

    def test_max_length_alone_refuses_longer_lines_and_reads_on(self) -> None:
        class Short(ChatProtocol):
            MAX_LENGTH = 10

        class ShortAndDelimited(Short):
            delimiter = b"||"

        for protocol, end in ((Short, b"\r\n"), (Short, b"\n"), (ShortAndDelimited, b"||")):
            for size in (1, 3, 100):
                self.serve(protocol)
                client = self.server.line_client(self.factory)
                data = b"x" * 10 + end + b"x" * 11 + end + b"x" * 50 + end
                for start in range(0, len(data), size):
                    client.connection.send(data[start : start + size])
                refusal = "! too large: at most 10 bytes"
                self.assertEqual(client.read(), [f"{client.address}: {'x' * 10}", refusal, refusal])
                client.connection.send(b"end" + end)
                self.assertEqual(client.read(), [f"{client.address}: end"])

    def test_it_may_be_set_on_the_protocol_itself(self) -> None:
        self.serve(ChatProtocol)
        client = self.server.line_client(self.factory)
        protocol: Any = client.connection.transport.protocol
        protocol.MAX_LENGTH = 5
        client.say("12345", "123456")
        self.assertEqual(client.read(), [f"{client.address}: 12345", "! too large: at most 5 bytes"])

    def test_with_lines_one_by_one_a_longer_line_is_refused_too(self) -> None:
        class Short(Recorder):
            MAX_LENGTH = 10

        for size in (1, 100):
            connection = self.connect(Short)
            data = b"x" * 11 + b"\n" + b"y" * 50 + b"\n" + b"z" * 10 + b"\r\n"
            for start in range(0, len(data), size):
                connection.send(data[start : start + size])
            self.server.settle()
            self.assertEqual(self.protocol.heard, [b"z" * 10])
            self.assertEqual(bytes(connection.received), b"! too large: at most 10 bytes\r\n" * 2)

    def test_line_length_exceeded_gets_the_rest_of_the_buffer(self) -> None:
        class Strict(ChatProtocol):
            MAX_LENGTH = 10
            exceeded: bytes | None = None

            def lineLengthExceeded(self, line: bytes) -> None:
                self.exceeded = line
                transport: Any = self.transport
                transport.loseConnection()

        for data, rest in ((b"one\n" + b"x" * 11 + b"\ntwo", b"x" * 11 + b"\ntwo"), (b"x" * 12, b"x" * 12)):
            connection = self.connect(Strict)
            connection.send(data)
            connection.send(b"\nthree\n")
            self.server.settle()
            self.assertEqual((self.protocol.exceeded, connection.closed), (rest, True))
            self.assertNotIn(b"three", connection.received)


class RawModeTests(Case):
    def test_a_line_may_begin_raw_data_and_raw_data_may_end_in_lines(self) -> None:
        class Upload(Recorder):
            def lineReceived(self, line: bytes) -> None:
                super().lineReceived(line)
                if line.isdigit():
                    self.missing, self.raw = int(line), b""
                    self.setRawMode()

            def rawDataReceived(self, data: bytes) -> None:
                self.raw += data
                if len(self.raw) >= self.missing:
                    self.raw, rest = self.raw[: self.missing], self.raw[self.missing :]
                    self.setLineMode(rest)

        data = b"head\n6\nab\n\0cdtail\nmore\n"
        for size in (1, 5, 100):
            connection = self.connect(Upload)
            for start in range(0, len(data), size):
                connection.send(data[start : start + size])
            self.assertEqual((self.protocol.raw, self.protocol.heard), (b"ab\n\0cd", [b"head", b"6", b"tail", b"more"]))

    def test_however_often_one_segment_changes_between_them(self) -> None:
        class OneByte(Recorder):
            def lineReceived(self, line: bytes) -> None:
                super().lineReceived(line)
                self.setRawMode()

            def rawDataReceived(self, data: bytes) -> None:
                self.setLineMode(data[1:])

        connection = self.connect(OneByte)
        connection.send(b"line\nx" * 2_000)
        self.assertEqual(self.protocol.heard, [b"line"] * 2_000)

    def test_from_the_start_the_first_bytes_are_raw_data_whatever_they_look_like(self) -> None:
        class Raw(ChatProtocol):
            def connectionMade(self) -> None:
                super().connectionMade()
                self.raw = b""
                self.setRawMode()

            def rawDataReceived(self, data: bytes) -> None:
                self.raw += data

        connection = self.connect(Raw)
        connection.send(b"GET / HTTP/1.1\r\n")
        self.assertEqual((self.protocol.raw, connection.closed), (b"GET / HTTP/1.1\r\n", False))


class PauseTests(Case):
    def test_paused_it_receives_nothing_and_resumed_it_receives_what_came_first(self) -> None:
        class Pausing(Recorder):
            def lineReceived(self, line: bytes) -> None:
                super().lineReceived(line)
                if line == b"two":
                    self.pauseProducing()  # type: ignore[no-untyped-call]

        connection = self.connect(Pausing)
        connection.send(b"one\ntwo\nthree\nfo")
        connection.send(b"ur\n")
        self.server.settle()
        self.assertEqual(self.protocol.heard, [b"one", b"two"])
        self.protocol.resumeProducing()
        self.server.settle()
        self.assertEqual(self.protocol.heard, [b"one", b"two", b"three", b"four"])

    def test_lines_taken_together_wait_too(self) -> None:
        connection = self.connect(ChatProtocol)
        name = self.protocol._session.client.name
        self.protocol.pauseProducing()
        connection.send(b"one\n")
        self.protocol.dataReceived(b"zero\nand ")  # as by a protocol that hands over what it has read
        self.server.settle()
        self.assertEqual(connection.received, b"")
        self.protocol.resumeProducing()
        self.server.settle()
        self.assertEqual(connection.received.decode(), f"{name}: zero\r\n{name}: and one\r\n")

    def test_clear_line_buffer_returns_and_forgets_what_is_no_line_yet(self) -> None:
        connection = self.connect()
        connection.send(b"whole\npart")
        self.assertEqual(self.protocol.clearLineBuffer(), b"part")
        connection.send(b"next\n")
        self.assertEqual(self.protocol.heard, [b"whole", b"next"])


class SendLineTests(Case):
    def test_it_sends_the_line_and_the_delimiter(self) -> None:
        for protocol, end in ((ChatProtocol, b"\r\n"), (type("Nul", (ChatProtocol,), {"delimiter": b"\0"}), b"\0")):
            connection = self.connect(protocol)
            self.protocol.sendLine(b"hello")
            self.server.settle()
            self.assertEqual(bytes(connection.received), b"hello" + end)

    def test_it_keeps_its_place_behind_what_waits(self) -> None:
        self.serve(ChatProtocol)
        talker = self.server.line_client(self.factory)
        slow = self.server.line_client(self.factory, window=1_000)
        slow.connection.stop_reading()
        self.server.settle()
        talker.say(*("x" * 500 for _ in range(300)))
        self.server.settle()
        protocol: Any = slow.connection.transport.protocol
        protocol.sendLine(b"last")
        slow.connection.start_reading()
        self.server.settle()
        self.assertEqual((len(slow.lines), slow.lines[-1]), (301, "last"))


class SpeedTests(Case):
    def test_without_an_override_a_segment_is_split_once_and_fed_once(self) -> None:
        fed: list[int] = []

        class Counting(ChatProtocol):
            def _feed(self, lines: list[bytes]) -> None:
                fed.append(len(lines))
                super()._feed(lines)

        connection = self.connect(Counting, publish_rate=0, publish_bytes=0)
        connection.send(b"x\n" * 1_000 + b"y")
        self.assertEqual(fed, [1_000])
