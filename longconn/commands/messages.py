"""Publications as lines of text. Control characters, which a terminal would obey, are replaced."""

from __future__ import annotations

import json
import re

from longconn.clients import ClientError, Publication
from longconn.clients.events import JSONValue
from longconn.wire.chat import safe
from longconn.wire.chat_texts import EN

_LINE_ENDS = re.compile(r"\r\n|\r|\n")
#: Line ends of one publication that start a line of their own, as in the server's chat lines.
_MOST_LINES = 200
#: The speaker of a publication without a name.
SERVER = EN.server


class BadDataError(ClientError):
    """Data to publish is not UTF-8, or not JSON."""


def speaker(publication: Publication) -> str:
    """The name of the publisher."""
    return safe(publication.name) or SERVER


def texts(publication: Publication) -> list[str]:
    """The lines of a publication. Data that is no string is written as compact JSON."""
    data = publication.data if isinstance(publication.data, str) else compact(publication.data)
    return [safe(each) for each in _LINE_ENDS.split(data, _MOST_LINES)]


def compact(value: JSONValue) -> str:
    """A value as JSON in one line. Characters that are not printable are written as escapes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def parse_json(text: str) -> JSONValue:
    """A value of JSON. Raises BadDataError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadDataError(f"not JSON: {error}") from None


def _refuse_constant(name: str) -> JSONValue:
    """NaN and Infinity are not JSON (RFC 8259, section 6)."""
    raise ValueError(f"{name} is no value of JSON")
