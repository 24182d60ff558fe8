"""The public test kit: its names, its clock, its transport, its clients."""

import doctest
import inspect
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from longconn import Hub, Settings, testing
from longconn.testing import START, WINDOW, FakeClock, MemoryConnection, MemoryServer, client_frame


class NameTests(SynchronousTestCase):
    def test_the_public_names(self) -> None:
        names = {
            "START", "WINDOW", "Connection", "FakeClock", "HTTPClient", "HTTPResponse", "LineClient",
            "MemoryConnection", "MemoryServer", "MemoryTransport", "ServerEvent", "WebSocketClient", "client_frame",
        }  # fmt: skip
        self.assertEqual(set(testing.__all__), names)
        for name in names:
            self.assertTrue(inspect.getdoc(getattr(testing, name)), name)

    def test_the_example_of_its_docstring_works(self) -> None:
        example = inspect.getdoc(testing)
        assert example is not None
        lines = [line[4:] for line in example.split("\n") if line.startswith("    ")]
        self.assertEqual(len(lines), 5)
        exec(compile("\n".join(lines), "example", "exec"), {"MemoryServer": MemoryServer})
        self.assertEqual(doctest.testmod(testing).failed, 0)


class ClockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = FakeClock()
        self.seen: list[Any] = []

    def note(self, what: str) -> None:
        self.seen.append((what, self.clock.seconds() - START))

    def test_it_starts_at_a_date(self) -> None:
        self.assertEqual(self.clock.seconds(), START)

    def test_every_call_runs_at_its_own_time(self) -> None:
        def again() -> None:
            self.note("again")
            if len(self.seen) < 3:
                self.clock.callLater(1, again)

        self.clock.callLater(1, again)
        self.clock.callLater(2.5, self.note, "late")
        self.clock.advance(10)
        self.assertEqual(self.seen, [("again", 1), ("again", 2), ("late", 2.5), ("again", 3)][:4])
        self.assertEqual(self.clock.seconds(), START + 10)

    def test_a_call_without_delay_waits_for_the_next_turn(self) -> None:
        self.clock.callLater(0, lambda: [self.note("a"), self.clock.callLater(0, self.note, "c")])
        self.clock.callLater(0, self.note, "b")
        self.assertTrue(self.clock.turn())
        self.assertEqual([each for each, _ in self.seen], ["a", "b"])
        self.assertTrue(self.clock.turn())
        self.assertFalse(self.clock.turn())
        self.assertEqual([each for each, _ in self.seen], ["a", "b", "c"])

    def test_calls_may_be_cancelled_and_reset(self) -> None:
        gone: Any = self.clock.callLater(0, self.note, "gone")
        self.clock.callLater(0, lambda: gone.active() and gone.cancel())
        later: Any = self.clock.callLater(1, self.note, "later")
        gone.cancel()
        later.reset(5)
        self.clock.advance(2)
        self.assertEqual(self.seen, [])
        self.clock.advance(4)
        self.assertEqual(self.seen, [("later", 5)])

    def test_a_clock_that_never_settles_raises(self) -> None:
        def again() -> None:
            self.clock.callLater(0, again)

        again()
        self.assertRaises(RuntimeError, self.clock.settle)


@implementer(IHalfCloseableProtocol)
class HalfOpen(Protocol):
    read_ended = False

    def readConnectionLost(self) -> None:
        self.read_ended = True

    def writeConnectionLost(self) -> None: ...


class Recorder(Protocol):
    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.reason: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.data.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        assert self.reason is None, "told twice"
        self.reason = reason.type


class Pusher:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class TransportTests(SynchronousTestCase):
    """The memory transport behaves as Twisted's own (twisted/internet/abstract.py, tcp.py)."""

    def setUp(self) -> None:
        self.connect(Recorder)

    def connect(self, protocol: type, **options: Any) -> None:
        self.clock = FakeClock()
        self.client = MemoryConnection(self.clock, Factory.forProtocol(protocol), **options)
        self.transport = self.client.transport
        self.protocol: Any = self.transport.protocol

    def test_it_is_a_tcp_transport(self) -> None:
        verifyObject(ITCPTransport, self.transport)
        self.transport.setTcpNoDelay(True)
        self.assertTrue(self.transport.getTcpNoDelay())
        self.assertEqual(self.transport.getPeer(), self.client.local)
        self.assertRaises(TypeError, self.transport.write, "text")

    def test_addresses_may_be_given(self) -> None:
        self.connect(Recorder, local=UNIXAddress(b""), remote=IPv4Address("TCP", "192.0.2.1", 80))
        self.assertEqual((self.transport.getPeer(), self.transport.getHost().host), (UNIXAddress(b""), "192.0.2.1"))

    def test_nothing_is_sent_within_write(self) -> None:
        self.transport.write(b"a")
        self.transport.writeSequence([b"b", b"c"])
        self.assertEqual(self.client.received, b"")
        self.clock.turn()
        self.assertEqual(self.client.received, b"abc")

    def test_a_push_producer_is_paused_by_a_full_buffer_and_resumed_by_an_empty_one(self) -> None:
        producer = Pusher()
        self.transport.registerProducer(producer, True)
        self.client.stop_reading()
        self.transport.write(b"x" * (WINDOW + 1))
        self.assertEqual(producer.calls, ["pause"])
        self.clock.settle()
        self.assertEqual(producer.calls, ["pause"])
        self.client.start_reading()
        self.clock.settle()
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.assertEqual(len(self.client.received), WINDOW + 1)

    def test_a_pull_producer_is_resumed_by_an_empty_buffer(self) -> None:
        producer = Pusher()
        self.transport.registerProducer(producer, False)
        self.transport.write(b"x")
        self.clock.turn()
        self.assertEqual(producer.calls, ["resume", "resume"])
        self.assertRaises(RuntimeError, self.transport.registerProducer, producer, False)

    def test_a_client_that_does_not_read_has_a_window(self) -> None:
        self.connect(Recorder, window=10)
        self.client.stop_reading()
        self.transport.write(b"x" * 25)
        self.clock.settle()
        self.assertEqual(len(self.transport._buffer), 15)
        self.client.start_reading()
        self.clock.settle()
        self.assertEqual(self.client.received, b"x" * 25)

    def test_lose_connection_sends_the_buffer_first(self) -> None:
        self.client.stop_reading()
        self.transport.write(b"x" * 2 * WINDOW)
        self.transport.loseConnection()
        self.clock.settle()
        self.assertIsNone(self.protocol.reason)
        self.client.start_reading()
        self.clock.settle()
        self.assertEqual((self.protocol.reason, len(self.client.received)), (ConnectionDone, 2 * WINDOW))

    def test_lose_connection_waits_for_a_paused_push_producer_as_in_twisted(self) -> None:
        producer = Pusher()
        self.client.stop_reading()
        self.transport.registerProducer(producer, True)
        self.transport.write(b"x" * 2 * WINDOW)
        self.transport.loseConnection()
        self.client.start_reading()
        self.clock.settle()
        self.assertEqual((producer.calls, self.protocol.reason), (["pause", "resume"], None))
        self.transport.unregisterProducer()
        self.clock.settle()
        self.assertIs(self.protocol.reason, ConnectionDone)

    def test_lose_connection_waits_for_a_pull_producer_as_in_twisted(self) -> None:
        self.transport.registerProducer(Pusher(), False)
        self.transport.loseConnection()
        self.clock.settle()
        self.assertIsNone(self.protocol.reason)
        self.transport.unregisterProducer()
        self.clock.settle()
        self.assertIs(self.protocol.reason, ConnectionDone)
        self.assertTrue(self.client.closed)

    def test_lose_connection_ends_reading(self) -> None:
        self.client.stop_reading()
        self.transport.write(b"x" * 2 * WINDOW)
        self.transport.loseConnection()
        self.client.send(b"late")
        self.assertEqual(self.protocol.data, [])

    def test_an_abort_drops_the_buffer_and_is_reported_in_the_next_turn(self) -> None:
        self.transport.write(b"x")
        self.transport.abortConnection()
        self.transport.abortConnection()
        self.assertIsNone(self.protocol.reason)
        self.clock.settle()
        self.assertEqual((self.protocol.reason, self.client.received), (ConnectionAborted, b""))
        self.assertTrue(self.client.aborted and self.client.closed)

    def test_bytes_reach_the_server_at_once_in_segments(self) -> None:
        self.client.send(b"x" * 100_000)
        self.assertEqual([len(each) for each in self.protocol.data], [65_536, 34_464])

    def test_a_server_that_pauses_gets_the_bytes_later(self) -> None:
        self.transport.pauseProducing()
        self.client.send(b"x")
        self.client.close()
        self.assertEqual((self.protocol.data, self.protocol.reason), ([], None))
        self.transport.resumeProducing()
        self.clock.settle()
        self.assertEqual((self.protocol.data, self.protocol.reason), ([b"x"], ConnectionDone))

    def test_a_protocol_may_hand_the_connection_on_while_it_reads(self) -> None:
        other = Recorder()

        def taken(data: bytes) -> None:
            self.transport.protocol = other
            self.transport.pauseProducing()

        self.protocol.dataReceived = taken
        self.client.send(b"x" * 65_536 + b"y")
        self.transport.resumeProducing()
        self.clock.settle()
        self.assertEqual(other.data, [b"y"])

    def test_a_reset_reaches_the_protocol_and_its_producer(self) -> None:
        producer = Pusher()
        self.transport.registerProducer(producer, True)
        self.client.reset()
        self.client.reset()
        self.assertEqual((self.protocol.reason, producer.calls), (ConnectionLost, ["stop"]))
        self.transport.write(b"x")
        self.transport.loseConnection()
        self.clock.settle()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_half_close_reaches_protocols_that_support_it(self) -> None:
        self.connect(HalfOpen)
        self.client.half_close()
        self.assertTrue(self.protocol.read_ended)
        self.transport.write(b"still here")
        self.clock.settle()
        self.assertEqual(self.client.received, b"still here")
        self.connect(Recorder)
        self.client.half_close()
        self.assertIs(self.protocol.reason, ConnectionDone)

    def test_writing_to_a_closed_client_loses_the_connection(self) -> None:
        self.connect(HalfOpen)
        lost: list[Any] = []
        self.protocol.connectionLost = lambda reason: lost.append(reason.type)
        self.client.close()
        self.transport.write(b"x")
        self.clock.settle()
        self.assertEqual(lost, [ConnectionLost])

    def test_a_factory_may_refuse(self) -> None:
        factory = Factory()
        factory.buildProtocol = lambda addr: None  # type: ignore[method-assign]
        self.assertTrue(MemoryConnection(FakeClock(), factory).closed)


class ServerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = MemoryServer(Settings(ping_interval=10, pong_timeout=5))
        self.addCleanup(self.server.stop)

    def test_it_accepts_a_hub(self) -> None:
        hub = Hub(FakeClock())
        self.assertIs(MemoryServer(hub=hub).hub, hub)
        self.assertRaises(ValueError, MemoryServer, Settings(), hub)
        from twisted.internet.task import Clock

        self.assertRaises(TypeError, MemoryServer, None, Hub(Clock()))

    def test_every_client_reads_messages_of_every_other(self) -> None:
        ada, bo, http = (
            self.server.line_client(),
            self.server.websocket_client("/ws?name=bo"),
            self.server.http_client(),
        )
        events = self.server.http_client().get("/channels/lobby/events")
        ada.say("from ada")
        bo.say("from bo")
        answer = http.post("/channels/lobby", "from http")
        self.assertEqual((answer.status, answer.complete), (200, True))
        said = [f"{ada.address}: from ada", "bo: from bo", f"{http.address}: from http"]
        self.assertEqual(ada.read()[-3:], said)
        self.assertEqual(bo.read(), said)
        self.assertEqual([each.json()["data"] for each in events.read()], ["from ada", "from bo", "from http"])
        self.assertFalse(events.complete)

    def test_a_websocket_client_answers_pings_or_not(self) -> None:
        polite, rude = self.server.websocket_client(), self.server.websocket_client()
        rude.answers_pings = False
        self.server.advance(60)
        self.assertGreater(polite.pings, 3)
        self.assertEqual((polite.closed, rude.close_code), (False, 3012))

    def test_a_refused_handshake_has_status_and_body(self) -> None:
        client = self.server.websocket_client(headers=[("Origin", "https://elsewhere.example")])
        self.assertEqual((client.status, client.messages), (403, []))

    def test_fragmented_and_binary_messages(self) -> None:
        client = self.server.websocket_client("/echo")
        client.say(b"\x00\xff", "text")
        client.connection.send(client_frame(b"hel", final=False) + client_frame(b"lo", 0))
        self.assertEqual(client.read(), [b"\x00\xff", "text", "hello"])
        client.ping(b"are you there")
        self.server.settle()
        self.assertEqual(client.pongs, [b"are you there"])
        client.send_close(1000, "bye")
        self.server.settle()
        self.assertEqual((client.close_code, client.closed), (1000, True))

    def test_responses_of_every_kind(self) -> None:
        http = self.server.http_client()
        head = http.request("HEAD", "/PrintHello")
        self.assertEqual(
            (head.status, head.body, head.complete, head.headers["content-length"]), (200, b"", True, "10")
        )
        first, second = http.get("/PrintHello"), http.get("/nowhere")
        self.assertEqual((first.text, second.status, second.json()["error"]["code"]), ("hello word", 404, 404))
        old = self.server.http_client().request("GET", "/PrintHello", version="1.0")
        self.assertEqual((old.text, old.complete), ("hello word", True))
        stream = self.server.http_client().get("/channels/lobby/stream")
        http.post("/channels/lobby", b"[1]", [("Content-Type", "application/json")])
        self.server.settle()
        self.assertIn('"data":[1]', stream.lines()[0])

    def test_stop_raises_if_a_delayed_call_is_left(self) -> None:
        server = MemoryServer()
        server.line_client()
        server.clock.callLater(5, lambda: None)
        self.assertRaises(RuntimeError, server.stop)
