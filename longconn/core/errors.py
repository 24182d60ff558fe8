"""The error tree, and the one table of reasons for which a command is refused.

    LongConnError
      ConfigError        a setting is unknown, or has a value that cannot be
      CommandError       a command was refused, for one numbered `Reason`

Each edge writes a reason in its own way: `longconn.wire.chat_texts` as a chat line,
`longconn.protocols.http.resource` as a status. The numbers are those of Centrifugo's client
protocol (`errors` in centrifugal/centrifuge, `errors.go`) where it has one; those
from 150 are ours.
"""

from __future__ import annotations

from dataclasses import dataclass


class LongConnError(Exception):
    """Whatever longconn raises of its own accord."""


class ConfigError(LongConnError):
    """A setting is unknown or has a bad value; the text is one line for people."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a command is refused: a number, a key for catalogues, a text with `{…}` for values."""

    code: int
    key: str
    text: str
    temporary: bool = False


INTERNAL = Reason(100, "internal", "internal error; try again", temporary=True)
UNAUTHORIZED = Reason(101, "unauthorized", "unauthorized")
UNKNOWN_CHANNEL = Reason(102, "unknown_channel", "unknown channel {channel}")
PERMISSION_DENIED = Reason(103, "permission_denied", "permission denied: {what} {channel}")
METHOD_NOT_FOUND = Reason(104, "method_not_found", "method not found")
ALREADY_SUBSCRIBED = Reason(105, "already_subscribed", "already in {channel}")
LIMIT_EXCEEDED = Reason(106, "limit_exceeded", "limit exceeded: {what}")
BAD_REQUEST = Reason(107, "bad_request", "bad request: {what}")
NOT_AVAILABLE = Reason(108, "not_available", "not available: {what}")
TOKEN_EXPIRED = Reason(109, "token_expired", "token expired")
EXPIRED = Reason(110, "expired", "expired")
TOO_MANY_REQUESTS = Reason(111, "too_many_requests", "too many requests", temporary=True)
UNRECOVERABLE = Reason(112, "unrecoverable", "unrecoverable position")
NOT_SUBSCRIBED = Reason(150, "not_subscribed", "not in {channel}")
BAD_CHANNEL = Reason(151, "bad_channel", "a channel is 1 to 255 bytes without white space or control characters")
BAD_NAME = Reason(152, "bad_name", "a name is 1 to 32 letters, digits, _ - . and no address")
NAME_TAKEN = Reason(153, "name_taken", "the name {name} is taken")
TOO_LARGE = Reason(154, "too_large", "too large: at most {limit} bytes")
BAD_DATA = Reason(155, "bad_data", "not valid: {what}")


class CommandError(LongConnError):
    """A command was refused. `reason` is an entry of the table, `values` fill its text."""

    def __init__(self, reason: Reason, **values: object) -> None:
        super().__init__(reason.text.format(**values))
        self.reason = reason
        self.values = values


def shown(value: object, limit: int = 60) -> str:
    """`value` as an error message quotes it: its repr, on one line, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
