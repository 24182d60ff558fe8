"""The forms in which `longconn sub` prints a publication: lines, JSON objects, data alone, or a template."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from string import Formatter
from typing import TypeAlias

from longconn.clients import Publication
from longconn.commands.colours import dim, paint_name
from longconn.commands.messages import local_time, printable, speaker, texts
from longconn.wire.chat import safe

#: Makes the text of a publication, with its line end.
Form: TypeAlias = Callable[[Publication], str]

_TIME = "%Y-%m-%d %H:%M:%S"
#: Escapes in a template that a shell passes on as they are.
_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\0": "\0", r"\\": "\\"}
_ESCAPE = re.compile(r"\\.")


def lines(with_channel: bool, with_time: bool, coloured: bool) -> Form:
    """`[CHANNEL] NAME: text`, once for each line of a text."""

    def form(publication: Publication) -> str:
        grey: Callable[[str], str] = dim if coloured else str
        start = grey(local_time(publication.time, _TIME)) + " " if with_time else ""
        start += grey(f"[{safe(publication.channel)}]") + " " if with_channel else ""
        name = speaker(publication)
        start += (paint_name(name) if coloured else name) + ": "
        return "".join(f"{start}{each}\n" for each in texts(publication))

    return form


def json_object(publication: Publication) -> str:
    """A JSON object. Its `data` are written as they were published: a value of Python has less, as `1.5` for `1.50`."""
    head = {"channel": publication.channel, "offset": publication.offset, "epoch": publication.epoch}
    tail = {"name": publication.name, "time": publication.time}
    return printable(f'{_compact(head)[:-1]},"data":{publication.json},{_compact(tail)[1:]}') + "\n"


def raw(publication: Publication) -> str:
    """The data alone: the characters of a text as they are, JSON as it was written."""
    return _data(publication) + "\n"


def template(text: str) -> Form:
    """A template such as `{time:%H:%M} {name} {data}`. Raises argparse.ArgumentTypeError if it is none."""
    try:
        parts = list(Formatter().parse(_ESCAPE.sub(lambda match: _ESCAPES.get(match[0], match[0]), text)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no template: {error}") from None
    for _, field, specification, conversion in parts:
        if field is not None and (field not in _FIELDS or conversion or (specification and field != "time")):
            known = ", ".join(f"{{{each}}}" for each in _FIELDS)
            raise argparse.ArgumentTypeError(f"{text!r} is no template: there are {known}, and {{time:%H:%M}}")

    def form(publication: Publication) -> str:
        filled = ""
        for literal, field, specification, _ in parts:
            filled += literal
            if field is not None:
                filled += _FIELDS[field](publication, specification or _TIME)
        return filled + "\n"

    return form


def _data(publication: Publication) -> str:
    return publication.data if isinstance(publication.data, str) else publication.json


#: What stands for a field of a template. The specification is that of the time.
_FIELDS: dict[str, Callable[[Publication, str], str]] = {
    "channel": lambda publication, _: safe(publication.channel),
    "name": lambda publication, _: speaker(publication),
    "data": lambda publication, _: "\n".join(texts(publication)),
    "json": lambda publication, _: printable(publication.json),
    "offset": lambda publication, _: str(publication.offset),
    "epoch": lambda publication, _: safe(publication.epoch),
    "time": lambda publication, specification: local_time(publication.time, specification),
}


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
