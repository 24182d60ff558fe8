"""Real sockets, TLS and names: each transport against a real service on a port of its own."""

from typing import Any

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from longconn.clients import (
    CertificateError,
    CertificateFileError,
    Client,
    ClientError,
    ConnectionFailed,
    ConnectionState,
    NotLongconn,
    connect,
    load_authorities,
    load_certificate,
)
from longconn.clients.address import Address
from longconn.clients.transports.base import MODULES
from tests.live.certificates import write_certificate
from tests.live.common import Case, reactor, until

PLAIN = ("tcp://{}", "ws://{}", "http://{}", "http://{}/connection/sse")
SECURE = ("tls://{}", "wss://{}", "https://{}", "https://{}/connection/sse", "grpcs://{}")


class SocketCase(Case):
    def client(self, url: str, where: str, **options: Any) -> Client:
        made = connect(url.format(where), reactor=reactor, **options)
        self.addCleanup(made.close)
        return made

    async def converse(self, client: Client) -> None:
        news = await client.subscribe(f"news-{client.url[:5]}")
        await client.publish(news.channel, "x" * 50_000)
        self.assertEqual(len((await news.__anext__()).data), 50_000)
        self.assertEqual([each.client for each in await client.presence(news.channel)], [client.id])
        await client.close()

    async def error(self, url: str, where: str, **options: Any) -> ClientError:
        client = self.client(url, where, **options)
        with self.assertRaises(ClientError) as caught:
            await client.connected()
        self.assertNotIn("\n", str(caught.exception))
        self.assertEqual((await client.closed()).reason, str(caught.exception))
        return caught.exception


def as_test(test: Any) -> Any:
    def run(self: Any) -> "Deferred[None]":
        return Deferred.fromCoroutine(test(self))

    run.__doc__ = test.__doc__
    return run


class PlainTests(SocketCase):
    @as_test
    async def test_each_transport(self) -> None:
        self.serve()
        for url in PLAIN:
            for host in ("127.0.0.1", "localhost"):
                await self.converse(self.client(url, f"{host}:{self.port}"))
        await until(lambda: not self.hub.clients)

    @as_test
    async def test_localhost_where_only_the_ipv6_address_listens(self) -> None:
        self.serve("[::1]:0")
        for url in PLAIN:
            await self.converse(self.client(url, f"localhost:{self.port}"))
            await self.converse(self.client(url, f"[::1]:{self.port}"))

    @as_test
    async def test_a_refused_connection(self) -> None:
        for url in PLAIN + SECURE:
            error = await self.error(url, "localhost:1", reconnect=False)
            self.assertIsInstance(error, ConnectionFailed)
            self.assertEqual(str(error), "localhost:1: connection refused")

    @as_test
    async def test_an_unknown_host(self) -> None:
        error = await self.error(PLAIN[0], "nobody.invalid:1", reconnect=False)
        self.assertEqual(str(error), "nobody.invalid:1: unknown host")

    @as_test
    async def test_a_server_that_comes_back(self) -> None:
        for url in PLAIN:
            port = self.free_port()
            service = self.serve(f"127.0.0.1:{port}")
            client = self.client(url, f"127.0.0.1:{port}", random=lambda: 0.0)
            await client.connected()
            await service.stopService()
            await until(lambda client=client: client.state.state is ConnectionState.RECONNECTING)
            self.serve(f"127.0.0.1:{port}")
            await client.publish("news", 1)
            await client.close()


class TLSTests(SocketCase):
    def setUp(self) -> None:
        self.key, self.certificate = write_certificate(self.folder())
        self.trusted = load_authorities(self.certificate)
        self.serve("127.0.0.1:0", "[::1]:0", tls_cert=(str(self.certificate),), tls_key=(str(self.key),))

    @as_test
    async def test_each_transport(self) -> None:
        for url in SECURE:
            for host in ("127.0.0.1", "localhost"):
                await self.converse(self.client(url, f"{host}:{self.port}", trust_root=self.trusted))
            literal = f"[::1]:{self.service.addresses[1][1].port}"
            await self.converse(self.client(url, literal, trust_root=self.trusted))

    @as_test
    async def test_certificates_that_do_not_fit(self) -> None:
        for url in SECURE:
            error = await self.error(url, f"127.0.0.1:{self.port}")
            self.assertIsInstance(error, CertificateError)
            self.assertIn("is of nobody that is trusted", str(error))
        other = reactor.listenSSL(
            0, Factory.forProtocol(Protocol), ssl.DefaultOpenSSLContextFactory(str(self.key), str(self.certificate)),
            interface="127.0.0.2",
        )  # fmt: skip
        self.addCleanup(other.stopListening)
        for url in SECURE:
            error = await self.error(url, f"127.0.0.2:{other.getHost().port}", trust_root=self.trusted)
            self.assertIsInstance(error, CertificateError)
            self.assertIn("is for another name", str(error))


class ClientCertificateTests(SocketCase):
    """A server that wants a certificate of its clients: the subject is the user."""

    def setUp(self) -> None:
        self.key, self.certificate = write_certificate(self.folder())
        self.own_key, self.own_certificate = write_certificate(self.folder(), "ann")
        self.both = self.folder() / "both.pem"
        self.both.write_bytes(self.own_certificate.read_bytes() + self.own_key.read_bytes())
        self.serve(
            tls_cert=(str(self.certificate),), tls_key=(str(self.key),), tls_only=True,
            tls_client_ca=str(self.own_certificate),
        )  # fmt: skip
        self.trusted = load_authorities(str(self.certificate))

    @as_test
    async def test_each_transport(self) -> None:
        own = load_certificate(self.both)
        for url in SECURE:
            client = self.client(url, f"localhost:{self.port}", trust_root=self.trusted, certificate=own)
            await client.connected()
            self.assertEqual([each.user for each in self.hub.clients.values()], ["ann"], url)
            await client.close()
            await until(lambda: not self.hub.clients)

    @as_test
    async def test_one_that_is_refused_and_none(self) -> None:
        other = load_certificate(self.certificate, self.key)
        for url in SECURE:
            for certificate in (None, other):
                options = {"trust_root": self.trusted, "certificate": certificate, "reconnect": False}
                error = await self.error(url, f"localhost:{self.port}", **options)
                self.assertIsInstance(error, CertificateError, url)
                self.assertIn("the server refuses the client's certificate, or wants one", str(error))

    def test_files_that_do_not_do(self) -> None:
        folder = self.folder()
        absent, empty, encrypted = folder / "absent.pem", folder / "empty.pem", folder / "encrypted.pem"
        empty.write_bytes(b"")
        key = load_pem_private_key(self.own_key.read_bytes(), None)
        secret = BestAvailableEncryption(b"secret")
        encrypted.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
        for load, text in (
            (lambda: load_authorities(absent), f"{absent}: No such file or directory"),
            (lambda: load_authorities(empty), f"{empty} has no certificate in PEM"),
            (lambda: load_authorities(self.own_key), f"{self.own_key} has no certificate in PEM"),
            (lambda: load_authorities(folder), f"{folder}: Is a directory"),
            (lambda: load_certificate(self.own_certificate), "has no private key without a password in PEM"),
            (lambda: load_certificate(self.own_certificate, encrypted), "has no private key without a password in PEM"),
            (lambda: load_certificate(self.own_certificate, self.key), "the key is not that of the certificate in"),
        ):
            error = self.assertRaises(CertificateFileError, load)
            self.assertIn(text, str(error))

    def test_every_scheme_with_tls_is_here(self) -> None:
        secure = {each for each in MODULES if Address(each, "a", 1, "").secure}
        self.assertEqual(secure, {each.partition(":")[0] for each in SECURE})


class Says(Protocol):
    """Sends the same bytes as an answer to anything, or as a greeting."""

    def connectionMade(self) -> None:
        factory: Any = self.factory
        assert self.transport is not None
        if factory.greets:
            self.transport.write(factory.text)

    def dataReceived(self, data: bytes) -> None:
        factory: Any = self.factory
        assert self.transport is not None
        self.transport.write(factory.text)


class OtherServerTests(SocketCase):
    def other(self, text: bytes, greets: bool = False) -> str:
        factory: Any = Factory.forProtocol(Says)
        factory.text, factory.greets, factory.noisy = text, greets, False
        listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        return f"127.0.0.1:{listening.getHost().port}"

    @as_test
    async def test_servers_of_other_protocols(self) -> None:
        greeting = self.other(b"SSH-2.0-OpenSSH_9.6\r\n", greets=True)
        web = self.other(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
        for where in (greeting, web):
            for url in PLAIN + SECURE:
                self.assertIsInstance(await self.error(url, where), NotLongconn, f"{url} {where}")
        self.assertIn("'SSH-2.0-OpenSSH_9.6'", str(await self.error(PLAIN[0], greeting)))
        self.assertIn("answered HTTP 404", str(await self.error(PLAIN[1], web)))
        forbids = self.other(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        self.assertIn("--allowed-host", str(await self.error(PLAIN[1], forbids)))
        self.assertIn("does not speak TLS", str(await self.error(SECURE[1], web)))
        for text in (b'{"error":"no"}\n', b"[1]\n", b"\x00\xff\n", b"\x15\x03\x01\x00\x02\x02\x46"):
            self.assertIsInstance(await self.error(PLAIN[0], self.other(text)), NotLongconn)
            self.assertIsInstance(await self.error(PLAIN[1], self.other(text)), NotLongconn)
        self.assertEqual(self.flushLoggedErrors(), [])
