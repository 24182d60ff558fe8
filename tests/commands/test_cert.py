"""`longconn cert`: the certificate is good for a client that checks it, and nothing is overwritten."""

import contextlib
import os
import ssl
import stat
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.commands.kit import Command


class CertTests(TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.cert, self.key = Path(folder.name, "c.pem"), Path(folder.name, "k.pem")

    async def make(self, *arguments: str) -> tuple[int, str, str]:
        command = Command("cert", f"--cert={self.cert}", f"--key={self.key}", *arguments)
        status = await command.status
        return status, command.out.text, command.err.text

    def handshake(self, host: str) -> None:
        """A handshake with a server that has the files, by a client that trusts the certificate alone."""
        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(self.cert, self.key)
        context = ssl.create_default_context(cafile=str(self.cert))
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(to_client, to_server, server_hostname=host)
        server = server_context.wrap_bio(to_server, to_client, server_side=True)
        for side in (client, server, client):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
        self.assertEqual(client.getpeercert(True), ssl.PEM_cert_to_DER_cert(self.cert.read_text()))

    async def test_it_is_good_for_its_names_alone(self) -> None:
        status, out, err = await self.make()
        self.assertEqual((status, err), (0, ""))
        self.assertIn(": for localhost, 127.0.0.1, ::1, until ", out)
        self.assertEqual(stat.S_IMODE(os.stat(self.key).st_mode), 0o600)
        for host in ("localhost", "127.0.0.1", "::1"):
            self.handshake(host)
        for host in ("example.org", "127.0.0.2"):
            self.assertRaises(ssl.SSLCertVerificationError, self.handshake, host)

    async def test_names_of_every_kind(self) -> None:
        await self.make("chat.example.org", "*.example.com", "2001:db8::1", "bücher.example", "dot.example.")
        for host in ("chat.example.org", "a.example.com", "2001:db8::1", "xn--bcher-kva.example", "dot.example"):
            self.handshake(host)
        self.assertRaises(ssl.SSLCertVerificationError, self.handshake, "localhost")

    async def test_files_that_exist_stay(self) -> None:
        for path, other in ((self.cert, self.key), (self.key, self.cert)):
            path.write_text("mine")
            status, out, err = await self.make()
            self.assertEqual((status, out), (1, ""))
            self.assertEqual(err, f"longconn: {path} exists: remove it, or name other files by --cert and --key\n")
            self.assertEqual((path.read_text(), other.exists()), ("mine", False))
            path.unlink()

    async def test_refusals(self) -> None:
        for arguments, why in (
            (["a b"], "'a b' is no host name and no IP address"),
            (["a..b"], "'a..b' is no host name and no IP address"),
            (["--days", "99999999"], "99999999 days are too many"),
            (["--cert", "/nonexistent/c.pem"], "cannot write /nonexistent/c.pem: No such file or directory"),
            ([f"--cert={self.key}"], f"{self.key} cannot have both the certificate and the key"),
        ):
            self.assertEqual(await self.make(*arguments), (1, "", f"longconn: {why}\n"))
            self.assertFalse(self.key.exists())
