"""The keep-alive client over real sockets, and TLS."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, KeyPair, PrivateCertificate, trustRootFromCertificates
from twisted.trial.unittest import TestCase

from docs.terminals import reserve
from longconn.clients.errors import (
    CertificateError,
    ClientError,
    ConnectionFailed,
)
from longconn.clients.keepalive import KeepAliveClient
from longconn.clients.keepalive.response import HIGH_WATER
from tests.clients.keepalive.kit import answer, head
from tests.live.certificates import write_certificate
from tests.live.common import until

reactor: Any = installed


class Scripted(Protocol):
    """Answers the first request of each connection, and then runs its script."""

    transport: Any
    factory: Any

    def connectionMade(self) -> None:
        self.factory.connections.append(self)
        self.requests = 0

    def dataReceived(self, data: bytes) -> None:
        for _ in range(data.count(b"\r\n\r\n")):
            self.requests += 1
            self.factory.script(self)


class SocketTests(TestCase):
    """Over real sockets, and TLS."""

    timeout = 20

    def serve(self, script: Callable[[Scripted], Any], context: Any = None) -> str:
        factory: Any = Factory.forProtocol(Scripted)
        factory.script = script
        factory.connections = self.connections = []
        if context is None:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            port = reactor.listenSSL(0, factory, context, interface="0.0.0.0")
        self.addCleanup(port.stopListening)
        return f"{'https' if context else 'http'}://127.0.0.1:{port.getHost().port}/"

    def make(self, **options: Any) -> KeepAliveClient:
        self.client = KeepAliveClient(reactor, **options)
        self.addCleanup(self.client.close)
        return self.client

    async def test_a_server_that_closes_what_it_promised_to_keep(self) -> None:
        def script(connection: Scripted) -> None:
            if connection.requests == 1:
                connection.transport.write(answer(b"%d" % len(self.connections)))
            else:
                connection.transport.abortConnection()

        url = self.serve(script)
        client = self.make(connections=1)
        seen = []
        for _ in range(4):
            async with await client.request("GET", url) as response:
                seen.append((await response.collect(), response.reused))
        self.assertEqual(seen, [(b"1", False), (b"2", False), (b"3", False), (b"4", False)])
        # It did use the old ones first.
        self.assertEqual([each.requests for each in self.connections], [2, 2, 2, 1])

    async def test_backpressure_reaches_the_server(self) -> None:
        total = 40 * 1024 * 1024
        sent = 0

        class Source:
            def __init__(self, transport: Any) -> None:
                self.transport = transport

            def resumeProducing(self) -> None:
                nonlocal sent
                size = min(65536, total - sent)
                sent += size
                self.transport.write(b"a" * size)
                if sent == total:
                    self.transport.unregisterProducer()

            def stopProducing(self) -> None:
                pass

        def script(connection: Scripted) -> None:
            connection.transport.write(head(total))
            connection.transport.registerProducer(Source(connection.transport), False)

        client = self.make()
        response = await client.request("GET", self.serve(script))
        # The program does not read: the server stops when the buffers are full.
        stood = -1
        while stood != sent:
            stood = sent
            wait: Deferred[None] = Deferred()
            reactor.callLater(0.05, wait.callback, None)
            await wait
        self.assertLess(sent, total // 2)
        size = 0
        async for piece in response:
            self.assertLess(len(piece), 4 * HIGH_WATER)
            size += len(piece)
        self.assertEqual(size, total)

    async def test_certificates(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        key, certificate = (path.read_bytes() for path in write_certificate(folder))
        mine = PrivateCertificate.fromCertificateAndKeyPair(Certificate.loadPEM(certificate), KeyPair.load(key, 1))
        url = self.serve(lambda connection: connection.transport.write(answer(b"secret")), mine.options())
        root = trustRootFromCertificates([Certificate.loadPEM(certificate)])
        async with await self.make(trust_root=root).request("GET", url) as response:
            self.assertEqual(await response.collect(), b"secret")
        elsewhere = url.replace("127.0.0.1", "127.0.0.2")
        for address, trusted, text in (
            (url, None, "of nobody that is trusted, or has expired"),
            (elsewhere, root, "for another name"),
        ):
            with self.assertRaises(CertificateError) as caught:
                await self.make(trust_root=trusted).request("GET", address)
            self.assertEqual(str(caught.exception), f"{address.split('/')[2]}: the server's certificate is {text}")

    async def test_no_connection(self) -> None:
        refusing = reserve()
        self.addCleanup(refusing.close)
        where = f"127.0.0.1:{refusing.getsockname()[1]}"
        plain = self.serve(lambda connection: None)
        for url, text in (
            (f"http://{where}/", f"{where}: connection refused"),
            ("http://nowhere.invalid/", "nowhere.invalid:80: unknown host"),
            (plain.replace("http:", "https:"), f"{plain.split('/')[2]}: "),
        ):
            with self.assertRaises(ConnectionFailed) as caught:
                await self.make(read_timeout=0.1).request("GET", url)
            self.assertTrue(str(caught.exception).startswith(text), caught.exception)

    async def test_nothing_is_left_after_close(self) -> None:
        client = self.make()
        url = self.serve(lambda connection: connection.transport.write(head(10**9) + b"a"))
        response = await client.request("GET", url)
        piece = await response.__anext__()
        self.assertEqual(piece, b"a")
        await client.close()
        try:
            await response.__anext__()
        except ClientError:
            pass
        else:
            self.fail("it went on")
        lost: list[Any] = []
        for each in self.connections:
            each.connectionLost = lost.append
        await until(lambda: lost)
