"""What it means for a client how a call of gRPC ended. `doc/statuscodes.md` in grpc/grpc has the statuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

from longconn.clients.centrifugo import TOO_MANY_REQUESTS
from longconn.clients.errors import ClientError, ConnectionFailed, Disconnected, NotLongconn, Refused
from longconn.clients.transports.sockets import status_error

#: The trailing metadata with the number of a refusal, or of a disconnect; those begin at 3000.
_NUMBER = "longconn-code"
_DISCONNECTS = 3000

_NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
#: Statuses of what is to be asked for otherwise, or not at all; any other may be different the next time.
_FINAL = (3, 5, 6, 7, 9, 11, 16)
_UNIMPLEMENTED = 12
#: Refusals with these may be another answer the next time: there is no room now, or no broker.
_TEMPORARY = (8, 14)


def check_head(fields: Mapping[str, str], where: str) -> None:
    """Headers of an answer. Raises ClientError if it is none of gRPC (`doc/http-grpc-status-mapping.md`)."""
    status = fields.get(":status", "")
    if status != "200":
        raise status_error(int(status) if re.fullmatch(r"[0-9]{3}", status) else 0, where)
    kind = fields.get("content-type", "")
    if not re.match(r"application/grpc(\+proto)?\s*(;|$)", kind, re.IGNORECASE):
        raise NotLongconn(f"this is no longconn server: {where} answered with {kind[:40]!a}")


def why_ended(fields: Mapping[str, str], where: str) -> ClientError:
    """Why a call ended whose last headers these are."""
    told = fields.get("grpc-status", "")
    if not re.fullmatch(r"[0-9]{1,3}", told):
        return ConnectionFailed(f"{where} has ended the call without a status")
    status = int(told)
    message = " ".join(unquote(fields.get("grpc-message", ""), errors="replace").split())
    number = fields.get(_NUMBER, "")
    if re.fullmatch(r"[0-9]{1,5}", number):
        code = int(number)
        return Disconnected(code, message) if code >= _DISCONNECTS else _refusal(code, message, status)
    name = _NAMES[status] if status < len(_NAMES) else f"status {status}"
    if status == _UNIMPLEMENTED:
        return NotLongconn(f"this is no longconn server: {where} answered {name} {message}".rstrip())
    if status in _FINAL:
        return Refused(status, f"{name} {message}".rstrip())
    return ConnectionFailed(f"{where} has ended the call: {name} {message}".rstrip())


def _refusal(code: int, message: str, status: int) -> Refused:
    return Refused(code, message, status in _TEMPORARY or code == TOO_MANY_REQUESTS)
