"""The parser of command lines, its options that several commands share, and its types of values."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import NoReturn

from twisted.internet.abstract import isIPv6Address

import longconn
from longconn.clients.errors import ClientError
from longconn.core.errors import nearest

#: The environment variable with the server's URL, and the server without it.
URL_VARIABLE = "LONGCONN_URL"
DEFAULT_PORT = 9999
DEFAULT_SERVER = f"localhost:{DEFAULT_PORT}"
#: The environment variable with the token. Other users of a machine can read command lines.
TOKEN_VARIABLE = "LONGCONN_TOKEN"
#: The environment variable with the password of --user.
PASSWORD_VARIABLE = "LONGCONN_PASSWORD"


#: The exit status of a command line that is wrong, as that of the shell's own commands.
USAGE = 2


#: The scheme of a URL, the part before its path (RFC 3986, section 3), one that is only a port, and a port at its end.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST = re.compile(r"[^/?#]*")
_PORT = re.compile(r":?[0-9]+", re.ASCII)
_HAS_PORT = re.compile(r":[0-9]*$", re.ASCII)


#: argparse's error for an option that it does not know.
_UNKNOWN = re.compile(r"unrecognized arguments: (--[\w-]+)")


class UsageError(ClientError):
    """The command line is wrong."""


class Parser(argparse.ArgumentParser):
    """Reads the command line of `longconn COMMAND`. Options may stand before and after the other arguments."""

    def __init__(self, command: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=f"longconn {command}", description=description, epilog=epilog, allow_abbrev=False, add_help=False
        )
        self.add_argument("--help", "-h", action="help", help="this text")
        version = f"longconn {longconn.__version__}"
        self.add_argument("--version", action="version", version=version, help="the version")

    def error(self, message: str) -> NoReturn:
        unknown = _UNKNOWN.match(message)
        # --times is not --timeout: a hint is for a mistyped option, and not for one of another command.
        raise UsageError(message + (nearest(unknown[1], self._option_string_actions, 0.8) if unknown else ""))

    def add_server(self) -> None:
        """Add the option -s."""
        self.add_argument(
            "-s", "--server", metavar="URL",
            help=f"the server; else ${URL_VARIABLE}, else {DEFAULT_SERVER}. HOST:PORT is tcp://HOST:PORT, "
            "and PORT or :PORT is of this machine",
        )  # fmt: skip
        self.add_tls()

    def add_tls(self) -> None:
        """Add the options for TLS."""
        self.add_argument(
            "--cafile", metavar="FILE",
            help="trust only the certificates in this file (PEM), and not the system's",
        )  # fmt: skip
        self.add_argument(
            "--cert", metavar="FILE", help="the client's certificate (PEM), for a server that asks for one"
        )
        self.add_argument("--key", metavar="FILE", help="its key; else it is in the file of --cert")

    def add_token(self) -> None:
        self.add_argument(
            "--token", metavar="JWT", help=f"the token to connect with; else ${TOKEN_VARIABLE}, else none"
        )
        self.add_argument(
            "--user", metavar="NAME", help=f"log in by this name; the password is ${PASSWORD_VARIABLE}, or is asked for"
        )  # fmt: skip

    def add_timeout(self, default: float, text: str) -> None:
        self.add_argument(
            "--timeout", type=seconds, default=default, metavar="S", help=f"{text} [{default:g}]"
        )  # fmt: skip

    def add_every(self, default: float, text: str) -> None:
        self.add_argument(
            "--every", type=interval, default=default, metavar="S", help=f"{text} [{default:g}]"
        )  # fmt: skip

    def add_times(self, default: int, text: str) -> None:
        self.add_argument(
            "--times", type=count, default=default, metavar="T", help=f"{text}, 0 for ever [{default}]"
        )  # fmt: skip


def server_url(given: str | None, environ: Mapping[str, str]) -> str:
    """The server's URL, from the option, the environment, or the default. Short forms are completed."""
    return complete_url(given or environ.get(URL_VARIABLE) or DEFAULT_SERVER, "tcp")


def complete_url(text: str, scheme: str, port: int | None = None) -> str:
    """The URL for a short form: without a scheme, without a host, or with an IPv6 address that has no brackets.

    A number in the place of the host is a port of this machine: `9999`, `:9999`, `ws://9999`. `port` is that of a short
    form which names none; None for that of the scheme.
    """
    given, separator, rest = text.partition("://")
    if not separator or not _SCHEME.fullmatch(given):
        given, separator, rest = "", "", text
    host = _HOST.match(rest)
    netloc = host[0] if host is not None else ""
    path = rest[len(netloc) :]
    if isIPv6Address(netloc):
        netloc = f"[{netloc}]"
    elif _PORT.fullmatch(netloc):
        netloc = "localhost:" + netloc.removeprefix(":")
    if not separator and port is not None and not _HAS_PORT.search(netloc):
        netloc += f":{port}"
    return f"{given if separator else scheme}://{netloc}{path}"


def interval(text: str) -> float:
    """Seconds from 0. This type and the next ones raise argparse.ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} are no seconds")
    return value


def seconds(text: str) -> float:
    """Seconds above 0."""
    value = interval(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is too short")
    return value


def count(text: str) -> int:
    """A whole number from 0."""
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1."""
    value = count(text)
    if not value:
        raise argparse.ArgumentTypeError("at least 1")
    return value
