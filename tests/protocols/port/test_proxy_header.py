"""The PROXY header before a connection, behind a `haproxy:` endpoint."""

import logging
import struct
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn import ChatFactory, Settings, SharedPortFactory
from longconn.protocols.port.proxy_header import ProxyHeaderFactory
from longconn.service.embedding import LiveSite
from longconn.testing import MemoryServer, WebSocketClient

GET = b"GET /PrintHello HTTP/1.1\r\nHost: localhost\r\n\r\n"
TCP4 = b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 9999\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2 = SIGNATURE + b"\x21\x11\0\x0c" + bytes((203, 0, 113, 7, 127, 0, 0, 1)) + struct.pack("!2H", 4711, 9999)
CONNECT = b'{"id":1,"connect":{}}\n{"id":2,"publish":{"channel":"c","data":1}}\n'


class ProxyHeaderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = MemoryServer(Settings(handshake_timeout=10))
        self.addCleanup(self.server.stop)
        hub = self.server.hub
        self.chat = ProxyHeaderFactory(hub, ChatFactory(hub))
        self.shared = ProxyHeaderFactory(hub, SharedPortFactory(ChatFactory(hub), LiveSite(hub)))

    def connect(self, data: bytes = b"", factory: Any = None) -> Any:
        connection = self.server.connect(factory or self.shared)
        connection.send(data)
        return connection

    def test_the_address_is_the_one_that_the_header_names(self) -> None:
        for header in (TCP4, V2):
            for size in (1, 15, 1000):
                data = header + GET
                connection = self.connect()
                for start in range(0, len(data), size):
                    connection.send(data[start : start + size])
                self.server.settle()
                self.assertIn(b"X-Connection: 203.0.113.7:4711; request=1", connection.received, (header, size))

    def test_without_an_address_the_peer_is_the_proxy(self) -> None:
        for header in (
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN ::1 ::1 1 2\r\n", SIGNATURE + b"\x20\0\0\0", SIGNATURE + b"\x21\0\0\3abc",
        ):  # fmt: skip
            connection = self.connect(header + GET)
            self.server.settle()
            self.assertIn(f"X-Connection: {connection.local.host}:".encode(), connection.received, header)

    def test_nothing_begins_before_the_header(self) -> None:
        connection = self.connect(TCP4[:20], self.chat)
        self.server.advance(5)
        self.assertEqual((self.server.hub.clients, self.server.hub.places.guests), ({}, 1))
        connection.send(TCP4[20:])
        self.assertEqual([each.address for each in self.server.hub.clients.values()], ["203.0.113.7:4711"])
        self.assertEqual(self.server.hub.places.guests, 0)

    def test_what_is_no_header_is_closed_and_logged(self) -> None:
        for data in (
            GET, b"hello\r\n", b"PROXY TCP4 203.0.113.7\r\n", b"PROXY TCP4 a b c d\r\n", b"PROXY SCTP a b 1 2\r\n",
            b"PROXY TCP4 " + b"1" * 200, b"PROXY TCP4 \xff \xff 1 2\r\n", b"\r\n\r\nhello",
            SIGNATURE + b"\x21\x77\0\0", SIGNATURE + b"\x31\x11\0\0", SIGNATURE + b"\x21\x11\0\2ab",
        ):  # fmt: skip
            with self.assertLogs("longconn", logging.INFO) as logs:
                connection = self.connect(data)
                self.server.settle()
            self.assertTrue(connection.aborted, data)
            self.assertIn("no header of the PROXY protocol", str(logs.output))
            self.assertEqual(self.server.hub.places.guests, 0)

    def test_a_header_that_does_not_come_in_time(self) -> None:
        for data in (b"", b"PROXY "):
            connection = self.connect(data)
            self.server.advance(9)
            self.assertFalse(connection.closed)
            with self.assertLogs("longconn", logging.INFO) as logs:
                self.server.advance(2)
            self.assertTrue(connection.aborted)
            self.assertIn("in time", str(logs.output))

    def test_answers_come_after_a_half_close(self) -> None:
        for data, factory, answer in (
            (b"/who\n", self.chat, b"* 1 in lobby"), (b"/who\n", self.shared, b"* 1 in lobby"), (GET, self.shared,
            b"hello word"),
            (CONNECT, self.chat, b'{"id":2,"publish":{}}'), (CONNECT, self.shared, b'{"id":2,"publish":{}}'),
        ):  # fmt: skip
            connection = self.connect(TCP4 + data, factory)
            connection.half_close()
            self.server.advance(1)
            self.assertIn(answer, connection.received)
            self.assertTrue(connection.closed)

    def test_a_half_close_ends_what_takes_none(self) -> None:
        for data in (b"", TCP4[:10], TCP4, TCP4 + b"unfinished"):
            connection = self.connect(data)
            connection.half_close()
            self.server.settle()
            self.assertTrue(connection.closed, data)
        connection = self.connect(TCP4)
        web = WebSocketClient(connection, "/ws")
        self.server.settle()
        self.assertEqual(web.status, 101)
        connection.half_close()
        self.server.settle()
        self.assertEqual((connection.closed, self.server.hub.clients), (True, {}))
