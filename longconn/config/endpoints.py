"""Where a server listens: from what people write to Twisted's endpoint descriptions.

9999   :9999            tcp:9999, any IPv4 interface
127.0.0.1:9999          that interface; `localhost` is 127.0.0.1
[::1]:9999              that IPv6 interface
tcp:… ssl:… unix:…      an endpoint description, as twisted.internet.endpoints.serverFromString
systemd:… haproxy:…     reads it
"""

from __future__ import annotations

import errno
import re
import socket
from contextlib import suppress
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError

from longconn.config.values import shown
from longconn.core.errors import ConfigError, LongConnError

DEFAULT_PORT = 9999
#: What the kernel may hold of connections that are not accepted yet; it has a cap of its own.
BACKLOG = 4096

_FORMS = "allowed: N, :N, IPV4:N, localhost:N, [IPV6]:N, or an endpoint as tcp:9999:interface=127.0.0.1, ssl:…, unix:…"
_SHORT = re.compile(r"(?:(?P<host>[\d.]*|localhost):|\[(?P<host6>[^\[\]]*)\]:)?(?P<port>\d+)", re.ASCII | re.IGNORECASE)
_PARTS = re.compile(r"(?:[^:\\]|\\.)+|(?<=:)(?=:|$)", re.DOTALL)
#: The endpoints that have a backlog of 50 unless told otherwise.
_HAVE_BACKLOG = ("tcp", "tcp6", "ssl", "unix")
_HAVE_PORT = ("tcp", "tcp6", "ssl")


class ListenError(LongConnError):
    """A port could not be listened on; the text is one line for people."""


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


def description(text: str) -> str:
    """The endpoint description for a listening string. Raises ConfigError, of one line.

    A description is its own, but for a backlog if it names none.
    """
    text = text.strip()
    match = _SHORT.fullmatch(text)
    if match is None:
        return _with_backlog(text)
    port = _port(match["port"], text)
    host = match["host"] or match["host6"]
    if match["host6"] is not None:
        interface = _address(IPv6Address, match["host6"], text)
    elif host:
        interface = _address(IPv4Address, "127.0.0.1" if host.lower() == "localhost" else host, text)
    else:
        return f"tcp:{port}:backlog={BACKLOG}"
    return f"tcp:{port}:interface={_escaped(interface)}:backlog={BACKLOG}"


def kind(endpoint: str) -> str:
    """The name in front of an endpoint description: tcp, ssl, unix, …; lower case."""
    return endpoint.partition(":")[0].lower()


def check(text: str) -> None:
    """Raise ConfigError, of one line, if nothing could be made of a listening string.

    Without a reactor: endpoints of other packages, which may use theirs when they are
    made, are looked at only as far as that there is such a kind.
    """
    with suppress(_ReactorNeeded):
        endpoint(_NoReactor(), text)


def endpoint(reactor: Any, text: str) -> Any:
    """The IStreamServerEndpoint of a listening string. Raises ConfigError, of one line.

    A certificate that an `ssl:` endpoint names is read here.
    """
    made = description(text)
    if kind(made) == "stdio":
        raise ConfigError(f"{shown(text)}: stdio is no port; {_FORMS}")
    try:
        return serverFromString(reactor, made)
    except _ReactorNeeded:
        raise
    except Exception as error:  # whatever a parser meets: a missing file, a wrong number, an unknown argument
        raise ConfigError(f"{shown(text)}: {_why(error, made)}") from error


def failure(text: str, error: BaseException) -> str:
    """One line for people that says why a listening string could not be listened on."""
    cause = error.socketError if isinstance(error, CannotListenError) else error
    unix = kind(text) == "unix"
    number = cause.errno if isinstance(cause, OSError) else None
    if number == errno.EADDRINUSE or str(cause) == "Cannot acquire lock":
        what = "a file or another process is there" if unix else "another process listens there"
        why = f"taken; {what}"
    elif number in (errno.EACCES, errno.EPERM):
        why = "not permitted" + ("" if unix else "; a port below 1024 needs root or CAP_NET_BIND_SERVICE")
    elif number == errno.EADDRNOTAVAIL:
        why = "this machine has no such address"
    else:
        why = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return f"cannot listen on {text}: {' '.join(why.split())}"


class _ReactorNeeded(Exception):
    """An endpoint of another package uses its reactor when it is made."""


class _NoReactor:
    """In place of a reactor, for a check before there is one."""

    def __getattr__(self, name: str) -> Any:
        raise _ReactorNeeded(name)


def _with_backlog(text: str) -> str:
    if (len(text) - len(text.rstrip("\\"))) % 2:
        raise ConfigError(f"{shown(text)}: a backslash at the end stands before nothing; {_FORMS}")
    name = kind(text)
    positional, named = _arguments(text)
    if name in _HAVE_PORT:
        _port(named.get("port", positional[0] if positional else ""), text)
    # A second positional argument may be the backlog, or be followed by it.
    if name in _HAVE_BACKLOG and len(positional) <= 1 and "backlog" not in named:
        return f"{text}:backlog={BACKLOG}"
    return text


def _arguments(text: str) -> tuple[list[str], dict[str, str]]:
    r"""What follows a description's kind: positional and named; `\:` is a colon inside one."""
    positional, named = [], {}
    for part in _PARTS.findall(text)[1:]:
        key, equals, value = part.partition("=")
        if equals:
            named[key] = value
        else:
            positional.append(part)
    return positional, named


def _port(digits: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", digits, re.ASCII) or int(digits) > 65535:
        raise ConfigError(f"{shown(text)}: a port is a number from 0 to 65535; {_FORMS}")
    return int(digits)


def _address(form: type[IPv4Address] | type[IPv6Address], host: str, text: str) -> str:
    try:
        address = form(host)
    except AddressValueError:
        name = form.__name__.removesuffix("Address")
        raise ConfigError(f"{shown(text)}: {shown(host)} is no {name} address; {_FORMS}") from None
    return str(address)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(":", "\\:")


def _why(error: Exception, made: str) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename}"
    if str(error).startswith("Unknown endpoint type"):
        return f"there is no endpoint {shown(kind(made))}; {_FORMS}"
    if isinstance(error, KeyError):  # a name that systemd did not pass on
        return f"there is no {error}"
    why = re.sub(r"^\S*\(\) ", "", str(error)) or type(error).__name__  # without the name of a private function
    return " ".join(f"{why}; {_FORMS}".split())
