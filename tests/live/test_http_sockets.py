"""HTTP over real sockets: what only a kernel does."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from longconn.core.disconnects import SHUTDOWN
from longconn.core.hub import Hub
from longconn.core.publication import Data, Info
from longconn.core.settings import Settings
from longconn.protocols.http.connection import HTTPConnection
from longconn.service.embedding import LiveSite

Reactor: Any = reactor


class Reader(Protocol):
    """Collects what comes; `until` and `ended` fire when there is enough."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.ended: Deferred[bytes] = Deferred()
        self._wanted: tuple[bytes, Deferred[bytes]] | None = None

    def until(self, text: bytes) -> Deferred[bytes]:
        wanted: Deferred[bytes] = Deferred()
        self._wanted = text, wanted
        self.dataReceived(b"")
        return wanted

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if self._wanted is not None and self._wanted[0] in self.data:
            wanted, self._wanted = self._wanted[1], None
            wanted.callback(self.data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(self.data)


class SocketTests(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.hub = Hub(Reactor, Settings(send_queue=100_000))
        self.site = LiveSite(self.hub)
        self.port = Reactor.listenTCP(0, self.site, interface="127.0.0.1")
        # A socket's path has a hundred bytes at most: trial's own folders are too deep.
        self.folder = tempfile.mkdtemp()
        self.path = f"{self.folder}/socket"
        self.unix = Reactor.listenUNIX(self.path, self.site)
        self.readers: list[Reader] = []

    @inlineCallbacks
    def tearDown(self) -> Any:
        yield self.port.stopListening()
        yield self.unix.stopListening()
        for each in self.readers:
            if not each.ended.called:
                each.transport.abortConnection()
                yield each.ended
        while any(isinstance(getattr(each, "protocol", None), HTTPConnection) for each in Reactor.getReaders()):
            yield self.turn()
        self.assertEqual((self.hub.clients, self.site.state.idle, self.site.state.bodies), ({}, set(), 0))
        self.hub.stop()
        shutil.rmtree(self.folder)
        self.assertEqual(self.flushLoggedErrors(), [])

    def turn(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        Reactor.callLater(0, done.callback, None)
        return done

    @inlineCallbacks
    def ask(self, data: bytes, endpoint: Any = None) -> Any:
        endpoint = endpoint or TCP4ClientEndpoint(Reactor, "127.0.0.1", self.port.getHost().port)
        reader = yield connectProtocol(endpoint, Reader())
        self.readers.append(reader)
        reader.transport.write(data)
        return reader

    def publish(self, text: str) -> None:
        self.hub.publish("lobby", Data.of_text(text), Info("ann"), lambda result: None)

    @inlineCallbacks
    def test_streams(self) -> Any:
        for endpoint in (None, UNIXClientEndpoint(Reactor, self.path)):
            for kind in (b"events", b"stream"):
                for version in (b"1.1", b"1.0"):
                    head = b"GET /channels/lobby/%b HTTP/%b\r\nHost: localhost\r\n\r\n" % (kind, version)
                    reader = yield self.ask(head, endpoint)
                    data = yield reader.until(b"\r\n\r\n")
                    self.assertTrue(data.startswith(b"HTTP/%b 200 " % version), data)
                    self.publish("hello")
                    yield reader.until(b'"data":"hello"')
                    for client in list(self.hub.clients.values()):
                        client.close(SHUTDOWN)
                    data = yield reader.ended
                    self.assertEqual(data.endswith(b"0\r\n\r\n"), version == b"1.1")
        self.assertEqual(self.hub.clients, {})

    @inlineCallbacks
    def test_answer_to_a_large_body_arrives(self) -> Any:
        body = b"x" * 20_000_000
        head = b"POST /channels/lobby HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        reader = yield self.ask(b"")
        reader.transport.pauseProducing()
        reader.transport.write(head + body)
        # As simple clients do: all is sent before anything is read.
        while reader.transport.dataBuffer or reader.transport._tempDataLen:
            yield self.turn()
        reader.transport.resumeProducing()
        data = yield reader.ended
        self.assertTrue(data.startswith(b"HTTP/1.1 413 "), data)
        self.assertTrue(data.endswith(b"}}\n"), data)

    @inlineCallbacks
    def test_a_slow_client_does_not_hold_the_others(self) -> Any:
        head = b"GET /channels/lobby/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
        slow = yield self.ask(head)
        yield slow.until(b"\r\n\r\n")
        slow.transport.pauseProducing()
        quick = yield self.ask(head)
        yield quick.until(b"\r\n\r\n")
        with self.assertLogs("longconn", "WARNING") as logged:
            for number in range(600):
                self.publish(f"{number:03d}" + "x" * 50_000)
                yield quick.until(b'"%03d' % number)
                quick.data = b""
                if len(self.hub.clients) == 1:
                    break
        self.assertIn("slow", logged.output[0])
        self.assertEqual(len(self.hub.clients), 1)
        slow.transport.resumeProducing()

    @inlineCallbacks
    def test_a_client_that_goes_is_noticed(self) -> Any:
        reader = yield self.ask(b"GET /channels/lobby/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield reader.until(b":ok")
        reader.transport.abortConnection()
        while self.hub.clients:
            yield self.turn()
