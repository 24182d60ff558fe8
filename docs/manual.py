"""Makes the manual pages and the files of completion in `longconn/share` from the parsers of the commands.

    python docs/manual.py            write them anew
    python docs/manual.py --check    exit status 1 if a file is not current

`docs/tables.py` does this, too. shtab makes the completions.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import shtab

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a checkout that is not installed

import longconn  # noqa: E402
from longconn import manual  # noqa: E402
from longconn.cli import COMMANDS  # noqa: E402
from longconn.commands.parser import Parser  # noqa: E402
from longconn.config.file import flag  # noqa: E402
from longconn.config.flags import PORT_HELP, default_text, placeholder  # noqa: E402
from longconn.config.values import is_list, kind_of  # noqa: E402
from longconn.core.settings import OPTIONS  # noqa: E402

_DESCRIPTION = (
    "One server for every long connection: TCP chat lines, WebSocket, SSE, HTTP and gRPC, in one set of channels."
)
_ENVIRONMENT = {
    "LONGCONN_URL": "the server of chat, sub, pub and echo, where -s names none",
    "LONGCONN_TOKEN": "the token to connect with, where --token names none",
    "LONGCONN_PASSWORD": "the password of --user",
    "LONGCONN_API_KEY": "the key of the server API, for top, info, channels and disconnect; for serve, its option",
    "NO_COLOR": "if it is set, nothing is coloured",
}
_STATUSES = {
    "0": "success",
    "1": "an error, which is told in one line",
    "2": "the command line is wrong; for serve and config also a variable or the file",
    "128 + N": "ended by the signal N",
}


# The parsers.


def server_parser(command: str, description: str) -> argparse.ArgumentParser:
    """The options of the server. twistd parses them; this parser describes them."""
    found = Parser(command, description)
    for name, text in PORT_HELP.items():
        found.add_argument(flag(name), metavar="WHERE", action="append", help=_literal(f"{text}; may be repeated"))
    found.add_argument("-c", "--config", metavar="FILE", help="a TOML file of options")
    found.add_argument("--help-auth", action="store_true", help="what may check passwords")
    found.add_argument("--help-auth-type", metavar="KIND", help="how one of these is written")
    for name, option in OPTIONS.items():
        text = option.metadata["help"]
        choices = option.metadata["choices"] or (("true", "false") if kind_of(option) == "bool" else None)
        default = "" if is_list(option) else default_text(option.default, option.metadata["unit"])
        text += "; may be repeated" if is_list(option) else f" [{default}]" if default else ""
        found.add_argument(flag(name), metavar=placeholder(option), choices=choices, help=_literal(text))
    return found


def _literal(text: str) -> str:
    return text.replace("%", "%%")


def command_parser(command: str) -> argparse.ArgumentParser:
    """The parser of a command."""
    place, text = COMMANDS[command]
    if place.startswith("longconn.serving"):
        return server_parser(command, f"{text[0].upper()}{text[1:]}.")
    if place.startswith("longconn.manual"):
        found: argparse.ArgumentParser = getattr(manual, f"{command}_parser")()
        return found
    parser: argparse.ArgumentParser = import_module(place).parser()
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """All commands in one."""
    found = argparse.ArgumentParser(prog="longconn", description=_DESCRIPTION, allow_abbrev=False)
    found.add_argument("--version", "-V", action="version", version="", help="the version")
    commands = found.add_subparsers(metavar="COMMAND")
    for command, (_, text) in COMMANDS.items():
        parser = command_parser(command)
        for action in parser._actions:
            if action.metavar == "FILE":
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        commands.add_parser(command, parents=[parser], add_help=False, help=text, description=_literal(text))
    helping = commands.add_parser(
        "help", help="list the options of a command", description="list the options of a command"
    )
    helping.add_argument("command", nargs="?", choices=tuple(COMMANDS))
    return found


# Manual pages, in the macros of man(7).


def manual_page(command: str) -> str:
    """The page of a command."""
    parser = command_parser(command)
    actions = [(_option(each), _help(each, parser)) for each in parser._actions if each.help]
    synopsis = re.sub(r"\s+", " ", parser.format_usage().removeprefix("usage: ")).strip()
    if COMMANDS[command][0].startswith("longconn.serving"):
        synopsis = f"longconn {command} [options]"
    parts = [
        _title(f"longconn-{command}"),
        _section("NAME", f"longconn-{command} - {COMMANDS[command][1]}"),
        _section("SYNOPSIS", synopsis),
        _section("DESCRIPTION", *filter(None, (parser.description, parser.epilog))),
        _listed("OPTIONS", actions),
        _ends([f"longconn-{each}" for each in COMMANDS if each != command]),
    ]
    return "".join(parts)


def main_page() -> str:
    """The page of longconn."""
    commands = [(f"longconn {name}", f"{text}; see longconn-{name}(1)") for name, (_, text) in COMMANDS.items()]
    commands += [("longconn help COMMAND", "list its options"), ("longconn --version", "print the version")]
    parts = [
        _title("longconn"),
        _section("NAME", "longconn - server and clients for long connections"),
        _section("SYNOPSIS", "longconn COMMAND [options]"),
        _section("DESCRIPTION", _DESCRIPTION),
        _listed("COMMANDS", commands),
        _ends([f"longconn-{each}" for each in COMMANDS]),
    ]
    return "".join(parts)


def _option(action: argparse.Action) -> str:
    if not action.option_strings:
        return str(action.metavar or action.dest)
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    return ", ".join(each + value for each in action.option_strings)


def _help(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    text: str = parser._get_formatter()._expand_help(action)
    choices = action.choices if action.option_strings else None
    return text + (f"; one of {', '.join(map(str, choices))}" if choices else "")


def _title(name: str) -> str:
    return f'.\\" Made by docs/manual.py.\n.TH {name.upper()} 1 "" "longconn {longconn.__version__}" "longconn"\n'


def _section(title: str, *paragraphs: str) -> str:
    return f".SH {title}\n" + ".PP\n".join(f"{_roff(each)}\n" for each in paragraphs)


def _listed(title: str, items: Sequence[tuple[str, str]]) -> str:
    return f".SH {title}\n" + "".join(f".TP\n.B {_roff(left)}\n{_roff(right)}\n" for left, right in items)


def _ends(others: Sequence[str]) -> str:
    related = ", ".join(f"{each}(1)" for each in others)
    return (
        _listed("EXIT STATUS", list(_STATUSES.items()))
        + _listed("ENVIRONMENT", list(_ENVIRONMENT.items()))
        + _section("SEE ALSO", related)
    )


def _roff(text: str) -> str:
    """A text of one line, without a meaning for roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    text = "".join(each if each.isascii() else f"\\[u{ord(each):04X}]" for each in text)
    return "\\&" + text if text.startswith((".", "'")) else text


# Files.


def files() -> Iterator[tuple[Path, str]]:
    """Each file and its text."""
    yield manual.page_of(""), main_page()
    for command in COMMANDS:
        yield manual.page_of(command), manual_page(command)
    parser = whole_parser()
    for shell, path in manual.SHELLS.items():
        yield path, shtab.complete(parser, shell)


def stale() -> list[Path]:
    """The files that are not current, and those of commands that there are no more."""
    made = dict(files())
    found = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    return found + [each for each in manual.page_of("").parent.iterdir() if each not in made]


def write() -> None:
    """Write the files that are not current."""
    made: dict[Path, Any] = dict(files())
    for path in stale():
        path.parent.mkdir(parents=True, exist_ok=True)
        if path in made:
            path.write_text(made[path])
        else:
            path.unlink()
        print(f"wrote {path}")


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit("\n".join(f"{each}: not current" for each in stale()) or 0)
    write()
