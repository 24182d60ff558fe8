"""The console script `longconn`.

    longconn serve [options]     run the server in the foreground
    longconn config [options]    check and print the effective configuration
    longconn chat | sub | pub | get | echo    clients, in `longconn.commands`
    longconn top | info | channels | disconnect    for operators, by the server API
    longconn help COMMAND        its options
    longconn cert                make a certificate for trials, in `longconn.commands` too

`COMMANDS` has a function for each command. It takes the arguments and returns the exit status.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from twisted.python.usage import UsageError

import longconn
from longconn.config.file import nearest, to_toml
from longconn.config.flags import CommandLineOptions

#: The exit status of a command line that is wrong.
_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (by default the command line) names. Returns the exit status."""
    _open_standard()
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command == "help" and rest and rest[0] in COMMANDS:
        command, rest = rest[0], ["--help"]
    if command in ("--help", "-h", "help") and not rest:
        print(_help())
        return 0
    if command in ("--version", "-V"):
        print(f"longconn {longconn.__version__}")
        return 0
    if command not in COMMANDS:
        command = rest[0] if command == "help" and rest else command
        hint = nearest(command, COMMANDS) or f"; there are {', '.join(COMMANDS)}"
        print(f"longconn: unknown command {command!r}{hint}", file=sys.stderr)
        return _USAGE
    return COMMANDS[command][0](rest)


def _open_standard() -> None:
    """Open standard input, output and error if they are closed. Else a socket would get one of their numbers."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # open() takes the lowest free number, which is this one


def _serve(arguments: list[str]) -> int:
    if os.getpid() == 1:
        # In a container. The kernel drops signals for which process 1 has no handler, and the reactor installs its own
        # later: a container that is stopped while it starts would be killed at the end of its time.
        signal.signal(signal.SIGTERM, _end_early)
    # It takes a tenth of a second to import, and no other command needs it.
    from twisted.scripts import twistd

    parsed = _parsed("serve", arguments)  # twistd parses again; here --help and errors name `longconn serve`
    # What twistd says before the service has its log is JSON too.
    logger = ["--logger=longconn.service.logs.json_observer"] if parsed.config.settings.log_format == "json" else []
    sys.argv[1:] = ["--nodaemon", "--pidfile=", *logger, "longconn", *arguments]
    twistd.run()
    return 0


def _end_early(number: int, frame: object) -> NoReturn:
    """End a server that serves nobody yet. An exception might be caught by what it interrupts, such as a Deferred."""
    os._exit(0)


def _config(arguments: list[str]) -> int:
    print(to_toml(_parsed("config", arguments).config), end="")
    return 0


def _client(name: str) -> Callable[[list[str]], int]:
    """The command that a module of `longconn.commands` holds."""

    def command(arguments: list[str]) -> int:
        # It brings the clients with it, which the server does not need.
        from longconn.clients.errors import ClientError

        module = import_module(f"longconn.commands.{name}")
        try:
            parsed = module.parser().parse_intermixed_args(arguments)
        except ClientError as error:
            print(f"longconn: {name}: {error}; longconn {name} --help tells more", file=sys.stderr)
            return _USAGE
        # An import at the top of the module would choose the reactor of `serve` too. The line editor of `chat` needs
        # asyncio's loop; all client commands use the same reactor.
        from twisted.internet import asyncioreactor

        asyncioreactor.install()
        # The reactor that was just installed.
        from twisted.internet import reactor

        # It imports all clients, which the server does not need.
        from longconn.commands.running import run

        return run(reactor, module.main, parsed)

    return command


def _parsed(command: str, arguments: list[str]) -> CommandLineOptions:
    """Parse the options. An error ends the program with one line."""
    options = CommandLineOptions()
    options.synopsis = f"Usage: longconn {command} [options]"
    try:
        options.parseOptions(arguments)
    except UsageError as error:
        raise SystemExit(f"longconn: {error}") from None
    return options


def _help() -> str:
    lines = ["Usage: longconn COMMAND [options]", ""]
    lines += [f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items()]
    lines += ["", "longconn help COMMAND lists a command's options; longconn --version prints the version."]
    return "\n".join(lines)


COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "serve": (_serve, "run the server in the foreground"),
    "config": (_config, "check and print the effective configuration, and where each value came from"),
    "chat": (_client("chat"), "talk in a channel"),
    "sub": (_client("sub"), "print what is published in channels"),
    "pub": (_client("pub"), "publish one message, or each line of standard input"),
    "get": (_client("get"), "GET a URL over connections that are kept"),
    "echo": (_client("echo"), "measure round-trip times"),
    "top": (_client("top"), "show clients and channels of a server, live"),
    "info": (_client("info"), "print the numbers of a server"),
    "channels": (_client("channels"), "print the channels of a server"),
    "disconnect": (_client("disconnect"), "close connections of a server"),
    "cert": (_client("cert"), "make a certificate, to try TLS with"),
}
