"""The address of a peer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv6Address as IPv6
from ipaddress import IPv6Network
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.web.http_headers import Headers

from longconn.core.errors import LIMIT_EXCEEDED, CommandError
from longconn.core.log import about, log
from longconn.core.proxies import TrustedProxies
from longconn.wire.origin import is_loopback


def address_of(host: str, port: int) -> str:
    """HOST:PORT, an IPv6 address in brackets (RFC 3986, section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def log_closed(peer: object, why: str) -> None:
    """Log that a connection that is no client was closed. `peer` is its IAddress, or the text of one."""
    text = _text(peer)
    log.info("connection from %s closed: %s", text, why, extra=about("connection_closed", address=text))


def log_full(peer: object, why: str) -> None:
    """Log that a connection was closed for want of a place. `peer` is its IAddress, or the text of one."""
    text = _text(peer)
    log.info("connection from %s closed: %s", text, why, extra=about("full", address=text))


def log_refused(address: str, error: CommandError) -> None:
    """Log that a TCP connection at `address` becomes no client."""
    text, code = "connection from %s refused: %s", error.reason.code
    if error.reason is LIMIT_EXCEEDED:
        log.info(text, address, error, extra=about("full", address=address, protocol="tcp", code=code))
    else:
        log.info(text, address, error, extra=about("client_refused", address=address, protocol="tcp", code=code))


def _text(peer: object) -> str:
    if isinstance(peer, IPv4Address | IPv6Address):
        return address_of(peer.host, peer.port)
    return "a UNIX socket" if isinstance(peer, UNIXAddress) else str(peer)


def host_of(peer: object) -> str:
    """The host that limits are counted by: an IPv4 address, or the /64 network of an IPv6 address.

    One user commonly has all addresses of such a network (RFC 6177). Examples are `192.0.2.1` and `2001:db8::/64`.
    `::1` stands for itself, and an IPv4 address in IPv6 (`::ffff:192.0.2.1`) for the IPv4 address. A peer that has
    neither has an empty host.
    """
    if not isinstance(peer, IPv4Address | IPv6Address):
        return ""
    host: str = peer.host
    if ":" not in host:
        return host
    try:
        address = IPv6(host)
    except ValueError:  # as a proxy may name it
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return host if address.is_loopback else str(IPv6Network((int(address), 64), strict=False))


def peer_of(transport: Any, numbers: Iterator[int]) -> tuple[str, str]:
    """The host that limits are counted by, and the address of the peer.

    They are `("192.0.2.1", "192.0.2.1:50000")`, or for IPv6 `("2001:db8::/64", "[2001:db8::1]:50000")`. The peer of a
    UNIX socket has no host (an empty string), and its address is `unix:N` with the next of `numbers`. The address of
    any other kind of peer is `other:N`. Call this once for a connection. `transport` is anything that has `getPeer`.
    """
    peer = transport.getPeer()
    if isinstance(peer, IPv4Address | IPv6Address):
        return host_of(peer), address_of(peer.host, peer.port)
    if isinstance(peer, UNIXAddress):
        return "", f"unix:{next(numbers)}"
    return "", f"other:{next(numbers)}"


def own_names() -> set[str]:
    """The names that this machine calls itself: `web1`, `web1.local`, and `web1.example.org` if it knows that."""
    name = socket.gethostname().lower().rstrip(".")
    first = name.partition(".")[0]
    return {name, first, f"{first}.local"} if first else set()


def counted_host(proxies: TrustedProxies, peer: object) -> str:
    """The host that a connection is counted by: none for a proxy, which brings many clients."""
    return "" if is_proxy(proxies, peer) else host_of(peer)


def is_proxy(proxies: TrustedProxies, peer: object) -> bool:
    """Whether a peer is a trusted proxy."""
    return bool(proxies) and proxies.trust(getattr(peer, "host", ""))


def warn_of_forwarded(proxies: TrustedProxies, peer: object, headers: Headers) -> None:
    """Log once that the headers of a proxy do not count, if a peer that is none sends them."""
    if not proxies.has_warned and (headers.hasHeader(b"x-forwarded-for") or headers.hasHeader(b"forwarded")):
        proxies.has_warned = True
        log.warning(
            "X-Forwarded-For and Forwarded from %s are ignored. If that is your proxy, name it by --trusted-proxy. "
            "This line comes once.",
            getattr(peer, "host", "") or "a UNIX socket",
            extra=about("proxy_ignored", address=getattr(peer, "host", "")),
        )


def forwarded_peer(proxies: TrustedProxies, peer: object, headers: Headers) -> tuple[str, str, bool | None] | None:
    """The host and the address of the client of a proxy, and whether it came through TLS (None: not said).

    The port is that of the proxy's connection. None if `peer` is no proxy, and if no header names the client.
    """
    if not is_proxy(proxies, peer):
        return None

    def values(name: str) -> list[str]:
        return [each.decode("latin-1") for each in headers.getRawHeaders(name.encode()) or []]

    proto = values("x-forwarded-proto")
    found = proxies.client(values("forwarded"), values("x-forwarded-for"), proto[-1] if proto else "")
    if found is None:
        return None
    kind = IPv6Address if ":" in found.host else IPv4Address
    port = getattr(peer, "port", 0)
    return host_of(kind("TCP", found.host, port)), address_of(found.host, port), found.secure


def certificate_user(transport: Any) -> str:
    """The user that a verified client certificate names: the common name of its subject; empty without one."""
    get: Any = getattr(transport, "getPeerCertificate", None)
    certificate = get() if get is not None else None
    name = certificate.get_subject().CN if certificate is not None else None
    return name or ""


def is_local(transport: Any) -> bool:
    """Whether a connection came to a loopback address or a UNIX socket; `transport` has `getHost`."""
    here = transport.getHost()
    return isinstance(here, UNIXAddress) or is_loopback(getattr(here, "host", ""))
