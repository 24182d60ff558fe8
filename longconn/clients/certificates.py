"""Files of certificates in PEM: the authorities that a client trusts, and the certificate that it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import crypto
from twisted.internet.ssl import Certificate, trustRootFromCertificates

from longconn.clients.errors import CertificateFileError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate that a client shows to a server which asks for one, its key and its chain: objects of pyOpenSSL."""

    certificate: crypto.X509
    key: crypto.PKey
    chain: tuple[crypto.X509, ...] = ()


def load_authorities(file: str | Path) -> Any:
    """The certificates in `file` as a `trust_root`: only they are trusted. Raises CertificateFileError."""
    return trustRootFromCertificates([Certificate(each) for each in _certificates(file)])


def load_certificate(file: str | Path, key_file: str | Path | None = None) -> ClientCertificate:
    """The first certificate in `file`, with the others as its chain, and the key in `key_file`, or in `file` too.

    Raises CertificateFileError.
    """
    certificate, *chain = _certificates(file)
    where = key_file or file
    data = _read(where)
    key: Any = _parse(where, "private key without a password", lambda: load_pem_private_key(data, None))
    if key.public_key() != certificate.to_cryptography().public_key():
        raise CertificateFileError(f"{where}: the key is not that of the certificate in {file}")
    return ClientCertificate(certificate, crypto.PKey.from_cryptography_key(key), tuple(chain))


def _certificates(file: str | Path) -> list[crypto.X509]:
    data = _read(file)
    found = _parse(file, "certificate", lambda: x509.load_pem_x509_certificates(data))
    return [crypto.X509.from_cryptography(each) for each in found]


def _read(file: str | Path) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise CertificateFileError(f"{file}: {error.strerror or error}") from error


def _parse(file: str | Path, kind: str, parse: Callable[[], _T]) -> _T:
    try:
        return parse()
    except (ValueError, TypeError) as error:  # TypeError: the key is encrypted
        raise CertificateFileError(f"{file} has no {kind} in PEM") from error
