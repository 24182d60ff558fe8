"""What carries objects between a client and a server, and which module does it for which scheme.

A transport carries one connection: it is opened once, and told anew for the next attempt. To add one, write a
module with `transports(address)`, which gives the factories to be tried in turn, and add its name to `MODULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, TypeAlias

from longconn.clients.address import Address
from longconn.clients.errors import AddressError, ClientError
from longconn.clients.events import JSONObject


class TransportListener(Protocol):
    """Who is told what comes over a transport."""

    def on_objects(self, objects: Sequence[JSONObject]) -> None:
        """Objects that came, in order. None of them: a sign of life alone."""

    def on_lost(self, error: ClientError, retry_after: float = 0.0) -> None:
        """The connection is not there any more, or never was. Told once, and the last; also after `close` and `abort`.

        `retry_after`: seconds that the server asks to wait before the next attempt.
        """


class Transport(Protocol):
    """One connection. Only `close` and `abort` may call the listener before they return."""

    def open(self, first: Sequence[JSONObject]) -> None:
        """Connect, and send the first objects as soon as that is possible."""

    def send(self, objects: Sequence[JSONObject]) -> None:
        """Send further objects, in order. Only called after objects came; nothing once it is lost."""

    def pause(self) -> None:
        """Stop reading. What was read already may still be told."""

    def resume(self) -> None:
        """Read on."""

    def close(self) -> None:
        """End the connection cleanly. It may take until `abort`."""

    def abort(self) -> None:
        """Break the connection, or the attempt, off. `on_lost` follows soon."""


@dataclass(frozen=True, slots=True)
class TransportConfiguration:
    """What transports work with. `trust_root` is Twisted's: who may have signed certificates, None for the system's."""

    reactor: Any
    trust_root: Any
    timeout: float


TransportFactory: TypeAlias = Callable[[Address, TransportConfiguration, TransportListener], Transport]

#: Modules by scheme; each is imported when its scheme is first asked for.
MODULES = {
    "tcp": "longconn.clients.transports.tcp",
    "tls": "longconn.clients.transports.tcp",
    "ws": "longconn.clients.transports.websocket",
    "wss": "longconn.clients.transports.websocket",
    "http": "longconn.clients.transports.http_streams",
    "https": "longconn.clients.transports.http_streams",
    "grpc": "longconn.clients.transports.grpc",
}


def find_transports(address: Address) -> list[TransportFactory]:
    """What can carry a conversation with that address, the best first. Raises AddressError."""
    home = MODULES.get(address.scheme)
    if home is None:
        raise AddressError(f"{address.scheme}:// is none of {', '.join(f'{each}://' for each in MODULES)}")
    found: list[TransportFactory] = import_module(home).transports(address)
    return found
