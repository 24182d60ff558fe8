"""LongConn.Connect: a conversation of commands and answers, and what happens in channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred

from longconn.core.broker import Done
from longconn.core.disconnects import IDLE
from longconn.core.errors import BAD_REQUEST, INTERNAL, CommandError
from longconn.core.publication import History, Position
from longconn.core.timers import Bucket, Clock
from longconn.core.tokens import ConnectionToken, Granted, SubscriptionToken
from longconn.protocols.connection.replies import Replies
from longconn.protocols.grpc.call import GrpcCall
from longconn.protocols.grpc.services.call_client import CallClient
from longconn.protocols.grpc.services.callers import identify
from longconn.protocols.grpc.services.commands import COMMANDS
from longconn.protocols.grpc.services.messages import parse, subscribed_message
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.grpc import frame
from longconn.wire.grpc_messages import PUSHES, backlog
from longconn.wire.grpc_status import StatusCode, StatusError

#: Subscribes and histories of one client that may be under way.
_AT_ONCE = 8
#: The code of an `unsubscribed` after which the client is to subscribe again.
_SUBSCRIPTION_EXPIRED = 2501


async def connect(call: GrpcCall) -> None:
    """Commands until the caller closes its side; what they said is answered, and then the call is over."""
    first = parse(pb.ConnectRequest, await _first(call))
    if first.WhichOneof("command") != "connect":
        raise StatusError(StatusCode.INVALID_ARGUMENT, "the first command is connect")
    conversation = Conversation(call, identify(call, first.connect.token), first)
    try:
        while (data := await call.read()) is not None:
            await conversation.obey(parse(pb.ConnectRequest, data))
        await conversation.finish()
    finally:
        conversation.write_replies()


async def _first(call: GrpcCall) -> bytes:
    timeout = call.hub.settings.handshake_timeout
    timer = call.hub.clock.callLater(timeout, call.outlet.close, IDLE) if timeout else None
    try:
        data = await call.read()
    finally:
        if timer is not None and timer.active():
            timer.cancel()
    if data is None:
        raise StatusError(StatusCode.INVALID_ARGUMENT, "there is no command")
    return data


class Conversation(CallClient):
    """The client of one call. Commands are not read while one of them has to wait."""

    def __init__(self, call: GrpcCall, claims: ConnectionToken, first: pb.ConnectRequest) -> None:
        super().__init__(call, claims, first.connect.name)
        settings = self.hub.settings
        self._replies = Replies(self.hub, call.outlet, b"".join, self._tell)
        self._commands = Bucket(settings.publish_rate, settings.publish_burst, self.hub.clock.seconds())
        # When subscriptions expire, by channel.
        self.expiries: dict[str, float | None] = {}
        # Commands without an answer, those of them whose answers may be large; subscribes by channel.
        self._asked = 0
        self._pending = 0
        self._coming: dict[str, Callable[[Any], None]] = {}
        self._told: Deferred[None] | None = None
        self._heartbeat = float(first.connect.heartbeat)
        self._beat_at = self.hub.clock.seconds() + self._heartbeat
        self.client.announce()
        self.reply(first.id, connected=self._introduction())
        self.wait()

    def _introduction(self) -> pb.Connected:
        ttl = 0
        if self.expires_at is not None:
            ttl = max(1, round(self.expires_at - self.hub.clock.seconds()))
        return pb.Connected(client=self.client.id, name=self.client.name, ttl=ttl)

    def _stop(self) -> None:
        super()._stop()
        for each in tuple(self._coming.values()):
            each(CommandError(INTERNAL))  # a back end may wait for it

    # Commands.

    async def obey(self, request: pb.ConnectRequest) -> None:
        """Act on one command, as soon as that may be."""
        method = request.WhichOneof("command") or ""
        if method == "connect":
            raise StatusError(StatusCode.INVALID_ARGUMENT, "connect again")
        coming = request.unsubscribe.channel if method == "unsubscribe" else None
        await self._until(lambda: not self._replies.many and self._pending < _AT_ONCE and coming not in self._coming)
        while wait := self.client.allowance() if method == "publish" else self._command_wait():
            await _sleep(self.hub.clock, wait)
        if not self.client.live:
            return
        counts = self._asked, self._pending
        try:
            if method not in COMMANDS:
                raise CommandError(BAD_REQUEST, what="no command that is known here")
            COMMANDS[method](self, request.id, getattr(request, method))
        except CommandError as error:
            self._asked, self._pending = counts
            self.refuse(request.id, error)

    def _command_wait(self) -> float:
        """Count a command that does not publish: 0, or seconds to wait."""
        wait = self._commands.wait(self.hub.clock.seconds())
        if not wait:
            self._commands.spend(1)
        return wait

    async def finish(self) -> None:
        """Until all is answered that was said."""
        await self._until(lambda: not self._asked)

    def write_replies(self) -> None:
        """Write the answers that there are, before the call ends."""
        self._replies.write()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._told = Deferred()
            await self._told

    def _tell(self) -> None:
        """What somebody waits for may have happened."""
        told, self._told = self._told, None
        if told is not None:
            self.hub.clock.callLater(0, told.callback, None)  # not from within what happens

    # Answers.

    def reply(self, id: int, **event: Any) -> None:
        """An answer, or with the id 0 what happens, to be written when this turn ends."""
        self._replies.add(frame(pb.ConnectResponse(id=id, **event).SerializeToString()))

    def refuse(self, id: int, error: CommandError) -> None:
        """The answer to a command that may not be."""
        reason = error.reason
        self.reply(id, error=pb.Error(code=reason.code, message=str(error), temporary=reason.temporary))

    def asking(self, id: int, answer: Callable[[Any], None], large: bool = False) -> Callable[[Any], None]:
        """What is called with a result or an error when the broker has one; a result is handed to `answer`."""
        self._asked += 1
        self._pending += large

        def done(result: Any) -> None:
            self._asked -= 1
            self._pending -= large
            if isinstance(result, CommandError):
                self.refuse(id, result)
            else:
                answer(result)
            self._tell()

        return done

    # Channels.

    def subscribe(
        self,
        id: int,
        request: pb.SubscribeRequest,
        since: Position | None,
        granted: SubscriptionToken | Granted | None,
        done: Done[None],
    ) -> None:
        """Subscribe, and write the answer and what was missed. Raises CommandError."""
        channel = request.channel
        options = self.hub.namespaces.options(channel)
        format = PUSHES[options.force_push_join_leave or request.join_leave]
        info, data = (granted.info, granted.data) if granted is not None else (b"", b"")

        def subscribed(result: History | CommandError) -> None:
            self._coming.pop(channel, None)
            if isinstance(result, CommandError):
                done(result)
                return
            self.expiries[channel] = granted.expires_at if isinstance(granted, SubscriptionToken) else None
            self.reply(id, subscribed=subscribed_message(channel, result, since, data))
            if result.publications:
                self._replies.write()
                self.call.outlet.write_backlog(backlog(format, channel, result.publications))
            self.wait()
            done(None)

        self.client.subscribe(channel, format, subscribed, since, granted is not None, info)
        subscription = self.client.subscriptions.get(channel)
        if subscription is not None and subscription.held is not None:
            self._coming[channel] = subscribed

    def leave(self, channel: str) -> None:
        """End a subscription, if there is one."""
        self.expiries.pop(channel, None)
        if channel in self.client.subscriptions:
            self.client.unsubscribe(channel)

    # What the server does, of itself or because its API is asked to.

    def subscribe_for_server(self, granted: SubscriptionToken, done: Done[None]) -> None:
        self.subscribe(0, pb.SubscribeRequest(channel=granted.channel), None, granted, done)

    def unsubscribe(self, channel: str, code: int, reason: str) -> None:
        """End a subscription, and say why."""
        if channel in self.client.subscriptions:
            self.leave(channel)
            coming = self._coming.get(channel)
            if coming is not None:
                coming(CommandError(INTERNAL))  # its own answer never comes now
            self.reply(0, unsubscribed=pb.Unsubscribed(channel=channel, code=code, reason=reason))

    # Time.

    def times(self) -> Iterator[float | None]:
        yield from super().times()
        yield from self.expiries.values()
        if self._heartbeat:
            yield self._beat_at

    def on_due(self, now: float) -> None:
        for channel, at in list(self.expiries.items()):
            if at is not None and now >= at:
                self.unsubscribe(channel, _SUBSCRIPTION_EXPIRED, "subscription expired")
        if self._heartbeat and now >= self._beat_at:
            self._beat_at = now + self._heartbeat
            if not self.call.outlet.queued:  # else it has something to read
                self.reply(0, heartbeat=pb.Heartbeat())
        super().on_due(now)


def _sleep(clock: Clock, seconds: float) -> Deferred[None]:
    slept: Deferred[None] = Deferred(lambda _: call.cancel())
    call = clock.callLater(seconds, slept.callback, None)
    return slept
