"""Calls of gRPC without HTTP/2: a handler, what it is sent and what it sends. And tokens to call with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from longconn import Hub, Settings
from longconn.core.client import Client
from longconn.core.disconnects import Disconnect
from longconn.core.errors import TOKEN_EXPIRED, CommandError
from longconn.core.identity import Granted, Identity
from longconn.core.tokens import SubscriptionToken, TokenError
from longconn.protocols.grpc.services import services
from longconn.testing import FakeClock, MemoryServer
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.grpc import frame
from longconn.wire.grpc_status import StatusCode, StatusError, status_of_disconnect, status_of_error

M = TypeVar("M", bound=Message)

LONGCONN = "/longconn.v1.LongConn/"
#: Seconds after which the token `brief` expires.
BRIEF = 10.0


class Keys:
    """A verifier. A token is a user's name; of a channel it is the channel's name."""

    algorithms = ("a name",)

    def prepare(self, token: str, ready: Callable[[], None]) -> None:
        ready()

    def connection(self, token: str, now: float) -> Identity:
        if token == "old":
            raise CommandError(TOKEN_EXPIRED)
        if token == "forged":
            raise TokenError("connection", "the signature is wrong")
        subs = {"secret:ada": Granted(b'{"seat":1}')} if token == "ada" else {}
        return Identity(token, now + BRIEF if token == "brief" else None, b'{"role":"x"}', subs)

    def subscription(self, token: str, channel: str, user: str, now: float, client: str = "") -> SubscriptionToken:
        if token not in (channel, "brief"):
            raise TokenError("subscription", "it is for another channel", mismatch=True)
        return SubscriptionToken(channel, user, now + BRIEF if token == "brief" else None, b'{"seat":2}', b'{"x":1}')


class Outlet:
    """A call's writable end, which takes everything at once unless it is told to hold."""

    def __init__(self, close: Callable[[Disconnect], None]) -> None:
        self.client: Client | None = None
        self.queued = 0
        #: the bytes objects as they were written
        self.written: list[bytes] = []
        #: backlogs are only kept, until `go_on`
        self.full = False
        self.close = close
        self._sources: deque[Iterator[bytes]] = deque()

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def write_backlog(self, source: Iterator[bytes]) -> None:
        if self.full:
            self._sources.append(source)
        else:
            self.written += source

    def go_on(self) -> None:
        self.full = False
        while self._sources:
            self.written += self._sources.popleft()


class FakeCall:
    """As `longconn.protocols.grpc.call.GrpcCall`, for a handler; and its caller's side."""

    def __init__(self, hub: Hub, path: str, metadata: Sequence[tuple[str, str]], address: str) -> None:
        self.hub = hub
        self.path = path
        self.metadata = tuple(metadata)
        self.host, self.address = address.rpartition(":")[0], address
        self.trailing: list[tuple[str, str | bytes]] = []
        self.identity: Identity | None = None
        self.certificate = ""
        self.over = False
        self.outlet = Outlet(lambda disconnect: self._end(status_of_disconnect(disconnect)))
        #: how it ended, once it has
        self.status: StatusError | None = None
        self._requests: deque[bytes] = deque()
        self._half_closed = False
        self._reader: Deferred[bytes | None] | None = None
        self._on_end: list[Callable[[], None]] = []
        self._handler: Deferred[None] | None = None
        self._seen = 0

    # For the handler.

    def read(self) -> Deferred[bytes | None]:
        if self.over:
            return fail(CancelledError())
        if self._requests or self._half_closed:
            return succeed(self._requests.popleft() if self._requests else None)
        self._reader = Deferred()
        return self._reader

    read_encoded = read

    def slice(self, cost: int) -> Deferred[None]:
        return succeed(None)

    async def encode(self, parts: Iterator[bytes], cost: int) -> bytes:
        return b"".join(parts)

    async def read_one(self) -> bytes:
        message = await self.read()
        if message is None or await self.read() is not None:
            raise StatusError(StatusCode.UNIMPLEMENTED, "one message")
        return message

    def write(self, message: bytes) -> None:
        self.outlet.write(frame(message))

    def drained(self) -> Deferred[None]:
        return succeed(None)

    def wait(self) -> Deferred[None]:
        return fail(CancelledError()) if self.over else Deferred()

    def on_end(self, callback: Callable[[], None]) -> None:
        if self.over:
            callback()
        else:
            self._on_end.append(callback)

    # For the caller.

    def run(self, handler: Any) -> None:
        self._handler = Deferred.fromCoroutine(handler(self))
        self._handler.addCallbacks(lambda result: self._end(StatusError(StatusCode.OK)), self._raised)

    def _raised(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, CommandError):
            self._end(status_of_error(error))
        elif isinstance(error, StatusError):
            self._end(error)
        elif not (isinstance(error, CancelledError) and self.over):
            failure.raiseException()

    def _end(self, status: StatusError) -> None:
        if self.over:
            return
        self.over = True
        self.status = status
        if self.outlet.client is not None:
            self.outlet.client.gone()
        for each in self._on_end:
            each()
        if self._handler is not None:
            self._handler.cancel()

    def send(self, *messages: Message) -> None:
        """Requests, of which the handler reads one after the other."""
        self._requests += [each.SerializeToString() for each in messages]
        self._wake()

    def send_bytes(self, message: bytes) -> None:
        self._requests.append(message)
        self._wake()

    def half_close(self) -> None:
        """There are no more."""
        self._half_closed = True
        self._wake()

    def cancel(self) -> None:
        """The caller goes."""
        self._end(StatusError(StatusCode.CANCELLED))

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            if self._requests or self._half_closed:
                reader.callback(self._requests.popleft() if self._requests else None)
            else:
                self._reader = reader

    @property
    def unread(self) -> int:
        """Requests that the handler has not read."""
        return len(self._requests)

    @property
    def ended(self) -> tuple[StatusCode, str] | None:
        return None if self.status is None else (self.status.code, self.status.message)

    def read_frames(self) -> list[bytes]:
        """Messages that came since it was last asked."""
        settle: Callable[[], None] = self.hub.clock.settle  # type: ignore[attr-defined]
        settle()
        data = b"".join(self.outlet.written[self._seen :])
        self._seen = len(self.outlet.written)
        found = []
        while data:
            size = int.from_bytes(data[1:5], "big")
            assert data[0] == 0
            assert len(data) >= 5 + size
            found.append(data[5 : 5 + size])
            data = data[5 + size :]
        return found

    def read_all(self, kind: type[M]) -> list[M]:
        return [kind.FromString(each) for each in self.read_frames()]


class Case(SynchronousTestCase):
    """A server in memory and the services."""

    def setUp(self) -> None:
        self.serve()

    def serve(self, verifier: Any = None, **settings: Any) -> None:
        self.server = MemoryServer(Settings(**settings))
        self.addCleanup(self._stop)
        self.hub.gate.verifier = verifier
        self.services = services(self.hub)
        self._calls: list[FakeCall] = []

    def _stop(self) -> None:
        for each in self._calls:
            each.cancel()
        self.server.stop()
        self.assertEqual(self.hub.clients, {})

    @property
    def hub(self) -> Hub:
        return self.server.hub

    @property
    def clock(self) -> FakeClock:
        return self.server.clock

    def call(self, path: str, *requests: Message, token: str = "", address: str = "192.0.2.1:40000") -> FakeCall:
        """A call that was begun; of requests its side is closed after them, and without any it is open."""
        path = path if path.startswith("/") else LONGCONN + path
        metadata = [("authorization", f"Bearer {token}")] if token else []
        call = FakeCall(self.hub, path, metadata, address)
        self._calls.append(call)
        call.run(self.services[path])
        if requests:
            call.send(*requests)
            call.half_close()
        return call

    def answer(self, path: str, request: Message, kind: type[M], **options: Any) -> M:
        """The only message of a call that ends well."""
        call = self.call(path, request, **options)
        self.server.settle()
        self.assertEqual(call.ended, (StatusCode.OK, ""))
        (found,) = call.read_all(kind)
        return found

    def refusal(self, path: str, request: Message, **options: Any) -> tuple[StatusCode, str]:
        """How a call ends that is refused."""
        call = self.call(path, request, **options)
        self.server.settle()
        self.assertEqual(call.outlet.written, [])
        assert call.ended is not None
        return call.ended

    def publish(self, channel: str, text: str, **options: Any) -> pb.Position:
        request = pb.PublishRequest(channel=channel, text=text)
        return self.answer("Publish", request, pb.PublishResponse, **options).position

    def subscribe(self, channel: str, since: pb.Position | None = None, **options: Any) -> FakeCall:
        """A call of Subscribe that was answered well; the answer is `subscribed`."""
        names = ("token", "name")
        fields = {each: options.pop("channel_" + each, "") for each in names}
        call = self.call("Subscribe", pb.SubscribeRequest(channel=channel, since=since, **fields), **options)
        self.assertIsNone(call.ended)
        return call


def subscribed(call: FakeCall) -> pb.Subscribed:
    """The first message of a stream."""
    first = call.read_all(pb.SubscribeResponse)
    assert [each.WhichOneof("event") for each in first] == ["subscribed"], first
    return first[0].subscribed


def publications(call: FakeCall) -> list[pb.Publication]:
    """What a stream was sent since; nothing else."""
    found = call.read_all(pb.SubscribeResponse)
    assert all(each.WhichOneof("event") == "publication" for each in found), found
    return [each.publication for each in found]


def texts(call: FakeCall) -> list[str]:
    return [each.data for each in publications(call)]
