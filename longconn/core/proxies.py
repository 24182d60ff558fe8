"""The proxies in front of the server, which tell the address of their client.

Anybody can send the headers of a proxy, so they count only from the addresses that the settings name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from longconn.core.errors import ConfigError

_IPAddress = IPv4Address | IPv6Address
#: `for=` and `proto=` of an element of Forwarded (RFC 7239, section 4); an IPv6 address is quoted and in brackets.
_PAIR = re.compile(r'(?i)\b(for|proto)=(?:"([^"]*)"|([^;,"\s]*))')
_BRACKETS = re.compile(r"\[([^\]]*)\](?::\d+)?")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The client that a proxy names: its IP address, and whether it came through TLS (None: not said)."""

    host: str
    secure: bool | None


class TrustedProxies:
    """The networks of `Settings.trusted_proxy`; `unix` is any peer of a UNIX socket.

    Raises ConfigError for one that is no network.
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._unix = "unix" in networks
        #: Whether the log has a line on headers that do not count. A busy port would have one for each request.
        self.has_warned = False
        try:
            self._networks = [ip_network(each, strict=False) for each in networks if each != "unix"]
        except ValueError as error:
            raise ConfigError(f"trusted_proxy: {error}; allowed: an address, a network as 10.0.0.0/8, unix") from None

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def trust(self, host: str) -> bool:
        """Whether the peer `host`, an IP address or empty for a UNIX socket, is a proxy."""
        if not host:
            return self._unix
        address = _address(host)
        return address is not None and any(address in each for each in self._networks)

    def client(self, forwarded: Sequence[str], x_forwarded_for: Sequence[str], proto: str) -> Forwarded | None:
        """The client that headers of a trusted proxy name: the last address that is no proxy's itself.

        `forwarded` are the values of Forwarded, which go first; the others those of X-Forwarded-For and
        X-Forwarded-Proto. None if they name no IP address.
        """
        if forwarded:
            found = [pair for value in forwarded for pair in _PAIR.findall(value)]
            hosts = [quoted or plain for name, quoted, plain in found if name.lower() == "for"]
            protos = [quoted or plain for name, quoted, plain in found if name.lower() == "proto"]
            proto = protos[-1] if protos else ""
        else:
            hosts = [each.strip() for value in x_forwarded_for for each in value.split(",")]
        secure = None if not proto else proto.strip().lower() in ("https", "wss")
        for each in reversed(hosts):
            address = _address(_without_port(each))
            if address is None:
                return None
            if not any(address in network for network in self._networks):
                return Forwarded(str(address), secure)
        first = _address(_without_port(hosts[0])) if hosts else None
        return None if first is None else Forwarded(str(first), secure)


def _without_port(host: str) -> str:
    bracketed = _BRACKETS.fullmatch(host)
    if bracketed is not None:
        return bracketed[1]
    return host.partition(":")[0] if host.count(":") == 1 else host


def _address(host: str) -> _IPAddress | None:
    try:
        address: _IPAddress = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
