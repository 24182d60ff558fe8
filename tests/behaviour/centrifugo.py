"""Members that speak Centrifugo's client protocol, over each of its carriers."""

import itertools
import json
import re
from typing import Any
from urllib.parse import quote

from longconn.testing import HTTPClient, HTTPResponse, LineClient, WebSocketClient
from tests.behaviour.members import Heard, Member

Object = dict[str, Any]


def _dump(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    # Half a character has no form but its escape.
    return json.dumps(value) if re.search("[\ud800-\udfff]", text) else text


class StructuredMember(Member):
    """Connects and subscribes in one frame; answers pings. `frames` are all that came, each a list of objects."""

    resumes = True
    #: members of the `subscribe` of its channel, and of `connect`
    asks: Object = {}
    token: str | None = None

    def connect(self) -> None:
        #: replies by id, pushes and pings in their order
        self.replies: dict[int, Object] = {}
        self.pushes: list[Object] = []
        self.frames: list[list[Object]] = []
        self.connected: Object | None = None
        #: what subscribes that recovered brought, by channel, in the order of asking
        self.backlogs: dict[str, list[Object]] = {}
        self._asked: dict[int, str] = {}
        self.start = self.since
        self.subscribed = False
        self.answers_pings = True
        self._heard: list[Heard] = []
        self._farewell: int | None = None
        self._read = 0
        self._numbers = itertools.count(1)
        self._subscribing = 0
        self.asks = dict(self.asks) | self.options.pop("asks", {})
        self.token = self.options.pop("token", self.token)
        self.joins = self.options.pop("joins", True)
        connect = {"id": 0, "connect": {} if self.token is None else {"token": self.token}}
        connect["id"] = self._connecting = next(self._numbers)
        self.open([connect, self._subscribe()] if self.joins else [connect])

    def open(self, commands: list[Object]) -> None:
        """Make the connection, with these commands first."""
        raise NotImplementedError

    def send_raw(self, data: str) -> None:
        """What is to be read as a frame, whatever it is."""
        raise NotImplementedError

    def bodies(self) -> list[str]:
        """All frames so far."""
        raise NotImplementedError

    # Commands.

    def _subscribe(self) -> Object:
        body = {"channel": self.channel, **self.asks}
        if self.since is not None:
            epoch, _, offset = self.since.rpartition(":")
            body |= {"recover": True, "epoch": epoch, "offset": int(offset)}
        self._subscribing = next(self._numbers)
        return {"id": self._subscribing, "subscribe": body}

    def again(self) -> None:
        """After an error: come in."""
        if self.closed or self.farewell is not None:
            self.connect()
        elif self.connected is not None:
            self.send(self._subscribe())

    def send(self, *commands: Object) -> None:
        """Commands as they are, in one frame."""
        self.send_raw("\n".join(map(_dump, commands)))

    def ask(self, method: str, /, **body: Any) -> int:
        """Give a command; its number, which its reply has."""
        number = next(self._numbers)
        if method == "subscribe":
            self._asked[number] = body.get("channel", "")
        self.send({"id": number, method: body})
        return number

    def call(self, method: str, /, **body: Any) -> Any:
        """Give a command; the whole reply to it, once it has come."""
        number = self.ask(method, **body)
        self.server.settle()
        self.process()
        return self.replies[number]

    def result(self, method: str, /, **body: Any) -> Any:
        """The result of a command, given again until the broker takes it."""
        for _ in range(100):
            reply = self.call(method, **body)
            if reply.get("error", {}).get("code") != 100:
                return reply[method]
        raise AssertionError("never accepted")

    def refusal(self, method: str, /, **body: Any) -> int:
        """The number of the error with which a command is refused; the broker's own do not count."""
        for _ in range(100):
            code: int = self.call(method, **body)["error"]["code"]
            if code != 100:
                return code
        raise AssertionError("never refused")

    def say(self, *texts: str) -> None:
        self.send(*({"id": next(self._numbers), "publish": {"channel": self.channel, "data": each}} for each in texts))
        self.server.settle()

    # What came.

    def process(self) -> None:
        bodies = self.bodies()
        fresh, self._read = bodies[self._read :], len(bodies)
        for body in fresh:
            frame = [_read(each) for each in body.split("\n") if each]
            self.frames.append(frame)
            for each in frame:
                self._take(each)

    def _take(self, value: Object) -> None:
        if "push" in value:
            self.pushes.append(value["push"])
            self._take_push(value["push"])
        elif "id" in value:
            assert value["id"] not in self.replies, value
            self.replies[value["id"]] = value
            if "error" in value:
                self._heard.append(("error", value["error"]["message"]))
            elif "connect" in value:
                self.connected = value["connect"]
            elif value["id"] in self._asked:
                self.backlogs[self._asked[value["id"]]] = value["subscribe"].get("publications", [])
            elif value["id"] == self._subscribing:
                self._take_subscribed(value["subscribe"])
        else:
            assert value == {} or "error" in value, value

    def _take_subscribed(self, result: Object) -> None:
        self.subscribed = True
        if result.get("was_recovering") and not result.get("recovered"):
            self._heard.append(("lost",))
            assert "publications" not in result
        for each in result.get("publications", ()):
            self._take_publication(each)
        if result.get("recoverable"):
            self.epoch = result["epoch"]
            self.since = self.start = f"{self.epoch}:{result.get('offset', 0)}"

    def _take_publication(self, publication: Object) -> None:
        info = publication.get("info", {})
        name = info.get("conn_info", {}).get("name") or info.get("client", "")
        self._heard.append(("said", name, publication["data"]))

    def _take_push(self, push: Object) -> None:
        if "disconnect" in push:
            self._farewell = push["disconnect"]["code"]
        elif push["channel"] == self.channel:
            if "pub" in push:
                assert self.subscribed, "a publication before the reply to subscribe"
                self._take_publication(push["pub"])
                self.since = f"{self.epoch}:{push['pub']['offset']}"
            for kind, heard in (("join", "joined"), ("leave", "left")):
                if kind in push:
                    info = push[kind]["info"]
                    self._heard.append((heard, info.get("conn_info", {}).get("name") or info["client"]))

    def fresh(self) -> list[Heard]:
        self.process()
        heard, self._heard = self._heard, []
        return heard

    @property
    def inside(self) -> bool:
        self.process()
        return self.subscribed

    @property
    def id(self) -> str:
        """How the protocol calls this client."""
        self.process()
        assert self.connected is not None
        return str(self.connected["client"])

    @property
    def farewell(self) -> int | None:
        self.process()
        return self._farewell

    def _pong(self, body: str) -> None:
        if self.answers_pings and body == "{}":
            # Not from within the server's write.
            self.server.clock.callLater(0, self.send_raw, "{}")


def _read(line: str) -> Object:
    if line.startswith("! "):  # a port for chat lines refuses before it knows what is to be spoken
        return {"error": {"message": line}}
    value: Object = json.loads(line)
    return value


class StructuredWebSocketMember(StructuredMember):
    """On /connection/websocket."""

    protocol = "websocket"
    path = "/connection/websocket"
    client: WebSocketClient

    def open(self, commands: list[Object]) -> None:
        self.client = self.server.websocket_client(self.path, self.factories["shared"], **self.options)
        self._seen = 0
        self.client.on_read = self._on_read
        if self.client.status == 101:
            self.send(*commands)

    def _on_read(self) -> None:
        for each in self.client.messages[self._seen :]:
            self._pong(str(each))
        self._seen = len(self.client.messages)

    def send_raw(self, data: str) -> None:
        self.client.say(data)

    def bodies(self) -> list[str]:
        messages: list[Any] = self.client.messages
        return messages

    @property
    def farewell(self) -> int | None:
        return self.client.close_code


class StructuredLinesMember(StructuredMember):
    """Lines of TCP, on a port for chat lines, whose first line asks for the protocol."""

    protocol = "tcp"
    port = "chat"
    client: LineClient

    def open(self, commands: list[Object]) -> None:
        self.client = self.server.line_client(self.factories[self.port], **self.options)
        self._seen = 0
        self.client.on_read = self._on_read
        self.send(*commands)

    def _on_read(self) -> None:
        for each in self.client.lines[self._seen :]:
            self._pong(each)
        self._seen = len(self.client.lines)

    def send_raw(self, data: str) -> None:
        self.client.connection.send(data.encode() + b"\n")

    def bodies(self) -> list[str]:
        return self.client.lines


class SharedStructuredLinesMember(StructuredLinesMember):
    """The same on the shared port."""

    port = "shared"


class StructuredStreamMember(StructuredMember):
    """POST /connection/http_stream, and /emulation the other way."""

    protocol = "http_stream"
    client: HTTPClient
    response: HTTPResponse

    def open(self, commands: list[Object]) -> None:
        self.client = self.server.http_client(self.factories["shared"], **self.options)
        self._up: HTTPClient | None = None
        self._seen = self._taken = 0
        self._bodies: list[str] = []
        self.posts: list[HTTPResponse] = []
        self.client.on_read = self._on_read
        self.response = self.begin("\n".join(map(json.dumps, commands)))

    def begin(self, commands: str) -> HTTPResponse:
        return self.client.post("/connection/http_stream", commands)

    def _on_read(self) -> None:
        if self.response_came:
            bodies = self.bodies()
            for each in bodies[self._seen :]:
                self._pong(each)
            self._seen = len(bodies)

    @property
    def response_came(self) -> bool:
        return hasattr(self, "response") and self.response.status == 200

    def send_raw(self, data: str) -> None:
        self.process()
        if self.connected is None or self.response.complete:
            return
        if self._up is None or self._up.closed:
            self._up = self.server.http_client(self.factories["shared"])
            # Its answers are looked at when a test does.
            self._up._settle = None
        body = {"session": self.connected["session"], "node": self.connected["node"], "data": data}
        self.posts.append(self._up.post("/emulation", json.dumps(body)))

    separator = b"\n"

    def bodies(self) -> list[str]:
        if self.response.status == 200:
            end = self.response.body.rfind(self.separator) + len(self.separator)
            if end > self._taken:
                whole = self.response.body[self._taken : end]
                self._taken = end
                self._bodies += map(self.take_apart, whole.split(self.separator)[:-1])
        return self._bodies

    def take_apart(self, body: bytes) -> str:
        return body.decode()


class StructuredEventsMember(StructuredStreamMember):
    """GET /connection/sse, and /emulation."""

    protocol = "sse"

    def begin(self, commands: str) -> HTTPResponse:
        return self.client.get(f"/connection/sse?cf_connect={quote(commands)}")

    separator = b"\n\n"

    def take_apart(self, body: bytes) -> str:
        return "\n".join(line.removeprefix("data: ") for line in body.decode().split("\n") if line.startswith("data: "))
