"""The statuses of gRPC calls, and the table from longconn's numbered reasons to these statuses.

`doc/statuscodes.md` in grpc/grpc describes the codes.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence

from longconn.core import disconnects, errors
from longconn.core.disconnects import Disconnect
from longconn.core.errors import CommandError, LongConnError, Reason

Metadata = Sequence[tuple[str, str | bytes]]


class StatusCode(enum.IntEnum):
    """A status code (`doc/statuscodes.md`)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class StatusError(LongConnError):
    """A call ends with `code` and `message`; `metadata` is sent in its trailers."""

    def __init__(self, code: StatusCode, message: str = "", metadata: Metadata = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.metadata = tuple(metadata)


#: Milliseconds after which a caller may try again, in trailing metadata (gRFC A6, "Server Pushback").
PUSHBACK = "grpc-retry-pushback-ms"
#: Milliseconds after which a taken name is worth another try.
_NAME_RETRY_MS = "5000"
#: The name of the trailing metadata that has the number of a reason or a disconnect.
NUMBER = "longconn-code"

#: The status of a refused command.
REASONS: dict[Reason, StatusCode] = {
    errors.INTERNAL: StatusCode.UNAVAILABLE,
    errors.UNAUTHORIZED: StatusCode.UNAUTHENTICATED,
    errors.UNKNOWN_CHANNEL: StatusCode.NOT_FOUND,
    errors.PERMISSION_DENIED: StatusCode.PERMISSION_DENIED,
    errors.METHOD_NOT_FOUND: StatusCode.UNIMPLEMENTED,
    errors.ALREADY_SUBSCRIBED: StatusCode.ALREADY_EXISTS,
    errors.LIMIT_EXCEEDED: StatusCode.RESOURCE_EXHAUSTED,
    errors.BAD_REQUEST: StatusCode.INVALID_ARGUMENT,
    errors.NOT_AVAILABLE: StatusCode.FAILED_PRECONDITION,
    errors.TOKEN_EXPIRED: StatusCode.UNAUTHENTICATED,
    errors.EXPIRED: StatusCode.UNAUTHENTICATED,
    errors.TOO_MANY_REQUESTS: StatusCode.RESOURCE_EXHAUSTED,
    errors.UNRECOVERABLE: StatusCode.OUT_OF_RANGE,
    errors.NOT_SUBSCRIBED: StatusCode.FAILED_PRECONDITION,
    errors.BAD_CHANNEL: StatusCode.INVALID_ARGUMENT,
    errors.BAD_NAME: StatusCode.INVALID_ARGUMENT,
    errors.NAME_TAKEN: StatusCode.ALREADY_EXISTS,
    errors.TOO_LARGE: StatusCode.RESOURCE_EXHAUSTED,
    errors.BAD_DATA: StatusCode.INVALID_ARGUMENT,
    errors.SHUTTING_DOWN: StatusCode.UNAVAILABLE,
    errors.BROKER_UNAVAILABLE: StatusCode.UNAVAILABLE,
}

#: The status of a client that is disconnected. UNAVAILABLE tells the client to reconnect, as numbers below 3500 do.
DISCONNECTS: dict[Disconnect, StatusCode] = {
    disconnects.CLOSED: StatusCode.OK,
    disconnects.SHUTDOWN: StatusCode.UNAVAILABLE,
    disconnects.SERVER_ERROR: StatusCode.UNAVAILABLE,
    disconnects.EXPIRED: StatusCode.UNAUTHENTICATED,
    disconnects.SUBSCRIPTION_EXPIRED: StatusCode.UNAUTHENTICATED,
    disconnects.SLOW: StatusCode.RESOURCE_EXHAUSTED,
    disconnects.WRITE_TIMEOUT: StatusCode.UNAVAILABLE,
    disconnects.INSUFFICIENT_STATE: StatusCode.ABORTED,
    disconnects.FORCE_RECONNECT: StatusCode.UNAVAILABLE,
    disconnects.NO_PONG: StatusCode.UNAVAILABLE,
    disconnects.INVALID_TOKEN: StatusCode.UNAUTHENTICATED,
    disconnects.BAD_REQUEST: StatusCode.INVALID_ARGUMENT,
    disconnects.IDLE: StatusCode.CANCELLED,
    disconnects.FORCE_DISCONNECT: StatusCode.ABORTED,
    disconnects.CONNECTION_LIMIT: StatusCode.RESOURCE_EXHAUSTED,
    disconnects.PERMISSION_DENIED: StatusCode.PERMISSION_DENIED,
}


def status_of_error(error: CommandError) -> StatusError:
    """Return the status of a call whose command was refused, with the number of the reason.

    Over a rate it also has the milliseconds after which the caller may try again.
    """
    metadata = [(NUMBER, str(error.reason.code))]
    wait = error.values.get("retry_after")
    if isinstance(wait, float):
        metadata.append((PUSHBACK, str(math.ceil(wait * 1000))))
    # A number of the application's own is in the metadata.
    other = StatusCode.UNAVAILABLE if error.reason.temporary else StatusCode.PERMISSION_DENIED
    return StatusError(REASONS.get(error.reason, other), str(error), metadata)


def status_of_opening(error: CommandError) -> StatusError:
    """Return the status of a call that would become a client of the hub, and is refused.

    A taken name is UNAVAILABLE, after which clients try again: their own last connection, which is dead, may have it.
    """
    if error.reason is not errors.NAME_TAKEN:
        return status_of_error(error)
    metadata = [(NUMBER, str(error.reason.code)), (PUSHBACK, _NAME_RETRY_MS)]
    return StatusError(StatusCode.UNAVAILABLE, str(error), metadata)


def status_of_disconnect(disconnect: Disconnect) -> StatusError:
    """Return the status of a call whose client is disconnected, with the number of the disconnect.

    Numbers of applications are UNAVAILABLE if the client may reconnect, else ABORTED.
    """
    code = DISCONNECTS.get(disconnect)
    if code is None:
        code = StatusCode.UNAVAILABLE if disconnect.reconnect else StatusCode.ABORTED
    return StatusError(code, disconnect.text, ((NUMBER, str(disconnect.code)),))
