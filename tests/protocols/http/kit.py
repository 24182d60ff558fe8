"""For the tests of HTTP: a connection in memory on a fake clock, and parsed responses."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from longconn.core.hub import Hub
from longconn.core.memory_broker import MemoryBroker
from longconn.core.publication import Data, Info
from longconn.core.settings import Settings
from longconn.service.embedding import LiveSite
from longconn.testing import FakeClock
from tests.behaviour.broker import LateBroker

PEER = IPv4Address("TCP", "192.0.2.1", 50000)
SERVER = IPv4Address("TCP", "192.0.2.9", 9999)
LOOPBACK = IPv4Address("TCP", "127.0.0.1", 9999)


class Transport(StringTransport):
    """The server's end of a socket in memory; while `full` it accepts nothing, as with a slow reader."""

    TLS = False
    full = False

    def write(self, data: bytes) -> None:
        if not self.disconnecting:
            super().write(data)
            if self.full and self.producer is not None:
                self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = None
        super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self.producer = self.streaming = None

    def drain(self, full: bool = False) -> None:
        """The reader has read everything; with `full` the next write fills the transport again."""
        self.full = full
        if self.producer is not None:
            self.producer.resumeProducing()


class Answer:
    """One response: `status`, `headers` (lower case, the last of each), `body`, chunks joined."""

    def __init__(self, raw: bytes, head_only: bool = False) -> None:
        head, _, rest = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.version, status, self.phrase = first.split(" ", 2)
        self.status = int(status)
        self.headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
        self.names = [each.partition(":")[0].lower() for each in lines]
        self.ended = True
        if head_only or self.status == 204:
            self.body, self.rest = b"", rest
        elif self.headers.get("transfer-encoding") == "chunked":
            self.body, self.rest, self.ended = unchunk(rest)
        else:
            length = int(self.headers.get("content-length", len(rest)))
            self.body, self.rest = rest[:length], rest[length:]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"]["message"])


def unchunk(data: bytes) -> tuple[bytes, bytes, bool]:
    """The body of chunks (RFC 9112, section 7.1), what follows it, and whether it has ended."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        assert data[length : length + 2] == b"\r\n", data
        body, data = body + data[:length], data[length + 2 :]
        if not length:
            return body, data, True
    return body, b"", False


class Connection:
    """One connection to a site, a client's end."""

    def __init__(self, site: Any, host: Any = SERVER, peer: Any = PEER) -> None:
        self._clock = site.state.hub.clock if isinstance(site, LiveSite) else site.reactor
        self.transport = Transport(host, peer)
        self.protocol = site.buildProtocol(peer)
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.transport.protocol.dataReceived(data)

    def take(self) -> bytes:
        """The bytes that came since the last call."""
        data = self.transport.value()
        self.transport.clear()
        return data

    def answer(self, head_only: bool = False) -> Answer:
        """The answer that has come, or comes in the next turns: a request may have to wait for room in a turn."""
        for _ in range(2):
            if not self.transport.value():
                self._clock.turn()
        return Answer(self.take(), head_only)

    def request(self, line: str, *headers: str, body: bytes = b"", host: str = "server") -> Answer:
        """Send a request, `line` without its version, and parse the answer."""
        self.ask(line, *headers, body=body, host=host)
        return self.answer(head_only=line.startswith("HEAD"))

    def ask(self, line: str, *headers: str, body: bytes = b"", host: str = "server", version: str = "1.1") -> None:
        lines = [f"{line} HTTP/{version}", f"Host: {host}", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def lose(self) -> None:
        """Lose the connection."""
        self.transport.connected = False
        self.transport.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def closing(self) -> bool:
        return bool(self.transport.disconnecting)


class HTTPTestCase(TestCase):
    """A hub on a fake clock and its site; `start` gets settings. At the end no client, channel or call may be left."""

    late = False

    def setUp(self) -> None:
        self.start()

    def start(self, **settings: Any) -> None:
        self.clock = FakeClock()
        configured = Settings(**settings)
        #: where publications are kept
        self.memory = MemoryBroker(self.clock, configured)
        broker: Any = self.memory
        if self.late:
            broker = self.broker = LateBroker(self.clock, configured, failures=0)
            self.memory = self.broker.inner
        self.hub = Hub(self.clock, configured, broker)
        self.site = LiveSite(self.hub)
        self.site.doStart()
        self.connections: list[Connection] = []

    def tearDown(self) -> None:
        for each in self.connections:
            if each.transport.connected:
                each.lose()
        self.site.doStop()
        self.turns()
        self.assertEqual(self.hub.clients, {})
        self.assertEqual(self.hub.channels, {})
        self.assertEqual((self.site.state.idle, self.site.state.bodies), (set(), 0))
        self.hub.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def connect(self, **addresses: Any) -> Connection:
        connection = Connection(self.site, **addresses)
        self.connections.append(connection)
        return connection

    def request(self, line: str, *headers: str, **more: Any) -> Answer:
        """A request on a connection of its own."""
        return self.connect().request(line, *headers, **more)

    def turns(self, count: int = 8) -> None:
        """Some turns of the reactor."""
        for _ in range(count):
            self.clock.turn()

    def publish(self, text: str, channel: str = "lobby", name: str = "ann") -> None:
        self.hub.publish(channel, Data.of_text(text), Info(name), lambda result: None)
        self.turns()

    def position(self, channel: str = "lobby") -> str:
        found: list[Any] = []
        self.memory.history(channel, None, 0, False, found.append)
        return f"{found[0].position.epoch}:{found[0].position.offset}"
