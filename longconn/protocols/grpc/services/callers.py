"""The caller of a unary call or a stream: its token, and the caller that the door checks."""

from __future__ import annotations

from longconn.core.client import Caller
from longconn.core.disconnects import INVALID_TOKEN
from longconn.core.errors import UNAUTHORIZED, CommandError
from longconn.core.hub import log
from longconn.core.tokens import ConnectionToken, TokenError
from longconn.protocols.grpc.call import GrpcCall, Handler
from longconn.wire.grpc_status import StatusError, status_of_disconnect


def identify(call: GrpcCall) -> ConnectionToken:
    """The claims of the token in the call's metadata.

    Raises CommandError: UNAUTHORIZED without one where it is needed, TOKEN_EXPIRED; StatusError(UNAUTHENTICATED)
    for one that does not verify.
    """
    hub = call.hub
    token = bearer(call)
    if token:
        try:
            if hub.verifier is None:
                raise TokenError("connection", "there is no key here to check it")
            return hub.verifier.connection(token, hub.wall_time())
        except TokenError as error:
            raise refused(call, error) from None
    if not hub.settings.anonymous_connect:
        raise CommandError(UNAUTHORIZED)
    return ConnectionToken("")


def caller(call: GrpcCall, name: str = "") -> Caller:
    """The caller of a unary call. Raises as `identify` does, and CommandError: BAD_NAME, NAME_TAKEN."""
    token = identify(call)
    found = call.hub.request(call.host, call.address, name or None)
    found.user, found.conn_info, found.grants = token.user, token.info, token.subs
    return found


def admit(call: GrpcCall) -> None:
    """Count a call, or a further request of one that has many. Raises CommandError(TOO_MANY_REQUESTS)."""
    call.hub.door.count_request(Caller(call.host, call.address, ""))


def counted(handler: Handler) -> Handler:
    """Count each call of a method against the rate of its address, before its message is read."""

    async def handle(call: GrpcCall) -> None:
        admit(call)
        await handler(call)

    return handle


def refused(call: GrpcCall, error: TokenError) -> StatusError:
    """The status of a call whose token is refused; the log says why."""
    log.info("grpc call from %s refused: %s", call.address, error)
    return status_of_disconnect(INVALID_TOKEN)


def bearer(call: GrpcCall) -> str:
    """The token in the metadata `authorization: Bearer TOKEN` (RFC 6750, section 2.1); empty without one."""
    for name, value in call.metadata:
        if name == "authorization" and isinstance(value, str):
            scheme, _, token = value.strip().partition(" ")
            if scheme.lower() != "bearer":
                raise CommandError(UNAUTHORIZED)
            return token.strip()
    return ""
