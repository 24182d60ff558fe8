"""The server's side of TLS: certificates and keys from files, and the contexts of OpenSSL that are made of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from longconn.core.errors import ConfigError, shown
from longconn.core.settings import Settings

#: Of TLS 1.2: an ephemeral key on a curve, and a cipher that authenticates (RFC 9325, section 4.2). The suites of
#: TLS 1.3 are OpenSSL's own.
CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
#: The protocols that a shared port offers by ALPN (RFC 7301), the first that a client knows is taken. A browser knows
#: both, and is to get the page.
SHARED_ALPN = (b"http/1.1", b"h2")


@implementer(IOpenSSLServerConnectionCreator)
class ServerCertificates:
    """The pairs of `Settings.tls_cert` and `tls_key`. A client gets the one that has the name for which it asks.

    A client that asks for no name, or for one that no certificate has, gets the first.

    Raises ConfigError, of one line.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._context = _contexts(settings)

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)

    def reload(self) -> None:
        """Read the files anew, for connections from now on. Raises ConfigError, and then the old ones serve on."""
        self._context = _contexts(self._settings)

    def stamp(self) -> tuple[tuple[int, ...], ...]:
        """A value that changes when a file does. It costs a stat(2) for each."""
        return tuple(_stamp(each) for each in _files(self._settings))


def restrict(context: SSL.Context) -> None:
    """Take our versions, suites and options, for a context that something else has made."""
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(CIPHERS)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)


def check_options(settings: Settings) -> None:
    """Check the options of TLS against each other, and read the files. Raises ConfigError."""
    if len(settings.tls_cert) != len(settings.tls_key):
        raise ConfigError(
            f"tls_cert and tls_key come in pairs: there are {len(settings.tls_cert)} and {len(settings.tls_key)}"
        )
    if settings.tls_only and not settings.tls_cert:
        raise ConfigError("tls_only needs tls_cert and tls_key")
    if settings.tls_client_ca and settings.tls_cert and not settings.tls_only:
        raise ConfigError("tls_client_ca needs tls_only: a client without TLS has no certificate")
    _client_authorities(settings)
    if settings.tls_cert:
        _contexts(settings)


def _files(settings: Settings) -> list[str]:
    return [*settings.tls_cert, *settings.tls_key, *filter(None, [settings.tls_client_ca])]


def _stamp(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _contexts(settings: Settings) -> SSL.Context:
    """The context of the first pair. It passes a client on to another whose certificate has the client's name."""
    authorities = _client_authorities(settings)
    contexts: list[SSL.Context] = []
    by_name: dict[str, SSL.Context] = {}
    for certificate, key in zip(settings.tls_cert, settings.tls_key, strict=True):
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        _apply_rules(context, SHARED_ALPN, authorities)
        for name in _use(context, certificate, key):
            by_name.setdefault(name, context)
        contexts.append(context)
    if len(contexts) > 1:
        contexts[0].set_tlsext_servername_callback(_choose(by_name))
    return contexts[0]


def _use(context: SSL.Context, certificate: str, key: str) -> list[str]:
    """Use a pair of files. Returns the names of the certificate, in lower case."""
    chain = _certificates("tls_cert", certificate)
    try:
        # Some seconds of checks of an RSA key are left out: OpenSSL finds a key that does not fit below.
        private = load_pem_private_key(_read("tls_key", key), None, unsafe_skip_rsa_key_validation=True)
        own = PKey.from_cryptography_key(private)  # type: ignore[arg-type]
    except TypeError:  # it has a password, or is of a kind that TLS has not
        raise ConfigError(f"tls_key {shown(key, 200)}: not a key of TLS without a password") from None
    except ValueError:
        raise ConfigError(f"tls_key {shown(key, 200)}: no private key in PEM") from None
    try:
        context.use_certificate(X509.from_cryptography(chain[0]))
        for each in chain[1:]:
            context.add_extra_chain_cert(X509.from_cryptography(each))
        context.use_privatekey(own)
        context.check_privatekey()
    except SSL.Error as error:
        raise ConfigError(f"tls_key {shown(key, 200)} and tls_cert {shown(certificate, 200)}: {_why(error)}") from None
    return _names(chain[0])


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [each.lower() for each in extension.value.get_values_for_type(x509.DNSName)]


def _choose(by_name: Mapping[str, SSL.Context]) -> Callable[[SSL.Connection], None]:
    def choose(connection: SSL.Connection) -> None:
        name = (connection.get_servername() or b"").decode("ascii", "replace").lower()
        # `*` stands for one label (RFC 9525, section 6.3).
        found = by_name.get(name) or by_name.get("*." + name.partition(".")[2])
        if found is not None:
            connection.set_context(found)

    return choose


def _apply_rules(context: SSL.Context, alpn: Sequence[bytes], authorities: Sequence[x509.Certificate]) -> None:
    """TLS 1.2 and up without renegotiation and compression, ALPN, tickets, client certificates if there are
    `authorities` for them."""

    def select(connection: SSL.Connection, offered: list[bytes]) -> Any:
        return next((each for each in alpn if each in offered), SSL.NO_OVERLAPPING_PROTOCOLS)

    restrict(context)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # an idle connection has 32 KiB less
    # Sessions are in tickets, which the clients keep, sealed with a key that this context makes. Nothing is kept here.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(b"longconn")  # without one no session with a client certificate is resumed
    context.set_alpn_select_callback(select)
    if authorities:
        store = context.get_cert_store()
        assert store is not None
        subjects = []
        for each in authorities:
            certificate = X509.from_cryptography(each)
            store.add_cert(certificate)
            subjects.append(certificate.get_subject())
        context.set_client_ca_list(subjects)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)


def _client_authorities(settings: Settings) -> list[x509.Certificate]:
    return _certificates("tls_client_ca", settings.tls_client_ca) if settings.tls_client_ca else []


def _certificates(option: str, path: str) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(_read(option, path))
    except ValueError:
        found = []
    if not found:
        raise ConfigError(f"{option} {shown(path, 200)}: no certificate in PEM")
    return found


def _read(option: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{option} {shown(path, 200)}: {why}") from None


def _why(error: SSL.Error) -> str:
    reasons = [each[-1] for each in error.args[0]] if error.args and isinstance(error.args[0], list) else []
    if any("mismatch" in each for each in reasons):
        return "the key is not that of the certificate"
    return ", ".join(filter(None, reasons)) or "OpenSSL does not take them"
