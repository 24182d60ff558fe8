"""Generated inputs for each protocol of a whole service in memory; half of them are spoilt, past the handshake.

An input is what a protocol takes as one: a line, a frame, a command, a request, a call, a header of a proxy, a hello of
TLS. Nothing may be raised or logged as an error, no request is answered with 500, a witness reads on, and when the
connections are gone the server keeps nothing of them.
"""

import contextlib
import json
import logging
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from hpack import Encoder
from OpenSSL import SSL
from twisted.logger import LogLevel, globalLogPublisher

from longconn import ChatFactory, GrpcFactory, Hub, Settings, SharedPortFactory
from longconn.core.publication import Data, Info
from longconn.protocols.centrifugo import client_pb2 as centrifugo
from longconn.service.embedding import LiveSite
from longconn.service.shared_tls import SharedTLS
from longconn.testing import FakeClock, LineClient, MemoryServer
from longconn.v1 import longconn_pb2 as pb
from tests.live.certificates import write_certificate
from tests.protocols.grpc import frames

#: Inputs of one connection at most, and how many of a hundred are spoilt.
_MOST = 40
_SPOILT = 50
_NASTY = (
    b"\r\n", b"\n", b"\0", b"\xff", b" ", b":", b'"', b"{", b"}", b"[" * 600, b"-1", b"1e999", b"\\ud800", b"\x80",
    b"9" * 400, b"%00", b"\xe2\x80\xa8", b"null", b"true",
)  # fmt: skip
_NAMES = ("lobby", "den", "a/b:c", "#42", "", "x" * 300, "\u202e", "sealed:a", "none:a", "a b")


class Wrong(AssertionError):
    """A check failed. The same seed repeats it."""


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """A WebSocket frame with a mask of zeros."""
    size = len(payload)
    length = (
        bytes([0x80 | size])
        if size < 126
        else b"\xfe" + size.to_bytes(2)
        if size < 65536
        else b"\xff" + size.to_bytes(8)
    )
    return bytes([0x80 | opcode]) + length + b"\0\0\0\0" + payload


def upgrade(path: str, protocol: str = "") -> bytes:
    asked = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{asked}"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


def request(method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode("utf-8", "surrogateescape") + body


class Source:
    """What is valid in each protocol, by chance."""

    def __init__(self, numbers: random.Random) -> None:
        self.random = numbers
        self._id = 1

    def name(self) -> str:
        return self.random.choice(_NAMES)

    def data(self) -> Any:
        return self.random.choice((1, "x", "text\u2028", {"a": [1, None, {"b": "c"}]}, [], "y" * 300, 1.5, False, ""))

    def line(self) -> bytes:
        choices = (
            "hello", "ping", "/who", "/channels", "/help", "/history 5", f"/nick n{self.random.randrange(9)}",
            f"/join {self.random.choice(('den', 'lobby'))}", "/json {\"a\": 1}", "//x", "房间", "/login ada", "x" * 500,
        )  # fmt: skip
        return self.random.choice(choices).encode()

    def command(self) -> dict[str, Any]:
        self._id += 1
        channel = {"channel": self.name()}
        since = {"epoch": self.random.choice(("", "x")), "offset": self.random.randrange(5)}
        bodies = {
            "subscribe": channel | self.random.choice(({}, {"recover": True, **since}, {"token": "a.b.c"})),
            "unsubscribe": channel,
            "publish": channel | {"data": self.data()},
            "presence": channel,
            "presence_stats": channel,
            "history": channel | self.random.choice(({"limit": 3}, {"since": since, "limit": -1}, {"reverse": True})),
            "ping": {},
            "send": {"data": self.data()},
            "rpc": {"method": "m", "data": self.data()},
            "refresh": {"token": "a.b.c"},
            "sub_refresh": channel | {"token": "a.b.c"},
            "connect": {"token": "x"},
        }
        method = self.random.choice(tuple(bodies))
        return {"id": self._id, method: bodies[method]}

    def json_command(self) -> bytes:
        return json.dumps(self.command(), ensure_ascii=self.random.random() < 0.5).encode("utf-8", "surrogatepass")

    def protobuf_command(self) -> bytes:
        self._id += 1
        command = centrifugo.Command(id=self._id)
        kind = self.random.choice(
            ("subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history", "rpc")
        )
        part = getattr(command, kind)
        if kind == "rpc":
            part.method, part.data = "m", b"1"
        else:
            part.channel = self.name()
        if kind == "publish":
            part.data = json.dumps(self.data()).encode()
        if kind == "history":
            part.limit = self.random.randrange(-1, 5)
        return command.SerializeToString()

    def http(self) -> bytes:
        channel = self.random.choice(("den", "lobby", "a%2Fb:c", "%20", "%ff"))
        position = self.random.choice(("x:1", "", "x", "x:99999999999999999999"))
        body = json.dumps(self.data()).encode()
        lines = b"1\n{}\n" * self.random.randrange(4)
        return self.random.choice(
            (
                request("GET", "/"), request("GET", "/PrintHello"), request("GET", "/nowhere"),
                request("GET", "/health/ready"), request("GET", "/metrics"), request("OPTIONS", "/channels/den"),
                request("GET", f"/channels/{channel}"), request("GET", f"/channels/{channel}?since={position}"),
                request("GET", f"/channels/{channel}?since={position}&wait=1"),
                request("POST", f"/channels/{channel}", body, "Content-Type: application/json\r\n"),
                request("POST", f"/channels/{channel}?name=cron", b"text"),
                request("POST", f"/channels/{channel}", lines, "Content-Type: application/x-ndjson\r\n"),
                request("POST", "/api/publish", b'{"channel":"den","data":1}', "X-API-Key: key\r\n"),
                request("POST", "/api/batch", b'{"commands":[{"info":{}}]}', "X-API-Key: key\r\n"),
                request("POST", "/api/history", b'{"channel":"den","limit":-1}', "X-API-Key: key\r\n"),
                request("POST", "/emulation", b'{"session":"x","node":"","data":"{}"}'),
                request("HEAD", f"/channels/{channel}/events"),
            )
        )  # fmt: skip

    def streaming(self) -> bytes:
        """A request whose answer goes on."""
        body = json.dumps({"id": 1, "connect": {"subs": {self.name(): {}}}}).encode()
        return self.random.choice(
            (
                request("GET", "/channels/den/events", headers="Accept: text/event-stream\r\n"),
                request("GET", "/channels/den/events?since=x:1"), request("GET", "/channels/den/stream"),
                request("POST", "/connection/http_stream", body), request("POST", "/connection/sse", body),
                request("GET", "/connection/sse?cf_connect=%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D"),
            )
        )  # fmt: skip

    def call(self) -> tuple[str, bytes]:
        name = self.random.choice(("Publish", "Subscribe", "Connect", "Presence", "History"))
        data = json.dumps(self.data()).encode()
        made: Any = {
            "Publish": pb.PublishRequest(channel=self.name(), data=data),
            "Subscribe": pb.SubscribeRequest(channel=self.name()),
            "Connect": pb.ConnectRequest(id=1, connect=pb.ConnectCommand()),
            "Presence": pb.PresenceRequest(channel=self.name()),
            "History": pb.HistoryRequest(channel=self.name(), limit=3),
        }[name]
        return f"/longconn.v1.LongConn/{name}", made.SerializeToString()


class Session:
    """One connection: what comes first, and how an input is made of what is valid or was spoilt."""

    def __init__(self, inputs: "Inputs") -> None:
        self.inputs = inputs
        self.source = inputs.source
        self.random = inputs.random

    #: the factory to connect to, by name; bytes before the inputs
    port = "shared"

    def begin(self) -> bytes:
        return b""

    def valid(self) -> bytes:
        raise NotImplementedError

    def framed(self, payload: bytes) -> bytes:
        return payload

    def input(self) -> bytes:
        """The next input: valid, or spoilt inside its frame, or seldom with its frame."""
        payload = self.valid()
        if self.random.randrange(100) >= _SPOILT:
            return self.framed(payload)
        if self.random.random() < 0.9:
            return self.framed(self.inputs.spoil(payload))
        return self.inputs.spoil(self.framed(payload))


class ChatLines(Session):
    port = "chat"

    def valid(self) -> bytes:
        return self.source.line()

    def framed(self, payload: bytes) -> bytes:
        return payload + b"\r\n"


class ChatFrames(ChatLines):
    port = "shared"

    def begin(self) -> bytes:
        return upgrade("/ws?channel=den")

    def framed(self, payload: bytes) -> bytes:
        return frame(payload, 1 if self.random.random() < 0.95 else self.random.randrange(16))


class CommandLines(Session):
    def begin(self) -> bytes:
        return b'{"id":1,"connect":{}}\n'

    def valid(self) -> bytes:
        return self.source.json_command()

    def framed(self, payload: bytes) -> bytes:
        return payload + b"\n"


class CommandFrames(CommandLines):
    def begin(self) -> bytes:
        return upgrade("/connection/websocket") + frame(b'{"id":1,"connect":{}}')

    def framed(self, payload: bytes) -> bytes:
        return frame(payload)


class ProtobufFrames(Session):
    def begin(self) -> bytes:
        connect = centrifugo.Command(id=1, connect=centrifugo.ConnectRequest()).SerializeToString()
        return upgrade("/connection/websocket", "centrifuge-protobuf") + frame(bytes([len(connect)]) + connect, 2)

    def valid(self) -> bytes:
        return self.source.protobuf_command()

    def framed(self, payload: bytes) -> bytes:
        size, length = len(payload), b""
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        return frame(length + bytes([size]) + payload, 2)


class Requests(Session):
    def valid(self) -> bytes:
        return self.source.http()


class Streams(Session):
    """A stream, and requests for it: on a connection of its own each."""

    def begin(self) -> bytes:
        return b""

    def valid(self) -> bytes:
        return self.source.streaming()


class Calls(Session):
    """Calls on one connection of HTTP/2."""

    def __init__(self, inputs: "Inputs") -> None:
        super().__init__(inputs)
        self._encoder = Encoder()
        self._stream = -1

    def begin(self) -> bytes:
        return frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, b"")

    def valid(self) -> bytes:
        return self.source.call()[1]

    def framed(self, payload: bytes) -> bytes:
        self._stream += 2
        path = self.source.call()[0]
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
                  ("te", "trailers"), ("content-type", "application/grpc")]  # fmt: skip
        head = frames.frame(frames.HEADERS, frames.END_HEADERS, self._stream, self._encoder.encode(fields))
        message = b"\0" + len(payload).to_bytes(4) + payload
        data = frames.frame(frames.DATA, frames.END_STREAM, self._stream, message)
        extra = b""
        if self.random.random() < 0.2:
            kind, flags = self.random.randrange(12), self.random.randrange(256)
            extra = frames.frame(kind, flags, self._stream, self.random.randbytes(self.random.choice((0, 4, 5, 8))))
        return head + data + extra


class ProxyHeaders(Session):
    port = "proxied"

    def valid(self) -> bytes:
        second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 192, 0, 2, 2]) + b"\x10\x00\x20\x00"
        first = b"PROXY TCP4 192.0.2.1 192.0.2.2 4096 8192\r\n"
        return self.random.choice((first, second, b"PROXY UNKNOWN\r\n", b"PROXY TCP6 ::1 ::1 1 2\r\n"))

    def framed(self, payload: bytes) -> bytes:
        return payload + b"hello\r\n"


class Hellos(Session):
    port = "tls"

    def valid(self) -> bytes:
        return self.inputs.hello


#: Each protocol's session; how many inputs a connection of it takes at most.
PROTOCOLS: dict[str, tuple[type[Session], int]] = {
    "chat lines": (ChatLines, _MOST),
    "chat over WebSocket": (ChatFrames, _MOST),
    "Centrifugo, JSON lines": (CommandLines, _MOST),
    "Centrifugo, JSON over WebSocket": (CommandFrames, _MOST),
    "Centrifugo, Protobuf over WebSocket": (ProtobufFrames, _MOST),
    "HTTP": (Requests, _MOST),
    "streams over HTTP": (Streams, 1),
    "gRPC": (Calls, _MOST),
    "PROXY header": (ProxyHeaders, 1),
    "TLS hello": (Hellos, 1),
}


class Inputs:
    """A service, a witness, and the connections that attack one protocol of it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.source = Source(self.random)
        self.clock = FakeClock()
        hub = Hub(self.clock, _certificate()[1])
        self.server = MemoryServer(hub=hub)
        chat, site, grpc = ChatFactory(hub), LiveSite(hub), GrpcFactory(hub)
        shared: Any = SharedPortFactory(chat, site, grpc)
        tls = SharedTLS(hub, shared)
        proxied = SharedPortFactory(chat, site, grpc)
        self.factories = {"shared": shared, "chat": chat, "tls": tls.factory, "proxied": proxied}
        self.hello = _hello()
        self.witness: LineClient = self.server.line_client(chat)
        self.witness.say("/join quiet")
        self.witness.read()
        self.errors: list[str] = []
        self.counts: dict[str, int] = dict.fromkeys(PROTOCOLS, 0)

    def spoil(self, data: bytes) -> bytes:
        source = self.random
        for _ in range(source.choice((1, 1, 1, 2, 5))):
            at = source.randrange(len(data) + 1)
            end = min(len(data), at + source.randrange(1, 12))
            what = source.randrange(5)
            if what == 0:
                data = data[:at] + source.randbytes(end - at) + data[end:]
            elif what == 1:
                data = data[:at] + data[end:]
            elif what == 2:
                data = data[:at] + data[at:end] * source.randrange(1, 9) + data[end:]
            elif what == 3:
                data = data[:at] + source.choice(_NASTY) + data[at:]
            elif data:
                at = source.randrange(len(data))
                data = data[:at] + bytes([data[at] ^ (1 << source.randrange(8))]) + data[at + 1 :]
        return data

    def attack(self, name: str) -> None:
        """One connection of a protocol, with its inputs in random segments, and its end."""
        make, most = PROTOCOLS[name]
        session = make(self)
        connection = self.server.connect(self.factories[session.port])
        answered = bytearray()
        connection.on_data = answered.extend
        connection.send(session.begin())
        self.server.settle()
        waiting = b""
        for _ in range(most):
            if connection.closed or connection.transport.disconnected:
                break
            self.counts[name] += 1
            waiting += session.input()
            if self.random.random() < 0.5:
                cut = self.random.randrange(len(waiting) + 1)
                connection.send(waiting[:cut])
                waiting = waiting[cut:]
                if self.random.random() < 0.5:
                    self.clock.turn()
        connection.send(waiting)
        self.server.settle()
        if self.random.random() < 0.05:
            self.server.advance(self.random.choice((0.3, 1, 11, 80)))
        self.random.choice((connection.reset, connection.close, connection.half_close))()
        self.server.settle()
        connection.reset()
        if b"HTTP/1.1 500" in answered:
            raise Wrong(f"{name}: answered with 500: {bytes(answered)[:2000]!r}")

    def check(self, name: str) -> None:
        """Nothing was raised or is kept, and the witness reads on."""
        self.server.settle()
        text = f"after {self.counts[name]}"
        self.server.hub.publish("quiet", Data.of_text(text), Info("fuzz"), lambda result: None)
        said = [each for each in self.witness.read() if text in each]
        if len(said) != 1:
            raise Wrong(f"{name}: the witness read {said}")
        self.server.advance(90)
        hub = self.server.hub
        kept = {
            "clients": len(hub.clients) - 1, "sessions": len(hub.sessions), "waiting": len(hub.waiting),
            "queued": hub.queued, "channels": len(hub.channels) - 1,
        }  # fmt: skip
        if any(kept.values()):
            raise Wrong(f"{name}: kept {kept}")
        if self.errors:
            raise Wrong(f"{name}: logged {self.errors[:3]}")
        self.server.connections.clear()


_made: list[Any] = []


def _certificate() -> tuple[Any, Settings]:
    """Settings that turn the rates off, with a certificate, made once."""
    if not _made:
        folder = tempfile.TemporaryDirectory()
        key, certificate = write_certificate(Path(folder.name))
        settings = Settings(
            publish_rate=0, publish_bytes=0, channel_rate=0, empty_line="ignore", history_size=5, api_key="key",
            tls_cert=(str(certificate),), tls_key=(str(key),), trusted_proxy=("127.0.0.1",),
        )  # fmt: skip
        _made.append((folder, settings))
    found: tuple[Any, Settings] = _made[0]
    return found


def _hello() -> bytes:
    """What a client of OpenSSL sends first."""
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    client.set_connect_state()
    with contextlib.suppress(SSL.WantReadError):
        client.do_handshake()
    return client.bio_read(65536)


def main(seed: int, seconds: float, say: Any, count: int = 0, only: Any = None) -> None:
    """Run until each protocol had `count` inputs; without it for `seconds`, which the protocols share."""
    logging.getLogger("longconn").setLevel(logging.ERROR)
    errors: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: errors.append(handler.format(record))  # type: ignore[method-assign]
    logging.getLogger("longconn").addHandler(handler)

    def observe(event: dict[str, Any]) -> None:
        if event["log_level"] >= LogLevel.error:
            errors.append(str(event.get("log_format")) + str(event.get("log_failure")))

    globalLogPublisher.addObserver(observe)
    names = only or list(PROTOCOLS)
    totals = dict.fromkeys(names, 0)
    for name in names:
        until = time.monotonic() + seconds / len(names)
        number = 0
        while totals[name] < count or (not count and time.monotonic() < until):
            inputs = Inputs(seed + number)
            inputs.errors = errors
            try:
                for _ in range(100):
                    inputs.attack(name)
                inputs.check(name)
            except BaseException:
                say(f"failed: python -m tests.long inputs --seed {seed + number} --seconds 1 --only '{name}'")
                raise
            totals[name] += inputs.counts[name]
            number += 1
        say(f"{name}: {totals[name]:,} inputs")
    globalLogPublisher.removeObserver(observe)
    logging.getLogger("longconn").removeHandler(handler)
