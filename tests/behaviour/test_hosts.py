"""Hosts: over every protocol of the web, a page whose foreign name was made to point here reaches nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hpack import Encoder
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from longconn import ChatFactory, GrpcFactory, LiveSite, Settings, SharedPortFactory, WebSocketFactory
from longconn.testing import MemoryServer

_UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
)
_CONNECT = '{"id":1,"connect":{}}'
#: What a page can send, by the request line, further headers and the body.
REQUESTS: dict[str, tuple[str, str, str]] = {
    "the page": ("GET / HTTP/1.1", "", ""),
    "health": ("GET /health/live HTTP/1.1", "", ""),
    "OpenAPI": ("GET /openapi.json HTTP/1.1", "", ""),
    "publish": ("POST /channels/lobby HTTP/1.1", "", "hello"),
    "history": ("GET /channels/lobby HTTP/1.1", "", ""),
    "HEAD": ("HEAD /channels/lobby HTTP/1.1", "", ""),
    "server-sent events": ("GET /channels/lobby/events HTTP/1.1", "Accept: text/event-stream", ""),
    "a stream": ("GET /channels/lobby/stream HTTP/1.1", "", ""),
    "WebSocket": ("GET /ws HTTP/1.1", _UPGRADE, ""),
    "the echo": ("GET /echo HTTP/1.1", _UPGRADE, ""),
    "Centrifugo's WebSocket": ("GET /connection/websocket HTTP/1.1", _UPGRADE, ""),
    "Centrifugo's stream": ("POST /connection/http_stream HTTP/1.1", "", _CONNECT),
    "Centrifugo's events": ("POST /connection/sse HTTP/1.1", "Accept: text/event-stream", _CONNECT),
    "Centrifugo's emulation": ("POST /emulation HTTP/1.1", "", '{"session":"x","node":"y","data":"{}"}'),
    "the server API": ("POST /api/info HTTP/1.1", "X-API-Key: key", "{}"),
    "HTTP/1.0": ("GET /channels/lobby HTTP/1.0", "", ""),
}
#: A port: the factory, and the requests that it serves.
PORTS: dict[str, tuple[Callable[[Any], Any], set[str]]] = {
    "shared": (lambda hub: SharedPortFactory(ChatFactory(hub), LiveSite(hub), GrpcFactory(hub)), set(REQUESTS)),
    "http": (LiveSite, set(REQUESTS)),
    "websocket": (WebSocketFactory, {"WebSocket", "the echo"}),
}
PUBLIC = IPv4Address("TCP", "192.0.2.1", 9999)
LOOPBACK = IPv4Address("TCP", "127.0.0.1", 9999)
UNIX = UNIXAddress("/run/longconn.sock")
#: Hosts, and where each is served.
HOSTS: dict[str, set[Any]] = {
    "evil.example": set(),
    "192.0.2.1.evil.example:9999": set(),
    "localhost.evil.example": set(),
    "192.0.2.1:9999": {PUBLIC, LOOPBACK, UNIX},
    "[2001:db8::1]": {PUBLIC, LOOPBACK, UNIX},
    "localhost:9999": {PUBLIC, LOOPBACK, UNIX},
    "chat.example": {PUBLIC, LOOPBACK, UNIX},
    "page.example": {PUBLIC, LOOPBACK, UNIX},
    "longconn:9999": {PUBLIC},
    "nas.local": {PUBLIC},
}


class HostTests(SynchronousTestCase):
    def serve(self, **settings: Any) -> None:
        self.server = MemoryServer(Settings(api_key="key", publish_rate=0, **settings))
        self.addCleanup(self.server.stop)

    def ask(self, port: str, name: str, host: str, here: Any) -> bytes:
        """The answer to a request."""
        line, headers, body = REQUESTS[name]
        connection = self.server.connect(self.ports[port], remote=here)
        lines = (line, f"Host: {host}", f"Content-Length: {len(body)}", *filter(None, (headers,)), "", body)
        connection.send("\r\n".join(lines).encode())
        self.server.settle()
        connection.close()
        return bytes(connection.received)

    def test_a_host_that_is_not_ours_is_refused_over_every_protocol(self) -> None:
        self.serve(allowed_host=("chat.example",), allowed_origin=("https://page.example",))
        self.ports = {name: build(self.server.hub) for name, (build, _) in PORTS.items()}
        for port, (_, names) in PORTS.items():
            for name in sorted(names):
                for host, served in HOSTS.items():
                    for here in (PUBLIC, LOOPBACK, UNIX):
                        answer = self.ask(port, name, host, here)
                        self.assertTrue(answer.startswith(b"HTTP/1."), (port, name))
                        refused = answer[9:12] == b"403"
                        self.assertEqual(refused, here not in served, (port, name, host, here, answer[:300]))
                        if refused and name not in ("HEAD", "WebSocket", "the echo"):
                            self.assertIn(b"--allowed-host=" + host.split(":")[0].encode(), answer)
        self.assertEqual(self.server.hub.counters.publications, 2 * sum(map(len, HOSTS.values())))

    def test_the_authority_of_an_absolute_target_counts(self) -> None:
        """RFC 9112, section 3.2.2."""
        self.serve()
        self.ports = {name: build(self.server.hub) for name, (build, _) in PORTS.items()}
        connection = self.server.connect(self.ports["http"], remote=PUBLIC)
        connection.send(b"GET http://evil.example/channels/lobby HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.server.settle()
        self.assertEqual(connection.received[9:12], b"403")

    def test_any_host(self) -> None:
        for settings in ({"allowed_host": ("*",)}, {"allowed_origin": ("*",)}):
            self.serve(**settings)
            self.ports = {name: build(self.server.hub) for name, (build, _) in PORTS.items()}
            for here in (PUBLIC, LOOPBACK, UNIX):
                self.assertEqual(self.ask("shared", "history", "evil.example", here)[9:12], b"200")

    def test_http2_without_tls_is_served_since_no_browser_speaks_it(self) -> None:
        """And over TLS a browser accepts no certificate of another name."""
        self.serve()
        fields = Encoder().encode(
            [
                (":method", "POST"), (":scheme", "http"), (":path", "/helloworld.Greeter/SayHello"),
                (":authority", "evil.example"), ("te", "trailers"), ("content-type", "application/grpc"),
            ]
        )  # fmt: skip
        connection = self.server.connect(PORTS["shared"][0](self.server.hub), remote=PUBLIC)
        connection.send(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
            + len(fields).to_bytes(3, "big") + b"\1\4\0\0\0\1" + fields
            + b"\0\0\5\0\1\0\0\0\1" + b"\0\0\0\0\0"
        )  # fmt: skip
        self.server.settle()
        self.assertIn(b"Hello ", connection.received)
