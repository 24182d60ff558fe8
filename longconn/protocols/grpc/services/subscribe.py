"""LongConn.Subscribe: one channel as a stream."""

from __future__ import annotations

from collections.abc import Iterator

from longconn.core.broker import Done
from longconn.core.disconnects import FORCE_DISCONNECT, SUBSCRIPTION_EXPIRED
from longconn.core.publication import History
from longconn.core.tokens import ConnectionToken, SubscriptionToken, TokenError
from longconn.protocols.grpc.call import GrpcCall
from longconn.protocols.grpc.services.call_client import CallClient
from longconn.protocols.grpc.services.callers import grant, identify, refused
from longconn.protocols.grpc.services.messages import answered, parse, since_of, subscribed_message
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.grpc import frame
from longconn.wire.grpc_messages import MESSAGES, backlog


async def subscribe(call: GrpcCall) -> None:
    """The answer, what was missed, and then each publication, until the caller goes."""
    request = parse(pb.SubscribeRequest, await call.read_one())
    await Subscriber(call, identify(call), request).enter()
    await call.wait()


class Subscriber(CallClient):
    """The client of one call."""

    def __init__(self, call: GrpcCall, claims: ConnectionToken, request: pb.SubscribeRequest) -> None:
        super().__init__(call, claims, request.name)
        self._request = request
        self._channel_expires_at: float | None = None

    async def enter(self) -> None:
        """Subscribe. Raises CommandError or StatusError."""
        request, client = self._request, self.client
        channel, since = request.channel, since_of(request)
        try:
            granted = grant(client, self.claims, channel, request.token)
        except TokenError as error:
            raise refused(self.call, error) from None
        if isinstance(granted, SubscriptionToken):
            self._channel_expires_at = granted.expires_at
        info, data = (granted.info, granted.data) if granted is not None else (b"", b"")

        def ask(done: Done[History]) -> None:
            client.subscribe(channel, MESSAGES, done, since, granted is not None, info)

        history = await answered(ask)
        outlet = self.call.outlet
        answer = subscribed_message(channel, history, since, data)
        outlet.write(frame(pb.SubscribeResponse(subscribed=answer).SerializeToString()))
        if history.publications:
            outlet.write_backlog(backlog(MESSAGES, channel, history.publications))
        self.wait()

    def times(self) -> Iterator[float | None]:
        yield from super().times()
        yield self._channel_expires_at

    def on_due(self, now: float) -> None:
        if self._channel_expires_at is not None and now >= self._channel_expires_at:
            self.client.close(SUBSCRIPTION_EXPIRED)
        super().on_due(now)

    # What the server API asks for.

    def subscribe_for_server(self, granted: SubscriptionToken, done: Done[None]) -> None:
        """It reads one channel and no other: as with an event stream, there is nothing to do."""
        done(None)

    def unsubscribe(self, channel: str, code: int, reason: str) -> None:
        """Without its channel the stream has no use."""
        if channel in self.client.subscriptions:
            self.client.close(FORCE_DISCONNECT)
