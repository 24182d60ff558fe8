"""Who calls, by its token, and what it may do."""

from __future__ import annotations

from longconn.core.client import Client
from longconn.core.disconnects import INVALID_TOKEN
from longconn.core.errors import NOT_AVAILABLE, UNAUTHORIZED, CommandError
from longconn.core.hub import Hub, log
from longconn.core.names import check_channel
from longconn.core.namespaces import Action, may
from longconn.core.tokens import ConnectionToken, Granted, SubscriptionToken, TokenError
from longconn.protocols.grpc.call import GrpcCall
from longconn.wire.grpc_status import StatusError, status_of_disconnect


def identify(call: GrpcCall, token: str = "") -> ConnectionToken:
    """Who calls: by `token`, else by the metadata `authorization: Bearer TOKEN` (RFC 6750, section 2.1).

    Raises CommandError: UNAUTHORIZED without one where it is needed, TOKEN_EXPIRED; StatusError(UNAUTHENTICATED)
    for one that cannot be believed.
    """
    hub = call.hub
    token = token or _bearer(call)
    try:
        if token:
            if hub.verifier is None:
                raise TokenError("connection", "there is no key here to check it")
            return hub.verifier.connection(token, hub.clock.seconds())
    except TokenError as error:
        raise refused(call, error) from None
    if not hub.settings.anonymous_connect:
        raise CommandError(UNAUTHORIZED)
    return ConnectionToken("")


def refused(call: GrpcCall, error: TokenError) -> StatusError:
    """The end of a call for its token; the log says why."""
    log.info("grpc call from %s refused: %s", call.address, error)
    return status_of_disconnect(INVALID_TOKEN)


def _bearer(call: GrpcCall) -> str:
    for name, value in call.metadata:
        if name == "authorization" and isinstance(value, str):
            scheme, _, token = value.strip().partition(" ")
            if scheme.lower() != "bearer":
                raise CommandError(UNAUTHORIZED)
            return token.strip()
    return ""


def check(hub: Hub, action: Action, channel: str, claims: ConnectionToken) -> None:
    """May who calls, without being a client, do `action` in `channel`?

    Raises CommandError: BAD_CHANNEL, UNKNOWN_CHANNEL, PERMISSION_DENIED.
    """
    options = hub.namespaces.options(check_channel(channel))
    may(action, channel, options, claims.user, granted=channel in claims.subs)


def grant(client: Client, claims: ConnectionToken, channel: str, token: str) -> SubscriptionToken | Granted | None:
    """What lets `client` into `channel`, whatever its options say, if anything does.

    Raises TokenError, or CommandError(TOKEN_EXPIRED).
    """
    if not token:
        return claims.subs.get(channel)
    hub = client.hub
    if hub.verifier is None:
        raise CommandError(NOT_AVAILABLE, what="tokens")
    return hub.verifier.subscription(token, channel, client.user, hub.clock.seconds(), client.id)
