"""Colours of names in a terminal: the same name has the same colour in `chat` and in `sub`."""

from __future__ import annotations

import zlib

#: Colours that can be read on dark and on light backgrounds, plain and bold, as prompt_toolkit calls them.
STYLES = [f"{weight}ansi{colour}" for weight in ("", "bold ") for colour in ("red", "green", "blue", "magenta", "cyan")]
#: The same ones as parameters of an escape sequence (ECMA-48, 8.3.117).
_CODES = [f"{weight}{code}" for weight in ("", "1;") for code in (31, 32, 34, 35, 36)]
_DIM = "2"


def colour_of(name: str) -> int:
    """The index of a name's colour in `STYLES`."""
    return zlib.crc32(name.encode("utf-8", "replace")) % len(STYLES)


def paint_name(name: str) -> str:
    """A name in its colour."""
    return f"\x1b[{_CODES[colour_of(name)]}m{name}\x1b[0m"


def dim(text: str) -> str:
    """A text that matters less."""
    return f"\x1b[{_DIM}m{text}\x1b[0m"
