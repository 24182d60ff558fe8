"""Who is let in: every way in, with every kind of credentials, before any effect.

A way in that is not in the table, a path of HTTP or a method of gRPC, makes `RegistryTests` fail.
"""

import base64
import json
import logging
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from longconn import (
    ChatFactory,
    GrpcFactory,
    Hub,
    LiveResource,
    LiveSite,
    Settings,
    SharedPortFactory,
    WebSocketFactory,
)
from longconn.auth.jwt import JWTVerifier
from longconn.auth.passwords import check_passwords
from longconn.core.expiry import GRACE
from longconn.core.guesses import AT_ONCE, PAUSE
from longconn.core.revocations import Revocation
from longconn.protocols.grpc.services import services
from longconn.protocols.http.routes import Access
from longconn.testing import FakeClock, MemoryServer
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.grpc_status import StatusCode
from tests.behaviour.grpc_members import SERVICE
from tests.protocols.grpc.http2_kit import Peer

SECRET, PASSWORD = "a secret of the tests, of 32 bytes", "correct horse"
KEY = ec.generate_private_key(ec.SECP256R1())
IN, REFUSED, EXPIRED, NONE, NOT_HERE = "in", "refused", "expired", "none", "not here"
COOKIE = "session"


def sign(key: Any = SECRET, algorithm: str | None = "HS256", **claims: Any) -> str:
    return jwt.encode({"sub": "ann", "aud": "live"} | claims, key, algorithm)


def credentials(now: float) -> dict[str, tuple[str, Any, str]]:
    """By name: a kind (`password`, `token` or ""), the value, and what is made of it."""
    part = base64.urlsafe_b64encode(b'{"sub":"ann"}').decode().rstrip("=")
    return {
        "none": ("", None, NONE),
        "password": ("password", ("ann", PASSWORD), IN),
        "wrong password": ("password", ("ann", "incorrect"), REFUSED),
        "unknown user": ("password", ("eve", PASSWORD), REFUSED),
        "empty password": ("password", ("ann", ""), REFUSED),
        "token": ("token", sign(exp=int(now) + 1_000), IN),
        "expired token": ("token", sign(exp=int(now) - 1), EXPIRED),
        "alg none": ("token", jwt.encode({"sub": "ann", "aud": "live"}, None, "none"), REFUSED),
        "wrong audience": ("token", sign(aud="other"), REFUSED),
        "foreign secret": ("token", sign("another secret, of 32 bytes or more"), REFUSED),
        "foreign key": ("token", sign(KEY, "ES256"), REFUSED),
        "revoked token": ("token", sign(jti="stolen"), REFUSED),
        "token of a revoked user": ("token", sign(sub="eve", iat=int(now) - 10), REFUSED),
        "no token": ("token", f"{part}.{part}.{part}", REFUSED),
    }


class Server:
    """A server that takes passwords and tokens, in memory."""

    def __init__(self, **settings: Any) -> None:
        clock = FakeClock()
        made = Settings(
            token_hmac_secret_key=SECRET, token_audience="live", token_cookie=COOKIE, api_key="key", **settings
        )
        hub = self.hub = Hub(clock, made)
        hub.gate.verifier = JWTVerifier(made)
        hub.gate.revocations.add(Revocation(hub.wall_time() + 999, token_id="stolen"), hub.wall_time())
        hub.gate.revocations.add(Revocation(hub.wall_time() + 999, "eve", "", hub.wall_time()), hub.wall_time())
        hub.gate.passwords = check_passwords([f"memory:ann:{PASSWORD}"])
        self.memory = MemoryServer(hub=hub)
        lines, grpc = ChatFactory(hub), GrpcFactory(hub)
        self.factories = {
            "chat": lines,
            "shared": SharedPortFactory(lines, LiveSite(hub), grpc),
            "websocket": WebSocketFactory(hub),
            "site": Site(LiveResource(hub), reactor=clock),
            "grpc": grpc,
        }

    def state(self) -> Any:
        """All that a client could change or learn of: subscriptions, users, history, taken names."""
        results: list[Any] = []
        for channel in ("lobby", "news"):
            self.hub.history(channel, results.append)
        return (
            {name: len(each) for name, each in self.hub.channels.items() if len(each)},
            set(self.hub.users),
            [[each.data.json for each in found.publications] for found in results],
            dict(self.hub.names.owners),
        )


def authorization(kind: str, value: Any) -> list[tuple[str, str]]:
    if kind == "token":
        return [("authorization", f"Bearer {value}")]
    if kind == "password":
        return [("authorization", "Basic " + base64.b64encode(":".join(value).encode()).decode())]
    return []


Way = Callable[[Server, str, Any], Any]


# Chat lines.


def chat(port: str, path: str = "") -> Way:
    def come(server: Server, kind: str, value: Any) -> Any:
        factory = server.factories[port]
        client: Any = server.memory.websocket_client(path, factory) if path else server.memory.line_client(factory)
        if path and client.status != 101:
            return client.status
        login = {"token": f"/login token {value}", "password": f"/login {value[0]} {value[1]}" if value else ""}
        if kind == "password" and not value[1]:
            client.say(f"/login {value[0]}")
            login[kind] = ""
        first = [login[kind]] if kind else []
        client.say(*first, "hello")
        server.memory.settle()
        said = [str(each) for each in client.read()]
        if any(each.endswith(": hello") for each in said):
            return IN
        if not said:
            return "close", getattr(client, "close_code", None)
        return [each for each in said if each.startswith("! ") and "log in" not in each] or said[0]

    return come


LOGIN_FIRST = "! log in first: /login NAME, or /login token TOKEN"
LINES = {IN: IN, REFUSED: ["! unauthorized"], EXPIRED: ["! token expired"], NONE: LOGIN_FIRST}


# HTTP.


def http(method: str, path: str, body: str | None = None, port: str = "shared", cookie: bool = False) -> Way:
    def come(server: Server, kind: str, value: Any) -> Any:
        client = server.memory.http_client(server.factories[port])
        headers = authorization(kind, value)
        if cookie:
            if kind != "token":
                return NOT_HERE
            headers = [("Cookie", f"a=b; {COOKIE}={value}; c=d"), ("Sec-Fetch-Site", "same-origin")]
        answer = client.request(method, path, body, headers)
        server.memory.settle()
        if answer.status in (200, 204):
            return IN
        if answer.status == 401:
            assert "www-authenticate" in answer.headers
        return answer.status, answer.json()["error"]["code"] if answer.body else None

    return come


HTTP = {IN: IN, REFUSED: (401, 101), EXPIRED: (401, 109), NONE: (401, 101)}
HEAD = {IN: IN, REFUSED: (401, None), EXPIRED: (401, None), NONE: (401, None)}


def upgrade(path: str, port: str = "shared") -> Way:
    def come(server: Server, kind: str, value: Any) -> Any:
        client = server.memory.websocket_client(path, server.factories[port], authorization(kind, value))
        if client.status == 101:
            client.say("hello")
            server.memory.settle()
            said = [str(each) for each in client.read()]
            if not said:
                return "close", client.close_code
            return IN if said[-1].endswith("hello") else said[0]
        return (client.status, json.loads(client.body)["error"]["code"]) if port == "shared" else client.status

    return come


UPGRADE_ALONE = {IN: IN, REFUSED: 401, EXPIRED: 401, NONE: LOGIN_FIRST}


# Centrifugo's client protocol.


def program(carrier: str, in_data: bool = False) -> Way:
    """A token in the connect; a password in the header of a request, or `in_data` of the connect."""

    def come(server: Server, kind: str, value: Any) -> Any:
        memory, shared = server.memory, server.factories["shared"]
        token = {"token": value} if kind == "token" else {}
        headers = authorization(kind, value) if kind == "password" and not in_data else []
        data = {"data": {"login": {"user": value[0], "password": value[1]}}} if kind == "password" and in_data else {}
        command = json.dumps({"id": 1, "connect": {**token, **data, "subs": {}}})
        client: Any
        if carrier == "websocket":
            client = memory.websocket_client("/connection/websocket", shared, headers)
            if client.status != 101:
                return client.status, json.loads(client.body)["error"]["code"]
            client.say(command)
        elif carrier == "lines":
            if headers:
                return NOT_HERE
            client = memory.line_client(server.factories["chat"])
            client.say(command)
        else:
            method, path, body = {
                "http_stream": ("POST", "/connection/http_stream", command),
                "sse": ("GET", "/connection/sse?cf_connect=" + _quoted(command), None),
            }[carrier]
            answer = memory.http_client(shared).request(
                method, path, body, [*headers, *([("Accept", "text/event-stream")] if carrier == "sse" else [])]
            )
            memory.settle()
            if answer.status != 200:
                return answer.status, answer.json()["error"]["code"]
            return _made_of(answer.text.replace("data: ", "").split("\n"))
        memory.settle()
        if getattr(client, "close_code", None):
            return "close", client.close_code
        return _made_of([str(each) for each in client.read()])

    return come


def _quoted(text: str) -> str:
    return "".join(f"%{each:02X}" for each in text.encode())


def _made_of(lines: list[str]) -> Any:
    if lines and lines[0].startswith("! "):
        return lines[0]
    found = [json.loads(each) for each in lines if each.strip()]
    for each in found:
        if "error" in each:
            return each["error"]["code"]
        if "disconnect" in each.get("push", {}):
            return "disconnect", each["push"]["disconnect"]["code"]
    return IN if found and "connect" in found[0] else found


PROGRAM = {IN: IN, REFUSED: ("disconnect", 3500), EXPIRED: 109, NONE: ("disconnect", 3500)}
SOCKET = PROGRAM | {REFUSED: ("close", 3500), NONE: ("close", 3500)}
#: wrong passwords are refused by the request that carries them
BY_HEADER = (401, 101)


# gRPC.


def grpc(path: str, request: Any, port: str = "shared") -> Way:
    def come(server: Server, kind: str, value: Any) -> Any:
        peer = Peer(server.memory, server.factories[port])
        stream = peer.call(path, request.SerializeToString(), headers=tuple(authorization(kind, value)))
        status = peer.status(stream)
        if status is None or status[0] == 0:
            return IN if peer.messages(stream) else NONE
        return StatusCode(status[0]).name, int(peer.trailers(stream).get("longconn-code", 0))

    return come


GRPC = {
    IN: IN, EXPIRED: ("UNAUTHENTICATED", 109), NONE: ("UNAUTHENTICATED", 101), REFUSED: ("UNAUTHENTICATED", 3500),
}  # fmt: skip
WRONG_PASSWORD = ("UNAUTHENTICATED", 101)

#: By the name of a way in: the way, its answers, and those to wrong passwords where they differ.
WAYS: dict[str, tuple[Any, ...]] = {
    "chat lines": (chat("chat"), LINES),
    "chat lines on the shared port": (chat("shared"), LINES),
    "/ws, by lines": (chat("shared", "/ws"), LINES),
    "WebSocket's own port, by lines": (chat("websocket", "/ws"), LINES),
    "GET /ws": (upgrade("/ws"), HTTP | {NONE: LOGIN_FIRST}),
    "WebSocket's own port": (upgrade("/ws", "websocket"), UPGRADE_ALONE),
    "GET /echo": (upgrade("/echo"), HTTP),
    "GET /websocket": (upgrade("/websocket"), HTTP),
    "WebSocket's own port, /echo": (upgrade("/echo", "websocket"), UPGRADE_ALONE | {NONE: 401}),
    "GET /PrintHello": (http("GET", "/PrintHello"), HTTP),
    "GET /channels/{channel}": (http("GET", "/channels/lobby"), HTTP),
    "GET /channels/{channel}, a long poll": (http("GET", "/channels/lobby?since=x:1&wait=1"), HTTP),
    "HEAD /channels/{channel}": (http("HEAD", "/channels/lobby"), HEAD),
    "POST /channels/{channel}": (http("POST", "/channels/lobby", "hello"), HTTP),
    "POST /channels/{channel} with a name": (http("POST", "/channels/lobby?name=cron", "hello"), HTTP),
    "GET /channels/{channel}/events": (http("GET", "/channels/lobby/events"), HTTP),
    "GET /channels/{channel}/events by a cookie": (http("GET", "/channels/lobby/events", cookie=True), HTTP),
    "GET /channels/{channel}/stream": (http("GET", "/channels/lobby/stream"), HTTP),
    "a site of another program": (http("POST", "/channels/lobby", "hello", "site"), HTTP),
    "GET /connection/websocket": (program("websocket"), SOCKET, BY_HEADER),
    "structured lines": (program("lines"), PROGRAM, BY_HEADER),
    "structured lines, a login in data": (program("lines", True), PROGRAM),
    "WebSocket, a login in data": (program("websocket", True), SOCKET),
    "POST /connection/http_stream": (program("http_stream"), PROGRAM, BY_HEADER),
    "GET /connection/sse": (program("sse"), PROGRAM, BY_HEADER),
    "/longconn.v1.LongConn/Publish": (
        grpc(SERVICE + "Publish", pb.PublishRequest(channel="lobby", text="hello")), GRPC, WRONG_PASSWORD,
    ),
    "/longconn.v1.LongConn/Subscribe": (
        grpc(SERVICE + "Subscribe", pb.SubscribeRequest(channel="lobby")), GRPC, WRONG_PASSWORD,
    ),
    "/longconn.v1.LongConn/Connect": (
        grpc(SERVICE + "Connect", pb.ConnectRequest(id=1, connect={})), GRPC, WRONG_PASSWORD,
    ),
    "/longconn.v1.LongConn/Presence": (
        grpc(SERVICE + "Presence", pb.PresenceRequest(channel="lobby")), GRPC, WRONG_PASSWORD,
    ),
    "/longconn.v1.LongConn/History": (
        grpc(SERVICE + "History", pb.HistoryRequest(channel="lobby")), GRPC, WRONG_PASSWORD,
    ),
    "/helloworld.Greeter/SayHello": (
        grpc("/helloworld.Greeter/SayHello", pb.PublishRequest()), GRPC, WRONG_PASSWORD,
    ),
    "gRPC's own port": (
        grpc(SERVICE + "Publish", pb.PublishRequest(channel="lobby", text="hello"), "grpc"), GRPC, WRONG_PASSWORD,
    ),
}  # fmt: skip

#: Paths and methods without a row of their own, and why.
OTHERS = {
    "POST /connection/sse": "the same function as GET",
    "/helloworld.HelloService/SayHello": "the same function as Greeter's",
    "/HelloService/SayHello": "the same function as Greeter's",
}
#: methods of gRPC that tell nothing about channels
PUBLIC_METHODS = ("/grpc.health.", "/grpc.reflection.")


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.records: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: self.records.append(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("longconn")
        level = logger.level
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        self.addCleanup(logger.setLevel, level)

    def serve(self, **settings: Any) -> Server:
        server = Server(**settings)
        self.addCleanup(server.memory.stop)
        return server


class TableTests(Case):
    def test_each_way_with_each_kind_of_credentials(self) -> None:
        for name, row in WAYS.items():
            for which in credentials(0):
                with self.subTest(way=name, credentials=which):
                    self.check(name, which, *row)

    def check(self, name: str, which: str, way: Way, answers: dict[str, Any], wrong_password: Any = None) -> None:
        server = self.serve()
        kind, value, made_of = credentials(server.hub.wall_time())[which]
        before = server.state()
        self.records.clear()
        answer = way(server, kind, value)
        if answer == NOT_HERE:
            return
        expected = answers[made_of]
        if kind == "password" and made_of == REFUSED and wrong_password is not None:
            expected = wrong_password
        self.assertEqual(answer, expected, f"{name}: {which}")
        refusals = [each for each in self.records if "refused" in each]
        if made_of == IN:
            self.assertEqual(refusals, [], f"{name}: {which}")
            return
        self.assertEqual(server.state(), before, f"{name}: {which}")
        # A chat client without credentials is asked to log in; nobody has tried to come in yet.
        self.assertEqual(len(refusals), 0 if expected == LOGIN_FIRST else 1, f"{name}: {which}: {self.records}")
        for each in self.records:
            for secret in (PASSWORD, "incorrect", *(filter(None, value.split(".")) if kind == "token" else ())):
                self.assertNotIn(secret, each, f"{name}: {which}")

    def test_without_credentials_to_check_all_are_let_in(self) -> None:
        for name, (way, *_) in WAYS.items():
            server = self.serve()
            server.hub.gate.verifier = server.hub.gate.passwords = None
            self.assertIn(way(server, "", None), (IN, NOT_HERE), name)

    def test_the_option_lets_the_anonymous_in(self) -> None:
        for name, (way, *_) in WAYS.items():
            self.assertIn(way(self.serve(anonymous="yes"), "", None), (IN, NOT_HERE), name)

    def test_the_anonymous_may_only_read(self) -> None:
        denied = {
            "chat lines": ["! permission denied: publish in lobby"],
            "/ws, by lines": ["! permission denied: publish in lobby"],
            "POST /channels/{channel}": (403, 103),
            "/longconn.v1.LongConn/Publish": ("PERMISSION_DENIED", 103),
        }
        for name, expected in denied.items():
            server = self.serve(anonymous="read")
            before = server.state()
            self.assertEqual(WAYS[name][0](server, "", None), expected, name)
            self.assertEqual(server.state()[2], before[2], name)
            self.assertEqual(WAYS[name][0](self.serve(anonymous="read"), "password", ("ann", PASSWORD)), IN, name)
        for name in ("GET /channels/{channel}", "GET /channels/{channel}/events", "/longconn.v1.LongConn/Subscribe"):
            self.assertEqual(WAYS[name][0](self.serve(anonymous="read"), "", None), IN, name)

    def test_the_anonymous_are_let_in_nowhere(self) -> None:
        for name, (way, *_) in WAYS.items():
            server = self.serve(anonymous="no")
            server.hub.gate.verifier = server.hub.gate.passwords = None
            before = server.state()
            self.assertNotEqual(way(server, "", None), IN, name)
            self.assertEqual(server.state(), before, name)


class GuessTests(Case):
    def test_guesses_are_slowed_down_by_address_on_every_way_together(self) -> None:
        server = self.serve()
        ways = [way for name, (way, *_) in WAYS.items() if name.startswith(("chat", "GET /channels", "/longconn"))]
        wrong = ("ann", "incorrect")
        for number in range(AT_ONCE):
            self.assertNotEqual(ways[number % len(ways)](server, "password", wrong), IN)
        answers = {name: WAYS[name][0](server, "password", ("ann", PASSWORD)) for name in (
            "chat lines", "POST /channels/{channel}", "/longconn.v1.LongConn/Publish", "GET /ws",
        )}  # fmt: skip
        self.assertEqual(answers, {
            "chat lines": ["! too many requests"],
            "POST /channels/{channel}": (429, 111),
            "/longconn.v1.LongConn/Publish": ("RESOURCE_EXHAUSTED", 111),
            "GET /ws": (429, 111),
        })  # fmt: skip
        token = sign()
        self.assertEqual(WAYS["POST /channels/{channel}"][0](server, "token", token), (429, 111))
        server.memory.advance(PAUSE + 0.1)
        self.assertEqual(WAYS["POST /channels/{channel}"][0](server, "password", ("ann", PASSWORD)), IN)

    def test_right_passwords_are_no_guesses(self) -> None:
        server = self.serve()
        for _ in range(AT_ONCE * 3):
            self.assertEqual(WAYS["POST /channels/{channel}"][0](server, "password", ("ann", PASSWORD)), IN)


class CookieTests(Case):
    """A browser sends cookies with the requests of any page."""

    def status(self, server: Server, *headers: tuple[str, str]) -> int:
        client = server.memory.http_client(server.factories["shared"])
        cookie = ("Cookie", f"{COOKIE}={sign()}")
        answer = client.request("POST", "/channels/lobby", "hello", [cookie, *headers])
        server.memory.settle()
        return answer.status

    def test_of_which_pages(self) -> None:
        server = self.serve(allowed_origin=("https://app.example",))
        for status, headers in (
            (200, [("Origin", "http://localhost:9999")]),
            (200, [("Origin", "https://app.example")]),
            (200, [("Sec-Fetch-Site", "same-origin")]),
            (200, []),
            (403, [("Origin", "https://evil.example")]),
            (403, [("Sec-Fetch-Site", "cross-site")]),
        ):
            self.assertEqual(self.status(server, *headers), status, headers)

    def test_any_origin_does_not_bring_its_cookies(self) -> None:
        server = self.serve(allowed_origin=("*",))
        self.assertEqual(self.status(server, ("Origin", "https://evil.example")), 401)
        self.assertEqual(self.status(server, ("Origin", "http://localhost:9999")), 200)


class ExpiryTests(Case):
    def test_what_a_token_opened_ends_with_it(self) -> None:
        """Each is closed once the token and the grace are over, for a numbered reason."""
        for name in (
            "chat lines", "GET /ws", "GET /channels/{channel}/events", "GET /channels/{channel}/stream",
            "GET /connection/websocket", "/longconn.v1.LongConn/Subscribe",
        ):  # fmt: skip
            server = self.serve(ping_interval=0, idle_timeout=0)
            token = sign(exp=int(server.hub.wall_time()) + 100)
            self.assertEqual(WAYS[name][0](server, "token", token), IN, name)
            self.assertEqual(len(server.hub.clients), 1, name)
            server.memory.advance(99)
            self.assertEqual(len(server.hub.clients), 1, name)
            self.records.clear()
            server.memory.advance(GRACE + 70)
            self.assertEqual(len(server.hub.clients), 0, name)

    def test_a_login_ends_the_time_to_log_in(self) -> None:
        server = self.serve()
        client = server.memory.line_client(server.factories["chat"])
        server.memory.advance(50)
        client.say("/login ann", PASSWORD)
        self.assertEqual(client.read()[-1], "* logged in as ann")
        server.memory.advance(50)
        self.assertFalse(client.closed)
        late = server.memory.line_client(server.factories["chat"])
        server.memory.advance(62)
        self.assertTrue(late.closed)


class LoginTests(Case):
    """`/login` in chat lines."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.serve()
        self.client = self.server.memory.line_client(self.server.factories["chat"])
        self.client.read()

    def say(self, *lines: str) -> list[str]:
        self.client.say(*lines)
        self.server.memory.settle()
        return [str(each) for each in self.client.read()]

    def test_the_password_is_the_next_line_and_said_to_nobody(self) -> None:
        witness = self.server.memory.line_client(self.server.factories["chat"])
        witness.say(f"/login ann {PASSWORD}")
        witness.read()
        self.assertEqual(self.say("/login ann"), ["* the next line is the password:"])
        self.assertEqual(self.say("incorrect"), ["! unauthorized"])
        self.assertEqual(self.say("hello"), [LOGIN_FIRST])
        self.assertEqual(self.say("/login ann", PASSWORD, "hello")[-1][-7:], ": hello")
        self.server.memory.settle()
        self.assertEqual([each for each in witness.read() if "incorrect" in each or PASSWORD in each], [])

    def test_before_it_only_what_needs_no_user(self) -> None:
        for line in ("/who", "/channels", "/history", "/join news", "/nick bo", "/json 1", "//x", "/x"):
            self.assertEqual(self.say(line), [LOGIN_FIRST], line)
        self.assertEqual(self.say("ping"), ["pong"])
        self.assertIn("/login NAME", " ".join(self.say("/help")))
        self.assertEqual(self.say("/login"), ["! usage: /login NAME"])
        self.assertEqual(self.server.hub.channels, {})

    def test_the_user_has_its_name_unless_it_took_another(self) -> None:
        self.say(f"/login ann {PASSWORD}")
        (client,) = self.server.hub.clients.values()
        self.assertEqual((client.name, client.user), ("ann", "ann"))
        self.say(f"/login token {sign(sub='bo')}")
        self.assertEqual((client.name, client.user), ("bo", "bo"))
        self.say("/nick captain", f"/login ann {PASSWORD}")
        self.assertEqual((client.name, client.user), ("captain", "ann"))


class RegistryTests(Case):
    def test_every_path_and_method_is_in_the_table(self) -> None:
        hub = Hub(FakeClock(), Settings(api_key="key"))
        wanted = set()
        for path, route in LiveSite(hub).resource.routes.table.items():  # type: ignore[attr-defined]
            for method, responder in (("GET", route.get), ("POST", route.post)):
                if responder is not None and route.access is not Access.PUBLIC:
                    wanted.add(f"{method} {path}")
        wanted |= {path for path in services(hub) if not path.startswith(PUBLIC_METHODS)}
        there = {name for name in WAYS if name.startswith(("GET ", "POST ", "/longconn", "/helloworld"))}
        named = {name for name in there if ", " not in name and " by " not in name and " with " not in name}
        self.assertEqual(wanted, named | set(OTHERS))

    def test_what_is_public(self) -> None:
        hub = Hub(FakeClock(), Settings(api_key="key"))
        table = LiveSite(hub).resource.routes.table  # type: ignore[attr-defined]
        public = {path for path, route in table.items() if route.access is Access.PUBLIC}
        self.assertEqual(
            {each for each in public if not each.startswith("/api/")},
            # A request to /emulation proves itself by the id of a session, which only its client knows.
            {"/", "/page/{file}", "/health/live", "/health/ready", "/openapi.json", "/emulation", "/metrics"},
        )
