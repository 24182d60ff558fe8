"""The console script `longconn`.

    longconn serve [options]     run the server in the foreground
    longconn config [options]    check and print the effective configuration
    longconn chat | sub | pub | get | probe | echo    clients, in `longconn.commands`
    longconn top | info | channels | disconnect    for operators, by the server API
    longconn help COMMAND        its options
    longconn cert                make a certificate for trials, in `longconn.commands` too
    longconn completion | man    files for shells and manual pages, in `longconn.manual`

`COMMANDS` names the function of each command. It takes the arguments and returns the exit status. Its module is
imported when the command runs: the server does not need the clients, and no command waits for what others need.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import longconn
from longconn.core.errors import nearest

#: The exit status of a command line that is wrong.
_USAGE = 2
#: The commands in the order of the help: MODULE:FUNCTION, or only a module of `longconn.commands`; and a description.
COMMANDS = {
    "serve": ("longconn.serving:serve", "run the server in the foreground"),
    "config": (
        "longconn.serving:config",
        "check and print the configuration, and where each value came from",
    ),
    "chat": ("longconn.commands.chat", "talk in a channel"),
    "sub": ("longconn.commands.sub", "print what is published in channels"),
    "pub": ("longconn.commands.pub", "publish one message, or each line of standard input"),
    "get": ("longconn.commands.get", "GET a URL, and print the body"),
    "probe": ("longconn.commands.probe", "GET a URL over connections that are kept, and print times"),
    "echo": ("longconn.commands.echo", "measure round-trip times"),
    "top": ("longconn.commands.top", "show clients and channels of a server, live"),
    "info": ("longconn.commands.info", "print the numbers of a server"),
    "channels": ("longconn.commands.channels", "print the channels of a server"),
    "disconnect": ("longconn.commands.disconnect", "close connections of a server"),
    "cert": ("longconn.commands.cert", "make a certificate, to try TLS with"),
    "completion": ("longconn.manual:completion", "print what lets a shell complete commands and options"),
    "man": ("longconn.manual:man", "show the manual page of a command"),
}


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
    module, _, function = COMMANDS[command][0].partition(":")
    found = import_module(module)
    if function:
        status: int = getattr(found, function)(rest)
        return status
    return _run_client(command, found, rest)


def _open_standard() -> None:
    """Open standard input, output and error if they are closed. Else a socket would get one of their numbers."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # open() takes the lowest free number, which is this one


def _help() -> str:
    lines = ["Usage: longconn COMMAND [options]", ""]
    lines += [f"  {name:<12}{text}" for name, (_, text) in COMMANDS.items()]
    lines += ["", "longconn help COMMAND lists a command's options; longconn --version prints the version."]
    return "\n".join(lines)


def _run_client(command: str, module: Any, arguments: list[str]) -> int:
    """Run `main` of a module of `longconn.commands` on a reactor."""
    # Other commands do without the clients, which these modules import.
    from longconn.commands.parser import UsageError
    from longconn.commands.running import run

    try:
        parsed = module.parser().parse_intermixed_args(arguments)
    except UsageError as error:
        print(f"longconn: {command}: {error}; longconn {command} --help tells more", file=sys.stderr)
        return _USAGE
    # An import at the top of the module would choose the reactor of `serve` too. The line editor of `chat` needs
    # asyncio's loop; all client commands use the same reactor.
    from twisted.internet import asyncioreactor

    asyncioreactor.install()
    # The reactor that was just installed.
    from twisted.internet import reactor

    return run(reactor, module.main, parsed)
