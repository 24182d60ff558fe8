"""The edges at which a request for a channel can arrive, each with the commands that it offers.

`ask` gives a command and returns the protocol's own answer as a value: OK, WAITS while there is none, or the refusal
as the protocol writes it (a chat line, a number, a status and a number).
"""

import itertools
import json
from typing import Any, ClassVar
from urllib.parse import quote

from centrifuge.protocol import client_pb2 as sdk
from google.protobuf.internal.decoder import _DecodeVarint32
from google.protobuf.internal.encoder import _VarintBytes
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from longconn import LocalMember
from longconn.core.client import Caller
from longconn.core.errors import CommandError
from longconn.core.publication import Data, Info
from longconn.testing import HTTPResponse, LineClient, MemoryServer
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.grpc_status import StatusCode
from tests.behaviour.centrifugo import (
    SharedStructuredLinesMember,
    StructuredEventsMember,
    StructuredLinesMember,
    StructuredMember,
    StructuredStreamMember,
    StructuredWebSocketMember,
)
from tests.behaviour.grpc_members import SERVICE, ConnectMember
from tests.behaviour.members import (
    ListenerMember,
    Member,
    TCPMember,
    WebSocketMember,
    WebSocketPortMember,
)
from tests.protocols.grpc.http2_kit import Peer

OK = "ok"
WAITS = "waits"
API_KEY = "key"


class Edge:
    """One connection, or one program. `port` is a key of `factories`."""

    #: names the rows of the table that hold for it
    family: ClassVar[str]
    port: ClassVar[str] = "shared"

    def __init__(self, server: MemoryServer, factories: dict[str, Any]) -> None:
        self.server = server
        self.factories = factories
        self.open()

    def open(self) -> None:
        """Make the connection."""

    def enter(self, channel: str) -> None:
        """Be where a command for `channel` is possible."""

    def ask(self, command: str, channel: str, data: str) -> Any:
        """Give a command; its answer."""
        raise NotImplementedError

    def answer(self) -> Any:
        """The answer to the last command, as far as it has come."""
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        return False


# Chat.


class ChatEdge(Edge):
    """Lines go to the channel that the client is in."""

    member: ClassVar[type[Member]]
    channel = "lobby"
    client: Any

    def open(self) -> None:
        self.client = self.member(self.server, self.factories).client
        self.client.read()

    @property
    def closed(self) -> bool:
        return bool(self.client.closed)

    def enter(self, channel: str) -> None:
        if self.channel != channel:
            self.client.say(f"/join {channel}")
            self.client.read()
            self.channel = channel
            self.server.advance(4)  # the command, the join and the leave counted against the rate

    def ask(self, command: str, channel: str, data: str) -> Any:
        if command != "/join":
            self.enter(channel)
        self._joining = channel if command == "/join" else None
        self._lines: list[str] = []
        lines = {"line": data, "/json": f"/json {json.dumps([data])}", "/join": f"/join {channel}"}
        self.client.say(lines.get(command, command))
        return self.answer()

    def answer(self) -> Any:
        self._lines += [str(each) for each in self.client.read()]
        refusals = [each for each in self._lines if each.startswith("! ")]
        if getattr(self.client, "close_code", None) is not None:
            return "close", self.client.close_code
        if refusals:
            return refusals[0]
        if self._joining is None:
            return OK if self._lines else WAITS
        inside = {each.name for each in self.server.hub.presence(self._joining)}
        if self.client.address not in inside:
            return WAITS
        self.channel = self._joining
        return OK


class ChatPort(ChatEdge):
    family = "chat"
    member = TCPMember


class ChatOnSharedPort(ChatEdge):
    family = "chat"
    member = ListenerMember


class ChatWebSocket(ChatEdge):
    family = "chat on WebSocket"
    member = WebSocketMember


class ChatWebSocketPort(ChatEdge):
    family = "chat on WebSocket"
    member = WebSocketPortMember


class TCPConnect(Edge):
    """A chat client joins `Settings.default_channel` when it connects, without asking."""

    family = "chat connect"
    port = "chat"
    client: LineClient

    def ask(self, command: str, channel: str, data: str) -> Any:
        self.client = self.server.line_client(self.factories[self.port])
        self.server.advance(0.31)  # the shared port waits for the first line that long
        return self.answer()

    def answer(self) -> Any:
        self.server.settle()
        refusals = [each for each in self.client.lines if each.startswith("! ")]
        names = {name for each in self.server.hub.channels.values() for name in (info.name for info in each.infos())}
        return refusals[0] if refusals else OK if self.client.address in names else WAITS


class SharedTCPConnect(TCPConnect):
    port = "shared"


class Handshake(Edge):
    """A WebSocket handshake names the first channel."""

    family = "WebSocket handshake"

    def ask(self, command: str, channel: str, data: str) -> Any:
        path = f"/ws?channel={quote(channel, safe='')}"
        self._client = self.server.websocket_client(path, self.factories[self.port])
        return self.answer()

    def answer(self) -> Any:
        self.server.settle()
        if self._client.status == 101:
            refusals = [each for each in self._client.messages if str(each).startswith("! ")]
            close = self._client.close_code
            return refusals[0] if refusals else OK if close is None else ("close", close)
        return self.written(self._client.status, self._client.body)

    def written(self, status: int, body: bytes) -> Any:
        return status, json.loads(body)["error"]["code"]


class HandshakeOnWebSocketPort(Handshake):
    family = "WebSocket handshake on its own port"
    port = "websocket"

    def written(self, status: int, body: bytes) -> Any:
        return status


# HTTP.

_REQUESTS = {
    "POST text": ("POST", ""),
    "POST JSON": ("POST", ""),
    "POST x-ndjson": ("POST", ""),
    "GET history": ("GET", ""),
    "HEAD history": ("HEAD", ""),
    "GET long poll": ("GET", "?since=other:1&wait=10"),
    "GET events": ("GET", "/events"),
    "HEAD events": ("HEAD", "/events"),
    "GET stream": ("GET", "/stream"),
    "HEAD stream": ("HEAD", "/stream"),
}
_TYPES = {"POST text": "text/plain", "POST JSON": "application/json", "POST x-ndjson": "application/x-ndjson"}


class HTTPEdge(Edge):
    """Requests on one persistent connection, until one is answered by a stream."""

    family = "HTTP"
    response: HTTPResponse

    def open(self) -> None:
        self.client = self.server.http_client(self.factories[self.port])

    @property
    def closed(self) -> bool:
        return self.client.closed or not self.response.complete

    def ask(self, command: str, channel: str, data: str) -> Any:
        method, rest = _REQUESTS[command]
        path = f"/channels/{quote(channel, safe='')}{rest}"
        body = None
        if method == "POST":
            body = data if command == "POST text" else json.dumps(data)
        kind = [("Content-Type", _TYPES[command])] if command in _TYPES else []
        self.response = self.client.request(method, path, body, kind)
        return self.answer()

    def answer(self) -> Any:
        self.server.settle()
        response = self.response
        if response.status in (0, 200):
            return OK if response.status else WAITS
        return response.status, response.json()["error"]["code"] if response.body else None


class HTTPSite(HTTPEdge):
    """The same in a site of another program."""

    port = "site"


# Centrifugo's client protocol.


class CentrifugoEdge(Edge):
    family = "Centrifugo"
    kind: ClassVar[type[StructuredMember]]

    def open(self) -> None:
        self.member: Any = self.kind(self.server, self.factories, joins=False)

    @property
    def closed(self) -> bool:
        return bool(self.member.closed)

    def ask(self, command: str, channel: str, data: str) -> Any:
        body: dict[str, Any] = {"channel": channel}
        if command == "publish":
            body["data"] = data
        if command == "history":
            body["limit"] = 1
        self._command = command
        self._number = self.member.ask(command, **body)
        return self.answer()

    def answer(self) -> Any:
        self.member.hear()
        reply = self.member.replies.get(self._number)
        if reply is None:
            return WAITS
        return reply["error"]["code"] if "error" in reply else OK if self._command in reply else reply


class CentrifugoWebSocket(CentrifugoEdge):
    kind = StructuredWebSocketMember


class CentrifugoTCP(CentrifugoEdge):
    kind = StructuredLinesMember


class CentrifugoTCPOnSharedPort(CentrifugoEdge):
    kind = SharedStructuredLinesMember


class CentrifugoHTTPStream(CentrifugoEdge):
    kind = StructuredStreamMember


class CentrifugoSSE(CentrifugoEdge):
    kind = StructuredEventsMember


class CentrifugoProtobuf(Edge):
    """The Protobuf flavour over http_stream and /emulation; the SDK's own module writes and reads it."""

    family = "Centrifugo"

    def open(self) -> None:
        self._numbers = itertools.count(2)
        self._down = self._post("/connection/http_stream", _delimited(sdk.Command(id=1, connect={})))
        (reply,) = self._replies()
        self._connected = reply.connect

    def _post(self, path: str, body: bytes) -> HTTPResponse:
        client = self.server.http_client(self.factories[self.port])
        return client.request("POST", path, body, [("Content-Type", "application/octet-stream")])

    def _replies(self) -> list[Any]:
        self.server.settle()
        found, data = [], self._down.body
        while data:
            size, at = _DecodeVarint32(data, 0)
            found.append(sdk.Reply.FromString(data[at : at + size]))
            data = data[at + size :]
        return found

    @property
    def closed(self) -> bool:
        return self._down.complete

    def ask(self, command: str, channel: str, data: str) -> Any:
        body: dict[str, Any] = {"channel": channel}
        if command == "publish":
            body["data"] = json.dumps(data).encode()
        if command == "history":
            body["limit"] = 1
        self._command, self._number = command, next(self._numbers)
        written = _delimited(sdk.Command(id=self._number, **{command: body}))
        request = sdk.EmulationRequest(session=self._connected.session, node=self._connected.node, data=written)
        assert self._post("/emulation", request.SerializeToString()).status == 204
        return self.answer()

    def answer(self) -> Any:
        found = [each for each in self._replies() if each.id == self._number]
        if not found:
            return WAITS
        (reply,) = found
        return reply.error.code or (OK if reply.HasField(self._command) else reply)


def _delimited(command: Any) -> bytes:
    return bytes(_VarintBytes(command.ByteSize()) + command.SerializeToString())


# gRPC.


class Calls(Edge):
    """Calls of one request each, on one connection of HTTP/2."""

    family = "gRPC calls"

    def open(self) -> None:
        self._peer = Peer(self.server, self.factories[self.port])

    @property
    def closed(self) -> bool:
        return bool(self._peer.connection.closed)

    def ask(self, command: str, channel: str, data: str) -> Any:
        requests: dict[str, Any] = {
            "Publish": pb.PublishRequest(channel=channel, text=data),
            "Subscribe": pb.SubscribeRequest(channel=channel),
            "Presence": pb.PresenceRequest(channel=channel),
            "History": pb.HistoryRequest(channel=channel),
        }
        self._stream = self._peer.call(SERVICE + command, requests[command].SerializeToString())
        return self.answer()

    def answer(self) -> Any:
        status = self._peer.status(self._stream)
        if status is None:
            return OK if self._peer.messages(self._stream) else WAITS
        number = int(self._peer.trailers(self._stream).get("longconn-code", 0))
        return (StatusCode(status[0]).name, number) if status[0] else OK


class CallsOnGrpcPort(Calls):
    port = "grpc"


class _Connected(ConnectMember):
    """Connects, and subscribes to nothing."""

    def request(self) -> Any:
        raise NotImplementedError

    def connect(self) -> None:
        self.answers = {}
        self._numbers = itertools.count(1)
        self._subscribing = 0
        self.client = self.open()
        self.ask(connect=pb.ConnectCommand())


class GrpcConnect(Edge):
    """Commands of one call of Connect."""

    family = "gRPC Connect"

    def open(self) -> None:
        self._member = _Connected(self.server, {"shared": self.factories[self.port]})
        self._member.hear()

    @property
    def closed(self) -> bool:
        return self._member.closed

    def ask(self, command: str, channel: str, data: str) -> Any:
        body = {"channel": channel} | ({"text": data} if command == "publish" else {})
        self._number = self._member.ask(**{command: body})
        return self.answer()

    def answer(self) -> Any:
        self._member.hear()
        found = self._member.answers.get(self._number)
        if found is None:
            return WAITS
        return found.error.code if found.WhichOneof("event") == "error" else OK


class GrpcConnectOnGrpcPort(GrpcConnect):
    port = "grpc"


# Trusted ones.


class ServerAPIEdge(Edge):
    """POST /api/METHOD, and a client of Centrifugo's client protocol on which its methods act."""

    family = "server API"
    headers: ClassVar[tuple[tuple[str, str], ...]] = (("X-API-Key", API_KEY),)

    def open(self) -> None:
        self._target = StructuredWebSocketMember(self.server, self.factories, joins=False)
        self._http = self.server.http_client(self.factories[self.port])

    def ask(self, command: str, channel: str, data: str) -> Any:
        body: dict[str, Any] = {"channel": channel}
        if command in ("publish", "broadcast"):
            body["data"] = data
        if command == "broadcast":
            body["channels"] = [body.pop("channel")]
        if command in ("subscribe", "unsubscribe"):
            body |= {"user": "", "client": self._target.id}
        self._response = self._http.post(f"/api/{command}", json.dumps(body), self.headers)
        return self.answer()

    def answer(self) -> Any:
        self.server.advance(0.02)
        if not self._response.complete:
            return WAITS
        value = self._response.json()
        (value,) = value.get("result", {}).get("responses", [value])
        return self.written(self._response.status, value)

    def written(self, status: int, value: Any) -> Any:
        assert status == 200, status
        return value["error"]["code"] if "error" in value else OK


class ServerAPIInTransportMode(ServerAPIEdge):
    """Refusals have statuses of their own, but for those within the answer to a broadcast."""

    family = "server API in transport mode"
    headers = (*ServerAPIEdge.headers, ("X-Centrifugo-Error-Mode", "transport"))

    def written(self, status: int, value: Any) -> Any:
        code = value["code"] if status != 200 else value.get("error", {}).get("code")
        return OK if code is None else (status, code)


class Program(Edge):
    """The program that embeds the hub. A refusal is its number."""

    family = "program"

    def ask(self, command: str, channel: str, data: str) -> Any:
        hub, self._results = self.server.hub, list[Any]()
        done = self._results.append
        try:
            if command == "Hub.publish":
                hub.publish(channel, Data.of_text(data), Info("program"), done)
            elif command == "Hub.presence":
                done(hub.presence(channel))
            elif command == "Hub.history":
                hub.history(channel, done)
            else:
                raise AssertionError(command)
        except CommandError as error:
            done(error)
        return self.answer()

    def answer(self) -> Any:
        self.server.settle()
        if not self._results:
            return WAITS
        (result,) = self._results
        return result.reason.code if isinstance(result, CommandError) else OK


class Local(Edge):
    """A client that is part of the program. A refusal is its number."""

    family = "local member"

    def open(self) -> None:
        self._member = LocalMember(self.server.hub, "bot")

    def ask(self, command: str, channel: str, data: str) -> Any:
        self._results = list[Any]()
        member = self._member
        if command == "subscribe":
            asked: Any = Deferred.fromCoroutine(member.subscribe(channel).subscribed())
        else:
            asked = getattr(member, command)(channel, *([data] if command == "publish" else []))
        asked.addBoth(self._results.append)
        return self.answer()

    def answer(self) -> Any:
        self.server.settle()
        if not self._results:
            return WAITS
        (result,) = self._results
        return result.value.reason.code if isinstance(result, Failure) else OK


EDGES: tuple[type[Edge], ...] = (
    ChatPort, ChatOnSharedPort, ChatWebSocket, ChatWebSocketPort, TCPConnect, SharedTCPConnect, Handshake,
    HandshakeOnWebSocketPort, HTTPEdge, HTTPSite, CentrifugoWebSocket, CentrifugoTCP, CentrifugoTCPOnSharedPort,
    CentrifugoHTTPStream, CentrifugoSSE, CentrifugoProtobuf, Calls, CallsOnGrpcPort, GrpcConnect,
    GrpcConnectOnGrpcPort, ServerAPIEdge, ServerAPIInTransportMode, Program, Local,
)  # fmt: skip


#: The address that limits are counted by: that of every client in memory.
HOST = "127.0.0.1"


def spend_new_channels(server: MemoryServer) -> None:
    """Name new channels from the clients' address until it may name no more."""
    results: list[Any] = []
    for number in range(1_000):
        server.hub.door.history(Caller(HOST, HOST, HOST), f"spent-{number}", results.append)
        if isinstance(results[-1], CommandError):
            return
    raise AssertionError("new channels have no rate")
