"""One way to take part for every protocol: to come, to hear, to speak, to go.

What a member hears is the same whatever it is connected with:

    ("said", NAME, TEXT)  ("joined", NAME)  ("left", NAME)  ("renamed", OLD, NEW)
    ("error", TEXT)  ("info", TEXT)  ("lost",)    what was missed cannot be had
"""

import json
import re
from typing import Any
from urllib.parse import quote

from longconn.testing import (
    HTTPClient,
    HTTPResponse,
    LineClient,
    MemoryConnection,
    MemoryServer,
    WebSocketClient,
    client_frame,
)

Heard = tuple[str, ...]

_LINES = (
    ("joined", re.compile(r"\* (\S+) joined")),
    ("left", re.compile(r"\* (\S+) left")),
    ("renamed", re.compile(r"\* (\S+) is now (\S+)")),
    ("error", re.compile(r"! (.*)")),
    ("info", re.compile(r"\* (.*)|(pong)")),
    ("said", re.compile(r"(\S+): (.*)")),
)


def heard_line(line: str) -> Heard:
    """A chat line, understood."""
    for kind, pattern in _LINES:
        match = pattern.fullmatch(line)
        if match:
            return (kind, *(each for each in match.groups() if each is not None))
    raise AssertionError(f"no chat line: {line!r}")


class Member:
    """Somebody in a channel. `factories` has `chat`, `shared` and `websocket`."""

    #: whether it speaks and is announced on its own connection; can be slow; resumes
    speaks = False
    slow = True
    resumes = False
    #: how the log calls it
    protocol = ""

    client: Any

    def __init__(
        self,
        server: MemoryServer,
        factories: dict[str, Any],
        channel: str = "lobby",
        since: str | None = None,
        **options: Any,
    ) -> None:
        self.server = server
        self.factories = factories
        self.channel = channel
        self.since = since
        self.options = options
        self.history: list[Heard] = []
        self.connect()
        server.settle()

    def connect(self) -> None:
        raise NotImplementedError

    @property
    def connection(self) -> MemoryConnection:
        connection: MemoryConnection = self.client.connection
        return connection

    @property
    def name(self) -> str:
        return str(self.client.address)

    @property
    def inside(self) -> bool:
        """Whether it is in its channel, as far as it was told."""
        raise NotImplementedError

    def hear(self) -> list[Heard]:
        """What came since the last call."""
        self.server.settle()
        fresh = self.fresh()
        self.history += fresh
        return fresh

    def fresh(self) -> list[Heard]:
        raise NotImplementedError

    def hears(self, kind: str = "said") -> list[Heard]:
        """Of what came since the last call, what is of one kind."""
        return [each for each in self.hear() if each[0] == kind]

    def says(self) -> list[str]:
        """The texts of what others, or this one, said since the last call."""
        return [each[2] for each in self.hears()]

    @property
    def farewell(self) -> str | int | None:
        """What it was told when it was disconnected; None if nothing."""
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        return self.connection.closed


class TCPMember(Member):
    """On a port for chat lines alone."""

    speaks = True
    protocol = "tcp"
    port = "chat"
    client: LineClient

    def connect(self) -> None:
        self.client = self.server.line_client(self.factories[self.port], **self.options)
        if self.channel != "lobby":
            self.server.settle()
            self.say(f"/join {self.channel}")

    @property
    def inside(self) -> bool:
        return self.name in (each.name for each in self.server.hub.presence(self.channel))

    def say(self, *lines: str) -> None:
        self.client.say(*lines)
        self.server.settle()

    def say_raw(self, line: bytes) -> None:
        self.connection.send(line + b"\n")
        self.server.settle()

    def again(self) -> None:
        """After an error: come in."""
        self.say(f"/join {self.channel}")

    def fresh(self) -> list[Heard]:
        return [heard_line(line) for line in self.client.read()]

    @property
    def farewell(self) -> str | None:
        self.server.settle()
        last = [line for line in self.client.lines if line.startswith("! disconnected: ")]
        return last[-1] if last else None


class ListenerMember(TCPMember):
    """On the shared port, having said nothing."""

    port = "shared"

    def connect(self) -> None:
        super().connect()
        self.server.advance(0.31)


class WebSocketMember(Member):
    """On /ws of the shared port."""

    speaks = True
    protocol = "websocket"
    port = "shared"
    client: WebSocketClient

    def connect(self) -> None:
        path = "/ws" if self.channel == "lobby" else f"/ws?channel={quote(self.channel, safe='')}"
        self.client = self.server.websocket_client(path, self.factories[self.port], **self.options)

    @property
    def inside(self) -> bool:
        return self.name in (each.name for each in self.server.hub.presence(self.channel))

    def say(self, *lines: str) -> None:
        self.client.say(*lines)
        self.server.settle()

    def say_raw(self, line: bytes) -> None:
        self.connection.send(client_frame(line))
        self.server.settle()

    def again(self) -> None:
        self.say(f"/join {self.channel}")

    def fresh(self) -> list[Heard]:
        heard = []
        for each in self.client.read():
            assert isinstance(each, str)
            heard.append(heard_line(each))
        return heard

    @property
    def farewell(self) -> int | None:
        return self.client.close_code


class WebSocketPortMember(WebSocketMember):
    """On a port for WebSocket alone."""

    port = "websocket"


class StreamMember(Member):
    """GET /channels/NAME/stream."""

    resumes = True
    protocol = "stream"
    client: HTTPClient
    response: HTTPResponse
    path = "stream"
    version = "1.1"

    def connect(self) -> None:
        self.client = self.server.http_client(self.factories["shared"], **self.options)
        query = "" if self.since is None else f"?since={self.since}"
        path = f"/channels/{quote(self.channel, safe='')}/{self.path}{query}"
        self.response = self.client.request("GET", path, version=self.version)
        self._seen = 0

    def again(self) -> None:
        self.connect()

    @property
    def inside(self) -> bool:
        return self.response.status == 200

    def fresh(self) -> list[Heard]:
        if self.response.status >= 400:
            return []
        lines = self.response.lines()
        fresh, self._seen = lines[self._seen :], len(lines)
        heard: list[Heard] = []
        for each in filter(None, fresh):
            value = json.loads(each)
            if "data" in value:
                heard.append(self.heard(value))
            else:
                assert value["recovered"] is False
                self.since = f"{value['epoch']}:{value['offset']}"
                heard.append(("lost",))
        return heard

    def heard(self, value: dict[str, Any]) -> Heard:
        self.since = f"{value['epoch']}:{value['offset']}"
        return ("said", value["name"], value["data"])

    @property
    def farewell(self) -> int | None:
        return 0 if self.response.complete else None


class OldStreamMember(StreamMember):
    """The same by HTTP/1.0."""

    version = "1.0"


class EventMember(StreamMember):
    """Server-sent events."""

    protocol = "sse"
    path = "events"

    def fresh(self) -> list[Heard]:
        heard: list[Heard] = []
        if self.response.status >= 400:
            return []
        for block in self.response.text.split("\n\n")[:-1]:
            if block.startswith(":ok"):
                opening = re.search(r"^id: (.*)$", block, re.M)
                if self.since is None and opening:
                    self.since = opening[1]
        for event in self.response.read():
            value = event.json()
            if event.event == "message":
                heard.append(self.heard(value))
                assert event.id == self.since
            elif event.event == "unrecovered":
                self.since = f"{value['epoch']}:{value['offset']}"
                heard.append(("lost",))
            elif event.event == "disconnect":
                self._farewell = value["code"]
            else:
                heard.append(("joined" if event.event == "join" else "left", value["name"]))
        return heard

    _farewell: int | None = None

    @property
    def farewell(self) -> int | None:
        self.hear()
        return self._farewell


class PollMember(Member):
    """A long poll after another."""

    slow = False
    resumes = True
    protocol = "poll"
    client: HTTPClient
    response: HTTPResponse

    def connect(self) -> None:
        self.client = self.server.http_client(self.factories["shared"], **self.options)
        self._path = f"/channels/{quote(self.channel, safe='')}"
        if self.since is None:
            self.response = self.client.get(self._path)
            self.server.settle()
        else:
            self.poll()

    def again(self) -> None:
        self.connect()

    def poll(self) -> None:
        self.response = self.client.get(f"{self._path}?since={self.since}&wait=25")
        self.server.settle()

    @property
    def inside(self) -> bool:
        return self.since is not None or self.response.status == 200

    def fresh(self) -> list[Heard]:
        heard: list[Heard] = []
        while self.response.complete:
            if self.response.status == 200:
                value = self.response.json()
                if not value["recovered"]:
                    heard.append(("lost",))
                heard += [("said", each["name"], each["data"]) for each in value["publications"]]
                self.since = f"{value['epoch']}:{value['offset']}"
            elif self.since is None:
                break
            self.poll()
        return heard

    @property
    def farewell(self) -> None:
        return None
