"""The lines that a server logs when it starts: who can reach it, where it listens, how to try it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from longconn.core.hub import Hub

#: The protocols of a port, by the option that opened it.
_SERVES = {
    "port": "chat lines, WebSocket, SSE, HTTP and gRPC",
    "tcp": "chat lines",
    "http": "HTTP, WebSocket and SSE",
    "grpc": "gRPC",
    "admin": "the server API and /health",
}
#: Endpoints for which the greeting shows an example: a client only has to connect.
_WITH_EXAMPLE = ("tcp", "tcp6", "unix", "systemd", "ssl")

#: What a client without credentials may do, by the option `anonymous`.
_UNPROVED = {"auto": "", "yes": "everything", "read": "reading", "no": "nothing"}


@dataclass(frozen=True, slots=True)
class OpenPort:
    """A listening port. `option` is port, tcp, http or grpc; `kind` the type of its endpoint, such as tcp or ssl."""

    option: str
    kind: str
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
    def is_public(self) -> bool:
        """Whether another machine may reach it."""
        if not isinstance(self.address, IPv4Address | IPv6Address):
            return False
        return not ip_address(self.address.host).is_loopback


def warning(ports: Sequence[OpenPort], hub: Hub) -> str | None:
    """The line that comes first if peers without credentials can reach a port from another machine."""
    public = [str(each) for each in ports if each.is_public and each.option != "admin"]
    if not public or not hub.gate.is_open:
        return None
    return f"anyone who can reach {_and(public)} can {_rights(hub)} every channel: no credentials are needed"


def access(hub: Hub) -> str:
    """Who may do what."""
    gate = hub.gate
    anonymous = _UNPROVED[hub.settings.anonymous] or ("everything" if gate.is_open else "nothing")
    ways = [f"JWT ({', '.join(gate.verifier.algorithms)})"] if gate.verifier is not None else []
    ways += ["passwords"] if gate.passwords is not None else []
    ways += ["client certificates"] if gate.certificates else []
    ways += ["the application's hook"] if gate.hooks.connect is not None else []
    return f"anonymous: {anonymous}; users: {', '.join(ways) or 'none'}"


def history(hub: Hub) -> str:
    """How long the default channel keeps what is said in it."""
    channel = hub.settings.default_channel
    return f"history: {channel} {hub.namespaces.options(channel).describe_history()}"


def pages_warning(hub: Hub) -> str | None:
    """The line that says that the pages of all sites can use the server, as peers without credentials."""
    settings = hub.settings
    if not hub.gate.is_open or "*" not in (*settings.allowed_origin, *settings.allowed_host):
        return None
    option, pages = ("origin", "") if "*" in settings.allowed_origin else ("host", " that makes its name point here")
    return f"any web page{pages} can {_rights(hub)} every channel: --allowed-{option}=*"


def _rights(hub: Hub) -> str:
    return "read" if hub.settings.anonymous == "read" else "read and write"


def lines(ports: Sequence[OpenPort], channel: str) -> list[str]:
    """Where the server listens, and commands to try it; `channel` is the default channel."""
    if not ports:
        return ["listening nowhere"]
    found = []
    for option, serves in _SERVES.items():
        addresses = [str(each) for each in ports if each.option == option]
        if addresses:
            found.append(f"listening on {_and(addresses)}: {serves}")
    chat = _best(ports, "tcp")
    if chat is not None:
        found.append(f"chat:     {_chat_command(chat, ports)}")
    web = _best(ports, "http")
    if web is not None:
        curl, base = _curl(web, ports)
        url = f"{base}/channels/{quote(channel, safe='')}"
        found.append(f"publish:  {curl} -d 'disk full' {url}")
        found.append(f"read:     {curl} -N {url}/events")
        if web.kind != "unix":
            found.append(f"browser:  {base}/")
    return found


def _best(ports: Sequence[OpenPort], option: str) -> OpenPort | None:
    """The port for an example: the first plain TCP port that serves `option`, or the first of any kind."""
    fitting = [each for each in ports if each.option in ("port", option) and each.kind in _WITH_EXAMPLE]
    plain = [each for each in fitting if each.kind not in ("unix", "ssl")]
    return next(iter(plain or fitting), None)


def _chat_command(port: OpenPort, ports: Sequence[OpenPort]) -> str:
    if isinstance(port.address, UNIXAddress):
        return f"nc -U {shlex.quote(_path(port.address))}"
    host = _host(port, ports)
    if port.kind == "ssl":
        return f"openssl s_client -quiet -connect {host}:{port.address.port}"
    return f"nc {host.strip('[]')} {port.address.port}"


def _curl(port: OpenPort, ports: Sequence[OpenPort]) -> tuple[str, str]:
    """The start of a curl command, and of a URL."""
    if isinstance(port.address, UNIXAddress):
        return f"curl --unix-socket {shlex.quote(_path(port.address))}", "http://localhost"
    authority = f"{_host(port, ports)}:{port.address.port}"
    # -k: curl seldom knows the certificate of a server that is being tried.
    return ("curl -k", f"https://{authority}") if port.kind == "ssl" else ("curl", f"http://{authority}")


def _host(port: OpenPort, ports: Sequence[OpenPort]) -> str:
    """The host by which this machine reaches a port, as in a URL."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(port.address.host, port.address.host)
    hosts = {each.address.host for each in ports if getattr(each.address, "port", None) == port.address.port}
    if host in ("127.0.0.1", "::1") and hosts & {"127.0.0.1", "0.0.0.0"} and hosts & {"::1", "::"}:
        return "localhost"
    return f"[{host}]" if ":" in host else host


def _path(address: UNIXAddress) -> str:
    return (address.name or b"").decode(errors="replace")


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
