"""TLS beside plain connections on one port: `--tls-cert`."""

import socket
import ssl
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from longconn.core.errors import ConfigError
from longconn.core.settings import Settings
from longconn.service.service import LongConnService
from longconn.testing import FakeClock
from tests.live.certificates import write_certificate
from tests.live.common import Case

_TIMEOUT = 10


class Client:
    """One TLS connection, in a thread."""

    def __init__(self, port: int, trusted: Path | None = None, name: str = "localhost", **options: Any) -> None:
        context = ssl.create_default_context(cafile=trusted) if trusted else ssl._create_unverified_context()
        if "alpn" in options:
            context.set_alpn_protocols(options["alpn"])
        if "chain" in options:
            context.load_cert_chain(*options["chain"])
        if "version" in options:
            context.minimum_version = context.maximum_version = options["version"]
        plain = socket.create_connection(("127.0.0.1", port), _TIMEOUT)
        self.socket = context.wrap_socket(plain, server_hostname=name)

    def ask(self, text: str, until: str) -> str:
        """Send, and read until `until` has come, or the end."""
        self.socket.sendall(text.encode())
        found = b""
        while until.encode() not in found and (part := self.socket.recv(65536)):
            found += part
        return found.decode()

    def name(self) -> str:
        """The common name of the server's certificate."""
        der = self.socket.getpeercert(binary_form=True)
        from cryptography import x509

        assert der is not None
        (found,) = x509.load_der_x509_certificate(der).subject
        return str(found.value)


_GET = "GET /PrintHello HTTP/1.1\r\nHost: localhost\r\n\r\n"


class SharedTests(Case):
    def certificate(self, *names: str) -> tuple[Path, Path]:
        """The certificate and its key."""
        key, certificate = write_certificate(self.folder(), *names)
        return certificate, key

    def listen(self, *pairs: tuple[Path, Path], **settings: Any) -> None:
        settings |= {
            "tls_cert": tuple(str(each[0]) for each in pairs),
            "tls_key": tuple(str(each[1]) for each in pairs),
        }
        self.serve(**settings)

    async def run_client(self, work: Any) -> Any:
        return await deferToThread(work)

    async def test_plain_and_tls_on_one_port(self) -> None:
        pair = self.certificate()
        self.listen(pair, hsts=60)

        def tls() -> tuple[str, str]:
            lines, web = Client(self.port, pair[0]), Client(self.port, pair[0])
            return lines.ask("hello\n", "hello"), web.ask(_GET, "hello word")

        lines, web = await self.run_client(tls)
        self.assertTrue(lines.endswith(": hello\r\n"), lines)
        self.assertIn("Strict-Transport-Security: max-age=60\r\n", web)
        line = await self.line_client()
        line.say("in plain")
        await line.connection.until(lambda: any(each.endswith("in plain") for each in line.lines))
        answer = await self.answer(await self.http_client(), "GET", "/PrintHello")
        self.assertEqual((answer.status, "strict-transport-security" in answer.headers), (200, False))

    async def test_protocols_by_alpn(self) -> None:
        """A browser offers both, and is to get the page; gRPC offers h2 alone."""
        self.listen(self.certificate())

        def chosen() -> list[str | None]:
            offers = (["h2", "http/1.1"], ["h2"], ["http/1.1"], ["other"], [])
            return [Client(self.port, alpn=each).socket.selected_alpn_protocol() for each in offers]

        self.assertEqual(await self.run_client(chosen), ["http/1.1", "h2", "http/1.1", None, None])

    async def test_old_versions_are_refused(self) -> None:
        self.listen(self.certificate())

        def versions() -> list[str | None]:
            found: list[str | None] = [Client(self.port, version=ssl.TLSVersion.TLSv1_2).socket.version()]
            found.append(Client(self.port, version=ssl.TLSVersion.TLSv1_3).socket.version())
            try:
                Client(self.port, version=ssl.TLSVersion.TLSv1_1)
            except (ssl.SSLError, OSError):
                found.append(None)
            return found

        self.assertEqual(await self.run_client(versions), ["TLSv1.2", "TLSv1.3", None])

    async def test_suites_without_an_ephemeral_key_are_refused(self) -> None:
        """On the shared port, and on a port of TLS alone."""
        certificate, key = self.certificate()

        def refused() -> bool:
            context = ssl._create_unverified_context()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers("AES128-SHA:AES256-GCM-SHA384")
            try:
                with socket.create_connection(("127.0.0.1", self.port), _TIMEOUT) as plain:
                    context.wrap_socket(plain)
            except (ssl.SSLError, OSError):
                return True
            return False

        self.listen((certificate, key))
        self.assertTrue(await self.run_client(refused))
        self.serve(f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}")
        self.assertTrue(await self.run_client(refused))
        self.assertIn("hello", await self.run_client(lambda: Client(self.port).ask("hello\n", "hello")))

    async def test_certificates_by_name(self) -> None:
        first = self.certificate("first", "a.example")
        self.listen(first, self.certificate("second", "b.example", "*.c.example"))

        def names() -> list[str]:
            asked = ("a.example", "b.example", "x.c.example", "x.y.c.example", "other")
            return [Client(self.port, name=each).name() for each in asked]

        self.assertEqual(await self.run_client(names), ["first", "second", "second", "first", "first"])

    async def test_a_renewed_certificate(self) -> None:
        """New connections get it, old ones stay; a broken one is not taken."""
        certificate, key = self.certificate("old")
        self.listen((certificate, key))
        old = await self.run_client(lambda: Client(self.port))
        new_certificate, new_key = self.certificate("new")
        certificate.write_bytes(new_certificate.read_bytes())
        with self.assertLogs("longconn", "ERROR") as logged:  # the key is still the old one
            self.service.reload_certificates()
        self.assertIn("the old certificates serve on", logged.output[0])
        self.assertEqual(await self.run_client(lambda: Client(self.port).name()), "old")
        key.write_bytes(new_key.read_bytes())
        assert self.service._tls is not None
        self.service._tls.on_due(0)
        self.assertEqual(await self.run_client(lambda: Client(self.port).name()), "new")
        self.assertIn("hello", await self.run_client(lambda: old.ask("hello\n", "hello")))

    async def test_tls_alone(self) -> None:
        self.listen(self.certificate(), tls_only=True)
        self.assertIn("hello", await self.run_client(lambda: Client(self.port).ask("hello\n", "hello")))
        link = await self.dial()
        link.send(_GET.encode())
        await link.until(lambda: link.closed)
        self.assertNotIn(b"HTTP", bytes(link.received))

    async def test_a_client_certificate_names_the_user(self) -> None:
        pair, own = self.certificate(), self.certificate("ann")
        self.listen(pair, tls_only=True, tls_client_ca=str(own[0]))

        def come() -> list[str]:
            client = Client(self.port, chain=own)
            found = [client.ask("hello\n", "hello")]
            found.append(Client(self.port, chain=own).ask(_GET, "hello word"))
            found.append(Client(self.port, chain=own).ask('{"id":1,"connect":{}}\n', "client"))
            for chain in ((), pair):
                try:
                    found.append(Client(self.port, **({"chain": chain} if chain else {})).ask("hello\n", "hello"))
                except (ssl.SSLError, OSError):
                    found.append("refused")
            return found

        lines, web, program, *refused = await self.run_client(come)
        self.assertIn("ann: hello", lines)
        self.assertIn("hello word", web)
        self.assertIn('"connect"', program)
        self.assertEqual(refused, ["refused", "refused"])


class SettingsTests(Case):
    def test_what_cannot_be_configured(self) -> None:
        key, certificate = map(str, write_certificate(self.folder()))
        other, _ = map(str, write_certificate(self.folder()))
        for settings, words in (
            ({"tls_cert": ("/nowhere",), "tls_key": (key,)}, "/nowhere"),
            ({"tls_cert": (certificate,), "tls_key": (certificate,)}, "no private key"),
            ({"tls_cert": (certificate,), "tls_key": (other,)}, "the key is not that of the certificate"),
        ):
            made = Settings(**settings)  # type: ignore[arg-type]
            error = self.assertRaises(ConfigError, LongConnService, FakeClock(), made)
            self.assertIn(words, str(error))
