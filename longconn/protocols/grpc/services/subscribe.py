"""LongConn.Subscribe: one channel as a stream."""

from __future__ import annotations

from dataclasses import replace

from longconn.core.broker import Done
from longconn.core.disconnects import FORCE_DISCONNECT
from longconn.core.errors import CommandError
from longconn.core.identity import Admission, Credentials, Identity
from longconn.core.publication import History
from longconn.core.tokens import SubscriptionToken, TokenError
from longconn.protocols.grpc.call import GrpcCall
from longconn.protocols.grpc.services.callers import identify, named_metadata
from longconn.protocols.grpc.services.messages import answered, parse, since_of, subscribed_message
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.grpc import frame
from longconn.wire.grpc_messages import MESSAGES, backlog
from longconn.wire.grpc_status import status_of_disconnect, status_of_opening


async def subscribe(call: GrpcCall) -> None:
    """The answer, the publications that were missed, then each publication, until the client ends the call."""
    await _subscribe(call)
    await call.wait()


async def _subscribe(call: GrpcCall) -> None:
    """Read the request, which is not kept while the call goes on, and answer it."""
    request = parse(pb.SubscribeRequest, await call.read_one())
    identity = await identify(call)
    try:
        subscriber = _Subscriber(call, identity, request.name, request.resume)
    except CommandError as error:
        raise status_of_opening(error) from None
    await subscriber.subscribe(request)


class _Subscriber:
    """The client of one call.

    It is also the client's `session`, through which the server API ends its subscription.
    """

    #: no back end can name it: its client's id does
    id = ""
    connected = True
    #: the hub sees to the end of its token, and the door to that of its subscription
    keeps_time = False

    def __init__(self, call: GrpcCall, identity: Identity, name: str, resume: str) -> None:
        """Raises CommandError: LIMIT_EXCEEDED where there are too many clients, BAD_NAME, NAME_TAKEN, BAD_REQUEST."""
        self._call = call
        self._hub = hub = call.hub
        self._client = client = hub.connect(
            call.outlet, "grpc", call.host, call.address, name or None, user=identity.user, resume=resume
        )
        call.outlet.client = client
        client.headers = named_metadata(call)
        # A client that takes a name is a chat client.
        client.chat = bool(name)
        client.session = self
        hub.identify(client, identity)
        call.on_end(self._stop)

    async def subscribe(self, request: pb.SubscribeRequest) -> None:
        """Raises CommandError or StatusError."""
        call, client, channel, since = self._call, self._client, request.channel, since_of(request)
        granted = await self._token(channel, request.token) if request.token else client.grants.get(channel)

        def ask(done: Done[History]) -> None:
            self._hub.door.subscribe(client, channel, MESSAGES, done, since, granted)

        history = await answered(ask)
        answer = subscribed_message(channel, history, since, granted.data if granted is not None else b"")
        call.outlet.write(frame(pb.SubscribeResponse(subscribed=answer).SerializeToString()))
        if history.publications:
            call.outlet.write_backlog(backlog(MESSAGES, channel, history.publications))

    async def _token(self, channel: str, token: str) -> SubscriptionToken:
        gate, client = self._hub.gate, self._client
        admission = Admission("grpc", client.host, client.address, Credentials(token))
        try:
            granted: SubscriptionToken = await answered(
                lambda done: gate.subscription(admission, channel, client.user, client.id, done)
            )
        except TokenError as error:
            raise status_of_disconnect(error.disconnect) from None
        return granted

    def _stop(self) -> None:
        self._client.gone()
        self._client.session = None  # the cycle would keep both in memory for a while

    # Requests of the server API.

    def subscribe_for_server(self, granted: SubscriptionToken, done: Done[None]) -> None:
        """Nothing: the call reads one channel and no other, as an event stream does."""
        done(None)

    def unsubscribe(self, channel: str, code: int, reason: str) -> None:
        """End the call: without its channel it has no use."""
        if channel in self._client.subscriptions:
            self._client.close(FORCE_DISCONNECT)

    def refresh_for_server(self, expires_at: float | None) -> None:
        """Expire at another time (None: never)."""
        self._hub.identify(self._client, replace(self._client.identity, expires_at=expires_at))
