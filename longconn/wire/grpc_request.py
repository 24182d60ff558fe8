"""Reads and checks the headers of a gRPC request (`doc/PROTOCOL-HTTP2.md` in grpc/grpc, "Requests")."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from longconn.core.errors import LongConnError
from longconn.wire.grpc import ENCODINGS, read_metadata, read_timeout
from longconn.wire.grpc_status import StatusCode, StatusError


@dataclass(frozen=True, slots=True)
class GrpcRequest:
    """The headers of one call: `timeout` in seconds, the encoding of its messages, and whether it accepts gzip."""

    path: str
    metadata: tuple[tuple[str, str | bytes], ...]
    timeout: float | None
    encoding: str
    accepts_gzip: bool


class NotGRPC(LongConnError):
    """The request is not gRPC. The answer is plain HTTP, so that no client takes it for a success.

    `status` is HTTP's, and `headers` are added to the answer.
    """

    def __init__(self, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


def read_request(headers: Iterable[tuple[bytes, bytes]]) -> GrpcRequest:
    """Return the request. Raises NotGRPC, or StatusError for a gRPC request that cannot be served."""
    headers = list(headers)
    found = dict(headers)
    if found.get(b":method") != b"POST":
        raise NotGRPC(405, "HTTP/2 is for gRPC here, by POST: use HTTP/1.1 for this path", ((b"allow", b"POST"),))
    kind, _, subtype = found.get(b"content-type", b"").partition(b";")[0].strip().lower().partition(b"+")
    if kind != b"application/grpc":
        raise NotGRPC(415, "HTTP/2 is for application/grpc here: use HTTP/1.1 for anything else")
    if subtype not in (b"", b"proto"):
        raise StatusError(StatusCode.UNIMPLEMENTED, "messages are application/grpc+proto")
    encoding = found.get(b"grpc-encoding", b"identity").decode("latin-1")
    if encoding not in ENCODINGS:
        raise StatusError(StatusCode.UNIMPLEMENTED, f"messages may be {' or '.join(ENCODINGS)}, not {encoding}")
    timeout = None
    if b"grpc-timeout" in found:
        timeout = read_timeout(found[b"grpc-timeout"].decode("latin-1"))
        if timeout is None:
            raise StatusError(StatusCode.INTERNAL, "grpc-timeout is malformed")
    accepted = [each.strip() for each in found.get(b"grpc-accept-encoding", b"").split(b",")]
    path = found.get(b":path", b"").decode("latin-1")
    return GrpcRequest(path, read_metadata(headers), timeout, encoding, b"gzip" in accepted)
