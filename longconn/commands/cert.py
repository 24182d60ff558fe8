"""`longconn cert [NAME …]`: a certificate and its key, to try TLS with."""

from __future__ import annotations

import ipaddress
import os
from argparse import Namespace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from longconn.clients.errors import ClientError
from longconn.commands.parser import Parser, positive
from longconn.commands.running import Console

_NAMES = ("localhost", "127.0.0.1", "::1")
#: Seconds that a client's clock may be behind.
_SKEW = timedelta(minutes=5)


def parser() -> Parser:
    """The command line."""
    found = Parser(
        "cert",
        "Make a certificate that signs itself, and its key. Clients trust it where they are told to: "
        "`curl --cacert`, or --cafile for the commands of longconn. Files that exist stay as they are.",
    )
    found.add_argument(
        "names", nargs="*", metavar="NAME", help=f"a host name or IP address of the server [{' '.join(_NAMES)}]"
    )
    found.add_argument("--cert", default="cert.pem", metavar="FILE", help="the certificate's file [cert.pem]")
    found.add_argument("--key", default="key.pem", metavar="FILE", help="the key's file [key.pem]")
    found.add_argument("--days", type=positive, default=30, metavar="N", help="valid for N days [30]")
    return found


async def main(console: Console, arguments: Namespace) -> int:
    """Write both files."""
    names = arguments.names or list(_NAMES)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    try:
        until = now + timedelta(days=arguments.days)
    except OverflowError as error:
        raise ClientError(f"{arguments.days} days are too many") from error
    certificate = _certificate(names, now - _SKEW, until, key)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # The key first: a server that finds a certificate finds its key.
    _write((arguments.key, pem, 0o600), (arguments.cert, certificate.public_bytes(Encoding.PEM), 0o644))
    await console.out.write(f"{arguments.cert} and {arguments.key}: for {', '.join(names)}, until {until:%Y-%m-%d}\n")
    return 0


def _certificate(
    names: list[str], since: datetime, until: datetime, key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """A certificate for these names (RFC 5280). Raises ClientError."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "longconn cert")])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), since, until)
    usage = dict.fromkeys(_USAGES, False) | {"digital_signature": True}
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.SubjectAlternativeName([_name(each) for each in names]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.KeyUsage(**usage), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, SHA256())


#: The arguments of x509.KeyUsage.
_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def _name(text: str) -> x509.GeneralName:
    """An IP address, or a host name. Raises ClientError."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        pass
    try:
        name = text.removesuffix(".").encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    labels = name.removeprefix("*.").split(".")
    if not all(each.replace("-", "").replace("_", "").isalnum() for each in labels):
        raise ClientError(f"{text!a} is no host name and no IP address")
    return x509.DNSName(name)


def _write(*files: tuple[str, bytes, int]) -> None:
    """Write new files (path, content, mode), all or none. Raises ClientError."""
    made: list[str] = []
    path = ""
    try:
        for path, data, mode in files:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            made.append(path)
            with open(descriptor, "wb") as file:
                file.write(data)
    except (OSError, ValueError) as error:
        for each in made:
            os.unlink(each)
        if path in made and isinstance(error, FileExistsError):
            raise ClientError(f"{path} cannot have both the certificate and the key") from error
        if isinstance(error, FileExistsError):
            raise ClientError(f"{path} exists: remove it, or name other files by --cert and --key") from error
        raise ClientError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
