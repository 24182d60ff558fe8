"""Endpoints that connect to an address, and the errors of connecting as one line for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from zope.interface import implementer

from longconn.clients.address import Address
from longconn.clients.errors import CertificateError, ClientError, ConnectionFailed, NotLongconn
from longconn.clients.transports.base import TransportConfiguration

#: The addresses of `localhost`, without asking a name server (RFC 6761, section 6.3).
_LOCALHOST = ("127.0.0.1", "::1")
#: Errors of OpenSSL for bytes that are not TLS.
_NO_TLS = ("wrong version number", "record layer failure", "unknown protocol", "http request", "packet length too long")


@implementer(IStreamClientEndpoint)
class _FirstThatConnects:
    """Tries one endpoint after the other, until one connects."""

    def __init__(self, endpoints: Iterable[Any]) -> None:
        self._endpoints = list(endpoints)

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        first, *rest = self._endpoints
        connecting: Deferred[IProtocol] = first.connect(factory)

        def failed(failure: Failure) -> Any:
            failure.trap(ConnectError)
            return failure if failure.check(ConnectingCancelledError) else _FirstThatConnects(rest).connect(factory)

        return connecting.addErrback(failed) if rest else connecting


def endpoint_for(address: Address, configuration: TransportConfiguration) -> Any:
    """An endpoint that connects to `address`. It gives up a second after the client's own time-out."""
    reactor, host, port = configuration.reactor, address.host, address.port
    timeout = configuration.timeout + 1

    def numeric(literal: str) -> Any:
        kind = TCP6ClientEndpoint if isIPv6Address(literal) else TCP4ClientEndpoint
        return kind(reactor, literal, port, timeout)

    if host == "localhost":
        endpoint: Any = _FirstThatConnects([numeric(each) for each in _LOCALHOST])
    elif isIPAddress(host) or isIPv6Address(host):
        endpoint = numeric(host)
    else:
        endpoint = HostnameEndpoint(reactor, host, port, timeout)
    if address.secure:
        return wrapClientTLS(_tls_options(address, configuration), endpoint)
    return endpoint


def _tls_options(address: Address, configuration: TransportConfiguration) -> Any:
    name = address.host.partition("%")[0]  # certificates are for addresses without a zone
    shown = configuration.certificate
    extra = (
        {"certificate": shown.certificate, "privateKey": shown.key, "extraCertChain": list(shown.chain)}
        if shown is not None
        else {}
    )
    # A server that shares its port chooses HTTP/2 for those that offer nothing else (RFC 9113, section 3.2).
    protocols = [b"h2"] if address.scheme == "grpcs" else None
    return optionsForClientTLS(
        name, trustRoot=configuration.trust_root, acceptableProtocols=protocols, extraCertificateOptions=extra
    )


def explain(error: BaseException | None, address: Address) -> ClientError:
    """An error of Twisted, OpenSSL or twisted.web as a ClientError. None stands for a connection that ended."""
    error = error or ConnectionDone()
    where = address.netloc
    causes = list(_causes(error))
    for each in causes:
        if isinstance(each, ClientError):
            return each
    for each in causes:
        found = _explain_tls(each, where) or _explain_network(each, where)
        if found is not None:
            found.__cause__ = error
            return found
    other: ClientError
    if isinstance(error, ResponseFailed):  # none of its causes is the network's: the response could not be parsed
        other = NotLongconn(f"{where} does not speak HTTP")
    else:
        other = ConnectionFailed(f"{where}: {' '.join(str(error).split()) or type(error).__name__}")
    other.__cause__ = error
    return other


def _causes(error: BaseException) -> Iterable[BaseException]:
    """An error and its causes: twisted.web wraps the errors that it meets."""
    yield error
    for each in getattr(error, "reasons", None) or ():
        yield from _causes(each.value or ConnectionDone() if isinstance(each, Failure) else each)


def _explain_tls(error: BaseException, where: str) -> ClientError | None:
    if isinstance(error, VerificationError):
        return CertificateError(f"{where}: the server's certificate is for another name")
    if not isinstance(error, SSL.Error):
        return None
    text = _openssl_text(error)
    if "certificate verify failed" in text:
        return CertificateError(f"{where}: the server's certificate is of nobody that is trusted, or has expired")
    if "alert" in text and ("certificate" in text or "unknown ca" in text):
        return CertificateError(f"{where}: the server refuses the client's certificate, or wants one: {text}")
    if any(each in text for each in _NO_TLS):
        return NotLongconn(f"{where} does not speak TLS")
    return ConnectionFailed(f"{where}: TLS failed: {text or 'the connection was closed'}")


def _openssl_text(error: SSL.Error) -> str:
    found = error.args[0] if error.args else ()
    if not isinstance(found, list | tuple):
        return str(found)
    return ", ".join(str(each[-1]) for each in found if isinstance(each, tuple) and each)


def _explain_network(error: BaseException, where: str) -> ClientError | None:
    if isinstance(error, ConnectionRefusedError):
        return ConnectionFailed(f"{where}: connection refused")
    if isinstance(error, TCPTimedOutError | TimeoutError):
        return ConnectionFailed(f"{where}: no answer")
    if isinstance(error, DNSLookupError):
        return ConnectionFailed(f"{where}: unknown host")
    if isinstance(error, ConnectingCancelledError | CancelledError | ConnectionAborted):
        return ConnectionFailed(f"{where}: given up")
    if isinstance(error, ConnectionDone | ResponseDone | PotentialDataLoss):
        return ConnectionFailed(f"{where}: the server closed the connection")
    if isinstance(error, ConnectionLost):
        return ConnectionFailed(f"{where}: the connection was lost")
    if isinstance(error, ConnectError):
        detail = getattr(error, "string", None) or str(error)
        return ConnectionFailed(f"{where}: cannot connect: {' '.join(str(detail).split())}")
    return None
