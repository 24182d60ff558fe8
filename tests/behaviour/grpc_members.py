"""Members that call by gRPC: a conversation, and a stream beside calls that publish."""

import itertools
import json
from typing import Any

from google.protobuf.message import Message
from h2 import events
from h2.errors import ErrorCodes

from longconn.testing import WINDOW, MemoryServer
from longconn.v1 import longconn_pb2 as pb
from tests.behaviour.members import Heard, Member
from tests.protocols.grpc.frames import messages, prefixed
from tests.protocols.grpc.http2_kit import Peer

SERVICE = "/longconn.v1.LongConn/"


class GrpcClient(Peer):
    """The client's end of a connection on which one call goes on.

    `credit`: bytes that the call may be sent, without end unless given; `window` is the connection's in memory.
    """

    def __init__(
        self, server: MemoryServer, factory: Any, method: str, credit: int | None = None, window: int = WINDOW
    ) -> None:
        super().__init__(server, factory, credit)
        self.connection.window = window
        self.address = f"{self.connection.local.host}:{self.connection.local.port}"
        self.stream = self._begin(SERVICE + method)
        self.flush()
        self._data = b""
        self._seen = 0

    def ask(self, *requests: Message, end: bool = False) -> None:
        """Messages of the call; `end`: there are no more."""
        data = b"".join(prefixed(each.SerializeToString()) for each in requests)
        if not self.over:
            self.h2.send_data(self.stream, data, end_stream=end)
            self.flush()

    def fresh(self) -> list[bytes]:
        """Messages that came since the last call."""
        fresh, self._seen = self.events[self._seen :], len(self.events)
        for each in fresh:
            if isinstance(each, events.DataReceived) and each.stream_id == self.stream:
                self._data += each.data
        found, self._data = messages(self._data)
        return found

    @property
    def over(self) -> bool:
        """Whether the call has ended."""
        kinds = events.StreamEnded | events.StreamReset
        ended = any(isinstance(each, kinds) and each.stream_id == self.stream for each in self.events)
        return ended or self.connection.closed

    @property
    def code(self) -> int | None:
        """The number with which the call ended; 0 if there was none."""
        if not self.over:
            return None
        return int(self.trailers(self.stream).get("longconn-code", 0))


class CallMember(Member):
    """What both have in common."""

    resumes = True
    protocol = "grpc"
    method = ""
    client: GrpcClient

    def open(self, **options: Any) -> GrpcClient:
        self.subscribed = False
        #: the numbers of refusals
        self.refusals: list[int] = []
        self._heard: list[Heard] = []
        return GrpcClient(self.server, self.factories["shared"], self.method, **options)

    def request(self) -> pb.SubscribeRequest:
        request = pb.SubscribeRequest(channel=self.channel)
        if self.since is not None:
            epoch, _, offset = self.since.rpartition(":")
            request.since.CopyFrom(pb.Position(epoch=epoch, offset=int(offset)))
        return request

    @property
    def inside(self) -> bool:
        self.process()
        return self.subscribed and not self.client.over

    def process(self) -> None:
        """Understand what came."""
        raise NotImplementedError

    def fresh(self) -> list[Heard]:
        self.process()
        heard, self._heard = self._heard, []
        return heard

    def again(self) -> None:
        self.connect()

    def take_subscribed(self, subscribed: pb.Subscribed) -> None:
        self.subscribed = True
        self.since = f"{subscribed.position.epoch}:{subscribed.position.offset}"
        if subscribed.was_recovering and not subscribed.recovered:
            self._heard.append(("lost",))

    def take_publication(self, publication: pb.Publication) -> None:
        assert self.subscribed, "a publication before the answer to the subscribe"
        if publication.offset:
            self.since = f"{publication.epoch}:{publication.offset}"
        self._heard.append(("said", publication.name, json.loads(publication.data)))

    def take_refusal(self, number: int, text: str) -> None:
        self.refusals.append(number)
        self._heard.append(("error", text))

    @property
    def farewell(self) -> int | None:
        self.server.settle()
        return self.client.code

    @property
    def exhausted(self) -> bool:
        """Whether it was told within a message, where there is no other way than a reset."""
        return self.client.resets(self.client.stream) == [ErrorCodes.ENHANCE_YOUR_CALM]

    @property
    def closed(self) -> bool:
        return self.client.over


class ConnectMember(CallMember):
    """A call of Connect."""

    speaks = True
    method = "Connect"
    #: of its `connect`
    name_of = ""

    def connect(self) -> None:
        self.answers: dict[int, pb.ConnectResponse] = {}
        self._numbers = itertools.count(1)
        self.client = self.open(**self.options)
        self.ask(connect=pb.ConnectCommand(name=self.name_of))
        self._subscribing = self.ask(subscribe=self.request())

    def again(self) -> None:
        if self.client.over:
            self.connect()
        else:
            self._subscribing = self.ask(subscribe=self.request())

    def ask(self, **command: Any) -> int:
        """Give a command; its number."""
        number = next(self._numbers)
        self.client.ask(pb.ConnectRequest(id=number, **command))
        return number

    def say(self, *texts: str) -> None:
        for each in texts:
            self.ask(publish=pb.PublishRequest(channel=self.channel, text=each))
        self.server.settle()

    def process(self) -> None:
        for data in self.client.fresh():
            self._take(pb.ConnectResponse.FromString(data))

    def _take(self, response: pb.ConnectResponse) -> None:
        if response.id:
            assert response.id not in self.answers, response
            self.answers[response.id] = response
        kind = response.WhichOneof("event")
        if kind == "error" and response.id != self._subscribing:
            self.take_refusal(response.error.code, response.error.message)
        elif kind == "subscribed":
            self.take_subscribed(response.subscribed)
        elif kind == "publication":
            self.take_publication(response.publication)
        elif kind == "join":
            self._heard.append(("joined", response.join.info.name))
        elif kind == "leave":
            self._heard.append(("left", response.leave.info.name))


class NamedMember(ConnectMember):
    """The same as somebody of the chat."""

    name_of = "ada"

    @property
    def name(self) -> str:
        return self.name_of


class SubscribeMember(CallMember):
    """A call of Subscribe, and one of Publish for whatever it says, on the same connection."""

    speaks = True
    method = "Subscribe"

    def connect(self) -> None:
        self.client = self.open(**self.options)
        self._said: list[int] = []
        self.client.ask(self.request(), end=True)

    def say(self, *texts: str) -> None:
        for each in texts:
            request = pb.PublishRequest(channel=self.channel, text=each)
            self._said.append(self.client.call(f"{SERVICE}Publish", request.SerializeToString()))
        self.server.settle()

    def process(self) -> None:
        for data in self.client.fresh():
            response = pb.SubscribeResponse.FromString(data)
            if response.WhichOneof("event") == "subscribed":
                self.take_subscribed(response.subscribed)
            else:
                self.take_publication(response.publication)
        for stream in tuple(self._said):
            status = self.client.status(stream)
            if status is not None:
                self._said.remove(stream)
                if status[0]:
                    self.take_refusal(int(self.client.trailers(stream).get("longconn-code", 0)), status[1])
