"""`longconn completion SHELL` and `longconn man [COMMAND]` print files of the package.

An installation has them where `man` and the shells look, too. `docs/manual.py` makes them from the parsers of the
commands.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

from longconn.cli import COMMANDS
from longconn.commands.parser import Parser, UsageError

_SHARE = Path(__file__).parent / "share"
_MAN = _SHARE / "man" / "man1"
#: The files of completion by shell.
SHELLS = {
    "bash": _SHARE / "bash-completion" / "completions" / "longconn",
    "zsh": _SHARE / "zsh" / "site-functions" / "_longconn",
    "fish": _SHARE / "fish" / "vendor_completions.d" / "longconn.fish",
}
#: The exit status of a command line that is wrong.
_USAGE = 2


def completion_parser() -> Parser:
    """The command line of `longconn completion`."""
    found = Parser(
        "completion",
        'Print what lets a shell complete the commands and options. bash: eval "$(longconn completion bash)" in '
        "~/.bashrc. zsh: the same after compinit in ~/.zshrc. fish: longconn completion fish | source.",
    )
    found.add_argument("shell", metavar="SHELL", choices=tuple(SHELLS), help="bash, zsh or fish")
    return found


def man_parser() -> Parser:
    """The command line of `longconn man`."""
    found = Parser(
        "man", "Show the manual page of a command, or of longconn; where the output is no terminal, print it."
    )
    found.add_argument("command", metavar="COMMAND", nargs="?", choices=("", *COMMANDS), default="", help="the command")
    return found


def page_of(command: str) -> Path:
    """The file of a command's manual page; of longconn's own for ""."""
    return _MAN / (f"longconn-{command}.1" if command else "longconn.1")


def completion(arguments: list[str]) -> int:
    """Print the file for a shell. Returns the exit status."""
    parsed = _parsed(completion_parser(), arguments)
    if parsed is None:
        return _USAGE
    print(SHELLS[parsed.shell].read_text(), end="")
    return 0


def man(arguments: list[str]) -> int:
    """Show a manual page by the program `man`, or print it. Returns the exit status."""
    parsed = _parsed(man_parser(), arguments)
    if parsed is None:
        return _USAGE
    page = page_of(parsed.command)
    if sys.stdout.isatty():
        with suppress(OSError):  # there is no such program
            os.execvp("man", ["man", str(page)])
    print(page.read_text(), end="")
    return 0


def _parsed(parser: Parser, arguments: list[str]) -> Namespace | None:
    try:
        return parser.parse_args(arguments)
    except UsageError as error:
        print(
            f"longconn: {parser.prog.removeprefix('longconn ')}: {error}; {parser.prog} --help tells more",
            file=sys.stderr,
        )
        return None
