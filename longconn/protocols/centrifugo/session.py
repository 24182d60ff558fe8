"""The structured protocol, whatever carries its frames (`longconn.wire.centrifugo`; design, section 7)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Protocol

from longconn.core.broker import Done
from longconn.core.client import check_size
from longconn.core.disconnects import BAD_REQUEST as BAD_REQUEST_CLOSE
from longconn.core.disconnects import EXPIRED, IDLE, NO_PONG, Disconnect
from longconn.core.errors import BAD_DATA, INTERNAL, UNRECOVERABLE, CommandError
from longconn.core.hub import Hub, log
from longconn.core.names import check_channel
from longconn.core.namespaces import may_recover
from longconn.core.publication import History, Position
from longconn.core.tokens import Granted, SubscriptionToken
from longconn.protocols.centrifugo.commands import COMMANDS
from longconn.protocols.connection.command_queue import UNTIL_TOLD, CommandQueue, Reader
from longconn.protocols.connection.replies import Replies
from longconn.protocols.connection.socket_outlet import SocketOutlet
from longconn.wire.centrifugo import (
    PING,
    CentrifugoFormat,
    Command,
    Frame,
    MalformedError,
    error_reply,
    fields,
    flag,
    number,
    push,
    read_command,
    reply,
    subscribe_result,
    text,
)
from longconn.wire.sse import quoted

#: What the server calls itself to clients.
VERSION = "longconn"
#: Codes of `unsubscribe` pushes: from 2500 the client is to subscribe again.
UNSUBSCRIBE_EXPIRED = 2501
#: Seconds between two looks at what may have expired, where no pings are sent.
_CHECK = 25.0
#: A bit of a subscribe's `flag` (`subscriptionFlags` of the SDKs): rather refuse than miss something.
_REJECT_UNRECOVERED = 2
#: Subscribes and histories of one client that may be under way.
_AT_ONCE = 8
#: Seconds for which an expired connection may still bring a new token.
EXPIRY_GRACE = 25.0


class Carrier(Reader, Protocol):
    """What carries a session's frames. `frame` joins objects as it wants them."""

    frame: Frame
    protocol: str


class Session:
    """One client that speaks the structured protocol; `receive` gets its commands, one a line.

    The first command is `connect`; until it came in time, nothing else is answered. Replies of one
    turn go out in one frame, before the pushes that follow from them.
    """

    __slots__ = (
        "_carrier", "_coming", "_pending", "_pinged", "_replies", "client", "connected", "connecting",
        "due", "expires_at", "expiries", "hub", "id", "outlet", "queue",
    )  # fmt: skip

    def __init__(self, hub: Hub, outlet: SocketOutlet, carrier: Carrier, host: str, address: str) -> None:
        """Raises CommandError(LIMIT_EXCEEDED) where there are too many clients."""
        self.hub = hub
        self.queue: CommandQueue[bytes] = CommandQueue(hub.clock, hub.settings, carrier, self._execute)
        self._carrier = carrier
        self.outlet = outlet
        self.client = outlet.client = hub.connect(outlet, carrier.protocol, host, address)
        self.client.chat = False
        self.client.session = self
        #: names the session to `/emulation`; not the client's id, which others see
        self.id = secrets.token_urlsafe(18)
        self.connected = False
        self.connecting = False
        self._pinged = False
        self.expires_at: float | None = None
        # When subscriptions expire, by channel; None for never.
        self.expiries: dict[str, float | None] = {}
        self._replies = Replies(hub, outlet, carrier.frame, self.queue.go_on)
        # Answers under way that may be large; of subscribes by channel, with what answers them.
        self._pending = 0
        self._coming: dict[str, Callable[[Any], None]] = {}
        self.due = 0
        hub.sessions[self.id] = self
        if hub.settings.handshake_timeout:
            hub.wheel.set(self, hub.settings.handshake_timeout)

    def receive(self, lines: list[bytes]) -> None:
        """Commands that came in, a line each."""
        if self.connected:
            self._pinged = False
            self._wait_to_ping()
        self.queue.feed(lines)

    def stop(self) -> None:
        """The connection is lost."""
        self.hub.wheel.clear(self)
        self.hub.sessions.pop(self.id, None)
        self.queue.stop()
        self._replies.stop()
        self.client.gone()
        self.client.session = None  # a cycle would keep both in memory for a while
        for coming in tuple(self._coming.values()):
            coming(CommandError(INTERNAL))  # a back end may wait for it

    @property
    def waiting_bytes(self) -> int:
        """Bytes of commands that wait for the client's rate."""
        return sum(map(len, self.queue.waiting))

    # Time.

    def _wait_to_ping(self) -> None:
        self.hub.wheel.set(self, self.hub.settings.ping_interval or _CHECK)

    def on_due(self, now: float) -> None:
        """A ping is due, or its answer, or the first command."""
        settings = self.hub.settings
        patient = self.queue.held_back or self.outlet.queued
        if not self.connected and not patient:
            self.close(IDLE)
        elif self.expires_at is not None and now > self.expires_at + EXPIRY_GRACE:
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
        for channel, at in list(self.expiries.items()):
            if at is not None and now > at + EXPIRY_GRACE:
                self.unsubscribe(channel, UNSUBSCRIBE_EXPIRED, "subscription expired")

    def unsubscribe(self, channel: str, code: int, reason: str) -> None:
        """End a subscription from the server's side, and tell the client by a push."""
        self.expiries.pop(channel, None)
        if channel in self.client.subscriptions:
            self.client.unsubscribe(channel)
            coming = self._coming.pop(channel, None)
            if coming is not None:
                coming(CommandError(INTERNAL))  # its own answer never comes now
            self._replies.add(push(quoted(channel), "unsubscribe", fields(code=code, reason=reason)))

    # What the server API asks for (`longconn.server_api.operations.Session`).

    def subscribe_for_server(self, granted: SubscriptionToken, done: Done[None]) -> None:
        """Subscribe, and tell the client by a push; `done` is called if it leaves meanwhile, too. May raise."""
        channel = granted.channel

        def subscribed(result: bytes | CommandError) -> None:
            self._coming.pop(channel, None)
            if isinstance(result, CommandError):
                done(result)
            else:
                self._replies.add(push(quoted(channel), "subscribe", result))
                done(None)

        self.subscribe(channel, {}, subscribed, granted)
        self.note_coming(channel, subscribed)

    def note_coming(self, channel: str, done: Callable[[Any], None]) -> None:
        """If a subscribe is under way still, `done` is called also when it is given up."""
        subscription = self.client.subscriptions.get(channel)
        if subscription is not None and subscription.held is not None:
            self._coming[channel] = done

    def refresh_for_server(self, expires_at: float | None) -> None:
        """Let the connection expire at another time, and tell the client by a push."""
        self.expires_at = expires_at
        self._replies.add(b'{"push":{"refresh":%b}}' % fields(**self.expiry(expires_at)))

    def close(self, disconnect: Disconnect, why: str = "") -> None:
        """End the session, after the replies that it has."""
        self._replies.write()
        if why:
            log.info("%s client from %s closed: %s", self.client.protocol, self.client.address, why)
        self.client.close(disconnect)

    # Replies.

    def reply(self, command: Command, result: bytes = b"{}") -> None:
        """Answer a command."""
        self._replies.add(reply(command.id, command.method, result))

    def _refuse(self, command: Command, error: CommandError) -> None:
        if command.id:  # `send` has no reply
            self._replies.add(error_reply(command.id, error))

    def answer(self, command: Command, write: Callable[[Any], bytes]) -> Callable[[Any], None]:
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
                self.reply(command, written)

        return done

    def counted(self, done: Callable[[Any], None], channel: str | None = None) -> Callable[[Any], None]:
        """`done` of an answer that may be large: until it is called, it is one of few under way."""
        self._pending += 1

        def counted(result: Any) -> None:
            self._pending -= 1
            if channel is not None:
                self._coming.pop(channel, None)
            done(result)
            self.queue.go_on()

        return counted

    # Commands.

    def _execute(self, line: bytes) -> float:
        if not self.client.live:
            return 0.0
        if self.connecting or self._replies.many or self._pending >= _AT_ONCE:
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
        if command.method == "unsubscribe" and self._is_coming(command.body.get("channel")):
            return UNTIL_TOLD  # the subscribe is answered first
        wait = self.client.allowance() if command.method in ("publish", "send", "rpc") else self.queue.command_wait()
        if not wait:
            pending = self._pending
            try:
                check_size(command.size, self.hub.settings.max_message)
                COMMANDS[command.method](self, command)
            except CommandError as error:
                self._pending = pending
                self._refuse(command, error)
            except Exception:  # of a program's callable: its client alone is told
                log.exception("%s of %s client from %s", command.method, self.client.protocol, self.client.address)
                self._refuse(command, CommandError(INTERNAL))
        return wait

    def _is_coming(self, channel: object) -> bool:
        """Whether a subscribe to this, whatever it is, is under way."""
        return isinstance(channel, str) and channel in self._coming

    # What commands ask for.

    def arrived(self, command: Command, subs: dict[str, bytes]) -> None:
        """The subscriptions that the server makes are complete: the client is in."""
        settings = self.hub.settings
        self.connecting = False
        self.connected = True
        self.client.announce()
        self._wait_to_ping()
        members = b",".join([quoted(channel) + b":" + result for channel, result in subs.items()])
        result = fields(
            **self.introduction(),
            subs=b"{" + members + b"}" if subs else b"",
            ping=int(settings.ping_interval),
            pong=bool(settings.ping_interval and settings.pong_timeout),
            session=self.id,
            node=self.hub.node,
            **self.expiry(self.expires_at),
        )
        self.reply(command, result)
        self.queue.go_on()

    def introduction(self) -> dict[str, Any]:
        """What a client is told of itself and of us."""
        return {"client": self.client.id, "version": VERSION}

    def expiry(self, at: float | None) -> dict[str, Any]:
        """`expires` and `ttl`, in whole seconds, of something that expires at a time, if ever."""
        if at is None:
            return {}
        return {"expires": True, "ttl": max(1, round(at - self.hub.clock.seconds()))}

    def subscribe(
        self,
        channel: str,
        body: dict[str, Any],
        done: Callable[[bytes | CommandError], None],
        granted: Granted | SubscriptionToken | None = None,
    ) -> None:
        """Subscribe as `body` (a SubscribeRequest) says; `done` gets a SubscribeResult. Raises CommandError."""
        options = self.hub.namespaces.options(check_channel(channel))
        recovering = flag(body, "recover")
        since = Position(text(body, "epoch"), number(body, "offset")) if recovering else None
        refuses_loss = bool(number(body, "flag") & _REJECT_UNRECOVERED)
        join_leave = flag(body, "join_leave") or options.force_push_join_leave
        format = CentrifugoFormat(self._carrier.frame, options.join_leave and join_leave)
        expires_at = granted.expires_at if isinstance(granted, SubscriptionToken) else None
        # Not only to who asks for it: without it a client could not come back without a gap.
        recoverable = options.keeps and may_recover(channel, options, self.client.user)

        def subscribed(result: History | CommandError) -> None:
            if isinstance(result, CommandError):
                done(result)
                return
            if not result.recovered and refuses_loss:
                self.client.unsubscribe(channel)
                done(CommandError(UNRECOVERABLE))
                return
            self.expiries[channel] = expires_at
            if not result.recovered:
                result.publications = []  # a part of what was missed would pass for all of it
            done(
                subscribe_result(
                    result,
                    recovering=recovering,
                    recoverable=recoverable,
                    positioned=recoverable or (options.keeps and options.force_positioning),
                    data=granted.data if granted is not None else b"",
                    **self.expiry(expires_at),
                )
            )

        chan_info = granted.info if granted is not None else b""
        self.client.subscribe(channel, format, subscribed, since, granted is not None, chan_info)
