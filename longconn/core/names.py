"""What may be the name of a channel, and of a client."""

from __future__ import annotations

import re
import unicodedata

from longconn.core.errors import BAD_CHANNEL, BAD_NAME, CommandError

_MAX_CHANNEL_BYTES = 255
_MAX_NAME = 32
# White space of any script (str.isspace) and the control characters, C0, DEL and C1.
_NO_CHANNEL = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")
# What the server itself calls clients, and IPv4 addresses in any of the ways inet_aton reads.
_LOOKS_ASSIGNED = re.compile(r"(?:guest-\d+|(?:0x[0-9a-f]+|\d+)(?:\.(?:0x[0-9a-f]+|\d+)){1,3}|localhost)")


def check_channel(name: str) -> str:
    """`name`, if a channel may be called so: 1 to 255 bytes of UTF-8, no white space, no controls.

    Raises CommandError(BAD_CHANNEL).
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        size = 0
    if not 1 <= size <= _MAX_CHANNEL_BYTES or _NO_CHANNEL.search(name):
        raise CommandError(BAD_CHANNEL)
    return name


def fold(name: str) -> str:
    """The form in which two names are the same: NFKC, case-folded, NFKC again (Unicode, D146)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def check_name(name: str) -> str:
    """`name`, if a client may take it: 1 to 32 letters, digits, `_`, `-`, `.`; no address.

    Raises CommandError(BAD_NAME). Whether it is free is the hub's to say.
    """
    folded = fold(name)
    # The folded form too, since one letter may fold into a phrase with spaces (U+FDFA).
    fits = 1 <= len(name) <= _MAX_NAME and all(map(_in_name, name)) and all(map(_in_name, folded))
    if not fits or _LOOKS_ASSIGNED.fullmatch(folded) or not any(map(str.isalnum, name)):
        raise CommandError(BAD_NAME)
    return name


def _in_name(character: str) -> bool:
    return character in "_-." or unicodedata.category(character) in ("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Nd")
