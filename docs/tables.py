"""Makes the tables of the reference from the code.

    python docs/tables.py            write them anew into the pages
    python docs/tables.py --check    exit status 1 if a page is not current

It makes the manual pages and the completions of shells too (`docs/manual.py`).

A pair of comments in a page encloses a table: `<!-- table: options -->` and `<!-- end of table -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))  # a checkout that is not installed

import manual  # noqa: E402

from longconn.config.file import PREFIX, flag  # noqa: E402
from longconn.config.flags import PORT_HELP, default_text  # noqa: E402
from longconn.config.namespaces import FIELDS  # noqa: E402
from longconn.config.values import allowed, is_list  # noqa: E402
from longconn.core import errors  # noqa: E402
from longconn.core.disconnects import CLOSED, DISCONNECTS  # noqa: E402
from longconn.core.settings import OPTIONS  # noqa: E402
from longconn.protocols.http.errors import STATUSES  # noqa: E402
from longconn.wire import grpc_status  # noqa: E402
from longconn.wire.chat import COMMANDS  # noqa: E402
from longconn.wire.chat_texts import EN, ZH, Texts  # noqa: E402
from longconn.wire.websocket import close_code  # noqa: E402

_TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)

#: The purpose of each text, for the first column.
_TEXTS = {
    "said": "what is said",
    "joined": "a join",
    "left": "a leave",
    "renamed": "a new name",
    "counts": "many at once",
    "who": "`/who`",
    "channels": "`/channels`",
    "no_channels": "`/channels`, none",
    "no_history": "`/history`, nothing kept",
    "unknown_command": "an unknown command",
    "usage": "a command that lacks something",
    "not_utf8": "a line that is not UTF-8",
    "login_first": "a line before the login that is needed",
    "password": "`/login NAME`",
    "logged_in": "a login",
}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(_cell(each) for each in line) + " |\n" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _code(text: object) -> str:
    return f"`{text}`" if str(text) else ""


def ports() -> str:
    return table(("flag", "what"), ((_code(flag(name)), text) for name, text in PORT_HELP.items()))


def options() -> str:
    rows = []
    for name, option in OPTIONS.items():
        default = (
            "none" if option.default in ((), "", None) else _code(default_text(option.default, option.metadata["unit"]))
        )
        values = "any number of them" if is_list(option) else allowed(option)
        rows.append((_code(flag(name)), default, option.metadata["help"], values))
    return table(("flag", "default", "what", "allowed"), rows)


def channel_options() -> str:
    rows = []
    for name, option in FIELDS.items():
        default = "not set" if option.default is None else _code(str(option.default).lower())
        rows.append((_code(name), default, option.metadata["help"], allowed(option)))
    return table(("option", "default", "what", "allowed"), rows)


def variables() -> str:
    names = ("max_message", "allowed_origin")
    return table(
        ("flag", "variable", "key of the file"),
        ((_code(flag(each)), _code(PREFIX + each.upper()), _code(each)) for each in names),
    )


def texts() -> str:
    return table(
        ("what", "`--locale=en`", "`--locale=zh`"),
        ((what, _code(_example(EN, key)), _code(_example(ZH, key))) for key, what in _TEXTS.items()),
    )


def _example(catalogue: Texts, key: str) -> str:
    if key == "said":
        return f"NAME{catalogue.said}text"
    if key == "counts":
        parts = [catalogue.counts_joined.format(n=37), catalogue.counts_left.format(n=2)]
        return catalogue.counts.format(parts=", ".join(parts))
    values = {
        "name": "NAME", "old": "OLD", "n": 2, "channel": "lobby", "names": "NAME, NAME", "command": "/x",
        "user": "NAME", "usage": COMMANDS["nick"], "channels": catalogue.channel.format(channel="lobby", n=2),
    }  # fmt: skip
    text: str = getattr(catalogue, key).format(**values)
    return "! " + text if key in ("unknown_command", "usage", "not_utf8", "login_first") else text


def reasons() -> list[errors.Reason]:
    """The reasons for which a command is refused, by number."""
    found = {each for each in vars(errors).values() if isinstance(each, errors.Reason)}
    return sorted(found, key=lambda each: each.code)


def refusals() -> str:
    rows = (
        (
            each.code,
            each.text,
            _code("! " + ZH.errors.get(each.key, each.text)),
            STATUSES.get(each, ""),
            "yes" if each.temporary else "",
        )
        for each in reasons()
    )
    return table(("code", "chat line `! …`, and HTTP's `message`", "in Chinese", "HTTP status", "try again"), rows)


def disconnects() -> str:
    rows = []
    for code, each in sorted(DISCONNECTS.items()):
        chat = "" if each is CLOSED else _code("! " + EN.disconnect(each))
        rows.append((code, each.text, close_code(each), chat, "yes" if each.reconnect else "no"))
    return table(("number", "reason", "WebSocket close code", "chat line", "come back"), rows)


def grpc_statuses() -> str:
    found = [(each.code, each.text, status) for each, status in grpc_status.REASONS.items()]
    found += [(each.code, each.text, status) for each, status in grpc_status.DISCONNECTS.items()]
    return table(("number", "why", "status"), ((code, text, status.name) for code, text, status in sorted(found)))


TABLES = {
    each.__name__: each
    for each in (ports, options, channel_options, variables, texts, refusals, disconnects, grpc_statuses)
}


def pages() -> list[Path]:
    return sorted(each for each in DOCS.rglob("*.md") if "_build" not in each.parts)


def current(text: str) -> str:
    """A page's text with current tables. Raises KeyError for an unknown table."""
    return _TABLE.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], text)


def missing_texts() -> list[str]:
    """Texts of the catalogue that no table shows. It must be empty, or `_TEXTS` is not current."""
    shown = {
        *_TEXTS,
        "counts_joined",
        "counts_left",
        "channel",
        "who_more",
        "help",
        "goodbye",
        "errors",
        "disconnects",
        "words",
        "server",
    }
    return [each.name for each in fields(Texts) if each.name not in shown]


def main(arguments: Sequence[str]) -> int:
    stale = [each for each in pages() if each.read_text() != current(each.read_text())]
    for page in stale:
        print(f"{page.relative_to(DOCS.parent)}: not current" if arguments else f"wrote {page}")
        if not arguments:
            page.write_text(current(page.read_text()))
    old = manual.stale()
    if arguments:
        for path in old:
            print(f"{path.relative_to(DOCS.parent)}: not current")
    else:
        manual.write()
    return 1 if (stale or old) and arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
