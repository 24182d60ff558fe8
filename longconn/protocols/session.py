"""The structured protocol, whatever carries its frames (`longconn.wire.structured`; design, section 7)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from longconn.core.broker import Done
from longconn.core.client import check_size
from longconn.core.disconnects import BAD_REQUEST as BAD_REQUEST_CLOSE
from longconn.core.disconnects import EXPIRED, IDLE, INVALID_TOKEN, NO_PONG, Disconnect
from longconn.core.errors import (
    BAD_DATA,
    BAD_REQUEST,
    INTERNAL,
    METHOD_NOT_FOUND,
    NOT_AVAILABLE,
    UNRECOVERABLE,
    CommandError,
)
from longconn.core.errors import PERMISSION_DENIED as PERMISSION_DENIED_ERROR
from longconn.core.hub import Hub, log
from longconn.core.names import check_channel
from longconn.core.namespaces import personal_channel
from longconn.core.publication import Data, History, Position
from longconn.core.tokens import ConnectionToken, Granted, SubscriptionToken, TokenError
from longconn.protocols.arrival import Arrival
from longconn.protocols.intake import UNTIL_TOLD, Intake, Reader
from longconn.protocols.outlet import Outlet
from longconn.wire.streams import quoted
from longconn.wire.structured import (
    PING,
    Command,
    Frame,
    MalformedError,
    StructuredFormat,
    dump,
    error_reply,
    fields,
    history_result,
    presence_result,
    push,
    read_command,
    reply,
    subscribe_result,
)

#: What the server calls itself to clients.
VERSION = "longconn"
#: Codes of `unsubscribe` pushes: from 2500 the client is to subscribe again.
UNSUBSCRIBE_EXPIRED = 2501
#: Seconds between two looks at what may have expired, where no pings are sent.
_CHECK = 25.0
#: A bit of a subscribe's `flag` (`subscriptionFlags` of the SDKs): rather refuse than miss something.
_REJECT_UNRECOVERED = 2
#: Bytes of replies from which on the next command waits until they are sent.
_MUCH = 64 * 1024
#: Subscribes and histories of one client that may be under way.
_AT_ONCE = 8
#: Seconds for which an expired connection may still bring a new token.
EXPIRY_GRACE = 25.0


class Carrier(Reader, Protocol):
    """What carries a session's frames. `frame` joins objects as it wants them."""

    frame: Frame
    protocol: str


class Session(Intake[bytes]):
    """One client that speaks the structured protocol; `receive` gets its commands, one a line.

    The first command is `connect`; until it came in time, nothing else is answered. Replies of one
    turn go out in one frame, before the pushes that follow from them.
    """

    __slots__ = (
        "_carrier",
        "_coming",
        "_connecting",
        "_expires_at",
        "_expiries",
        "_pending",
        "_pinged",
        "_replies",
        "_unsent",
        "client",
        "connected",
        "due",
        "id",
        "outlet",
    )

    def __init__(self, hub: Hub, outlet: Outlet, carrier: Carrier, host: str, address: str) -> None:
        """Raises CommandError(LIMIT_EXCEEDED) where there are too many clients."""
        super().__init__(hub, carrier)
        self._carrier = carrier
        self.outlet = outlet
        self.client = outlet.client = hub.connect(outlet, carrier.protocol, host, address)
        self.client.chat = False
        self.client.session = self
        #: names the session to `/emulation`; not the client's id, which others see
        self.id = secrets.token_urlsafe(18)
        self.connected = False
        self._connecting = False
        self._pinged = False
        self._expires_at: float | None = None
        # When subscriptions expire, by channel; None for never.
        self._expiries: dict[str, float | None] = {}
        self._replies: list[bytes] = []
        # Answers under way that may be large; of subscribes by channel, with what answers them.
        self._pending = 0
        self._coming: dict[str, Callable[[Any], None]] = {}
        # Bytes of replies that were not handed to the outlet, or wait there as a backlog.
        self._unsent = 0
        self.due = 0
        hub.sessions[self.id] = self
        if hub.settings.handshake_timeout:
            hub.wheel.set(self, hub.settings.handshake_timeout)

    def receive(self, lines: list[bytes]) -> None:
        """Commands that came in, a line each."""
        if self.connected:
            self._pinged = False
            self._wait_to_ping()
        self.take(lines)

    def stop(self) -> None:
        """The connection is lost."""
        self.hub.wheel.clear(self)
        self.hub.sessions.pop(self.id, None)
        self.forget()
        self.client.gone()
        self.client.session = None  # a cycle would keep both in memory for a while
        for coming in tuple(self._coming.values()):
            coming(CommandError(INTERNAL))  # a back end may wait for it

    @property
    def waiting_bytes(self) -> int:
        """Bytes of commands that wait for the client's rate."""
        return sum(map(len, self._waiting or ()))

    @property
    def over(self) -> bool:
        return not self.client.live

    # Time.

    def _wait_to_ping(self) -> None:
        self.hub.wheel.set(self, self.hub.settings.ping_interval or _CHECK)

    def on_due(self, now: float) -> None:
        """A ping is due, or its answer, or the first command."""
        settings = self.hub.settings
        patient = self.held_back or self.outlet.queued
        if not self.connected and not patient:
            self.close(IDLE)
        elif self._expires_at is not None and now > self._expires_at + EXPIRY_GRACE:
            self.close(EXPIRED)
        elif self._pinged and not patient and settings.pong_timeout:
            self.close(NO_PONG)
        else:
            self._drop_expired(now)
            if self.connected and settings.ping_interval and not patient:
                self._pinged = True
                self.outlet.write(self._carrier.frame((PING,)))
            self.hub.wheel.set(self, (settings.pong_timeout if self._pinged else 0) or settings.ping_interval or _CHECK)

    def _drop_expired(self, now: float) -> None:
        """End subscriptions whose tokens expired and were not refreshed."""
        for channel, at in list(self._expiries.items()):
            if at is not None and now > at + EXPIRY_GRACE:
                self.unsubscribe(channel, UNSUBSCRIBE_EXPIRED, "subscription expired")

    def unsubscribe(self, channel: str, code: int, reason: str) -> None:
        """End a subscription from the server's side, and tell the client by a push."""
        self._expiries.pop(channel, None)
        if channel in self.client.subscriptions:
            self.client.unsubscribe(channel)
            coming = self._coming.pop(channel, None)
            if coming is not None:
                coming(CommandError(INTERNAL))  # its own answer never comes now
            self._reply(push(quoted(channel), "unsubscribe", fields(code=code, reason=reason)))

    # What the server API asks for (`longconn.core.api.Session`).

    def subscribe_for_server(self, granted: SubscriptionToken, done: Done[None]) -> None:
        """Subscribe, and tell the client by a push; `done` is called if it leaves meanwhile, too. May raise."""
        channel = granted.channel

        def subscribed(result: bytes | CommandError) -> None:
            self._coming.pop(channel, None)
            if isinstance(result, CommandError):
                done(result)
            else:
                self._reply(push(quoted(channel), "subscribe", result))
                done(None)

        self.subscribe(channel, {}, subscribed, granted)
        self._note_coming(channel, subscribed)

    def _note_coming(self, channel: str, done: Callable[[Any], None]) -> None:
        """If a subscribe is under way still, `done` is called also when it is given up."""
        subscription = self.client.subscriptions.get(channel)
        if subscription is not None and subscription.held is not None:
            self._coming[channel] = done

    def refresh_for_server(self, expires_at: float | None) -> None:
        """Let the connection expire at another time, and tell the client by a push."""
        self._expires_at = expires_at
        self._reply(b'{"push":{"refresh":%b}}' % fields(**self._expiry(expires_at)))

    def close(self, disconnect: Disconnect, why: str = "") -> None:
        """End the session, after the replies that it has."""
        self._write_replies()
        if why:
            log.info("%s client from %s closed: %s", self.client.protocol, self.client.address, why)
        self.client.close(disconnect)

    # Replies.

    def _reply(self, data: bytes) -> None:
        self._replies.append(data)
        self._unsent += len(data)
        if len(self._replies) == 1:
            self.hub.answer_first(self._write_replies)

    def _write_replies(self) -> None:
        replies, self._replies = self._replies, []
        if not replies:
            return
        if self._unsent < _MUCH:
            self._unsent = 0
            self.outlet.write(self._carrier.frame(replies))
        else:
            # What it missed and what it asked for is paced by its reading, and so are its commands.
            self.outlet.write_backlog(self._backlog(self._carrier.frame(replies)))

    def _backlog(self, frame: bytes) -> Iterator[bytes]:
        yield frame
        self._unsent = 0
        self.go_on_soon()

    def _refuse(self, command: Command, error: CommandError) -> None:
        if command.id:  # `send` has no reply
            self._reply(error_reply(command.id, error))

    def _done(self, command: Command, write: Callable[[Any], bytes]) -> Callable[[Any], None]:
        """What answers `command` when the broker has: with its result as `write` writes it, or its error."""

        def done(result: Any) -> None:
            if isinstance(result, CommandError):
                self._refuse(command, result)
                return
            try:
                written = write(result)
            except RecursionError:  # nested by the peer as deeply as the parser goes
                self._refuse(command, CommandError(BAD_DATA, what="JSON"))
            else:
                self._reply(reply(command.id, command.method, written))

        return done

    def _counted(self, done: Callable[[Any], None], channel: str | None = None) -> Callable[[Any], None]:
        """`done` of an answer that may be large: until it is called, it is one of few under way."""
        self._pending += 1

        def counted(result: Any) -> None:
            self._pending -= 1
            if channel is not None:
                self._coming.pop(channel, None)
            done(result)
            self.go_on_soon()

        return counted

    # Commands.

    def act(self, line: bytes) -> float:
        if self._connecting or self._unsent >= _MUCH or self._pending >= _AT_ONCE:
            return UNTIL_TOLD
        if not line:
            return 0.0
        try:
            command = read_command(line)
        except MalformedError as error:
            self.close(BAD_REQUEST_CLOSE, str(error))
            return 0.0
        if not command.method:
            return 0.0  # a pong: that something came was noted already
        if self.connected == (command.method == "connect"):
            self.close(BAD_REQUEST_CLOSE, f"{command.method} {'again' if self.connected else 'before connect'}")
            return 0.0
        if command.method == "unsubscribe" and command.body.get("channel") in self._coming:
            return UNTIL_TOLD  # the subscribe is answered first
        wait = self.client.allowance() if command.method in ("publish", "send", "rpc") else self.command_wait()
        if not wait:
            pending = self._pending
            try:
                check_size(command.size, self.hub.settings.max_message)
                getattr(self, "_do_" + command.method)(command)
            except CommandError as error:
                self._pending = pending
                self._refuse(command, error)
            except Exception:  # of a program's callable: its client alone is told
                log.exception("%s of %s client from %s", command.method, self.client.protocol, self.client.address)
                self._refuse(command, CommandError(INTERNAL))
        return wait

    # Coming in.

    def _do_connect(self, command: Command) -> None:
        hub = self.hub
        token = _text(command.body, "token")
        try:
            claims = self._identify(token)
        except TokenError as error:
            self.close(INVALID_TOKEN, str(error))
            return
        self.client.identify(claims.user, claims.info)
        self._expires_at = claims.expires_at
        granted = dict(claims.subs)
        personal = personal_channel(claims.user, hub.settings.user_personal_channel_namespace)
        if hub.settings.user_personal_channel and personal is not None:
            granted.setdefault(personal, Granted())
        self._connecting = True
        Arrival(self, command, granted).start()

    def _identify(self, token: str) -> ConnectionToken:
        """Who connects. Raises TokenError, or CommandError(TOKEN_EXPIRED): then the client brings another."""
        verifier = self.hub.verifier
        if token:
            if verifier is None:
                raise TokenError("connection", "there is no key here to check it")
            return verifier.connection(token, self.hub.clock.seconds())
        if not self.hub.settings.anonymous_connect:
            raise TokenError("connection", "there is none")
        return ConnectionToken("")

    def arrived(self, command: Command, subs: dict[str, bytes]) -> None:
        """The subscriptions that the server makes are complete: the client is in."""
        settings = self.hub.settings
        self._connecting = False
        self.connected = True
        self.client.announce()
        self._wait_to_ping()
        members = b",".join([quoted(channel) + b":" + result for channel, result in subs.items()])
        result = fields(
            client=self.client.id,
            version=VERSION,
            subs=b"{" + members + b"}" if subs else b"",
            ping=int(settings.ping_interval),
            pong=bool(settings.ping_interval and settings.pong_timeout),
            session=self.id,
            node=self.hub.node,
            **self._expiry(self._expires_at),
        )
        self._reply(reply(command.id, "connect", result))
        self.go_on_soon()

    def _expiry(self, at: float | None) -> dict[str, Any]:
        """`expires` and `ttl`, in whole seconds, of something that expires at a time, if ever."""
        if at is None:
            return {}
        return {"expires": True, "ttl": max(1, round(at - self.hub.clock.seconds()))}

    def _do_refresh(self, command: Command) -> None:
        verifier = self.hub.verifier
        if verifier is None:
            raise CommandError(NOT_AVAILABLE, what="tokens")
        try:
            claims = verifier.connection(_text(command.body, "token"), self.hub.clock.seconds())
            if claims.user != self.client.user:
                raise TokenError("connection", "it is for another user")
        except TokenError as error:
            self.close(INVALID_TOKEN, str(error))
            return
        self._expires_at = claims.expires_at
        result = fields(client=self.client.id, version=VERSION, **self._expiry(claims.expires_at))
        self._reply(reply(command.id, "refresh", result))

    # Channels.

    def _do_sub_refresh(self, command: Command) -> None:
        body = command.body
        channel = _text(body, "channel")
        if body.get("type"):
            raise CommandError(NOT_AVAILABLE, what="shared poll")
        if channel not in self.client.subscriptions:
            raise CommandError(PERMISSION_DENIED_ERROR, what="refresh", channel=channel)
        token = self._subscription_token(channel, _text(body, "token"))
        self._expiries[channel] = token.expires_at
        self._reply(reply(command.id, "sub_refresh", fields(**self._expiry(token.expires_at))))

    def _subscription_token(self, channel: str, token: str) -> SubscriptionToken:
        verifier = self.hub.verifier
        if verifier is None:
            raise CommandError(NOT_AVAILABLE, what="tokens")
        client = self.client
        try:
            return verifier.subscription(token, channel, client.user, self.hub.clock.seconds(), client.id)
        except TokenError as error:
            log.info("%s client from %s refused: %s", client.protocol, client.address, error)
            raise CommandError(PERMISSION_DENIED_ERROR, what="subscribe to", channel=channel) from None

    def subscribe(
        self,
        channel: str,
        body: dict[str, Any],
        done: Callable[[bytes | CommandError], None],
        granted: Granted | SubscriptionToken | None = None,
    ) -> None:
        """Subscribe as `body` (a SubscribeRequest) says; `done` gets a SubscribeResult. Raises CommandError."""
        options = self.hub.namespaces.options(check_channel(channel))
        recovering = bool(body.get("recover"))
        since = Position(_text(body, "epoch"), _number(body, "offset")) if recovering else None
        refuses_loss = bool(_number(body, "flag") & _REJECT_UNRECOVERED)
        forced = options.force_push_join_leave
        format = StructuredFormat(self._carrier.frame, options.join_leave and (forced or bool(body.get("join_leave"))))
        expires_at = granted.expires_at if isinstance(granted, SubscriptionToken) else None
        keeps = bool(options.history_size and options.history_ttl)

        def subscribed(result: History | CommandError) -> None:
            if isinstance(result, CommandError):
                done(result)
                return
            if not result.recovered and refuses_loss:
                self.client.unsubscribe(channel)
                done(CommandError(UNRECOVERABLE))
                return
            self._expiries[channel] = expires_at
            if not result.recovered:
                result.publications = []  # a part of what was missed would pass for all of it
            done(
                subscribe_result(
                    result,
                    recovering=recovering,
                    recoverable=keeps,
                    data=granted.data if granted is not None else b"",
                    **self._expiry(expires_at),
                )
            )

        self.client.subscribe(channel, format, subscribed, since, granted is not None)

    def _do_ping(self, command: Command) -> None:
        self._reply(reply(command.id, "ping"))

    def _do_subscribe(self, command: Command) -> None:
        body = command.body
        channel = _text(body, "channel")
        for unsupported in ("delta", "tf", "type", "phase", "cursor"):
            if body.get(unsupported):
                raise CommandError(NOT_AVAILABLE, what=unsupported)
        token = _text(body, "token")
        granted = self._subscription_token(channel, token) if token else None
        done = self._counted(self._done(command, bytes), channel)
        self.subscribe(channel, body, done, granted)
        self._note_coming(channel, done)

    def _do_unsubscribe(self, command: Command) -> None:
        channel = _text(command.body, "channel")
        if channel in self.client.subscriptions:
            self.client.unsubscribe(channel)
            self._expiries.pop(channel, None)
        self._reply(reply(command.id, "unsubscribe"))

    def _do_publish(self, command: Command) -> None:
        body = command.body
        channel = _text(body, "channel")
        raw = command.raw("data")
        if raw is None:
            raise CommandError(BAD_REQUEST, what="publish without data")
        if body.get("type") or body.get("key") or body.get("removed"):
            raise CommandError(NOT_AVAILABLE, what="map publish")
        self.client.publish(channel, Data.of_json(raw), self._done(command, lambda position: b"{}"))

    def _do_presence(self, command: Command) -> None:
        infos = self.client.presence(_text(command.body, "channel"))
        self._reply(reply(command.id, "presence", presence_result(infos)))

    def _do_presence_stats(self, command: Command) -> None:
        infos = self.client.presence(_text(command.body, "channel"))
        users = len({each.user for each in infos})
        self._reply(reply(command.id, "presence_stats", dump({"num_clients": len(infos), "num_users": users})))

    def _do_history(self, command: Command) -> None:
        body = command.body
        limit = _number(body, "limit", low=-1)
        reverse = bool(body.get("reverse"))
        asked = body.get("since")
        since = Position(_text(asked, "epoch"), _number(asked, "offset")) if isinstance(asked, dict) else None
        answer = self._counted(self._done(command, history_result))

        def known(result: History | CommandError) -> None:
            answer(result if isinstance(result, CommandError) else result.page(since, limit, reverse))

        self.client.history(_text(body, "channel"), known, None, -1 if limit else 0)

    def _do_send(self, command: Command) -> None:
        handler = self.hub.on_send
        if handler is not None:
            handler(self.client, command.body.get("data"))

    def _do_rpc(self, command: Command) -> None:
        if not self.hub.rpc:
            raise CommandError(NOT_AVAILABLE, what="rpc")
        method = self.hub.rpc.get(_text(command.body, "method"))
        if method is None:
            raise CommandError(METHOD_NOT_FOUND)
        method(self.client, command.body.get("data"), self._done(command, lambda value: fields(data=dump(value))))


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise CommandError(BAD_REQUEST, what=f"{name} is no string")
    return value


def _number(body: dict[str, Any], name: str, low: int = 0) -> int:
    value = body.get(name, 0)
    if type(value) is not int or not low <= value < 2**63:
        raise CommandError(BAD_REQUEST, what=f"{name} is no number from {low}")
    return value
