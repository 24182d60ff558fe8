"""What the protocols of clients have in common when a connection begins."""

import logging
from typing import Any

from hpack import Encoder
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.trial.unittest import SynchronousTestCase

from longconn import ChatFactory, GrpcFactory, LiveSite, Settings, SharedPortFactory, WebSocketFactory
from longconn.protocols.port.proxy_header import ProxyHeaderFactory
from longconn.protocols.port.shared_port import SILENCE
from longconn.protocols.port.tls_handshake import HandshakeFactory
from longconn.testing import MemoryServer


class Case(SynchronousTestCase):
    settings = Settings(max_connections=10)

    def setUp(self) -> None:
        self.server = MemoryServer(self.settings)
        self.addCleanup(self.server.stop)
        hub = self.server.hub
        self.chat = ChatFactory(hub)
        self.shared = SharedPortFactory(self.chat, LiveSite(hub), GrpcFactory(hub))


class OptionTests(Case):
    def test_nagle_is_off_and_keep_alive_is_on(self) -> None:
        connections: dict[str, Any] = {
            "chat": self.server.connect(self.chat),
            "listener": self.server.connect(self.shared),
            "Centrifugo": self.server.connect(self.shared),
            "gRPC": self.server.connect(self.shared),
            "WebSocket": self.server.websocket_client("/ws", WebSocketFactory(self.server.hub)).connection,
            "WebSocket of a site": self.server.websocket_client("/ws", self.shared).connection,
        }
        connections["Centrifugo"].send(b'{"id":1,"connect":{}}\n')
        connections["gRPC"].send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.server.advance(SILENCE + 0.01)
        for name, connection in connections.items():
            self.assertEqual(connection.transport.options, {"nodelay": True, "keepalive": True}, name)


class FullTests(Case):
    settings = Settings(max_connections_per_ip=1)

    def test_a_connection_too_many_is_closed_and_logged(self) -> None:
        for _ in range(3):
            self.server.connect(self.shared).send(HALF_BODY)
        for factory in (self.chat, self.shared, HandshakeFactory(self.server.hub, self.shared)):
            with self.assertLogs("longconn", logging.INFO) as logs:
                connection = self.server.connect(factory)
            self.assertTrue(connection.closed)
            self.assertIn("too many connections", str(logs.output))


#: What makes a connection of each kind that is no client.
HALF_LINE = b"hel"
HALF_HEAD = b"GET / HTTP/1.1\r\nHost:"
HALF_BODY = b"POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1234"
#: More than a client may publish at once.
MANY_LINES = (
    b"POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
    b"Content-Length: 2400\r\n\r\n" + b"1\n" * 1_200  # more than may be published at once
)
HALF_TLS = b"\x16\x03\x01\x02\0\1\0\1"
HALF_PROXY = b"PROXY TCP4 203.0."
IDLE_HTTP = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
GRPC = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
_FIELDS = Encoder().encode(
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/longconn.v1.LongConn/Publish"),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
)
CALL = len(_FIELDS).to_bytes(3, "big") + b"\1\4\0\0\0\1" + _FIELDS
#: `EPOCH` stands for that of the channel.
LONG_POLL = b"GET /channels/a?since=EPOCH:0&wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n"
STREAMS = (
    b"GET /channels/a/events HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /channels/a/stream HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b'POST /connection/http_stream HTTP/1.1\r\nHost: localhost\r\nContent-Length: 21\r\n\r\n{"id":1,"connect":{}}',
)
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class RoomTests(SynchronousTestCase):
    shared: Any

    def serve(self, **settings: Any) -> None:
        self.server = MemoryServer(Settings(**settings))
        self.addCleanup(self.server.stop)
        hub = self.server.hub
        self.shared = SharedPortFactory(ChatFactory(hub), LiveSite(hub), GrpcFactory(hub))
        found: list[Any] = []
        hub.history("a", found.append)
        self.epoch = found[0].position.epoch.encode()

    def open(self, data: bytes, peer: str = "192.0.2.1") -> Any:
        local = (IPv6Address if ":" in peer else IPv4Address)("TCP", peer, 50000)
        connection = self.server.connect(self.shared, local=local)
        connection.send(data.replace(b"EPOCH", self.epoch))
        self.server.settle()
        return connection

    def test_connections_that_are_no_client_count_by_address(self) -> None:
        for data in (HALF_LINE, IDLE_HTTP, GRPC, LONG_POLL, b"", *STREAMS):
            self.serve(max_connections_per_ip=5)
            opened = [self.open(data) for _ in range(20)]
            self.server.advance(1)
            self.assertLessEqual(sum(not each.closed for each in opened), 7, data)
            other = self.open(IDLE_HTTP, "192.0.2.2")
            self.assertTrue(other.received.startswith(b"HTTP/1.1 200 "), data)
            for each in opened:
                each.close()
            self.server.advance(5)
            self.assertTrue(self.open(IDLE_HTTP).received.startswith(b"HTTP/1.1 200 "), data)

    def test_the_addresses_of_an_ipv6_network_count_together(self) -> None:
        self.serve(max_connections_per_ip=5)
        opened = [self.open(HALF_LINE, f"2001:db8::{number}") for number in range(20)]
        self.assertEqual(sum(not each.closed for each in opened), 7)
        self.assertFalse(self.open(HALF_LINE, "2001:db8:0:1::1").closed)

    def test_addresses_that_a_proxy_names_count(self) -> None:
        self.serve(max_connections_per_ip=5)
        self.shared = ProxyHeaderFactory(self.server.hub, self.shared)
        header = b"PROXY TCP4 203.0.113.%d 127.0.0.1 4711 9999\r\n"
        for number in (7, 8):
            opened = [self.open(header % number + HALF_LINE) for _ in range(20)]
            self.assertEqual(sum(not each.closed for each in opened), 7)

    def test_a_stream_has_one_place(self) -> None:
        for data in STREAMS:
            self.serve(max_connections=100)
            opened = [self.open(data, f"192.0.2.{number}") for number in range(130)]
            answers = [bytes(each.received[:12]) for each in opened]
            self.assertEqual(answers, [b"HTTP/1.1 200"] * 100 + [b"HTTP/1.1 503"] * 30)
            self.assertEqual(len(self.server.hub.clients), 100)
            self.assertTrue(self.open(IDLE_HTTP).received.startswith(b"HTTP/1.1 200 "))

    def test_refused_upgrades_and_short_requests_leave_a_full_server(self) -> None:
        self.serve(max_connections=3)
        for _ in range(3):
            self.open(UPGRADE)
        for data, status in ((UPGRADE, b"503"), (IDLE_HTTP, b"200")):
            for _ in range(100):
                connection = self.open(data)
                self.assertEqual(bytes(connection.received[9:12]), status)
                self.assertIn(b"\r\nconnection: close\r\n", connection.received.lower())
                self.assertTrue(connection.closed)
        self.assertEqual(self.server.hub.places.guests, 0)

    def test_a_newcomer_gets_the_place_of_a_connection_that_is_no_client(self) -> None:
        """Whatever fills the places, from one address and from many."""
        kinds: dict[str, tuple[bytes, Any]] = {
            "nothing yet": (b"", None),
            "half a line": (HALF_LINE, None),
            "half a head": (HALF_HEAD, None),
            "half a body": (HALF_BODY, None),
            "half a TLS handshake": (HALF_TLS, HandshakeFactory),
            "half a PROXY header": (HALF_PROXY, ProxyHeaderFactory),
            "half a WebSocket handshake": (UPGRADE[:20], lambda hub, shared: WebSocketFactory(hub)),
            "an idle HTTP connection": (IDLE_HTTP, None),
            "long polls": (LONG_POLL, None),
            "lines under their rate": (MANY_LINES, None),
            "the preface of HTTP/2": (GRPC[:24], None),
            "HTTP/2 without a call": (GRPC, None),
            "gRPC calls without a message": (GRPC + CALL, None),
        }
        for name, (data, wrap) in kinds.items():
            for addresses in (1, 20, 200):
                self.serve(max_connections=100)
                usual, hub = self.shared, self.server.hub
                self.shared = wrap(hub, usual) if wrap else usual
                opened = [self.open(data, f"192.0.2.{number % addresses}") for number in range(200)]
                self.assertLessEqual(sum(not each.closed for each in opened), 150, name)
                self.assertIn(hub.places.guests + len(hub.clients), (100, 150), name)
                self.shared = usual
                for newcomer, answer in (
                    (IDLE_HTTP, b"HTTP/1.1 200 "),
                    (UPGRADE, b"HTTP/1.1 101 "),
                    (b"ping\n", b"pong"),
                ):
                    received = self.open(newcomer, "198.51.100.1").received
                    self.assertTrue(received.startswith(answer), (name, addresses, bytes(received)))

    def test_an_address_that_opens_many_connections_closes_its_own(self) -> None:
        self.serve(max_connections=100)
        kept = [self.open(IDLE_HTTP, f"198.51.100.{number}") for number in range(20)]
        opened = [self.open(HALF_LINE) for _ in range(500)]
        self.assertFalse(any(each.closed for each in kept))
        self.assertEqual([each.closed for each in opened], [True] * 370 + [False] * 130)
        # What works for its peer gives way after what waits, even if it came before.
        self.serve(max_connections=100)
        body = self.open(HALF_BODY)
        for _ in range(500):
            self.open(HALF_LINE)
        self.assertFalse(body.closed)
        body.send(b"56789")
        self.server.settle()
        self.assertTrue(body.received.startswith(b"HTTP/1.1 200 "))

    def test_over_the_limit_of_an_address_an_idle_connection_gives_way(self) -> None:
        self.serve(max_connections_per_ip=5)
        opened = [self.open(IDLE_HTTP) for _ in range(5)]
        bodies = [self.open(HALF_BODY) for _ in range(2)]
        websocket = self.open(UPGRADE)
        self.assertTrue(websocket.received.startswith(b"HTTP/1.1 101 "))
        self.assertEqual([each.closed for each in opened + bodies], [True] + [False] * 6)

    def test_a_client_does_not_give_way(self) -> None:
        self.serve(max_connections=100)
        clients = [self.open(data, f"192.0.2.{number}") for number in range(25) for data in (*STREAMS, UPGRADE)]
        for _ in range(200):
            self.open(HALF_LINE, "198.51.100.1")
        self.assertFalse(any(each.closed for each in clients))
        self.assertEqual((len(self.server.hub.clients), self.server.hub.places.guests), (100, 50))

    def test_a_long_poll_gives_its_place_to_a_client(self) -> None:
        self.serve(max_connections=100)
        polls = [self.open(LONG_POLL, f"192.0.2.{number}") for number in range(101)]
        self.assertEqual([bytes(each.received[9:12]) for each in polls], [b""] * 100 + [b"503"])
        clients = [self.open(UPGRADE, f"192.0.2.{number}") for number in range(20)]
        self.assertEqual({bytes(each.received[9:12]) for each in clients}, {b"101"})
        self.assertEqual([bytes(each.received[9:12]) for each in polls], [b"200"] * 20 + [b""] * 80 + [b"503"])
        self.assertIn(b'"publications":[]', polls[0].received)
        self.assertEqual(bytes(self.open(LONG_POLL).received[9:12]), b"503")
        # Polls that ended leave their places, whatever ended them.
        polls[20].close()
        polls[21].reset()
        self.server.advance(5)
        self.assertEqual([bytes(self.open(LONG_POLL).received[9:12]) for _ in range(3)], [b"", b"", b"503"])

    def test_an_unused_grpc_connection_leaves_a_full_server(self) -> None:
        self.serve(max_connections=3)
        for _ in range(3):
            self.open(UPGRADE)
        connection = self.open(GRPC)
        self.server.advance(30)
        self.assertTrue(connection.closed)

    def test_handshakes_on_a_port_for_websocket_count(self) -> None:
        self.serve(max_connections_per_ip=5)
        self.shared = WebSocketFactory(self.server.hub)
        opened = [self.open(UPGRADE[:20]) for _ in range(20)]
        self.assertEqual(sum(not each.closed for each in opened), 7)
        for each in opened:
            each.close()
        self.assertEqual(self.server.hub.places.guests, 0)
        self.assertTrue(self.open(UPGRADE).received.startswith(b"HTTP/1.1 101 "))
        self.assertEqual((self.server.hub.places.guests, len(self.server.hub.clients)), (0, 1))
