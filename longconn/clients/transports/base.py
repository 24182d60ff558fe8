"""The interface of transports, and the table of their modules by scheme.

A transport object carries one connection: it is opened once, and the next attempt makes a new one. To add a transport,
write a module with `transports(address)`, which returns the factories to try in turn, and add it to `MODULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, TypeAlias

from longconn.clients.address import Address
from longconn.clients.certificates import ClientCertificate
from longconn.clients.errors import AddressError, ClientError
from longconn.clients.events import JSONObject
from longconn.core.timers import keep_steady


@dataclass(frozen=True, slots=True)
class TransportListener:
    """The callbacks of a transport.

    `on_objects` gets objects that came, in order; an empty sequence only shows that the server is alive. `on_lost` is
    called once, as the last call, when the connection is gone or could not be made, also after `close` and `abort`. It
    gets the reason, and the seconds that the server asks to wait before the next attempt, or 0.
    """

    on_objects: Callable[[Sequence[JSONObject]], None]
    on_lost: Callable[[ClientError, float], None]


class Transport(Protocol):
    """One connection. Only `close` and `abort` may call the listener before they return."""

    def open(self, first: Sequence[JSONObject]) -> None:
        """Connect, and send the first objects as soon as possible."""

    def send(self, objects: Sequence[JSONObject]) -> None:
        """Send further objects, in order. Called only after objects came. Does nothing once the connection is lost."""

    def pause(self) -> None:
        """Stop reading. Objects that were read already may still come."""

    def resume(self) -> None:
        """Read again."""

    def close(self) -> None:
        """End the connection cleanly. The caller aborts it if that takes too long."""

    def abort(self) -> None:
        """Abort the connection, or the attempt. `on_lost` follows soon."""


@dataclass(frozen=True, slots=True)
class TransportConfiguration:
    """`trust_root`: as in `twisted.internet.ssl.optionsForClientTLS`; None for the system's. `timeout` in seconds.

    `login`: a name and a password, for a transport that has its own place for them. `certificate`: for a server that
    asks for one.
    """

    reactor: Any
    trust_root: Any
    timeout: float
    login: tuple[str, str] | None = field(default=None, repr=False)
    certificate: ClientCertificate | None = None

    def __post_init__(self) -> None:
        # A client that waits to come back would wait for as long as the system's clock is set back.
        keep_steady(self.reactor)


TransportFactory: TypeAlias = Callable[[Address, TransportConfiguration, TransportListener], Transport]

#: Modules by scheme. Each is imported when its scheme is first used.
MODULES = {
    "tcp": "longconn.clients.transports.tcp",
    "tls": "longconn.clients.transports.tcp",
    "ws": "longconn.clients.transports.websocket",
    "wss": "longconn.clients.transports.websocket",
    "http": "longconn.clients.transports.http_streams",
    "https": "longconn.clients.transports.http_streams",
    "grpc": "longconn.clients.transports.grpc",
    "grpcs": "longconn.clients.transports.grpc",
}


def find_transports(address: Address) -> list[TransportFactory]:
    """The transports for an address, the best first. Raises AddressError."""
    module = MODULES.get(address.scheme)
    if module is None:
        raise AddressError(f"{address.scheme}:// is none of {', '.join(f'{each}://' for each in MODULES)}")
    found: list[TransportFactory] = import_module(module).transports(address)
    return found


def check_no_path(address: Address) -> None:
    """Raises AddressError for a URL with a path, where its scheme has none."""
    if address.path not in ("", "/"):
        raise AddressError(f"{address}: {address.scheme}:// has no path")
