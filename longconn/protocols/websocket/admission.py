"""The admission of a handshake that came to a WebSocket factory's own port. On the shared port HTTP sees to that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport

from longconn.core.client import Caller
from longconn.core.errors import (
    INTERNAL,
    NAME_TAKEN,
    PERMISSION_DENIED,
    TOKEN_EXPIRED,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
    UNKNOWN_CHANNEL,
    CommandError,
)
from longconn.core.hooks import APPLICATION
from longconn.core.hub import Hub
from longconn.core.identity import NO_CREDENTIALS, Admission, Credentials, Identity
from longconn.core.names import NameRequest, check_channel, check_resume
from longconn.core.namespaces import Action
from longconn.protocols.connection.peer import certificate_user, is_local, peer_of
from longconn.wire.authorization import read_credentials
from longconn.wire.origin import OriginRules, RequestOrigin

_STATUSES = {
    NAME_TAKEN: 503, PERMISSION_DENIED: 403, TOKEN_EXPIRED: 401, TOO_MANY_REQUESTS: 429, UNAUTHORIZED: 401,
    UNKNOWN_CHANNEL: 404, INTERNAL: 503,
}  # fmt: skip


class Applicant(Protocol):
    """The connection of a handshake; its mode, channel, name and identity are those that the handshake asks for."""

    transport: Any
    mode: str
    channel: str | None
    name: NameRequest | None
    identity: Identity | None
    headers: Mapping[str, str]


def admit(hub: Hub, rules: OriginRules, applicant: Applicant, request: ConnectionRequest) -> Deferred[None]:
    """Check a handshake, and read what it asks for. Raises ConnectionDeny, or fails with it."""
    headers = request.headers
    origin = _origin(applicant.transport, headers)
    refusal = rules.check(origin)
    if refusal is not None:
        raise ConnectionDeny(refusal.status, refusal.message)
    applicant.mode = "echo" if request.path.rpartition("/")[2] in ("echo", "websocket") else "chat"
    applicant.channel = request.params.get("channel", [None])[0]
    applicant.headers = hub.hooks.select(lambda name: headers.get(name, ""))
    host, address = peer_of(applicant.transport, hub.numbers)
    asking = Caller(host, address, address)
    try:
        hub.rates.count_request(asking)
        applicant.name = _name_request(request)
        if applicant.channel is not None:
            check_channel(applicant.channel)
        credentials = _credentials(hub, rules, origin, headers, applicant.transport)
    except CommandError as error:
        raise _denied(error) from None
    admitted: Deferred[None] = Deferred()

    def known(identity: Identity | CommandError) -> None:
        if isinstance(identity, CommandError) or applicant.mode != "chat":
            checked(identity)
            return
        asking.identify(identity)
        applicant.identity = identity
        hub.door.check(asking, Action.SUBSCRIBE, applicant.channel or hub.settings.default_channel, checked)

    def checked(result: object) -> None:
        try:
            if isinstance(result, CommandError):
                raise result
            if applicant.name is not None:
                hub.claim(applicant.name.name, asking.user, applicant.name.resume)
        except CommandError as error:
            admitted.errback(_denied(error))
        else:
            admitted.callback(None)

    if applicant.mode == "chat" and hub.gate.wants_login and not credentials:
        checked(None)  # it logs in by its first line
    else:
        hub.gate.admit(Admission("websocket", host, address, credentials, headers=applicant.headers), known)
    return admitted


def _name_request(request: ConnectionRequest) -> NameRequest | None:
    name, resume = (request.params.get(each, [None])[0] for each in ("name", "resume"))
    check_resume(resume or "")
    return None if name is None else NameRequest(name, resume or "")


def _origin(transport: Any, headers: dict[str, str]) -> RequestOrigin:
    return RequestOrigin(
        hosts=[headers["host"]],
        origins=[headers["origin"]] if "origin" in headers else [],
        fetch_site=headers.get("sec-fetch-site", ""),
        fetch_mode=headers.get("sec-fetch-mode", ""),
        local=is_local(transport),
        secure=ISSLTransport.providedBy(transport),
    )


def _credentials(
    hub: Hub, rules: OriginRules, origin: RequestOrigin, headers: dict[str, str], transport: Any
) -> Credentials:
    if not hub.gate.takes_credentials:
        return NO_CREDENTIALS
    cookie = hub.settings.token_cookie if rules.may_send_cookies(origin) else ""
    found = read_credentials(headers.get("authorization", ""), headers.get("cookie", ""), cookie)
    return found or Credentials(certificate=certificate_user(transport) if hub.gate.certificates else "")


def _status(error: CommandError) -> int:
    if error.reason.key == APPLICATION:
        return 503 if error.reason.temporary else 403
    return _STATUSES.get(error.reason, 400)


def _denied(error: CommandError) -> ConnectionDeny:
    return ConnectionDeny(_status(error), str(error))
