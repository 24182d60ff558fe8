"""Listening strings, which say where a server listens, and the Twisted endpoints that they stand for.

9999   :9999            port 9999 of any IPv4 interface
127.0.0.1:9999          of that interface; `localhost` is 127.0.0.1
[::1]:9999              of that IPv6 interface
tcp:… ssl:… unix:…      an endpoint description in the form of twisted.internet.endpoints.serverFromString
systemd:…
haproxy:…               any of these, for connections of a proxy that begin with a PROXY header
"""

from __future__ import annotations

import errno
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, TCP4ServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from zope.interface import implementer

with suppress(ImportError):  # a platform without UNIX sockets
    from twisted.internet import unix

from longconn.config.certificates import restrict
from longconn.core.errors import ConfigError, LongConnError, nearest, shown

DEFAULT_PORT = 9999
#: Connections that the kernel holds until they are accepted. Twisted asks for 50; the kernel has a cap of its own.
BACKLOG = 4096

_FORMS = "allowed: N, :N, IPV4:N, localhost:N, [IPV6]:N, or an endpoint as tcp:9999:interface=127.0.0.1, ssl:…, unix:…"
_BAD_PORT = f"a port is a number from 0 to 65535; {_FORMS}"
_SHORT = re.compile(r"(?:(?P<host>[\d.]*|localhost):|\[(?P<host6>[^\[\]]*)\]:)?(?P<port>\d+)", re.ASCII | re.IGNORECASE)
#: The kinds of endpoints that a wrong one may have been meant for.
_KINDS = ("tcp", "tcp6", "ssl", "unix", "systemd", "haproxy")
_WITH_PORT = ("tcp", "tcp6", "ssl")
_WITH_BACKLOG = (*_WITH_PORT, "unix")


class ListenError(LongConnError):
    """A port could not be listened on; the text is one line for people."""


@dataclass(frozen=True, slots=True)
class ServerEndpoint:
    """A parsed listening string. `kind` is tcp, ssl, unix, …; `endpoint` is an IStreamServerEndpoint.

    Of a `haproxy:` string it is the endpoint behind that word: the factory that listens reads the PROXY header.
    """

    text: str
    kind: str
    endpoint: Any


def default_ports() -> tuple[str, ...]:
    """Port 9999 of 127.0.0.1 and, where this machine has one, of ::1."""
    ipv4 = f"127.0.0.1:{DEFAULT_PORT}"
    return (ipv4, f"[::1]:{DEFAULT_PORT}") if _has_ipv6_loopback() else (ipv4,)


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def server_endpoint(reactor: Any, text: str) -> ServerEndpoint:
    """Parse a listening string. Raises ConfigError, of one line.

    The certificate that an `ssl:` endpoint names is read here.
    """
    description = text.strip()
    proxied, _, behind = description.partition(":")
    if proxied.lower() == "haproxy":
        return _behind_proxy(reactor, text, behind)
    short = _SHORT.fullmatch(description)
    if short is not None:
        port, interface = _port_and_interface(short, description)
        return ServerEndpoint(text, "tcp", TCP4ServerEndpoint(reactor, port, BACKLOG, interface))
    kind = description.partition(":")[0].lower()
    if kind == "stdio":
        raise ConfigError(f"{shown(description)}: stdio is no port; {_FORMS}")
    try:
        endpoint = _from_description(reactor, description)
    except _ReactorNeeded:
        raise
    except Exception as error:  # parsers raise anything: for a missing file, a wrong number, an unknown argument
        raise ConfigError(f"{shown(description)}: {_explained(error, kind)}") from error
    if isinstance(endpoint, AdoptedStreamServerEndpoint):
        endpoint = _SystemdEndpoint(reactor, endpoint)
    own_context = getattr(endpoint, "_sslContextFactory", None)
    if own_context is not None:  # Twisted would allow suites without an ephemeral key
        restrict(own_context.getContext())
    # Twisted has no public attribute for it, and would refuse a bad port only when it listens.
    if not 0 <= getattr(endpoint, "_port", 0) <= 65535:
        raise ConfigError(f"{shown(description)}: {_BAD_PORT}")
    return ServerEndpoint(text, kind, endpoint)


def _behind_proxy(reactor: Any, text: str, behind: str) -> ServerEndpoint:
    if not behind or behind.partition(":")[0].lower() == "haproxy":
        raise ConfigError(f"{shown(text)}: haproxy: stands once, before another one, as haproxy:9999 or haproxy:unix:…")
    return ServerEndpoint(text, "haproxy", server_endpoint(reactor, behind).endpoint)


def check(text: str) -> None:
    """Parse a listening string without a reactor. Raises ConfigError, of one line.

    An endpoint of another package may need the reactor when it is made. Of such an endpoint only the type is checked.
    """
    with suppress(_ReactorNeeded):
        server_endpoint(_NoReactor(), text)


def are_same(one: str, other: str) -> bool:
    """Whether two listening strings, which are valid, want the same port or path, so that one of them must fail."""
    first, second = _place(one), _place(other)
    if first is None or second is None or first[:2] != second[:2]:
        return False
    return first[2] == second[2] or not (first[2] and second[2])


def _place(text: str) -> tuple[object, str, str] | None:
    """A port or a path, the family, and the interface, "" for any. None if the system chooses the port."""
    try:
        endpoint = server_endpoint(_NoReactor(), text).endpoint
    except _ReactorNeeded:
        return None
    # Twisted has no public attributes for these.
    port = getattr(endpoint, "_port", None)
    if port:
        interface = getattr(endpoint, "_interface", "")
        family = "IPv6" if ":" in interface else "IPv4"
        return port, family, "" if interface in ("0.0.0.0", "::") else interface
    path = getattr(endpoint, "_address", None)
    return (path, "unix", "") if isinstance(path, str) else None


def failure(text: str, error: BaseException) -> str:
    """One line for people that says why a listening string could not be listened on."""
    cause = error.socketError if isinstance(error, CannotListenError) else error
    is_unix = text.lower().startswith("unix:")
    number = cause.errno if isinstance(cause, OSError) else None
    if number == errno.EADDRINUSE or str(cause) == "Cannot acquire lock":
        why = "taken; " + ("a file or another process is there" if is_unix else "another process listens there")
    elif number in (errno.EACCES, errno.EPERM):
        why = "not permitted" + ("" if is_unix else "; a port below 1024 needs root or CAP_NET_BIND_SERVICE")
    elif number == errno.EADDRNOTAVAIL:
        why = "this machine has no such address"
    else:
        why = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return f"cannot listen on {text}: {' '.join(why.split())}"


@implementer(IStreamServerEndpoint)
class _SystemdEndpoint:
    """Listens on a socket that systemd has opened, and leaves the socket's path and mode to systemd.

    Twisted's own endpoint gives the path of a UNIX socket mode 666, which fails under another user than root, and
    deletes it and shuts the socket down at the end (`unix.Port`), so that no later start can be reached. It also lowers
    the backlog to 50.
    """

    def __init__(self, reactor: Any, adopted: Any) -> None:
        self._reactor = reactor
        self._adopted = adopted

    def listen(self, factory: Any) -> Deferred[Any]:
        is_unix = self._adopted.addressFamily == getattr(socket, "AF_UNIX", None)
        listening: Deferred[Any] = maybeDeferred(self._listen_unix if is_unix else self._adopted.listen, factory)
        return listening.addCallback(_with_backlog)

    def _listen_unix(self, factory: Any) -> Any:
        descriptor = self._adopted.fileno
        os.set_blocking(descriptor, False)
        port = unix.Port._fromListeningDescriptor(self._reactor, descriptor, factory)
        # A path that begins with NUL is none of the file system (unix(7), abstract sockets): Twisted leaves it alone.
        name = "_bindPath" if hasattr(port, "_bindPath") else "port"  # the latter in Twisted 24.11
        setattr(port, name, b"\0" + getattr(port, name).lstrip(b"\0"))
        # A shutdown would end the listening of every process that has the socket; tcp.Port knows this already.
        port._shouldShutdown = False
        port.startListening()
        os.close(descriptor)  # the port has its own
        return port


def _with_backlog(port: Any) -> Any:
    port.socket.listen(BACKLOG)
    return port


class _ReactorNeeded(Exception):
    """An endpoint of another package uses its reactor when it is made."""


class _NoReactor:
    """Takes the place of the reactor where there is none yet."""

    def __getattr__(self, name: str) -> Any:
        raise _ReactorNeeded(name)


def _port_and_interface(short: re.Match[str], text: str) -> tuple[int, str]:
    digits, host, host6 = short["port"], short["host"], short["host6"]
    if len(digits) > 5 or int(digits) > 65535:
        raise ConfigError(f"{shown(text)}: {_BAD_PORT}")
    try:
        if host6 is not None:
            return int(digits), str(IPv6Address(host6))
        if host:
            return int(digits), "127.0.0.1" if host.lower() == "localhost" else str(IPv4Address(host))
    except AddressValueError:
        version = "IPv4" if host6 is None else "IPv6"
        raise ConfigError(f"{shown(text)}: {shown(host or host6)} is no {version} address; {_FORMS}") from None
    return int(digits), ""


def _from_description(reactor: Any, description: str) -> Any:
    """The endpoint of a description, with our backlog if the description has none."""
    kind, colon, arguments = description.partition(":")
    if kind in _WITH_BACKLOG:
        # Of two named arguments the later one counts, so this one is a default.
        with suppress(TypeError):  # it has a positional one
            return serverFromString(reactor, f"{kind}:backlog={BACKLOG}{colon}{arguments}")
    return serverFromString(reactor, description)


def _explained(error: Exception, kind: str) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename}"
    if str(error).startswith("Unknown endpoint type"):
        return f"there is no endpoint {shown(kind)}{nearest(kind, _KINDS)}; {_FORMS}"
    if isinstance(error, IndexError) and kind == "systemd":
        return "systemd has not passed that socket on"
    if isinstance(error, KeyError):  # a name that systemd did not pass on
        return f"there is no {error}"
    if isinstance(error, RuntimeError) and "StopIteration" in str(error):  # Twisted's parser wants another character
        return f"a backslash at the end stands before nothing; {_FORMS}"
    if kind in _WITH_PORT and ("'port'" in str(error) or "for int()" in str(error)):
        return _BAD_PORT
    why = re.sub(r"^\S*\(\) ", "", str(error)) or type(error).__name__  # without the name of a private function
    return " ".join(f"{why}; {_FORMS}".split())
