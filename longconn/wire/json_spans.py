"""Parts of a JSON text as they were written, so that what is published passes through unchanged.

A span is where a value begins and ends. The text is known to be JSON.
"""

from __future__ import annotations

import json
import re
from typing import Any

Span = tuple[int, int]

_SPACE = re.compile(r"[ \t\r\n]*")
# What numbers are is not asked: a long one costs time, or is refused by `int`.
_decode = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode


def loads(text: str) -> Any:
    """The value of a JSON text. Raises ValueError or RecursionError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # a number that is longer than `int` takes (sys.int_info); in data it may stand
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits))


def member(text: str, start: int, name: str) -> Span | None:
    """The value of a member of the object at `start`; None if it is absent."""
    at = _skip(text, start) + 1
    found = None
    while text[_skip(text, at)] != "}":
        key, at = _decode(text, _skip(text, at))
        begin = _skip(text, _skip(text, at) + 1)
        _, at = _decode(text, begin)
        if key == name:
            found = begin, at  # the last of several is the one that counts, as json.loads has it
        at = _skip(text, at)
        if text[at] == ",":
            at += 1
    return found


def elements(text: str, start: int) -> list[Span]:
    """The values of the array at `start`."""
    at = _skip(text, start) + 1
    found = []
    while text[_skip(text, at)] != "]":
        begin = _skip(text, at)
        _, at = _decode(text, begin)
        found.append((begin, at))
        at = _skip(text, at)
        if text[at] == ",":
            at += 1
    return found


def part(text: str, span: Span | None) -> str | None:
    """What is written in a span; None for none."""
    return None if span is None else text[span[0] : span[1]]


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()
