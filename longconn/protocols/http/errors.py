"""Refusals in HTTP: one table from reasons to statuses, and one form of body."""

from __future__ import annotations

import math
from collections.abc import Sequence
from http import HTTPStatus

from longconn.core import errors
from longconn.core.errors import CommandError, LongConnError, Reason
from longconn.core.json_text import write

#: The status of a refused command (RFC 9110, section 15; 429: RFC 6585).
STATUSES: dict[Reason, int] = {
    errors.INTERNAL: 503,
    errors.UNAUTHORIZED: 401,
    errors.UNKNOWN_CHANNEL: 404,
    errors.PERMISSION_DENIED: 403,
    errors.METHOD_NOT_FOUND: 404,
    errors.ALREADY_SUBSCRIBED: 409,
    errors.LIMIT_EXCEEDED: 503,
    errors.BAD_REQUEST: 400,
    errors.NOT_AVAILABLE: 404,
    errors.TOKEN_EXPIRED: 401,
    errors.EXPIRED: 401,
    errors.TOO_MANY_REQUESTS: 429,
    errors.UNRECOVERABLE: 410,
    errors.NOT_SUBSCRIBED: 409,
    errors.BAD_CHANNEL: 400,
    errors.BAD_NAME: 400,
    errors.NAME_TAKEN: 409,
    errors.TOO_LARGE: 413,
    errors.BAD_DATA: 400,
    errors.SHUTTING_DOWN: 503,
    errors.BROKER_UNAVAILABLE: 503,
}


def status_of(error: CommandError) -> int:
    """The status of a refusal; 403, or 503 if it passes, for a number of the application's own."""
    return STATUSES.get(error.reason, 503 if error.reason.temporary else 403)


#: Seconds after which a taken name is worth another try.
NAME_RETRY = 5
#: Statuses after which a client may try again, and the Retry-After in seconds unless an error brings its own.
_RETRY_AFTER = {429: 1, 503: 1}

Headers = Sequence[tuple[str, str]]


class HTTPError(LongConnError):
    """A request is answered with a status of 4xx or 5xx.

    `code` is the number of a reason (`longconn.core.errors`) where there is one, else the status; `extra` are
    further members of the answer's `error`.
    """

    def __init__(self, status: int, message: str, headers: Headers = (), code: int = 0, **extra: object) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.code = code or status
        self.extra = extra


def as_http_error(error: CommandError | HTTPError, **extra: object) -> HTTPError:
    """A refused command as an error of HTTP."""
    if isinstance(error, HTTPError):
        return error
    wait = error.values.get("retry_after")
    headers = [("Retry-After", str(math.ceil(wait)))] if isinstance(wait, float) else []
    return HTTPError(status_of(error), str(error), headers, error.reason.code, **extra)


def refusal_of_client(error: CommandError) -> HTTPError:
    """The refusal of a request that would become a client.

    A taken name is 503: the client's own last connection, which is dead, may have it. Many readers give up at 409.
    """
    if error.reason is not errors.NAME_TAKEN:
        return as_http_error(error)
    return HTTPError(503, str(error), [("Retry-After", str(NAME_RETRY))], error.reason.code)


def headers_of(error: HTTPError) -> list[tuple[str, str]]:
    """The headers of an answer that are the error's own."""
    headers = list(error.headers)
    if error.status in _RETRY_AFTER and not any(name == "Retry-After" for name, _ in headers):
        headers.append(("Retry-After", str(_RETRY_AFTER[error.status])))
    return headers


def body_of(error: HTTPError) -> bytes:
    """`{"error": {"code", "message", …}}` and a line end."""
    value = {"error": {"code": error.code, "message": str(error), **error.extra}}
    return write(value) + b"\n"


def answer_of(error: HTTPError, with_body: bool) -> bytes:
    """A whole response of HTTP/1.1, for a connection that closes after it."""
    body = body_of(error)
    headers = [
        ("Content-Type", "application/json"), ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"), ("Connection", "close"), *headers_of(error),
    ]  # fmt: skip
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body if with_body else b"")
