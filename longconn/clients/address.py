"""URLs of servers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from twisted.internet.abstract import isIPv6Address

from longconn.clients.errors import AddressError

#: Ports of URLs without one.
_PORTS = {"ws": 80, "http": 80, "wss": 443, "https": 443}
_DEFAULT_PORT = 9999
#: Schemes whose connections are TLS.
_SECURE = {"tls", "wss", "https", "grpcs"}
#: A path and a query; other characters are written as %XX there (RFC 3986, section 3.3).
_PATH = re.compile(r"[!-~]*")


@dataclass(frozen=True, slots=True)
class Address:
    """A URL in its parts. `path` includes the query; it is "" if the URL has none.

    `host` of an IPv6 address has no brackets, but perhaps the zone of a link-local address (`fe80::1%eth0`).
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def secure(self) -> bool:
        """Whether the connection is TLS."""
        return self.scheme in _SECURE

    @property
    def netloc(self) -> str:
        """HOST:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def uri_host(self) -> str:
        """The host for the headers of requests: in brackets if it is an IPv6 address (RFC 3986, section 3.2.2).

        It is without its zone, which means nothing to a server (RFC 6874, section 4).
        """
        return f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.path}"


def parse_address(url: str) -> Address:
    """The parts of SCHEME://HOST[:PORT][/path][?query]. Raises AddressError."""
    shown = ascii(url)
    if not url.isprintable() or " " in url:
        raise AddressError(f"{shown} has characters that no URL has")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AddressError(f"{shown} is no URL: {error}") from error
    if "://" not in url:
        raise AddressError(f"{shown} is no URL: it has the form SCHEME://HOST:PORT")
    if not parts.hostname:
        raise AddressError(f"{shown} names no host")
    if parts.username is not None or parts.password is not None:
        raise AddressError(f"{shown} has a user or password: give a token instead")
    if parts.fragment:
        raise AddressError(f"{shown} has a fragment")
    if port == 0:
        raise AddressError(f"{shown} names port 0")
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    if not _PATH.fullmatch(path):
        raise AddressError(f"{shown} has characters in its path that are written as %XX there")
    host = parts.hostname
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError as error:
            raise AddressError(f"{shown} names no possible host") from error
    if ":" in host:
        host = host.replace("%25", "%", 1)  # a zone in a URL (RFC 6874, section 2)
    if not re.fullmatch(r"[0-9A-Za-z._:%-]+", host) or (":" in host and not isIPv6Address(host)):
        raise AddressError(f"{shown} names no possible host")
    return Address(parts.scheme, host, port or _PORTS.get(parts.scheme, _DEFAULT_PORT), path)
