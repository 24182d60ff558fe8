"""What the protocols of clients have in common when a connection begins."""

import logging
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn import ChatFactory, GrpcFactory, LiveSite, Settings, SharedPortFactory, WebSocketFactory
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
        self.server.hub.pending_connections = 1_000
        self.addCleanup(setattr, self.server.hub, "guests", 0)
        for factory in (self.chat, self.shared, HandshakeFactory(self.server.hub, self.shared)):
            with self.assertLogs("longconn", logging.INFO) as logs:
                connection = self.server.connect(factory)
            self.assertTrue(connection.closed)
            self.assertIn("too many connections", logs.output[0])
