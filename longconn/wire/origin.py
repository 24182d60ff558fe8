"""Which sites' pages may use the server: the rules on Origin, Sec-Fetch-Site and Host.

A browser connects to any address that a page names, the user's own machine included, and tells in headers
which site the page is from. Other programs send no such headers and pass: these rules protect users of
browsers, they are no authentication.

    Origin                RFC 6454; `null` for a page opened from a file or in a sandbox, in some programs `file://`
    Sec-Fetch-Site, -Mode W3C Fetch Metadata; also sent where Origin is not
    Host                  RFC 9110, section 7.2; it reveals DNS rebinding, where a foreign name was made to point at the
                          server, and the browser takes the foreign page for one of the server's own

A page of a foreign site has a name of the public DNS. So other names pass, as addresses do: see docs/decisions/0025.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from longconn.core.origins import normal_host, normal_origin
from longconn.core.settings import Settings

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\s/?#@\[\]:,]+)(?::(\d{1,5}))?")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._~!$&'()*+,;=%-]*)(?::(\d{0,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: Characters of an IPv6 address with a zone.
_LONGEST_ADDRESS = 64
#: Ends of names that the public DNS does not have (RFC 6762; RFC 8375; ICANN reserved .internal in 2024).
_PRIVATE = (".local", ".home.arpa", ".internal")
#: Characters of a received origin that are repeated in an answer.
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class OriginRefusal:
    """Why a request is not served: a status of HTTP, and a sentence for people."""

    status: int
    message: str


@dataclass(frozen=True, slots=True)
class RequestOrigin:
    """Where a request comes from: its headers and its connection.

    `hosts` and `origins` are all values of the headers Host and Origin. `local`: the
    connection is to a loopback address or a UNIX socket. `secure`: it uses TLS. `must_name_host`: the
    protocol's version requires a Host (HTTP/1.1 does, 1.0 does not).
    """

    hosts: Sequence[str]
    origins: Sequence[str] = ()
    fetch_site: str = ""
    fetch_mode: str = ""
    local: bool = False
    secure: bool = False
    must_name_host: bool = True


class OriginRules:
    """The rules with the settings `allowed_origin` and `allowed_host`. `own_names` are those of the machine."""

    def __init__(self, settings: Settings, own_names: Collection[str] = ()) -> None:
        self._any = "*" in settings.allowed_origin
        self._any_host = self._any or "*" in settings.allowed_host
        self._own_names = {each.lower() for each in own_names}
        self._origins = {_canonical(each) for each in settings.allowed_origin}
        self._hosts = {each.lower().rstrip(".") for each in settings.allowed_host}
        for each in settings.allowed_origin:
            origin = _ORIGIN.fullmatch(each.lower())
            if origin is not None:
                self._hosts.add(origin[2])

    def check(self, request: RequestOrigin, harmless: bool = False) -> OriginRefusal | None:
        """None if the request may be served, else the reason why it may not.

        A `harmless` path (the first page, not a message) may be opened by a link on any site.
        """
        return self._check_host(request) or self._check_origin(request, harmless)

    def names(self, origin: str) -> bool:
        """Whether the settings name this origin: then its pages may also send cookies and passwords.

        `null` names no site: pages of files have it, and frames in a sandbox on any site.
        """
        canonical = _canonical(origin)
        return canonical in self._origins and canonical not in ("*", "null")

    def may_send_cookies(self, request: RequestOrigin) -> bool:
        """Whether a cookie of this request counts: a page of this site sent it, or one of an origin that is named.

        A browser adds cookies to the requests of any page, and `*` lets any page send requests.
        """
        if request.origins:
            return all(self._admits_by_name(each, request) for each in request.origins)
        return request.fetch_site.lower() != "cross-site"

    def _check_host(self, request: RequestOrigin) -> OriginRefusal | None:
        if len(request.hosts) > 1 or (request.must_name_host and not request.hosts):
            return OriginRefusal(400, "a request has one Host header")
        for each in request.hosts:
            match = _HOST.fullmatch(each.lower())
            if match is None or (match[2] and int(match[2]) > 65535):
                return OriginRefusal(400, "the Host header is malformed")
            host = match[1].rstrip(".")
            if not self._admits_host(host, request):
                name = normal_host(host) if host != "*" else None
                known = name is not None and len(name) <= _SHOWN
                advice = (
                    f"--allowed-host={name} would serve it" if known else "--allowed-host=HOST serves a host by name"
                )
                return OriginRefusal(403, f"the host {_shown(host)} is not served; {advice}")
        return None

    def _admits_host(self, host: str, request: RequestOrigin) -> bool:
        if self._any_host or request.secure or host in self._hosts or host in self._own_names:
            return True
        return _is_localhost(host) or _is_address(host) or (not request.local and _is_private(host))

    def _check_origin(self, request: RequestOrigin, harmless: bool) -> OriginRefusal | None:
        if len(request.origins) > 1:
            return OriginRefusal(400, "a request has at most one Origin header")
        for origin in request.origins:
            if self._admits(origin, request):
                return None
            name = normal_origin(origin)
            advice = f"; --allowed-origin={name} would let them" if name and name != "*" and len(name) <= _SHOWN else ""
            return OriginRefusal(403, f"pages of {_shown(origin)} may not connect here{advice}")
        if request.fetch_site.lower() != "cross-site" or self._any or (harmless and request.fetch_mode == "navigate"):
            return None
        return OriginRefusal(
            403, "pages of other sites may not connect here; --allowed-origin=ORIGIN would let those of one"
        )

    def _admits(self, origin: str, request: RequestOrigin) -> bool:
        return self._any or _canonical(origin) in self._origins or self._is_own(origin, request)

    def _admits_by_name(self, origin: str, request: RequestOrigin) -> bool:
        return self.names(origin) or self._is_own(origin, request)

    def _is_own(self, origin: str, request: RequestOrigin) -> bool:
        """Whether an origin is this server's own."""
        match = _ORIGIN.fullmatch(origin.lower())
        if match is None:
            return False
        scheme, host, port = match.groups()
        if request.local and _is_localhost(host):
            return True
        default = _DEFAULT_PORTS.get(scheme)
        if default is None or (request.secure and scheme != "https"):
            return False
        # Behind a proxy that ends TLS, the page is https and the connection is not: the origin's scheme is used.
        return any(
            each is not None and (each[1], int(each[2] or default)) == (host, int(port or default))
            for each in (_HOST.fullmatch(every.lower()) for every in request.hosts)
        )


def is_loopback(host: str) -> bool:
    """Whether a host is an IP address that only this machine reaches."""
    return len(host) <= _LONGEST_ADDRESS and _kind(host) == "loopback"


@lru_cache(1024)  # nearly all requests name the same few hosts
def _kind(host: str) -> str:
    """`loopback`, another `address`, or `name`."""
    try:
        address = ip_address(host)
    except ValueError:
        return "name"
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return "loopback" if address.is_loopback else "address"


def _canonical(origin: str) -> str:
    """An origin in lower case, without its scheme's default port (RFC 6454, section 6.1)."""
    match = _ORIGIN.fullmatch(origin.lower())
    if match is None or not match[3] or int(match[3]) != _DEFAULT_PORTS.get(match[1]):
        return origin.lower()
    return f"{match[1]}://{match[2]}"


def _is_localhost(host: str) -> bool:
    """Whether a host is localhost by name (RFC 6761, section 6.3) or a loopback address."""
    return host == "localhost" or host.endswith(".localhost") or is_loopback(host.strip("[]"))


def _is_address(host: str) -> bool:
    host = host.removeprefix("[").removesuffix("]")
    return len(host) <= _LONGEST_ADDRESS and _kind(host) != "name"


def _is_private(host: str) -> bool:
    """Whether a name is one of a local network: it has no dot, or ends as no public name does."""
    return "." not in host or host.endswith(_PRIVATE)


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
