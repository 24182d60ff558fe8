"""Publications as lines of text. Control characters, which a terminal would obey, are replaced."""

from __future__ import annotations

import json
import re
import time

from longconn.clients import ClientError, JSONText, Publication
from longconn.core.errors import CommandError
from longconn.core.publication import Data
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
    """The lines of a publication. Data that is no string is written as JSON, as it was published."""
    data = publication.data if isinstance(publication.data, str) else printable(publication.json)
    return [safe(each) for each in _LINE_ENDS.split(data, _MOST_LINES)]


def printable(text: str) -> str:
    """A JSON text in one line. Characters that are not printable are written as escapes."""
    if text.isprintable():
        return text
    # Outside of strings, JSON has no such character but white space.
    return "".join(each if each.isprintable() else "" if each in "\t\r\n" else json.dumps(each)[1:-1] for each in text)


def local_time(seconds: float | None, form: str) -> str:
    """A time since 1970 in the local time zone, in a form of `strftime`; `-` if there is none."""
    try:
        return "-" if seconds is None else safe(time.strftime(form, time.localtime(seconds)))
    except (OverflowError, ValueError, OSError):  # no time of this calendar
        return "-"


def parse_json(text: str) -> JSONText:
    """A text that is JSON, to be published as it is written. Raises BadDataError."""
    found = JSONText(text.removeprefix("\ufeff"))  # programs on Windows begin a file with a byte order mark
    try:
        found.value()
        Data.of_json(found)  # which knows how deep a value may nest
    except (ValueError, RecursionError) as error:
        raise BadDataError(f"not JSON: {error}") from None
    except CommandError as error:
        raise BadDataError(str(error)) from None
    return found
