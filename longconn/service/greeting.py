"""What a server says when it starts: who can reach it, where it listens, how to try it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

_SERVES = {
    "port": "chat lines, WebSocket, SSE, HTTP and gRPC",
    "tcp": "chat lines",
    "http": "HTTP, WebSocket and SSE",
    "grpc": "gRPC",
}
#: Endpoints behind which a client needs nothing but the connection.
_PLAIN = ("tcp", "tcp6", "unix", "systemd", "ssl")


@dataclass(frozen=True, slots=True)
class Place:
    """One port that is listened on: `kind` is port, tcp, http or grpc, `endpoint` its endpoint's name (tcp, ssl, …)."""

    kind: str
    endpoint: str
    address: Any

    def __str__(self) -> str:
        if isinstance(self.address, IPv4Address):
            return f"{self.address.host}:{self.address.port}"
        if isinstance(self.address, IPv6Address):
            return f"[{self.address.host}]:{self.address.port}"
        if isinstance(self.address, UNIXAddress):
            return f"unix:{_path(self.address)}"
        return str(self.address)

    @property
    def public(self) -> bool:
        """Whether another machine may reach it."""
        if not isinstance(self.address, IPv4Address | IPv6Address):
            return False
        return not ip_address(self.address.host).is_loopback


def warning(places: Sequence[Place]) -> str | None:
    """The line that goes first if others can reach a place."""
    public = [str(each) for each in places if each.public]
    if not public:
        return None
    return f"anyone who can reach {_and(public)} can read and write every channel: there is no authentication"


def lines(places: Sequence[Place], channel: str) -> list[str]:
    """Where it listens and how to try it; `channel` is the default one."""
    if not places:
        return ["listening nowhere"]
    found = []
    for kind, serves in _SERVES.items():
        of_kind = [str(each) for each in places if each.kind == kind]
        if of_kind:
            found.append(f"listening on {_and(of_kind)}: {serves}")
    chat = _best(places, "tcp")
    if chat is not None:
        found.append(f"chat:     {_line_client(chat, places)}")
    web = _best(places, "http")
    if web is not None:
        curl, base = _curl(web, places)
        url = f"{base}/channels/{quote(channel, safe='')}"
        found.append(f"publish:  {curl} -d 'disk full' {url}")
        found.append(f"read:     {curl} -N {url}/events")
        if web.endpoint != "unix":
            found.append(f"browser:  {base}/")
    return found


def _best(places: Sequence[Place], kind: str) -> Place | None:
    """The easiest place to try `kind` at: the first that is a plain TCP port, else the first at all."""
    fitting = [each for each in places if each.kind in ("port", kind) and each.endpoint in _PLAIN]
    plain = [each for each in fitting if each.endpoint not in ("unix", "ssl")]
    return next(iter(plain or fitting), None)


def _line_client(place: Place, places: Sequence[Place]) -> str:
    if isinstance(place.address, UNIXAddress):
        return f"nc -U {shlex.quote(_path(place.address))}"
    host = _host(place, places)
    if place.endpoint == "ssl":
        return f"openssl s_client -quiet -connect {host}:{place.address.port}"
    return f"nc {host.strip('[]')} {place.address.port}"


def _curl(place: Place, places: Sequence[Place]) -> tuple[str, str]:
    """The start of a curl line, and of a URL."""
    if isinstance(place.address, UNIXAddress):
        return f"curl --unix-socket {shlex.quote(_path(place.address))}", "http://localhost"
    at = f"{_host(place, places)}:{place.address.port}"
    # -k: a certificate that somebody tries this with is seldom one that curl knows.
    return ("curl -k", f"https://{at}") if place.endpoint == "ssl" else ("curl", f"http://{at}")


def _host(place: Place, places: Sequence[Place]) -> str:
    """What to write for the place's address on this machine, as in a URL."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(place.address.host, place.address.host)
    both = {each.address.host for each in places if getattr(each.address, "port", None) == place.address.port}
    if host in ("127.0.0.1", "::1") and both & {"127.0.0.1", "0.0.0.0"} and both & {"::1", "::"}:
        return "localhost"
    return f"[{host}]" if ":" in host else host


def _path(address: UNIXAddress) -> str:
    return (address.name or b"").decode(errors="replace")


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
