"""JSON texts (RFC 8259) that peers send: read into typed structs by msgspec, which keeps `Raw` members as written.

Its errors become `MalformedJSONError` and `WrongTypeError` here. Both are ValueErrors with one line for people.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import msgspec

from longconn.core.errors import LongConnError

_T = TypeVar("_T")

#: A byte order mark in UTF-8. Programs on .NET write one before the first text of a stream.
BOM = b"\xef\xbb\xbf"

#: An escape of JSON: a pair of surrogates, half of one, or any other.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)"
)
#: msgspec's words for types, and how an error names a value that is of none of them.
_KINDS = {
    "str": "no string",
    "int": "no whole number",
    "bool": "neither true nor false",
    "object": "no object",
    "array": "no array",
}
_WRONG_TYPE = re.compile(
    r"Expected `(\w+)(?: \| null)?`(?: (?P<limit>[<>])= (?P<bound>-?\d+))?.*?(?: - at `\$\.?(?P<path>.*)`)?"
)
#: Values are written as Python's encoder writes them; msgspec writes strings the same, twenty times as fast.
_VALUES = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_STRINGS = msgspec.json.Encoder()


class JSONError(LongConnError, ValueError):
    """A text cannot be read; the exception's text says why in one line."""


class MalformedJSONError(JSONError):
    """A text is not JSON in UTF-8, or nests deeper than the parser goes."""


class LoneSurrogateError(MalformedJSONError):
    """A string of a text has half of a surrogate pair, which has no form in UTF-8 (RFC 7493, section 2.1).

    `repaired` is the text with U+0000 in the place of each.
    """

    def __init__(self, repaired: bytes) -> None:
        super().__init__("a string has a lone surrogate")
        self.repaired = repaired


class WrongTypeError(JSONError):
    """A member has another type than its struct says."""


def read(decoder: msgspec.json.Decoder[_T], text: bytes) -> _T:
    """The value of a JSON text, without regard to a BOM before it (RFC 8259, section 8.1).

    Raises MalformedJSONError or WrongTypeError.
    """
    try:
        if not text.isascii():
            text.decode()  # msgspec does not look into the strings of members that it keeps raw or skips
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise WrongTypeError(_explained(str(error))) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        if text.startswith(BOM) and not text.startswith(BOM, len(BOM)):
            return read(decoder, text[len(BOM) :])
        repaired = _without_lone_surrogates(text)
        if repaired != text:
            read(decoder, repaired)  # if there is more that is wrong, that is what is told
            raise LoneSurrogateError(repaired) from None
        raise MalformedJSONError("not JSON") from None


def value(text: bytes) -> Any:
    """A JSON value as Python has it; a whole number of more than 19 digits is a float. Raises MalformedJSONError."""
    try:
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits))
    except (ValueError, RecursionError):
        raise MalformedJSONError("not JSON") from None


def write(value: object) -> bytes:
    """A value as compact JSON in UTF-8; a lone surrogate, which has no form there, as `?`.

    Raises ValueError for an infinite number and the like, RecursionError for a value that nests too deeply.
    """
    if type(value) is str:
        try:
            return _STRINGS.encode(value)
        except UnicodeEncodeError:
            pass
    return _VALUES.encode(value).encode("utf-8", "replace")


def _explained(message: str) -> str:
    match = _WRONG_TYPE.fullmatch(message)
    if match is None or match[1] not in _KINDS:
        return message
    kind = _KINDS[match[1]]
    if match["bound"]:
        kind = f"no number {'from' if match['limit'] == '>' else 'up to'} {match['bound']}"
    return f"{match['path'] or 'the value'} is {kind}"


def _without_lone_surrogates(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: rb"\u0000" if match[1] else match[0], text)
