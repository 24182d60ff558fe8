"""The flags of the command line, made from the fields of `Settings`.

`twistd longconn`, `twist longconn` and `longconn serve` share them. Each option has a flag: `max_message` has
`--max-message`. The flag of a list may be repeated.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import AuthOptionMixin
from twisted.python import usage

import longconn
from longconn.config.file import PORTS, Config, flag, load, nearest
from longconn.config.values import is_list, kind_of
from longconn.core.errors import ConfigError
from longconn.core.settings import OPTIONS

PORT_HELP = {
    "port": "serve everything here: chat lines, WebSocket, SSE, HTTP and gRPC, told apart by what the client sends",
    "tcp": "serve chat lines alone here",
    "http": "serve HTTP, WebSocket and SSE alone here",
    "grpc": "serve gRPC alone here",
    "admin": "serve the server API and /health here, and nowhere else",
}
#: Headings of the help, by the first option under each.
_TITLES = {
    "default_channel": "What people see",
    "broker": "Beyond this process",
    "allowed_origin": "Which sites may come",
    "tls_cert": "TLS on the shared port (--port); other ports are plain unless they are ssl:",
    "anonymous": "Who may come",
    "token_hmac_secret_key": "By which token",
    "hook_connect": "What the application decides",
    "webhook": "What the application is told",
    "user_personal_channel": "Channels of users",
    "api_key": "Who may use the server API",
    "max_connections": "How many and how much (0 is no limit, unless a least value is named)",
    "head_timeout": "How long, in seconds or as 300s, 5m, 1h (0 is no limit)",
    "send_queue": "What may wait, and what is kept",
    "log_format": "The log",
    "shutdown_delay": "The end",
}
_EPILOGUE = """\
WHERE is N or :N (any interface), 127.0.0.1:N, [::1]:N, or a Twisted endpoint as
unix:/run/longconn.sock or ssl:9999:privateKey=key.pem:certKey=cert.pem. Without any
of these, the server listens on port 9999 of 127.0.0.1 and ::1.
Flags marked * may be repeated. Every option is also a variable (--max-message is
LONGCONN_MAX_MESSAGE) and a key of the file (max_message); flags go before variables,
variables before the file. Rights in channels are tables of the file alone.
"""


def _repeatable(name: str) -> Callable[[Any, str], None]:
    def append(self: CommandLineOptions, value: str) -> None:
        self.given.setdefault(name, []).append(value)

    return append


class CommandLineOptions(AuthOptionMixin, usage.Options):
    """Parses the command line. After `parseOptions`, `config` is the configuration of all sources.

    `parseOptions` raises `twisted.python.usage.UsageError`, of one line.
    """

    synopsis = "[options]"
    #: what `--help-auth` lists
    supportedInterfaces = (IUsernamePassword,)
    optParameters = [["config", "c", None, "a TOML file of options"]] + [
        [name.replace("_", "-"), None, None, option.metadata["help"]]
        for name, option in OPTIONS.items()
        if not is_list(option)
    ]
    config: Config

    def __init__(self) -> None:
        self.given: dict[str, list[str]] = {}
        super().__init__()  # type: ignore[no-untyped-call]

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"longconn {longconn.__version__}")
        raise SystemExit(0)

    def parseOptions(self, options: Any = None) -> None:
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            unknown = re.fullmatch(r"option (--\S+) not recognized", str(error))
            if unknown is None:
                raise
            hint = nearest(unknown[1], ("--" + each.rstrip("=") for each in self.longOpt))
            raise usage.UsageError(f"unknown flag {unknown[1]}{hint or '; --help lists them'}") from None

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}; options start with --")

    def postOptions(self) -> None:
        flags: dict[str, Any] = dict(self.given)
        for name, option in OPTIONS.items():
            text = None if is_list(option) else self[name.replace("_", "-")]
            if text is not None:
                flags[name] = text
        try:
            self.config = load(flags, os.environ, self["config"])
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None

    def getUsage(self, width: int | None = None) -> str:
        """The help in groups. Twisted's own is one list."""
        return "\n".join(_help(width or int(os.environ.get("COLUMNS") or 100))) + "\n\n" + _EPILOGUE


for _name in (*PORTS, *(name for name, option in OPTIONS.items() if is_list(option))):
    setattr(CommandLineOptions, f"opt_{_name}", _repeatable(_name))


def _help(width: int) -> Iterator[str]:
    yield "\nWhere to listen"
    for name, text in PORT_HELP.items():
        yield _line(f"{flag(name)}=WHERE *", text, width)
    yield "\nSources and information"
    yield _line("-c, --config=FILE", "a TOML file of options", width)
    yield _line("--help", "this text", width)
    yield _line("--version", "the version", width)
    yield _line("--help-auth", "what may check passwords", width)
    yield _line("--help-auth-type=KIND", "how one of these is written", width)
    for name, option in OPTIONS.items():
        if name in _TITLES:
            yield f"\n{_TITLES[name]}"
        repeated = is_list(option)
        choices = option.metadata["choices"]
        text = option.metadata["help"] + (f" ({' or '.join(choices)})" if choices else "")
        default = "" if repeated else default_text(option.default, option.metadata["unit"])
        if default:
            text += f" [{default}]"
        yield _line(f"{flag(name)}={_placeholder(option)}{' *' * repeated}", text, width)


def _line(left: str, text: str, width: int) -> str:
    return textwrap.fill(text, max(width, 60), initial_indent=f"  {left:<33} ", subsequent_indent=" " * 36)


def _placeholder(option: Any) -> str:
    unit = option.metadata["unit"]
    if unit.startswith("bytes"):
        return "SIZE"
    if unit == "seconds":
        return "TIME"
    if kind_of(option) == "bool":
        return "true|false"
    return "N" if unit else option.name.rpartition("_")[2].upper()


def default_text(value: Any, unit: str) -> str:
    """A default as a person would write it; "" for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if unit.startswith("bytes"):
        for factor, name in ((1024**2, "MiB"), (1024, "KiB")):
            if value and value % factor == 0:
                return f"{value // factor}{name}"
    return str(value)
