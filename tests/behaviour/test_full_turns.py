"""When a turn of the reactor is full, all that would cost more of it waits for a later one, and nothing is lost."""

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from longconn import ChatFactory, GrpcFactory, LiveSite, ServerAPI, SharedPortFactory
from longconn.testing import MemoryConnection, MemoryServer
from longconn.wire.first_bytes import Kind
from tests.long.crowds import HEAD, UPGRADE

CONNECT = b'{"id":1,"connect":{}}\n'
GET = f"GET /PrintHello {HEAD}\r\n".encode()
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
#: What arrives in the full turn, and what the answer has once there is room; by the kind of connection.
FIRST: dict[Kind, tuple[bytes, bytes]] = {
    Kind.HTTP1: (GET, b"200 OK"),
    Kind.CHAT: (b"/who\n", b"lobby"),
    Kind.CENTRIFUGO: (CONNECT, b'"connect":{'),
    Kind.HTTP2: (PREFACE, b"\x04"),
}
#: The same on a connection that has begun: what begins it, then what arrives.
LATER: dict[str, tuple[bytes, bytes, bytes]] = {
    "a request": (GET, GET, b"200 OK"),
    "a chat command": (b"ping\n", b"/channels\n", b"lobby"),
    "a command": (CONNECT, b'{"id":2,"rpc":{"method":"x"}}\n', b'"id":2'),
    "a WebSocket of HTTP": (GET, UPGRADE, b"101 Switching"),
}


class FullTurnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = MemoryServer()
        self.addCleanup(self.server.stop)
        hub = self.hub = self.server.hub
        self.factory = SharedPortFactory(ChatFactory(hub), LiveSite(hub), GrpcFactory(hub))

    def connect(self) -> MemoryConnection:
        return self.server.connect(self.factory)

    def fill(self) -> None:
        """From now until its end, this turn has no room."""
        self.hub.slices.count(10_000)

    def check(self, name: str, connection: MemoryConnection, sent: bytes, answer: bytes) -> None:
        before = len(connection.received)
        self.fill()
        connection.send(sent)
        waits = getattr(connection.transport.protocol, "input_waits", False)
        self.assertTrue(waits or not connection.transport.reading, name)
        self.server.settle()
        self.assertIn(answer, connection.received[before:], name)

    def test_every_kind_of_connection(self) -> None:
        # Empty lines are chat. TLS is not served here: what is inside of it comes to the same protocols.
        served = set(self.factory._table._builders) - {Kind.TLS, Kind.EMPTY}
        self.assertEqual(set(FIRST), served)
        for kind, (sent, answer) in FIRST.items():
            self.check(kind.name, self.connect(), sent, answer)

    def test_what_follows(self) -> None:
        for name, (begin, sent, answer) in LATER.items():
            connection = self.connect()
            connection.send(begin)
            self.server.settle()
            self.check(name, connection, sent, answer)

    def test_one_that_is_lost_while_it_waits_does_nothing(self) -> None:
        self.fill()
        connections = [self.connect() for _ in FIRST]
        for connection, (sent, _) in zip(connections, FIRST.values(), strict=True):
            connection.send(sent)
            connection.reset()
        self.server.settle()
        self.assertEqual((self.hub.clients, self.hub.places.guests), ({}, 0))

    def test_addresses_take_turns(self) -> None:
        """A newcomer of another address does not wait for all connections of one that brought many."""
        self.fill()
        crowd = [self.connect() for _ in range(200)]
        other = self.server.connect(self.factory, local=IPv4Address("TCP", "192.0.2.7", 5000))
        for each in (*crowd, other):
            each.send(GET)
        turns = 0
        while not other.received:
            self.server.clock.turn()
            turns += 1
        self.assertLess(turns, 5)
        self.assertIn(b"", [bytes(each.received) for each in crowd])
        self.server.settle()
        self.assertNotIn(b"", [bytes(each.received) for each in crowd])

    def test_long_polls(self) -> None:
        polls = [self.server.http_client(self.factory) for _ in range(100)]
        position = polls[0].get("/channels/lobby").json()
        path = f"/channels/lobby?wait=20&since={position['epoch']}:{position['offset']}"
        answers = [each.get(path) for each in polls]
        self.assertEqual([each.complete for each in answers], [False] * 100)
        self.server.line_client(self.factory).say("hello")
        self.server.clock.turn()
        for _ in range(2):
            self.server.clock.turn()
        self.assertLess(sum(each.complete for each in answers), 100)
        self.server.settle()
        self.assertEqual([len(each.json()["publications"]) for each in answers], [1] * 100)

    def test_clients_that_are_gone(self) -> None:
        clients = [self.server.line_client(self.factory) for _ in range(200)]
        for each in clients:
            each.say("hello")
        self.server.settle()
        for each in clients:
            each.connection.reset()
        self.assertGreater(len(self.hub.clients), 100)
        self.server.settle()
        self.assertEqual((self.hub.clients, self.hub.presence("lobby")), ({}, []))

    def test_the_name_of_one_that_is_gone_is_free(self) -> None:
        before, after = self.server.line_client(self.factory), self.server.line_client(self.factory)
        before.say("/nick ada")
        self.server.settle()
        self.fill()
        before.connection.reset()
        self.hub.claim("ada")
        self.server.settle()
        after.say("/nick ada")
        self.assertFalse([each for each in after.read() if each.startswith("!")])

    def test_lists_of_very_many_channels(self) -> None:
        for number in range(10_000):
            self.hub.door.channels[f"c{number}"] = Sized(f"c{number}")  # type: ignore[assignment]
        self.addCleanup(self.hub.door.channels.clear)
        listed: list[Any] = []
        ServerAPI(self.hub).channels("", listed.append)
        self.assertEqual(listed, [])
        self.server.clock.turn()
        self.assertEqual(listed, [])
        self.server.settle()
        self.assertEqual(len(listed[0]), 10_000)
        client = self.server.line_client(self.factory)
        client.say("/channels")
        self.assertIn("c0 (1)", "".join(client.read()))


class Sized:
    """A channel with one subscriber, as far as lists look at it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __len__(self) -> int:
        return 1
