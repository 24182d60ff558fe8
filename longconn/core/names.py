"""The rules for names of channels and of clients."""

from __future__ import annotations

import re
import unicodedata

from longconn.core.errors import BAD_CHANNEL, BAD_NAME, CommandError

_MAX_CHANNEL_BYTES = 255
_MAX_NAME = 32
# White space of any script (str.isspace) and the control characters, C0, DEL and C1.
_NO_CHANNEL = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")
# Names that the server itself gives to clients, and IPv4 addresses in every form that inet_aton(3) reads.
_LOOKS_ASSIGNED = re.compile(r"(?:guest-\d+|(?:0x[0-9a-f]+|\d+)(?:\.(?:0x[0-9a-f]+|\d+)){1,3}|localhost)")


def check_channel(name: str) -> str:
    """Return `name` if it is valid for a channel: 1 to 255 bytes of UTF-8, no white space, no control characters.

    Raises CommandError(BAD_CHANNEL).
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # a lone surrogate, which JSON can write as an escape
        size = 0
    if not 1 <= size <= _MAX_CHANNEL_BYTES or _NO_CHANNEL.search(name):
        raise CommandError(BAD_CHANNEL)
    return name


def fold(name: str) -> str:
    """The form by which two names are compared: NFKC, case-folded, NFKC again (the Unicode Standard, D146)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def check_name(name: str) -> str:
    """Return `name` if a client may take it: 1 to 32 letters, digits, `_`, `-`, `.`, and not like an address.

    Raises CommandError(BAD_NAME). The hub checks whether another client has the name.
    """
    folded = fold(name)
    # The folded form is checked too, because one letter may fold into a phrase with spaces (U+FDFA).
    fits = 1 <= len(name) <= _MAX_NAME and all(map(_in_name, name)) and all(map(_in_name, folded))
    if not fits or _LOOKS_ASSIGNED.fullmatch(folded) or not any(map(str.isalnum, name)):
        raise CommandError(BAD_NAME)
    return name


def _in_name(character: str) -> bool:
    return character in "_-." or unicodedata.category(character) in ("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Nd")
