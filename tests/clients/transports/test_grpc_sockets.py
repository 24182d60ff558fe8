"""gRPC over real sockets, against a real service and against servers of something else."""

from typing import Any

from twisted.internet.protocol import Factory

from longconn import LongConnService, Settings
from longconn.clients import AddressError, ConnectionFailed, ConnectionState, NotLongconn, connect
from tests.clients.transports.test_sockets import Says, SocketCase, as_test
from tests.live.common import reactor, until


def other_server(case: Any, text: bytes, greets: bool = False) -> str:
    """HOST:PORT of a server that always sends the same bytes."""
    factory: Any = Factory.forProtocol(Says)
    factory.text, factory.greets, factory.noisy = text, greets, False
    listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
    case.addCleanup(listening.stopListening)
    return f"127.0.0.1:{listening.getHost().port}"


class SocketTests(SocketCase):
    """A real service."""

    def start(self, **ports: list[str]) -> None:
        self.service = LongConnService(reactor, Settings(shutdown_timeout=1.0), **ports)
        self.service.startService()
        self.addCleanup(self.service.stopService)

    @as_test
    async def test_on_the_shared_port_and_one_of_its_own(self) -> None:
        for kind in ("port", "grpc"):
            self.start(**{kind: ["127.0.0.1:0"]})
            for host in ("127.0.0.1", "localhost"):
                await self.converse(self.client("grpc://{}", f"{host}:{self.port}"))
            await until(lambda: not self.hub.clients)

    @as_test
    async def test_large_publications_in_order(self) -> None:
        self.serve(publish_rate=0, publish_bytes=0)
        ann, bob = (self.client("grpc://{}", f"127.0.0.1:{self.port}") for _ in range(2))
        news = await ann.subscribe("news")
        sent = [bob.publish("news", [number, "x" * 30_000]) for number in range(40)]
        self.assertEqual([(await news.__anext__()).data[0] for _ in range(40)], list(range(40)))
        for each in sent:
            await each

    @as_test
    async def test_a_server_that_comes_back(self) -> None:
        port = self.free_port()
        service = self.serve(f"127.0.0.1:{port}")
        client = self.client("grpc://{}", f"127.0.0.1:{port}", random=lambda: 0.0)
        await client.connected()
        await service.stopService()
        await until(lambda: client.state.state is ConnectionState.RECONNECTING)
        self.serve(f"127.0.0.1:{port}")
        await client.publish("news", 1)
        await client.close()

    @as_test
    async def test_a_refused_connection(self) -> None:
        error = await self.error("grpc://{}", "localhost:1", reconnect=False)
        self.assertIsInstance(error, ConnectionFailed)
        self.assertEqual(str(error), "localhost:1: connection refused")

    @as_test
    async def test_a_port_for_chat_lines(self) -> None:
        self.start(tcp=["127.0.0.1:0"])
        error = await self.error("grpc://{}", f"127.0.0.1:{self.port}", reconnect=False)
        self.assertIsInstance(error, ConnectionFailed)

    @as_test
    async def test_servers_of_other_protocols(self) -> None:
        texts = (b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"{", b"\0\0\0\1", b"\x15\x03\x01")
        for text in texts:
            for greets in (True, False):
                error = await self.error("grpc://{}", other_server(self, text, greets))
                self.assertIsInstance(error, NotLongconn)
                self.assertIn("this is no longconn server: it answered '", str(error))

    @as_test
    async def test_a_server_that_never_answers(self) -> None:
        error = await self.error("grpc://{}", other_server(self, b""), timeout=0.2, reconnect=False)
        self.assertRegex(str(error), r"^127\.0\.0\.1:\d+: no answer within 0\.2 s$")

    def test_urls(self) -> None:
        for url in ("grpc://localhost/path", "grpc://localhost:1?x", "grpcs://localhost/path"):
            self.assertRaises(AddressError, connect, url, reactor=reactor)
