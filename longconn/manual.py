"""`longconn completion SHELL` and `longconn man [COMMAND]` print files of the package.

An installation has them where `man` and the shells look, too. `docs/manual.py` makes them from the parsers of the
commands.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from longconn.cli import COMMANDS

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


class _PlainParser(argparse.ArgumentParser):
    """A parser like that of the clients, but without these: a shell that starts waits for `longconn completion`."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"longconn {command}", description=description, allow_abbrev=False, add_help=False)
        self.add_argument("--help", "-h", action="help", help="this text")

    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE, f"{self.prog.replace(' ', ': ')}: {message}; {self.prog} --help tells more\n")


def completion_parser() -> argparse.ArgumentParser:
    """The command line of `longconn completion`."""
    found = _PlainParser(
        "completion",
        'Print what lets a shell complete the commands and options. bash: eval "$(longconn completion bash)" in '
        "~/.bashrc. zsh: the same after compinit in ~/.zshrc. fish: longconn completion fish | source.",
    )
    found.add_argument("shell", metavar="SHELL", choices=tuple(SHELLS), help="bash, zsh or fish")
    return found


def man_parser() -> argparse.ArgumentParser:
    """The command line of `longconn man`."""
    found = _PlainParser(
        "man", "Show the manual page of a command, or of longconn; where the output is no terminal, print it."
    )
    found.add_argument("command", metavar="COMMAND", nargs="?", choices=("", *COMMANDS), default="", help="the command")
    return found


def page_of(command: str) -> Path:
    """The file of a command's manual page; of longconn's own for ""."""
    return _MAN / (f"longconn-{command}.1" if command else "longconn.1")


def completion(arguments: list[str]) -> int:
    """Print the file for a shell. Returns the exit status."""
    parsed = completion_parser().parse_args(arguments)
    print(SHELLS[parsed.shell].read_text(), end="")
    return 0


def man(arguments: list[str]) -> int:
    """Show a manual page by the program `man`, or print it. Returns the exit status."""
    parsed = man_parser().parse_args(arguments)
    page = page_of(parsed.command)
    if sys.stdout.isatty():
        with suppress(OSError):  # there is no such program
            os.execvp("man", ["man", str(page)])
    print(page.read_text(), end="")
    return 0
