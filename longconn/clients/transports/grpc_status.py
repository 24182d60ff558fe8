"""Errors for the end of a gRPC call. `doc/statuscodes.md` in grpc/grpc has the statuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

from longconn.clients.centrifugo import TOO_MANY_REQUESTS
from longconn.clients.errors import ClientError, ConnectionFailed, Disconnected, NotLongconn, Refused
from longconn.clients.transports.sockets import status_error
from longconn.wire.grpc_status import NUMBER, StatusCode

#: Numbers of disconnects begin here; smaller ones are those of refusals.
_DISCONNECTS = 3000
#: With these statuses the same call would fail again; after any other it may succeed.
_FINAL = (
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.ALREADY_EXISTS,
    StatusCode.PERMISSION_DENIED,
    StatusCode.FAILED_PRECONDITION,
    StatusCode.OUT_OF_RANGE,
    StatusCode.UNAUTHENTICATED,
)
#: Refusals with these are temporary: there is no room, or no broker.
_TEMPORARY = (StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNAVAILABLE)


def check_head(fields: Mapping[str, str], where: str) -> None:
    """Raises ClientError for a response that is not gRPC's (`doc/http-grpc-status-mapping.md`)."""
    status = fields.get(":status", "")
    if status != "200":
        raise status_error(int(status) if re.fullmatch(r"[0-9]{3}", status) else 0, where)
    kind = fields.get("content-type", "")
    if not re.match(r"application/grpc(\+proto)?\s*(;|$)", kind, re.IGNORECASE):
        raise NotLongconn(f"this is no longconn server: {where} answered with {kind[:40]!a}")


def end_of_call(fields: Mapping[str, str], where: str) -> ClientError:
    """The error for a call that ended with these trailers."""
    text = fields.get("grpc-status", "")
    if not re.fullmatch(r"[0-9]{1,3}", text):
        return ConnectionFailed(f"{where} has ended the call without a status")
    status = int(text)
    message = " ".join(unquote(fields.get("grpc-message", ""), errors="replace").split())
    number = fields.get(NUMBER, "")
    if re.fullmatch(r"[0-9]{1,5}", number):
        code = int(number)
        if code >= _DISCONNECTS:
            return Disconnected(code, message)
        return Refused(code, message, status in _TEMPORARY or code == TOO_MANY_REQUESTS)
    name = StatusCode(status).name if status in set(StatusCode) else f"status {status}"
    if status == StatusCode.UNIMPLEMENTED:
        return NotLongconn(f"this is no longconn server: {where} answered {name} {message}".rstrip())
    if status in _FINAL:
        return Refused(status, f"{name} {message}".rstrip())
    return ConnectionFailed(f"{where} has ended the call: {name} {message}".rstrip())
