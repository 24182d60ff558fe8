"""Who makes a call, and the caller that the door checks."""

from __future__ import annotations

from collections.abc import Mapping

from longconn.core.client import Caller
from longconn.core.identity import Admission, Credentials, Identity
from longconn.core.tokens import TokenError
from longconn.protocols.grpc.call import GrpcCall, Handler
from longconn.protocols.grpc.services.messages import answered
from longconn.wire.authorization import read_authorization
from longconn.wire.grpc_status import status_of_disconnect


async def identify(call: GrpcCall) -> Identity:
    """Who makes the call, by its metadata `authorization`.

    Raises CommandError: UNAUTHORIZED where nothing proves it and that is needed, TOKEN_EXPIRED, TOO_MANY_REQUESTS;
    StatusError(UNAUTHENTICATED) for a token that is refused.
    """
    if call.identity is None:
        admission = Admission("grpc", call.host, call.address, credentials(call), headers=named_metadata(call))
        try:
            identity: Identity = await answered(lambda done: call.hub.gate.admit(admission, done))
        except TokenError as error:
            raise status_of_disconnect(error.disconnect) from None
        call.identity = identity
    return call.identity


async def caller(call: GrpcCall, name: str = "") -> Caller:
    """The caller of a unary call. Raises as `identify` does, and CommandError: BAD_NAME, NAME_TAKEN."""
    identity = await identify(call)
    found = call.hub.request(call.host, call.address, name or None, identity=identity)
    found.headers = named_metadata(call)
    return found


def for_users(handler: Handler) -> Handler:
    """`handler`, for calls that are let in: `call.identity` is there."""

    async def handle(call: GrpcCall) -> None:
        await identify(call)
        await handler(call)

    return handle


def named_metadata(call: GrpcCall) -> Mapping[str, str]:
    """The metadata that hooks get."""
    text = {name: value for name, value in call.metadata if isinstance(value, str)}
    return call.hub.hooks.select(lambda name: text.get(name, ""))


def admit(call: GrpcCall) -> None:
    """Count a call, or a further request of one that has many. Raises CommandError(TOO_MANY_REQUESTS)."""
    call.hub.rates.count_request(Caller(call.host, call.address, ""))


def counted(handler: Handler) -> Handler:
    """Count each call of a method against the rate of its address, before its message is read."""

    async def handle(call: GrpcCall) -> None:
        admit(call)
        await handler(call)

    return handle


def credentials(call: GrpcCall) -> Credentials:
    """What the metadata bring. Raises CommandError(UNAUTHORIZED) if they bring something else."""
    for name, value in call.metadata:
        if name == "authorization" and isinstance(value, str):
            return read_authorization(value)
    return Credentials(certificate=call.certificate)
