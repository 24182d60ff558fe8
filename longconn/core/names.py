"""The rules for names of channels and of clients."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

import msgspec

from longconn.core.errors import BAD_CHANNEL, BAD_NAME, BAD_REQUEST, CommandError
from longconn.core.json_text import write

_MAX_CHANNEL_BYTES = 255
_MAX_NAME = 32
#: Characters of a name that the application gives to a user.
_MAX_GIVEN_NAME = 255
_RESUME = re.compile(r"[A-Za-z0-9_-]{16,64}")
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)
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


class NameRequest(NamedTuple):
    """A name that a client asks for, and the secret by which it gets the name back after a cut (empty: none)."""

    name: str
    resume: str = ""


def check_resume(resume: str) -> str:
    """Return `resume` if it may be the secret of a NameRequest: too long to be guessed, or empty.

    Raises CommandError(BAD_REQUEST).
    """
    if resume and not _RESUME.fullmatch(resume):
        raise CommandError(BAD_REQUEST, what="a resume id has 16 to 64 letters, digits, - and _")
    return resume


def name_in(info: bytes) -> str:
    """The name that the application gives to a user: the member `name` of its `info`, JSON. Empty without one."""
    if b'"name"' not in info:
        return ""
    try:
        name = _TEXT.decode(_MEMBERS.decode(info)["name"])
    except (msgspec.DecodeError, KeyError):
        return ""
    return name if 1 <= len(name) <= _MAX_GIVEN_NAME and name.isprintable() and name.strip() else ""


def user_name(user: str) -> str:
    """The user's id, if a client may be called so; else empty."""
    try:
        return check_name(user)
    except CommandError:
        return ""


def with_name(info: bytes, name: str) -> bytes:
    """What others read about a client: the application's `info`, JSON, with the client's name in it.

    An `info` that is no object, or that has another kind of `name`, stays as it is.
    """
    if not info or name_in(info) == name:
        return info
    try:
        members = _MEMBERS.decode(info)
    except msgspec.DecodeError:
        return info
    if "name" in members and not name_in(info):
        return info
    parts = [b'"name":%b' % write(name)]
    parts += [b"%b:%b" % (write(key), bytes(value)) for key, value in members.items() if key != "name"]
    return b"{%b}" % b",".join(parts)


def _in_name(character: str) -> bool:
    return character in "_-." or unicodedata.category(character) in ("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Nd")
