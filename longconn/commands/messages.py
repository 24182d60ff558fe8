"""Publications as lines for people: whatever others wrote, it is text, and nothing that a terminal obeys."""

from __future__ import annotations

import json
import re

from longconn.clients import Publication
from longconn.clients.events import JSONValue
from longconn.wire.chat import safe
from longconn.wire.chat_texts import EN

_LINE_ENDS = re.compile(r"\r\n|\r|\n")
#: Line ends of one publication that start a line of their own, as the server's own chat lines have it.
_MOST_LINES = 200
#: Who speaks where nobody is named.
SERVER = EN.server


def speaker(publication: Publication) -> str:
    """The name of who published."""
    return safe(publication.name) or SERVER


def texts(publication: Publication) -> list[str]:
    """The lines of what was published; data that is no string as compact JSON."""
    data = publication.data if isinstance(publication.data, str) else compact(publication.data)
    return [safe(each) for each in _LINE_ENDS.split(data, _MOST_LINES)]


def compact(value: JSONValue) -> str:
    """A value as JSON in one line. What a terminal would obey, and what is no character by itself, is an escape."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def no_constant(name: str) -> JSONValue:
    """For `json.loads`: NaN and Infinity are no JSON (RFC 8259, section 6)."""
    raise ValueError(f"{name} is no value of JSON")
