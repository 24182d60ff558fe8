"""What each command of the structured protocol does: a function of the session and the command, in `COMMANDS`.

They raise CommandError for what is refused; its reply is the caller's to write. Commands, their members
and what answers them are those of centrifugal/protocol, `definitions/client.proto`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from longconn.core.broker import Done
from longconn.core.client import Client
from longconn.core.disconnects import INVALID_TOKEN
from longconn.core.errors import BAD_REQUEST, METHOD_NOT_FOUND, NOT_AVAILABLE, TOKEN_EXPIRED, CommandError
from longconn.core.errors import PERMISSION_DENIED as PERMISSION_DENIED_ERROR
from longconn.core.hub import log
from longconn.core.names import check_channel
from longconn.core.namespaces import personal_channel
from longconn.core.publication import Data, History, Position
from longconn.core.tokens import ConnectionToken, Granted, SubscriptionToken, TokenError, Verifier
from longconn.protocols.centrifugo.connect import Arrival
from longconn.wire.centrifugo import Command, dump, fields, flag, history_result, inner, number, presence_result, text

if TYPE_CHECKING:
    from longconn.protocols.centrifugo.session import Session

#: Members of a subscribe that ask for what is not supported.
_UNSUPPORTED_SUBSCRIBE = ("delta", "tf", "type", "phase", "cursor")
#: Members of a publish that make it one of a map.
_MAP_PUBLISH = ("type", "key", "removed")
#: The rpc by which a client takes another name in the chat; a program's own of this name goes before it.
RENAME = "chat.rename"


# Coming in, and staying.


def _connect(session: Session, command: Command) -> None:
    hub, client = session.hub, session.client
    subs = inner(command.body, "subs") or {}
    asked = {channel: inner(subs, channel) or {} for channel in subs}
    try:
        claims = _identify(session, text(command.body, "token"))
    except TokenError as error:
        session.close(INVALID_TOKEN, str(error))
        return
    client.identify(claims.user, claims.info)
    name = _chat_name(command.body.get("data"))
    if name is not None:
        client.rename(name)
    session.expires_at = claims.expires_at
    granted = dict(claims.subs)
    personal = personal_channel(claims.user, hub.settings.user_personal_channel_namespace)
    if hub.settings.user_personal_channel and personal is not None:
        granted.setdefault(personal, Granted())
    session.connecting = True
    Arrival(session, command, granted, asked).start()


def _chat_name(data: Any) -> str | None:
    """Of a connect's `data`, which is the application's: the name of somebody who wants to be in the chat."""
    chat = data.get("chat") if isinstance(data, dict) else None
    return text(chat, "name") if isinstance(chat, dict) and chat.get("name") is not None else None


def _identify(session: Session, token: str) -> ConnectionToken:
    """Who connects. Raises TokenError, or CommandError(TOKEN_EXPIRED): then the client brings another."""
    verifier = session.hub.verifier
    if token:
        if verifier is None:
            raise TokenError("connection", "there is no key here to check it")
        return verifier.connection(token, session.hub.clock.seconds())
    if not session.hub.settings.anonymous_connect:
        raise TokenError("connection", "there is none")
    return ConnectionToken("")


def _verifier(session: Session) -> Verifier:
    verifier = session.hub.verifier
    if verifier is None:
        raise CommandError(NOT_AVAILABLE, what="tokens")
    return verifier


def _refresh(session: Session, command: Command) -> None:
    verifier = _verifier(session)
    try:
        claims = verifier.connection(text(command.body, "token"), session.hub.clock.seconds())
        if claims.user != session.client.user:
            raise TokenError("connection", "it is for another user")
    except TokenError as error:
        session.close(INVALID_TOKEN, str(error))
        return
    session.expires_at = claims.expires_at
    session.reply(command, fields(**session.introduction(), **session.expiry(claims.expires_at)))


# Channels.


def _subscribe(session: Session, command: Command) -> None:
    body = command.body
    channel = text(body, "channel")
    for unsupported in _UNSUPPORTED_SUBSCRIBE:
        if body.get(unsupported):
            raise CommandError(NOT_AVAILABLE, what=unsupported)
    token = text(body, "token")
    granted = None
    if token:
        try:
            granted = _subscription_token(session, channel, token)
        except TokenError as error:
            # A good one for somebody else is taken for an attempt, one that cannot be read for a mistake.
            if error.mismatch:
                session.close(INVALID_TOKEN, str(error))
                return
            log.info("%s client from %s refused: %s", session.client.protocol, session.client.address, error)
            raise CommandError(PERMISSION_DENIED_ERROR, what="subscribe to", channel=channel) from None
    done = session.counted(session.answer(command, bytes), channel)
    session.subscribe(channel, body, done, granted)
    session.note_coming(channel, done)


def _subscription_token(session: Session, channel: str, token: str) -> SubscriptionToken:
    client = session.client
    return _verifier(session).subscription(token, channel, client.user, session.hub.clock.seconds(), client.id)


def _sub_refresh(session: Session, command: Command) -> None:
    body = command.body
    channel = text(body, "channel")
    if body.get("type"):
        raise CommandError(NOT_AVAILABLE, what="shared poll")
    subscription = session.client.subscriptions.get(channel)
    if subscription is None:
        raise CommandError(PERMISSION_DENIED_ERROR, what="refresh", channel=channel)
    try:
        token = _subscription_token(session, channel, text(body, "token"))
    except TokenError as error:
        session.close(INVALID_TOKEN, str(error))
        return
    except CommandError as error:
        if error.reason is not TOKEN_EXPIRED:
            raise
        # It stays as it was, and the client asks for a newer one before that ends.
    else:
        session.expiries[channel] = token.expires_at
        subscription.chan_info = token.info
    session.reply(command, fields(**session.expiry(session.expiries.get(channel))))


def _unsubscribe(session: Session, command: Command) -> None:
    channel = text(command.body, "channel")
    if channel in session.client.subscriptions:
        session.client.unsubscribe(channel)
        session.expiries.pop(channel, None)
    session.reply(command)


def _publish(session: Session, command: Command) -> None:
    channel = text(command.body, "channel")
    raw = command.raw("data")
    if raw is None:
        raise CommandError(BAD_REQUEST, what="publish without data")
    if any(map(command.body.get, _MAP_PUBLISH)):
        raise CommandError(NOT_AVAILABLE, what="map publish")
    session.client.publish(channel, Data.of_json(raw), session.answer(command, lambda position: b"{}"))


def _presence(session: Session, command: Command) -> None:
    infos = session.client.presence(text(command.body, "channel"))
    session.queue.charge(len(infos))
    session.reply(command, presence_result(infos))


def _presence_stats(session: Session, command: Command) -> None:
    infos = session.client.presence(text(command.body, "channel"))
    session.queue.charge(len(infos))
    session.reply(command, dump({"num_clients": len(infos), "num_users": len({each.user for each in infos})}))


def _history(session: Session, command: Command) -> None:
    body = command.body
    channel = text(body, "channel")
    if not session.hub.namespaces.options(check_channel(channel)).keeps:
        raise CommandError(NOT_AVAILABLE, what="history")
    limit = number(body, "limit", low=-1)
    reverse = flag(body, "reverse")
    asked = inner(body, "since")
    since = None if asked is None else Position(text(asked, "epoch"), number(asked, "offset"))
    answer = session.counted(session.answer(command, history_result))

    def known(result: History | CommandError) -> None:
        answer(result if isinstance(result, CommandError) else result.page(since, limit, reverse))

    session.client.history(channel, known, None, -1 if limit else 0)


# The rest.


def _ping(session: Session, command: Command) -> None:
    session.reply(command)


def _send(session: Session, command: Command) -> None:
    handler = session.hub.on_send
    if handler is not None:
        handler(session.client, command.body.get("data"))


def _rpc(session: Session, command: Command) -> None:
    methods = session.hub.rpc
    name = text(command.body, "method")
    method = methods.get(name, _rename if name == RENAME else None)
    if method is None:
        raise CommandError(METHOD_NOT_FOUND) if methods else CommandError(NOT_AVAILABLE, what="rpc")
    method(session.client, command.body.get("data"), session.answer(command, lambda value: fields(data=dump(value))))


def _rename(client: Client, data: Any, done: Done[Any]) -> None:
    if not isinstance(data, dict):
        raise CommandError(BAD_REQUEST, what='data is {"name"}')
    client.rename(text(data, "name"))
    done({"name": client.name})


COMMANDS: dict[str, Callable[[Session, Command], None]] = {
    "connect": _connect,
    "refresh": _refresh,
    "subscribe": _subscribe,
    "sub_refresh": _sub_refresh,
    "unsubscribe": _unsubscribe,
    "publish": _publish,
    "presence": _presence,
    "presence_stats": _presence_stats,
    "history": _history,
    "ping": _ping,
    "send": _send,
    "rpc": _rpc,
}
