"""What the protocols of clients have in common when a connection begins."""

import logging
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.trial.unittest import SynchronousTestCase

from longconn import ChatFactory, GrpcFactory, LiveSite, Settings, SharedPortFactory, WebSocketFactory
from longconn.protocols.port.proxy_header import ProxyHeaderFactory
from longconn.protocols.port.shared_port import SILENCE
from longconn.protocols.port.tls_handshake import HandshakeFactory
from longconn.testing import MemoryServer


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = MemoryServer(Settings(max_connections=10))
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
    def test_a_connection_too_many_is_closed_and_logged(self) -> None:
        for number in range(1_000):
            self.server.hub.add_pending(f"192.0.2.{number}")
        for factory in (self.chat, self.shared, HandshakeFactory(self.server.hub, self.shared)):
            with self.assertLogs("longconn", logging.INFO) as logs:
                connection = self.server.connect(factory)
            self.assertTrue(connection.closed)
            self.assertIn("too many connections", logs.output[0])


#: What makes a connection of each kind that is no client.
HALF_LINE = b"hel"
IDLE_HTTP = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
GRPC = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
LONG_POLL = b"GET /channels/a?since=x:0&wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n"
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

    def open(self, data: bytes, peer: str = "192.0.2.1") -> Any:
        local = (IPv6Address if ":" in peer else IPv4Address)("TCP", peer, 50000)
        connection = self.server.connect(self.shared, local=local)
        connection.send(data)
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
            self.server.settle()
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
        self.assertEqual(self.server.hub.pending_connections, 0)

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
        self.assertEqual(self.server.hub.pending_connections, 0)
        self.assertTrue(self.open(UPGRADE).received.startswith(b"HTTP/1.1 101 "))
        self.assertEqual((self.server.hub.pending_connections, len(self.server.hub.clients)), (0, 1))
