"""The tree of errors, and the table of reasons for refusing a command.

    LongConnError
      ConfigError             a setting is unknown, or its value is not valid
      CommandError            a command is refused, for one numbered `Reason`
      TokenError              a token is refused (`longconn.core.tokens`)
      JSONError               a text is no JSON, or has a member of a wrong type (`longconn.core.json_text`)
      MalformedCommandError   an item of a program is no command (`longconn.core.commands`)

Other rooms derive errors of their protocols from LongConnError, such as `HTTPError` and gRPC's `StatusError`.

Each protocol has a form of its own for a reason: a chat line (`longconn.wire.chat_texts`), a status of HTTP
(`longconn.protocols.http.errors`), a status of gRPC (`longconn.wire.grpc_status`). The numbers are those of
Centrifugo's client protocol (centrifugal/centrifuge, `errors.go`) where it has one. Numbers from 150 on are longconn's.
"""

from __future__ import annotations

from dataclasses import dataclass


class LongConnError(Exception):
    """The base of all errors that longconn raises."""


class ConfigError(LongConnError):
    """A setting is unknown, or its value is not valid. The text is one line for people."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason for refusing a command: its number, its key in catalogues of texts, its text with `{…}` for values.

    `temporary` says that the same command may succeed later.
    """

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
NAME_TAKEN = Reason(153, "name_taken", "the name {name} is taken", temporary=True)
TOO_LARGE = Reason(154, "too_large", "too large: at most {limit} bytes")
BAD_DATA = Reason(155, "bad_data", "not valid: {what}")
SHUTTING_DOWN = Reason(156, "shutting_down", "the server is shutting down; try again", temporary=True)
BROKER_UNAVAILABLE = Reason(157, "broker_unavailable", "the broker is away; try again", temporary=True)


class CommandError(LongConnError):
    """A command is refused. `values` fill the text of `reason`."""

    def __init__(self, reason: Reason, **values: object) -> None:
        super().__init__(reason.text.format(**values))
        self.reason = reason
        self.values = values


def shown(value: object, limit: int = 60) -> str:
    """`value` as an error message quotes it: its repr on one line, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
