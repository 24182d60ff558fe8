"""The service from start to shutdown, over real ports where the reactor matters."""

import itertools
import logging
import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock, LoopingCall
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.systemd import ListenFDs
from twisted.trial.unittest import TestCase

from longconn import Data, Info, LongConnService, Settings
from longconn.config.endpoints import ListenError
from longconn.core import channel
from longconn.core.disconnects import SHUTDOWN
from longconn.core.errors import ConfigError
from longconn.core.hub import Hub
from longconn.service.greeting import OpenPort, lines
from longconn.service.ports import ACCEPTS
from longconn.service.shutdown import FEW, MOMENT, RATE, TICK, Drain

LOOPBACK = "127.0.0.1:0"


class Peer(Protocol):
    """The client's end of a connection: `received` so far; `lost` fires when it is closed."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[None] = Deferred()
        self._waits: list[tuple[bytes, Deferred[None]]] = []

    def reads(self, text: bytes) -> Deferred[None]:
        wait: Deferred[None] = Deferred()
        self._waits.append((text, wait))
        self.dataReceived(b"")
        return wait

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        for each in list(self._waits):
            if each[0] in self.received:
                self._waits.remove(each)
                each[1].callback(None)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(None)


class Case(TestCase):
    timeout = 10

    def service(self, *arguments: Any, **ports: Any) -> LongConnService:
        service = LongConnService(reactor, *arguments, **ports)
        self.addCleanup(service.stopService)
        return service

    def started(self, *arguments: Any, **ports: Any) -> LongConnService:
        service = self.service(*arguments, **ports)
        service.startService()
        return service

    @inlineCallbacks
    def chat(self, service: LongConnService, index: int = 0) -> Any:
        """A chat client that is announced to others, on the port with that index."""
        address = service.addresses[index][1]
        endpoint = clientFromString(reactor, f"tcp:{address.host}:{address.port}")
        peer = yield connectProtocol(endpoint, Peer())
        peer.transport.write(b"ping\n")
        yield peer.reads(b"pong")
        return peer


class ListeningTests(Case):
    @inlineCallbacks
    def test_each_option_opens_a_port_for_its_protocols(self) -> Any:
        service = self.started(port=[LOOPBACK], tcp=[LOOPBACK, LOOPBACK], http=[LOOPBACK])
        self.assertEqual([kind for kind, _ in service.addresses], ["port", "tcp", "tcp", "http"])
        self.assertEqual(len({address.port for _, address in service.addresses} - {0}), 4)
        for index in (0, 1, 2):
            yield self.chat(service, index)
        for index in (0, 3):
            address = service.addresses[index][1]
            peer = yield connectProtocol(clientFromString(reactor, f"tcp:{address.host}:{address.port}"), Peer())
            peer.transport.write(b"GET /PrintHello HTTP/1.1\r\nHost: localhost\r\n\r\n")
            yield peer.reads(b"hello word")

    @inlineCallbacks
    def test_unix_socket(self) -> Any:
        path = self.mktemp().rpartition("/")[2] + ".s"  # in the current directory: such paths must be short
        service = self.started(tcp=[f"unix:{path}"])
        peer = yield connectProtocol(clientFromString(reactor, f"unix:{path}"), Peer())
        peer.transport.write(b"ping\n")
        yield peer.reads(b"pong")
        yield service.stopService()
        yield peer.lost
        self.assertFalse(Path(path).exists())

    @inlineCallbacks
    def test_a_unix_socket_of_systemd_stays_as_systemd_made_it(self) -> Any:
        path = self.mktemp().rpartition("/")[2] + ".systemd"
        with socket.socket(socket.AF_UNIX) as theirs:
            theirs.bind(path)
            theirs.listen(1)
            Path(path).chmod(0o600)
            # As systemd passes it on (sd_listen_fds(3)), but for its number.
            self.patch(ListenFDs, "inheritedDescriptors", lambda _: [os.dup(theirs.fileno())])
            service = self.started(port=["systemd:domain=UNIX:index=0"])
            peer = yield connectProtocol(clientFromString(reactor, f"unix:{path}"), Peer())
            peer.transport.write(b"ping\n")
            yield peer.reads(b"pong")
            self.assertIn(path, str(service.addresses[0][1]))
            yield service.stopService()
            yield peer.lost
            self.assertEqual(Path(path).stat().st_mode & 0o777, 0o600)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)

    @inlineCallbacks
    def test_a_peer_that_vanished_is_noticed_within_a_minute(self) -> Any:
        service = self.started(Settings(write_timeout=20), port=[LOOPBACK])
        address = service.addresses[0][1]
        endpoint = clientFromString(reactor, f"tcp:{address.host}:{address.port}")
        for sent, read in (
            (b"ping\n", b"pong"),
            (b"GET /PrintHello HTTP/1.1\r\nHost: localhost\r\n\r\n", b"hello word"),
            (b"GET /channels/a/events HTTP/1.1\r\nHost: localhost\r\n\r\n", b":ok"),
            (b"GET /channels/a/stream HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200 OK"),
            (b'{"id":1,"connect":{}}\n', b"connect"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0"),
        ):
            peer = yield connectProtocol(endpoint, Peer())
            peer.transport.write(sent)
            yield peer.reads(read)
            theirs = [each for each in reactor.getReaders() if getattr(each, "server", None)]
            handle = next(each for each in theirs if each.getPeer() == peer.transport.getHost()).getHandle()
            options = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            found = [handle.getsockopt(socket.IPPROTO_TCP, getattr(socket, each)) for each in options]
            self.assertEqual(found, [25, 10, 3, 23_000], sent)
            self.assertTrue(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            peer.transport.loseConnection()
            yield peer.lost

    @inlineCallbacks
    def test_two_services_share_nothing(self) -> Any:
        one, other = self.started(tcp=[LOOPBACK]), self.started(tcp=[LOOPBACK])
        yield self.chat(one)
        self.assertEqual((len(one.hub.clients), len(other.hub.clients)), (1, 0))
        yield one.stopService()
        yield self.chat(other)

    @inlineCallbacks
    def test_a_taken_port_is_one_line_and_closes_the_others(self) -> Any:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            text = f"127.0.0.1:{taken.getsockname()[1]}"
            service = self.service(tcp=[LOOPBACK, text])
            for start in (service.privilegedStartService, service.startService):
                error = self.assertRaises(ListenError, start)
                self.assertEqual(str(error), f"cannot listen on {text} (--tcp): taken; another process listens there")
                self.assertEqual(service.addresses, [])
                self.assertFalse(service.running)
        # trial fails this test if the first port is still open after this
        yield service.stopService()

    def test_a_bad_listening_string_is_refused_at_once(self) -> None:
        self.assertRaises(ConfigError, LongConnService, reactor, port=["example.org:1"])

    def test_a_hub_has_its_own_settings(self) -> None:
        hub = Hub(Clock(), Settings(default_channel="hall"))
        self.assertIs(LongConnService(reactor, hub=hub).hub, hub)
        self.assertRaises(ValueError, LongConnService, reactor, Settings(), hub=hub)

    @inlineCallbacks
    def test_starts_again_after_its_end(self) -> Any:
        service = self.started(tcp=[LOOPBACK])
        address = service.addresses[0][1]
        yield service.stopService()
        with socket.socket() as probe:
            self.assertNotEqual(probe.connect_ex((address.host, address.port)), 0)
        self.assertEqual((service.addresses, service.hub.ready), ([], False))
        service.startService()
        self.assertTrue(service.hub.ready)
        yield self.chat(service)

    def test_never_started(self) -> Any:
        return LongConnService(reactor, tcp=[LOOPBACK]).stopService()


class GreetingTests(Case):
    def said(self, reactor: Any, **ports: Any) -> list[str]:
        service = LongConnService(reactor, **ports)
        with capturedLogs() as events:
            service.startService()
        self.successResultOf(service.stopService())
        return [formatEvent(each) for each in events if each["log_namespace"] == "longconn"]

    def test_the_lines_have_the_real_port(self) -> None:
        with capturedLogs() as events:
            service = self.started(port=[LOOPBACK])
        said = [formatEvent(each) for each in events]
        number = service.addresses[0][1].port
        for line in (
            f"listening on 127.0.0.1:{number}: chat lines, WebSocket, SSE, HTTP and gRPC",
            f"chat:     nc 127.0.0.1 {number}",
            f"publish:  curl -d 'disk full' http://127.0.0.1:{number}/channels/lobby",
            f"browser:  http://127.0.0.1:{number}/",
        ):
            self.assertIn(line, said)

    def test_the_first_line_warns_of_a_public_port(self) -> None:
        said = self.said(MemoryReactorClock(), port=["9999"])
        self.assertIn("anyone who can reach 0.0.0.0:9999 can read and write every channel", said[0])
        self.assertIn("no credentials are needed", said[0])
        self.assertIn("nc 127.0.0.1 9999", "\n".join(said))

    def test_a_line_warns_of_pages_of_all_sites(self) -> None:
        cases: tuple[tuple[dict[str, Any], str | None], ...] = (
            ({"allowed_origin": ("*",)}, "any web page can read and write every channel: --allowed-origin=*"),
            ({"allowed_host": ("*",)}, "any web page that makes its name point here can read and write every channel"),
            ({"allowed_host": ("*",), "anonymous": "read"}, "that makes its name point here can read every channel"),
            ({"allowed_host": ("chat.example",)}, None),
            ({"allowed_host": ("*",), "anonymous": "no"}, None),
        )
        for settings, expected in cases:
            said = self.said(MemoryReactorClock(), settings=Settings(**settings))
            self.assertEqual("any web page" in said[0], expected is not None, said)
            if expected is not None:
                self.assertIn(expected, said[0])

    def test_there_is_no_warning_for_loopback(self) -> None:
        with capturedLogs() as events:
            self.started(port=[LOOPBACK])
        self.assertNotIn("credentials", "\n".join(map(str, map(formatEvent, events))))

    def test_lines_for_other_kinds_of_ports(self) -> None:
        from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

        ipv4, ipv6 = IPv4Address("TCP", "127.0.0.1", 9), IPv6Address("TCP", "::1", 9)
        both = "\n".join(lines([OpenPort("port", "tcp", ipv4), OpenPort("port", "tcp", ipv6)], "a/ü"))
        self.assertIn("listening on 127.0.0.1:9 and [::1]:9: ", both)
        self.assertIn("nc localhost 9\n", both)
        self.assertIn("http://localhost:9/channels/a%2F%C3%BC/events", both)
        self.assertIn("nc ::1 9\n", "\n".join(lines([OpenPort("port", "tcp", ipv6)], "a")))
        self.assertIn("http://[::1]:9/channels/a\n", "\n".join(lines([OpenPort("port", "tcp", ipv6)], "a")))
        unix = "\n".join(lines([OpenPort("port", "unix", UNIXAddress("/run/a b"))], "a"))
        self.assertIn("nc -U '/run/a b'", unix)
        self.assertIn("curl --unix-socket '/run/a b' -N http://localhost/channels/a/events", unix)
        tls = "\n".join(lines([OpenPort("port", "ssl", ipv4)], "a"))
        self.assertIn("openssl s_client -quiet -connect 127.0.0.1:9", tls)
        self.assertIn("https://127.0.0.1:9/", tls)
        self.assertEqual(lines([], "a"), ["listening nowhere"])

    @inlineCallbacks
    def test_the_cores_log_is_twisteds_while_it_runs(self) -> Any:
        core = logging.getLogger("longconn")
        self.assertEqual((core.level, core.handlers), (logging.NOTSET, []))
        services = [self.started(tcp=[LOOPBACK]), self.started(tcp=[LOOPBACK])]
        with capturedLogs() as events:
            yield self.chat(services[0])
            try:
                raise KeyError("lost")
            except KeyError:
                core.exception("could not %s", "send")
        came = [formatEvent(each) for each in events if "came" in formatEvent(each)]
        self.assertEqual(len(came), 1, events)
        self.assertEqual([each["log_failure"].type for each in events if "log_failure" in each], [KeyError])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        for each in services:
            yield each.stopService()
        self.assertEqual((core.level, core.handlers), (logging.NOTSET, []))


class StopTests(Case):
    @inlineCallbacks
    def test_clients_are_closed_and_ports_too(self) -> Any:
        service = self.started(port=[LOOPBACK], tcp=[LOOPBACK])
        peers = []
        for index in (0, 1, 1):
            peers.append((yield self.chat(service, index)))
        address = service.addresses[1][1]
        yield service.stopService()
        self.assertEqual((len(service.hub.clients), service.addresses, service.running), (0, [], 0))
        for each in peers:
            yield each.lost
        with socket.socket() as probe:
            self.assertNotEqual(probe.connect_ex((address.host, address.port)), 0)

    @inlineCallbacks
    def test_what_is_acknowledged_is_delivered(self) -> Any:
        """One client publishes until it is refused; another, which is closed first, gets all that was acknowledged."""
        service = self.started(Settings(shutdown_timeout=5, publish_rate=0), port=[LOOPBACK])
        address = service.addresses[0][1]
        endpoint = clientFromString(reactor, f"tcp:{address.host}:{address.port}")
        reader = yield connectProtocol(endpoint, Peer())
        reader.transport.write(b"GET /channels/a/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield reader.reads(b"200 OK")
        for _ in range(150):  # more than are closed at once
            peer = yield connectProtocol(endpoint, Peer())
            peer.transport.write(b"hi\n")
            yield peer.reads(b"hi")
        writer = yield connectProtocol(endpoint, Peer())
        writer.transport.write(b'{"id":1,"connect":{}}\n')
        yield writer.reads(b'"connect"')
        writing = LoopingCall(writer.transport.write, b'{"id":2,"publish":{"channel":"a","data":1}}\n')
        writing.start(0.002)
        yield writer.reads(b'"publish":{}')
        stopped = service.stopService()
        yield writer.reads(b'"temporary":true')
        writing.stop()
        yield reader.lost
        self.assertEqual(writer.received.count(b'"publish":{}'), reader.received.count(b'"offset"'))
        self.assertNotIn(b'"publish":{}', writer.received.partition(b'"temporary":true')[2])
        service._stop_now()
        yield stopped

    @inlineCallbacks
    def test_a_silent_connection_is_closed_too(self) -> Any:
        service = self.started(port=[LOOPBACK], http=[LOOPBACK])
        peers = []
        for _, address in service.addresses:
            endpoint = clientFromString(reactor, f"tcp:{address.host}:{address.port}")
            peers.append((yield connectProtocol(endpoint, Peer())))
        peers[1].transport.write(b"GET / HT")
        yield service.stopService()
        for each in peers:
            yield each.lost

    def test_not_ready_but_serving_for_the_delay(self) -> None:
        memory = MemoryReactorClock()
        service = LongConnService(memory, Settings(shutdown_delay=5), tcp=["9999"])
        service.startService()
        stopped, again = service.stopService(), service.stopService()
        self.assertFalse(service.hub.ready)
        memory.advance(4.9)
        self.assertEqual(len(service.addresses), 1)
        self.assertNoResult(stopped)
        memory.advance(0.2)
        self.assertEqual(service.addresses, [])
        self.successResultOf(stopped)
        self.successResultOf(again)
        self.assertEqual(memory.getDelayedCalls(), [])


class Wire:
    """An outlet in memory. Its peer disconnects when it is closed, if `goes`."""

    def __init__(self, goes: bool = True) -> None:
        self.goes = goes
        self.closes: list[object] = []
        self.aborted = False
        self.client: Any = None

    def write(self, data: bytes) -> None: ...

    def close(self, disconnect: object) -> None:
        self.closes.append(disconnect)
        if self.goes:
            self.client.gone()

    def abortConnection(self) -> None:
        self.aborted = True
        self.client.gone()


class LongBatchTests(TestCase):
    async def test_a_stop_waits_for_what_was_published_before(self) -> None:
        self.patch(channel, "_SENDING", 0)  # one subscriber in a turn
        service = LongConnService(reactor, Settings(shutdown_timeout=1), tcp=["127.0.0.1:0"])
        service.startService()
        number = service.addresses[0][1].port
        clients = [socket.create_connection(("127.0.0.1", number), 10) for _ in range(20)]
        for each in clients:
            self.addCleanup(each.close)
        while len(service.hub.clients) < len(clients):
            turned = Deferred[None]()
            reactor.callLater(0, turned.callback, None)
            await turned
        service.hub.publish("lobby", Data.of_text("last words"), Info("desk"), lambda result: None)
        await service.stopService()
        for each in clients:
            received = b""
            while data := each.recv(1 << 16):
                received += data
            self.assertIn(b"desk: last words", received)


class AcceptTests(TestCase):
    async def test_a_port_accepts_a_bounded_number_in_a_turn(self) -> None:
        """Twisted alone would accept twenty more in each turn in which more were waiting."""
        service = LongConnService(reactor, Settings(shutdown_timeout=0), tcp=["127.0.0.1:0"])
        service.startService()
        self.addCleanup(service.stopService)
        number = service.addresses[0][1].port
        for _ in range(10 * ACCEPTS):
            bare = socket.socket()
            self.addCleanup(bare.close)
            bare.connect(("127.0.0.1", number))
        counts = [0]
        while counts[-1] < 10 * ACCEPTS:
            turned = Deferred[None]()
            reactor.callLater(0, turned.callback, None)
            await turned
            counts.append(len(service.hub.clients))
        self.assertLessEqual(max(after - before for before, after in itertools.pairwise(counts)), ACCEPTS)


class DrainTests(TestCase):
    """The timing of a drain, on a fake clock."""

    def drain(self, timeout: float, *wires: Wire) -> tuple[Clock, Drain, Deferred[None]]:
        clock = Clock()
        self.hub = Hub(clock)
        for number, wire in enumerate(wires):
            wire.client = self.hub.connect(wire, "tcp", "", f"127.0.0.1:{number}")
        drain = Drain(clock, self.hub, timeout, lambda: None, lambda: [each for each in wires if each.client.live])
        return clock, drain, drain.run()

    def test_few_clients_are_closed_at_once(self) -> None:
        wires = [Wire() for _ in range(FEW)]
        clock, _, done = self.drain(25, *wires)
        self.assertEqual([each.closes for each in wires], [[SHUTDOWN]] * FEW)
        clock.pump([TICK] * 2)  # the hub forgets them in a few turns
        self.successResultOf(done)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_many_clients_are_spread_over_the_time(self) -> None:
        for count, seconds in ((FEW + 1, (FEW + 1) / RATE), (1_000, 20), (5_000, 20)):
            wires = [Wire() for _ in range(count)]
            clock, _, done = self.drain(25, *wires)
            closed = []
            while not done.called:
                closed.append(count - len(self.hub.clients))
                clock.advance(TICK)
            self.assertAlmostEqual(len(closed) * TICK, seconds, places=0)
            self.assertAlmostEqual(closed[len(closed) // 2] / count, 0.5, places=1)

    def test_all_are_closed_before_the_time_is_over(self) -> None:
        wires = [Wire(goes=False) for _ in range(10 * FEW)]
        clock, _, _ = self.drain(0.5, *wires)
        clock.pump([TICK] * 4)
        self.assertEqual([each.closes for each in wires], [[SHUTDOWN]] * len(wires))
        self.assertFalse(any(each.aborted for each in wires))

    def test_a_client_that_stays_is_aborted(self) -> None:
        stays, goes = Wire(goes=False), Wire()
        clock, _, done = self.drain(3, stays, goes)
        clock.pump([TICK] * 29)
        self.assertFalse(stays.aborted)
        clock.pump([TICK] * 2)
        self.assertTrue(stays.aborted)
        clock.advance(0)
        self.successResultOf(done)
        self.assertEqual((goes.aborted, stays.closes), (False, [SHUTDOWN]))

    def test_connections_without_a_client_get_a_moment(self) -> None:
        other = Wire()
        clock, _, done = self.drain(25, other)
        self.successResultOf(done)
        hub, clock = Hub(clock := Clock()), clock
        other.client.live = True
        done = Drain(clock, hub, 25, lambda: None, lambda: [other] if not other.aborted else []).run()
        clock.pump([TICK] * int(MOMENT / TICK - 1))
        self.assertNoResult(done)
        clock.pump([TICK] * 3)
        self.successResultOf(done)
        self.assertTrue(other.aborted)

    def test_finish_aborts_at_once(self) -> None:
        stays = Wire(goes=False)
        clock, drain, done = self.drain(25, stays)
        drain.finish()
        self.successResultOf(done)
        self.assertTrue(stays.aborted)
        clock.advance(0)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_an_error_while_closing_a_client_does_not_stop_the_drain(self) -> None:
        broken, goes = Wire(), Wire()
        broken.close = None  # type: ignore[assignment]
        with self.assertLogs("longconn") as logged:
            clock, _, done = self.drain(1, broken, goes)
        self.assertIn("could not close a client", str(logged.output))
        self.assertEqual(goes.closes, [SHUTDOWN])
        clock.pump([TICK] * 12)
        self.successResultOf(done)
        self.assertTrue(broken.aborted)
