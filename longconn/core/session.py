"""The session of a program: its identity, subscriptions, expiries, and commands in their order.

There is one for every protocol of programs. A codec turns bytes into commands, and results and pushes into
bytes; a carrier hands over items (`receive`), and stops reading while the session cannot take more.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from longconn.core import commands
from longconn.core.asking import request_of
from longconn.core.broker import Done
from longconn.core.channel import BATCH_BYTES
from longconn.core.client import Outlet, Subscription
from longconn.core.codec import Codec
from longconn.core.command_queue import EMPTY, UNTIL_TOLD, CommandQueue, Reader
from longconn.core.commands import MalformedCommandError, RefusedCommand, Result, SubscribeResult
from longconn.core.disconnects import BAD_REQUEST as BAD_REQUEST_CLOSE
from longconn.core.disconnects import EXPIRED, IDLE, INVALID_TOKEN, NO_PONG, Disconnect
from longconn.core.errors import (
    NOT_AVAILABLE,
    PERMISSION_DENIED,
    TOKEN_EXPIRED,
    CommandError,
)
from longconn.core.hooks import HookDisconnectError, HookReply
from longconn.core.hub import Hub
from longconn.core.identity import Admission, AdmissionError, Credentials, Granted, Identity
from longconn.core.log import about, log
from longconn.core.names import check_resume
from longconn.core.namespaces import personal_channel
from longconn.core.program_calls import RENAME, call_program, send_to_program
from longconn.core.publication import History, Info, Position
from longconn.core.replies import Replies
from longconn.core.session_subscriptions import SessionSubscriptions
from longconn.core.timers import until
from longconn.core.tokens import SubscriptionToken, TokenError

_T = TypeVar("_T")

#: How the server calls itself to clients.
VERSION = "longconn"
#: The code of the push that ends an expired subscription.
UNSUBSCRIBE_EXPIRED = 2501
#: Subscribes and reads of history that may be under way for one client: their answers may be large.
_LARGE_AT_ONCE = 8


class Session:
    """One client that sends commands. The first is `connect`; until it came in time, nothing else is answered.

    `protocol` is how the client is connected. `on_refused` is called, and the client not answered, if its connect is
    refused; without it the refusal is a reply, and the client may connect again. `on_answered` is called when a
    command was answered later than within its call. Without `pings` the session sends none: its carrier does.
    `identity` is the one that the carrier's own opening has proved, if it has; a token in the connect goes first.
    """

    __slots__ = (
        "_identity", "_large", "_on_answered", "_on_refused", "_ping_interval", "_pinged", "_pong_timeout",
        "_quiet_since", "_replies", "_subscriptions", "_unanswered", "client", "codec", "connected", "connecting",
        "due", "expires_at", "hub", "id", "outlet", "queue",
    )  # fmt: skip

    #: it sees to the end of the client's token and of its subscriptions
    keeps_time = True

    def __init__(
        self,
        hub: Hub,
        outlet: Outlet,
        codec: Codec,
        reader: Reader,
        protocol: str,
        host: str,
        address: str,
        on_refused: Callable[[CommandError], None] | None = None,
        on_answered: Callable[[], None] | None = None,
        pings: bool = True,
        identity: Identity | None = None,
    ) -> None:
        """Raises CommandError(LIMIT_EXCEEDED) where there are too many clients."""
        self.hub = hub
        self.outlet = outlet
        self.client = outlet.client = hub.connect(outlet, protocol, host, address)
        self.client.chat = False
        self.client.session = self
        #: names the session to `/emulation`; the client's id would not do, because others see it
        self.id = secrets.token_urlsafe(18)
        self.connected = False
        #: whether the connect is under way: whoever decides is asked, and the server's subscriptions are made
        self.connecting = False
        self._identity = identity
        #: when the connection expires, in seconds since 1970; None for never
        self.expires_at: float | None = None
        self.queue: CommandQueue[Any] = CommandQueue(
            hub.clock, hub.command_rates, hub.slices, host, reader, self._execute, self._publish_many
        )
        self.client.queue = self.queue
        self.codec = codec
        self._replies = Replies(hub.turn, outlet, codec.frame, self._go_on)
        self._on_refused = on_refused
        self._on_answered = on_answered
        self._subscriptions = SessionSubscriptions(hub, self.client, codec.format, self._wait, self._expire)
        # Answers under way, and those of them that may be large.
        self._unanswered = 0
        self._large = 0
        # Pings: seconds between them, until the pong must come (0: none is awaited), since when nothing came.
        self._ping_interval = hub.settings.ping_interval if pings else 0.0
        self._pong_timeout = hub.settings.pong_timeout
        self._pinged = False
        self._quiet_since = hub.clock.seconds()
        #: the second at which its timer ends (`Timed` in core/timers.py)
        self.due = 0
        hub.sessions[self.id] = self
        if hub.settings.handshake_timeout:
            hub.wheel.set(self, hub.settings.handshake_timeout)

    def receive(self, items: list[Any]) -> None:
        """Items came in: the codec reads a command from each."""
        if self._pong_timeout:
            self._pinged = False
            self._quiet_since = self.hub.clock.seconds()
        self.queue.feed(items)

    def stop(self) -> None:
        """The connection is lost."""
        self.hub.wheel.clear(self)
        self.hub.sessions.pop(self.id, None)
        self.queue.stop()
        self._replies.stop()
        self._on_refused = self._on_answered = None
        self.client.gone()
        self.client.session = self.client.queue = None  # the cycle would keep both in memory for a while
        self._subscriptions.stop()

    def close(self, disconnect: Disconnect, why: str = "") -> None:
        """End the session, after the replies that it has; the log says why."""
        self._replies.write()
        if why:
            log.info(
                "%s client from %s closed: %s",
                self.client.protocol,
                self.client.address,
                why,
                extra=about("client_closed", self.client, code=disconnect.code),
            )
        self.client.close(disconnect)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of commands that wait, where an item is bytes."""
        return sum(map(len, self.queue.waiting))

    @property
    def answered(self) -> bool:
        """Whether every command that was executed is answered, and none waits."""
        return not (self._unanswered or self.connecting or self.queue.held_back)

    def write_replies(self) -> None:
        """Write the replies that there are: the connection is about to end."""
        self._replies.write()

    # Time.

    def on_due(self, now: float) -> None:
        """The timer ended: the first command, a ping or its pong is due, or a token has expired."""
        patient = self.queue.held_back or self.outlet.queued
        # Tokens expire by the wall clock, which may be set. `now` is the time of another clock.
        expired = self.hub.wall_time() - self.codec.expiry_grace
        if not (self.connected or self.connecting or patient):
            self.close(IDLE)
            return
        if self.expires_at is not None and expired >= self.expires_at:
            asked_of, self.expires_at = self.expires_at, None
            if not self.hub.gate.renew(self.client, self._renewed):
                self.expires_at = asked_of
                self.close(EXPIRED)
                return
        for channel, at in list(self._subscriptions.expiries.items()):
            if expired >= at and not self._subscriptions.renew(channel):
                self._expire(channel)
        # What the client sent while its commands waited, also a pong, is read only after that.
        silent = now - max(self._quiet_since, self.queue.held_until)
        if self._pinged and not patient and silent >= self._pong_timeout:
            self.close(NO_PONG)
            return
        if (
            self.connected
            and not patient
            and self._ping_interval
            and not self._pinged
            and silent >= self._ping_interval
        ):
            self._pinged = bool(self._pong_timeout)
            self._quiet_since = now
            self.outlet.write(self.codec.frame((self.codec.ping,)))
        self._wait()

    def _expire(self, channel: str) -> None:
        self.unsubscribe(channel, UNSUBSCRIBE_EXPIRED, "subscription expired")

    def _renewed(self, identity: Identity | CommandError) -> None:
        """The application has decided whether the client may stay."""
        if not self.client.live:
            return
        if isinstance(identity, CommandError):
            self.close(identity.disconnect if isinstance(identity, AdmissionError) else EXPIRED)
            return
        self.hub.identify(self.client, identity)
        self.expires_at = identity.expires_at
        self._wait()

    def _wait(self) -> None:
        """Be due when the next thing is."""
        now = self.hub.clock.seconds()
        expired = self.hub.wall_time() - self.codec.expiry_grace
        waits = [until(at, expired) for at in self._subscriptions.expiries.values()]
        if self.expires_at is not None:
            waits.append(until(self.expires_at, expired))
        interval = self._pong_timeout if self._pinged else self._ping_interval
        if interval:
            # Where it is late, something keeps it from being done: look again after another interval.
            at = self._quiet_since + interval
            waits.append(at - now if at > now else interval)
        if waits and self.client.live:
            self.hub.wheel.set(self, min(waits))
        else:
            self.hub.wheel.clear(self)

    # Commands.

    def _execute(self, item: Any) -> float:
        """Execute an item, and return 0; or return the seconds for which it must wait."""
        if self.connecting or self._large >= _LARGE_AT_ONCE or self._replies.large:
            return UNTIL_TOLD
        if not self.client.live:
            self.queue.close()
            return 0.0
        try:
            command = self.codec.read(item)
        except MalformedCommandError as error:
            self.close(BAD_REQUEST_CLOSE, str(error))
            return 0.0
        if command is None:
            return self.queue.command_wait(EMPTY)
        kind = type(command)
        connects = kind is commands.Connect or (isinstance(command, RefusedCommand) and command.method == "connect")
        if self.connected is connects:
            text = "connect again" if self.connected else f"{kind.__name__.lower()} before connect"
            self.close(BAD_REQUEST_CLOSE, text)
            return 0.0
        if kind is commands.Publish:
            return self._publish(command)  # type: ignore[arg-type]
        if kind is commands.Unsubscribe and self._subscriptions.is_pending(command.channel):  # type: ignore[union-attr]
            return UNTIL_TOLD  # the subscribe is answered first
        wait = self.queue.command_wait()
        if not wait:
            try:
                _EXECUTE[kind](self, command)
            except CommandError as error:
                self._refuse(command.id, error)
        return wait

    def _reply(self, id: int, result: Result) -> None:
        self._replies.add(self.codec.reply(id, result))

    def _refuse(self, id: int, error: CommandError) -> None:
        self.hub.counters.refusals[error.reason.key] += 1
        if self._on_refused is not None and not self.connected:
            self._on_refused(error)
        elif id:  # `send` has no reply
            self._replies.add(self.codec.refusal(id, error))

    def _answer(self, id: int, make: Callable[[_T], Result], large: bool = False) -> Done[_T]:
        """A `done` that replies to a command: with `make(result)`, or with an error."""
        self._unanswered += 1
        self._large += large

        def done(result: _T | CommandError) -> None:
            self._unanswered -= 1
            self._large -= large
            if isinstance(result, CommandError):
                self._refuse(id, result)
            else:
                self._reply(id, make(result))
            self._go_on()

        return done

    def _go_on(self) -> None:
        """Something that commands wait for has happened."""
        self.queue.go_on()
        if self._on_answered is not None:
            self._on_answered()

    # Connecting.

    def _connect(self, command: commands.Connect) -> None:
        self.connecting = True
        admitted = partial(self._admitted, command)
        if self._identity is not None and not (command.token or command.login):
            admitted(self._identity)
        else:
            self.hub.gate.admit(self._admission(command.token, command.data, command.login), admitted)

    def _admission(self, token: str, data: bytes = b"", login: tuple[str, str] | None = None) -> Admission:
        client = self.client
        user, password = login or ("", None)
        credentials = Credentials(token, user, password, client.certificate)
        return Admission(
            client.protocol, client.host, client.address, credentials, client.id, client.headers, data
        )  # fmt: skip

    def _admitted(self, command: commands.Connect, identity: Identity | CommandError) -> None:
        if self.client.live:
            try:
                if isinstance(identity, CommandError):
                    raise identity
                self._become(identity, command)
            except AdmissionError as error:
                self.close(error.disconnect)
            except CommandError as error:
                self.connecting = False
                self._refuse(command.id, error)
                self._go_on()

    def _become(self, identity: Identity, command: commands.Connect) -> None:
        """Be this user, and subscribe to its channels. Raises CommandError: BAD_NAME, NAME_TAKEN, BAD_REQUEST."""
        hub, client = self.hub, self.client
        hub.identify(client, identity)
        client.resume = check_resume(command.resume)
        if command.name is not None:
            hub.rename(client, command.name)
        elif command.label is not None:
            hub.label(client, command.label)
        self.expires_at = identity.expires_at
        if command.heartbeat is not None:
            self._ping_interval, self._pong_timeout = command.heartbeat, 0.0
        granted = dict(identity.subs) if command.subs is not None else {}
        if command.subs is not None and hub.settings.user_personal_channel:
            personal = personal_channel(identity.user, hub.settings.user_personal_channel_namespace)
            if personal is not None:
                granted.setdefault(personal, Granted())
        self._subscriptions.subscribe_granted(granted, command.subs or {}, partial(self._connected, command))

    def _connected(self, command: commands.Connect, subs: list[SubscribeResult]) -> None:
        client = self.client
        self.connecting = False
        self.connected = True
        self.hub.door.announce_client(client)
        self._quiet_since = self.hub.clock.seconds()
        self._wait()
        self._reply(
            command.id,
            commands.ConnectResult(
                client=client.id,
                name=client.name,
                version=VERSION,
                # The application's hook renews it, and not the client.
                ttl=None if client.identity.by_hook else self._subscriptions.ttl(self.expires_at),
                data=client.identity.data,
                subs=subs,
                ping=int(self._ping_interval),
                pong=bool(self._ping_interval and self._pong_timeout),
                session=self.id,
                node=self.hub.node,
            ),
        )
        if subs:
            self.hub.turn.answer_first(self._subscriptions.release)
        self._go_on()

    def _refresh(self, command: commands.Refresh) -> None:
        def refreshed(identity: Identity) -> Result:
            self.client.identity = identity
            self.expires_at = identity.expires_at
            self._wait()
            return commands.RefreshResult(self.client.id, VERSION, self._subscriptions.ttl(identity.expires_at))

        done = self._answer(command.id, refreshed)
        self.hub.gate.refresh(self._admission(command.token), self.client.user, self._unless_invalid(done))

    def _unless_invalid(self, done: Done[_T]) -> Done[_T]:
        """`done` for what a token proves: a token that is refused closes the client."""

        def proved(result: _T | CommandError) -> None:
            if isinstance(result, AdmissionError):
                self.close(result.disconnect)
            else:
                done(result)

        return proved

    # Subscriptions.

    def _subscribe(self, command: commands.Subscribe) -> None:
        if command.unsupported:
            raise CommandError(NOT_AVAILABLE, what=command.unsupported)
        done = self._answer(command.id, _itself, large=True)
        if not command.token:
            self._subscriptions.subscribe(command, done, None)
            return

        def granted(token: SubscriptionToken | CommandError) -> None:
            if not isinstance(token, CommandError):
                self._subscriptions.subscribe(command, done, token)
            elif isinstance(token, TokenError) and token.mismatch and self.codec.closes_on_mismatch:
                self.close(INVALID_TOKEN)
            elif isinstance(token, AdmissionError):
                done(CommandError(PERMISSION_DENIED, what="subscribe to", channel=command.channel))
            else:
                done(token)

        self._read_subscription_token(command.channel, command.token, granted)

    def _read_subscription_token(self, channel: str, token: str, done: Done[SubscriptionToken]) -> None:
        client = self.client
        self.hub.gate.subscription(self._admission(token), channel, client.user, client.id, done)

    def _sub_refresh(self, command: commands.SubRefresh) -> None:
        channel = command.channel
        if self.hub.gate.verifier is None:  # a refresh is refused whatever the channel is
            raise CommandError(NOT_AVAILABLE, what="tokens")
        subscription: Subscription | None = self.client.subscriptions.get(channel)
        if subscription is None:
            raise CommandError(PERMISSION_DENIED, what="refresh", channel=channel)
        done = self._answer(command.id, commands.SubRefreshResult)

        def refreshed(token: SubscriptionToken | CommandError) -> None:
            if not isinstance(token, CommandError):
                self._subscriptions.set_expiry(channel, token.expires_at)
                subscription.chan_info = token.info
            elif token.reason is not TOKEN_EXPIRED:
                done(token)
                return
            # With an expired one the subscription stays as it is, and the client asks for a newer one before it ends.
            done(self._subscriptions.ttl(self._subscriptions.expiries.get(channel)))

        self._read_subscription_token(channel, command.token, self._unless_invalid(refreshed))

    def _unsubscribe(self, command: commands.Unsubscribe) -> None:
        self._subscriptions.unsubscribe(command.channel)
        self._reply(command.id, commands.UnsubscribeResult(command.channel))

    # Publications, presence and history.

    def _publish_many(self, items: Sequence[Any]) -> int:
        """Publish the first of several items together, if they are for one channel; their number."""
        if not self.connected or self.connecting or self._large or self._replies.large or not self.client.live:
            return 0
        found: list[commands.Publish] = []
        left = BATCH_BYTES
        for item in items[: self.hub.rates.allowance(self.client)]:
            try:
                command = self.codec.read(item)
            except MalformedCommandError:
                break
            if not isinstance(command, commands.Publish) or (found and command.channel != found[0].channel):
                break
            found.append(command)
            left -= command.data.size
            if left < 0:
                break
        if len(found) < 2:
            return 0

        def published(count: int, result: Position | CommandError) -> None:
            self._unanswered -= count
            for ahead, command in enumerate(found[:count], 1 - count):
                if isinstance(result, CommandError):
                    self._refuse(command.id, result)
                else:
                    position = Position(result.epoch, result.offset + ahead)
                    self._replies.add(self.codec.reply(command.id, commands.PublishResult(position)))
            if self._on_answered is not None:
                self._on_answered()

        self._unanswered += len(found)
        data = [each.data for each in found]
        count = self.hub.door.publish_many(self.client, found[0].channel, data, published)
        self._unanswered -= len(found) - count
        return count

    def _publish(self, command: commands.Publish) -> float:
        id = command.id
        self._unanswered += 1

        def published(result: Any) -> None:
            self._unanswered -= 1
            if isinstance(result, CommandError):
                self._refuse(id, result)
            else:
                self._replies.add(self.codec.reply(id, commands.PublishResult(result)))
            if self._on_answered is not None:
                self._on_answered()

        wait = self.hub.door.publish(self.client, command.channel, command.data, published)
        if wait:
            self._unanswered -= 1
        return wait

    def _presence(self, command: commands.Presence) -> None:
        self.hub.door.presence(self.client, command.channel, self._answer(command.id, commands.PresenceResult))

    def _presence_stats(self, command: commands.PresenceStats) -> None:
        def found(infos: list[Info]) -> Result:
            return commands.PresenceStatsResult(len(infos), len({each.user for each in infos}))

        self.hub.door.presence(self.client, command.channel, self._answer(command.id, found))

    def _read_history(self, command: commands.ReadHistory) -> None:
        since, reverse, strict = command.since, command.reverse, command.strict
        answer = self._answer(command.id, commands.HistoryResult, large=True)

        def known(result: History | CommandError) -> None:
            answer(result if isinstance(result, CommandError) or not strict else result.since(since, reverse))

        self.hub.door.history(self.client, command.channel, known, since, command.limit, reverse, needs_history=strict)

    # The program that embeds the hub.

    def _ping(self, command: commands.Ping) -> None:
        self._reply(command.id, commands.PingResult())

    def _send(self, command: commands.Send) -> None:
        send_to_program(self.hub, self.client, command)

    def _rpc(self, command: commands.RPC) -> None:
        done = self._answer(command.id, commands.RPCResult)
        hook = self.hub.hooks.rpc
        if hook is None or command.method in (RENAME, *self.hub.rpc):
            call_program(self.hub, self.client, command, done)
            return

        def answered(reply: HookReply | CommandError) -> None:
            if isinstance(reply, HookDisconnectError):
                self.close(reply.disconnect)
            else:
                done(reply if isinstance(reply, CommandError) else reply.data or b"null")

        hook(request_of(self.client, data=command.data, method=command.method), answered)

    def _refused_command(self, command: commands.RefusedCommand) -> None:
        raise command.error

    # Requests of the server API.

    def subscribe_for_server(self, granted: SubscriptionToken, done: Done[None]) -> None:
        """Subscribe, and tell the client by a push. `done` gets an error also if the client leaves first."""

        def subscribed(result: SubscribeResult | CommandError) -> None:
            if isinstance(result, CommandError):
                done(result)
            else:
                self._replies.add(self.codec.push(commands.SubscribePush(result)))
                done(None)

        self._subscriptions.subscribe(commands.Subscribe(0, granted.channel), subscribed, granted)

    def unsubscribe(self, channel: str, code: int, reason: str) -> None:
        """End a subscription, and tell the client by a push."""
        if self._subscriptions.unsubscribe(channel):
            self._replies.add(self.codec.push(commands.UnsubscribePush(channel, code, reason)))

    def refresh_for_server(self, expires_at: float | None) -> None:
        """Let the connection expire at another time (None: never), and tell the client by a push."""
        self.expires_at = expires_at
        self._wait()
        self._replies.add(self.codec.push(commands.RefreshPush(self._subscriptions.ttl(expires_at))))


def _itself(result: SubscribeResult) -> Result:
    return result


_EXECUTE: dict[type, Callable[[Session, Any], None]] = {
    commands.Connect: Session._connect,
    commands.Subscribe: Session._subscribe,
    commands.Unsubscribe: Session._unsubscribe,
    commands.Presence: Session._presence,
    commands.PresenceStats: Session._presence_stats,
    commands.ReadHistory: Session._read_history,
    commands.Refresh: Session._refresh,
    commands.SubRefresh: Session._sub_refresh,
    commands.Ping: Session._ping,
    commands.Send: Session._send,
    commands.RPC: Session._rpc,
    commands.RefusedCommand: Session._refused_command,
}
