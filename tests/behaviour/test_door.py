"""Every edge, with every command and every refusal: the protocol's own answer, and nothing else happens."""

import importlib
import logging
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

import longconn
from longconn import (
    ChatFactory,
    GrpcFactory,
    Hub,
    LiveResource,
    LocalMember,
    ServerAPI,
    Settings,
    SharedPortFactory,
    WebSocketFactory,
)
from longconn.core import commands
from longconn.core.broker import Done
from longconn.core.codec import Codec
from longconn.core.door import Door
from longconn.core.errors import INTERNAL, CommandError
from longconn.core.memory_broker import MemoryBroker
from longconn.core.namespaces import ChannelOptions, Namespaces
from longconn.core.publication import Data, Info, Position
from longconn.core.timers import ADDRESS_SHARE
from longconn.protocols.grpc.services import services
from longconn.server_api.methods import METHODS
from longconn.service.embedding import LiveSite
from longconn.testing import FakeClock, MemoryServer
from longconn.v1 import longconn_pb2 as pb
from longconn.wire import chat
from longconn.wire.centrifugo_commands import READERS
from longconn.wire.first_bytes import Kind
from tests.behaviour.edges import API_KEY, EDGES, OK, WAITS, Edge, Handshake, TCPConnect, spend_new_channels

NAMESPACES = {
    "open": ChannelOptions(),
    "nosubscribe": ChannelOptions(allow_subscribe_for_client=False),
    "nopublish": ChannelOptions(allow_publish_for_client=False, allow_publish_for_subscriber=False),
    "nopresence": ChannelOptions(allow_presence_for_client=False, allow_presence_for_subscriber=False),
    "nohistory": ChannelOptions(allow_history_for_client=False, allow_history_for_subscriber=False),
}
GOOD, OTHER, NEXT = "open:good", "open:other", "open:next"
MOST = 200


@dataclass(frozen=True)
class NotHere:
    """A refusal that an edge cannot meet, and why."""

    reason: str


@dataclass(frozen=True)
class Row:
    """The answers to one command. `needs` is the right without which it is refused."""

    needs: str
    bad_channel: Any
    unknown_namespace: Any
    too_large: Any
    no_right: Any
    over_rate: Any
    new_channel_over_rate: Any
    broker_away: Any


REFUSALS = (
    "bad_channel", "unknown_namespace", "too_large", "no_right", "over_rate", "new_channel_over_rate", "broker_away",
)  # fmt: skip

NO_DATA = NotHere("it brings no data")
CURRENT = NotHere("it is about the channel that the client is in")
IN_IT = NotHere("the client is in the channel already, so it is not new")
LOCAL = NotHere("the hub knows its subscribers without the broker")
UNCOUNTED = NotHere("it connects and does nothing else, and places are limited")
NO_NEW = NotHere("it makes no channel")
TRUSTED = NotHere("rights and rates do not bind a trusted caller")
UNBOUNDED = NotHere("the program's own data have no limit")

DENIED = "! permission denied: "
LARGE, BUSY, AWAY = "! too large: at most 200 bytes", "! too many requests", "! internal error; try again"
BAD = "! a channel is 1 to 255 bytes without white space or control characters"


def _chat(too_large: Any) -> dict[str, Row]:
    """What a client of chat can ask for. `too_large` is the answer to a line over `max_message`."""
    return {
        "line": Row("publish", CURRENT, CURRENT, too_large, f"{DENIED}publish in nopublish:a", WAITS, IN_IT, AWAY),
        "/json": Row("publish", CURRENT, CURRENT, too_large, f"{DENIED}publish in nopublish:a", WAITS, IN_IT, AWAY),
        "/join": Row(
            "subscribe",
            BAD,
            "! unknown channel unknown:a",
            NO_DATA,
            f"{DENIED}subscribe to nosubscribe:a",
            WAITS,
            BUSY,
            AWAY,
        ),
        "/who": Row("presence", CURRENT, CURRENT, NO_DATA, f"{DENIED}presence of nopresence:a", WAITS, NO_NEW, LOCAL),
        "/history": Row("history", CURRENT, CURRENT, NO_DATA, f"{DENIED}history of nohistory:a", WAITS, IN_IT, AWAY),
    }


TABLE: dict[str, dict[str, Row]] = {
    "chat": _chat(LARGE),
    "chat on WebSocket": _chat(("close", 1009)),
    "chat connect": {
        "connect": Row(
            "subscribe", BAD, "! unknown channel unknown:a", NO_DATA, f"{DENIED}subscribe to nosubscribe:a",
            UNCOUNTED, BUSY, AWAY,
        ),
    },
    "WebSocket handshake": {
        "/ws": Row("subscribe", (400, 151), (404, 102), NO_DATA, (403, 103), (429, 111), ("close", 3504), AWAY),
    },
    "WebSocket handshake on its own port": {
        "/ws": Row("subscribe", 400, 404, NO_DATA, 403, 429, ("close", 3504), AWAY),
    },
    "HTTP": {
        "POST text": Row("publish", (400, 151), (404, 102), (413, 154), (403, 103), (429, 111), (429, 111), (503, 100)),
        "POST JSON": Row("publish", (400, 151), (404, 102), (413, 154), (403, 103), (429, 111), (429, 111), (503, 100)),
        "POST x-ndjson": Row("publish", (400, 151), (404, 102), (413, 154), (403, 103), WAITS, (429, 111), (503, 100)),
        "GET history": Row("history", (400, 151), (404, 102), NO_DATA, (403, 103), (429, 111), (429, 111), (503, 100)),
        "HEAD history": Row(
            "history", (400, None), (404, None), NO_DATA, (403, None), (429, None), (429, None), (503, None)
        ),
        "GET long poll": Row(
            "history", (400, 151), (404, 102), NO_DATA, (403, 103), (429, 111), (429, 111), (503, 100)
        ),
        "GET events": Row("subscribe", (400, 151), (404, 102), NO_DATA, (403, 103), (429, 111), (429, 111), (503, 100)),
        "HEAD events": Row("subscribe", (400, None), (404, None), NO_DATA, (403, None), (429, None), NO_NEW, LOCAL),
        "GET stream": Row("subscribe", (400, 151), (404, 102), NO_DATA, (403, 103), (429, 111), (429, 111), (503, 100)),
        "HEAD stream": Row("subscribe", (400, None), (404, None), NO_DATA, (403, None), (429, None), NO_NEW, LOCAL),
    },
    "Centrifugo": {
        "publish": Row("publish", 151, 102, 154, 103, WAITS, 111, 100),
        "subscribe": Row("subscribe", 151, 102, NO_DATA, 103, WAITS, 111, 100),
        "presence": Row("presence", 151, 102, NO_DATA, 103, WAITS, NO_NEW, LOCAL),
        "presence_stats": Row("presence", 151, 102, NO_DATA, 103, WAITS, NO_NEW, LOCAL),
        "history": Row("history", 151, 102, NO_DATA, 103, WAITS, 111, 100),
    },
    "gRPC calls": {
        "Publish": Row(
            "publish", ("INVALID_ARGUMENT", 151), ("NOT_FOUND", 102), ("RESOURCE_EXHAUSTED", 154),
            ("PERMISSION_DENIED", 103), ("RESOURCE_EXHAUSTED", 111), ("RESOURCE_EXHAUSTED", 111), ("UNAVAILABLE", 100),
        ),
        "Subscribe": Row(
            "subscribe", ("INVALID_ARGUMENT", 151), ("NOT_FOUND", 102), NO_DATA, ("PERMISSION_DENIED", 103),
            ("RESOURCE_EXHAUSTED", 111), ("RESOURCE_EXHAUSTED", 111), ("UNAVAILABLE", 100),
        ),
        "Presence": Row(
            "presence", ("INVALID_ARGUMENT", 151), ("NOT_FOUND", 102), NO_DATA, ("PERMISSION_DENIED", 103),
            ("RESOURCE_EXHAUSTED", 111), NO_NEW, LOCAL,
        ),
        "History": Row(
            "history", ("INVALID_ARGUMENT", 151), ("NOT_FOUND", 102), NO_DATA, ("PERMISSION_DENIED", 103),
            ("RESOURCE_EXHAUSTED", 111), ("RESOURCE_EXHAUSTED", 111), ("UNAVAILABLE", 100),
        ),
    },
    "gRPC Connect": {
        "publish": Row("publish", 151, 102, 154, 103, WAITS, 111, 100),
        "subscribe": Row("subscribe", 151, 102, NO_DATA, 103, WAITS, 111, 100),
        "presence": Row("presence", 151, 102, NO_DATA, 103, WAITS, NO_NEW, LOCAL),
        "history": Row("history", 151, 102, NO_DATA, 103, WAITS, 111, 100),
    },
    # Centrifugo has no number for a bad name and for data that are too large.
    "server API": {
        "publish": Row("", 107, 102, 107, TRUSTED, TRUSTED, TRUSTED, 100),
        "broadcast": Row("", 107, 102, 107, TRUSTED, TRUSTED, TRUSTED, 100),
        "subscribe": Row("", 107, 102, NO_DATA, TRUSTED, TRUSTED, 111, 100),
        "unsubscribe": Row("", 107, 102, NO_DATA, TRUSTED, TRUSTED, NO_NEW, LOCAL),
        "presence": Row("", 107, 102, NO_DATA, TRUSTED, TRUSTED, NO_NEW, LOCAL),
        "presence_stats": Row("", 107, 102, NO_DATA, TRUSTED, TRUSTED, NO_NEW, LOCAL),
        "history": Row("", 107, 102, NO_DATA, TRUSTED, TRUSTED, TRUSTED, 100),
        "history_remove": Row("", 107, 102, NO_DATA, TRUSTED, TRUSTED, NO_NEW, 100),
    },
    "server API in transport mode": {
        "publish": Row("", (400, 107), (404, 102), (400, 107), TRUSTED, TRUSTED, TRUSTED, (500, 100)),
        "broadcast": Row("", (200, 107), (200, 102), (200, 107), TRUSTED, TRUSTED, TRUSTED, (200, 100)),
        "subscribe": Row("", (400, 107), (404, 102), NO_DATA, TRUSTED, TRUSTED, (429, 111), (500, 100)),
        "unsubscribe": Row("", (400, 107), (404, 102), NO_DATA, TRUSTED, TRUSTED, NO_NEW, LOCAL),
        "presence": Row("", (400, 107), (404, 102), NO_DATA, TRUSTED, TRUSTED, NO_NEW, LOCAL),
        "presence_stats": Row("", (400, 107), (404, 102), NO_DATA, TRUSTED, TRUSTED, NO_NEW, LOCAL),
        "history": Row("", (400, 107), (404, 102), NO_DATA, TRUSTED, TRUSTED, TRUSTED, (500, 100)),
        "history_remove": Row("", (400, 107), (404, 102), NO_DATA, TRUSTED, TRUSTED, NO_NEW, (500, 100)),
    },
    "program": {
        "Hub.publish": Row("", 151, 102, UNBOUNDED, TRUSTED, TRUSTED, TRUSTED, 100),
        "Hub.presence": Row("", 151, 102, NO_DATA, TRUSTED, TRUSTED, NO_NEW, LOCAL),
        "Hub.history": Row("", 151, 102, NO_DATA, TRUSTED, TRUSTED, TRUSTED, 100),
    },
    "local member": {
        "publish": Row("", 151, 102, UNBOUNDED, TRUSTED, TRUSTED, TRUSTED, 100),
        "subscribe": Row("", 151, 102, NO_DATA, TRUSTED, TRUSTED, TRUSTED, 100),
        "presence": Row("", 151, 102, NO_DATA, TRUSTED, TRUSTED, NO_NEW, LOCAL),
        "history": Row("", 151, 102, NO_DATA, TRUSTED, TRUSTED, TRUSTED, 100),
    },
}  # fmt: skip


class Broker(MemoryBroker):
    """While `away` it refuses every command for now: within the call, or if `late` in the next turn of the reactor."""

    def __init__(self, clock: FakeClock, settings: Settings) -> None:
        super().__init__(clock, settings)
        self.away = self.late = False
        #: the channels and data of what was published
        self.published: list[tuple[str, bytes]] = []
        self._clock_of_turns = clock

    def _refused(self, done: Done[Any]) -> bool:
        if self.away and self.late:
            self._clock_of_turns.callLater(0, done, CommandError(INTERNAL))
        elif self.away:
            done(CommandError(INTERNAL))
        return self.away

    def subscribe(self, channel: str, done: Done[None]) -> None:
        if not self._refused(done):
            super().subscribe(channel, done)

    def publish(
        self, channel: str, data: Data, info: Info, done: Done[Position], keep: bool = True, once: str = ""
    ) -> None:
        if not self._refused(done):
            self.published.append((channel, data.json))
            super().publish(channel, data, info, done, keep, once)

    def publish_many(self, channel: str, data: Sequence[Data], info: Info, done: Done[Position]) -> None:
        if not self._refused(done):
            self.published += [(channel, each.json) for each in data]
            super().publish_many(channel, data, info, done)

    def history(self, channel: str, since: Position | None, limit: int, reverse: bool, done: Done[Any]) -> None:
        if not self._refused(done):
            super().history(channel, since, limit, reverse, done)

    def remove_history(self, channel: str, done: Done[None]) -> None:
        if not self._refused(done):
            super().remove_history(channel, done)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.records: list[logging.LogRecord] = []
        handler = logging.Handler()
        handler.emit = self.records.append  # type: ignore[method-assign,assignment]
        logger = logging.getLogger("longconn")
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)

    def serve(self, **settings: Any) -> None:
        clock = FakeClock()
        made = Settings(namespaces=Namespaces(named=NAMESPACES), max_message=MOST, api_key=API_KEY, **settings)
        self.broker = Broker(clock, made)
        self.server = MemoryServer(hub=Hub(clock, made, self.broker))
        hub = self.hub = self.server.hub
        lines, grpc = ChatFactory(hub), GrpcFactory(hub)
        self.factories = {
            "chat": lines,
            "shared": SharedPortFactory(lines, LiveSite(hub), grpc),
            "websocket": WebSocketFactory(hub),
            "site": Site(LiveResource(hub), reactor=clock),
            "grpc": grpc,
        }
        for each in (GOOD, OTHER, NEXT):
            hub.history(each, lambda result: None)  # not new to any address

    def state(self) -> Any:
        """All that a request could change."""
        subscriptions = sorted((each.id, sorted(each.subscriptions)) for each in self.hub.clients.values())
        return list(self.broker.published), subscriptions, sorted(self.hub.channels)


# The commands that are not in the table. Each of these lists is compared with the code's own: nothing may be missing.

OF_CLIENT = NotHere("it is about the client, not about a channel")
OF_SERVER = NotHere("it is about the server, not about a channel")
CARRIER = NotHere("it carries commands, which the edges of its protocol give")
LEAVES = NotHere("leaving a channel needs no right, and is never refused")

CHAT = {"nick": OF_CLIENT, "login": OF_CLIENT, "channels": OF_SERVER, "help": OF_SERVER, "quit": OF_CLIENT}
CENTRIFUGO = {
    "connect": OF_CLIENT, "unsubscribe": LEAVES, "ping": OF_CLIENT, "send": OF_SERVER, "rpc": OF_SERVER,
    "refresh": OF_CLIENT, "sub_refresh": NotHere("it is for a channel that the client is in, and its token decides"),
}  # fmt: skip
CONNECT = {name: CENTRIFUGO[name] for name in ("connect", "unsubscribe", "ping", "rpc", "refresh", "sub_refresh")}
OTHER_SERVICES = {
    "helloworld.Greeter", "helloworld.HelloService", "HelloService", "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
}  # fmt: skip
API = {
    "disconnect": OF_CLIENT, "refresh": OF_CLIENT, "revoke": OF_CLIENT, "channels": OF_SERVER, "info": OF_SERVER,
    "clients": OF_SERVER, "recent": OF_SERVER,
    "batch": NotHere("its commands are the other methods, and are called as they are"),
}  # fmt: skip
#: routes of HTTP, by method: a command of the table, or why there is none
ROUTES: dict[str, Any] = {
    "GET /": OF_SERVER, "GET /page/{file}": OF_SERVER, "GET /PrintHello": OF_SERVER, "GET /health/live": OF_SERVER,
    "GET /health/ready": OF_SERVER, "GET /metrics": OF_SERVER, "GET /openapi.json": OF_SERVER,
    "GET /channels/{channel}": ("GET history", "HEAD history", "GET long poll"),
    "POST /channels/{channel}": ("POST text", "POST JSON", "POST x-ndjson"),
    "GET /channels/{channel}/events": ("GET events", "HEAD events"),
    "GET /channels/{channel}/stream": ("GET stream", "HEAD stream"),
    "GET /ws": ("/ws",), "GET /echo": OF_SERVER, "GET /websocket": OF_SERVER,
    "GET /connection/websocket": CARRIER, "POST /connection/http_stream": CARRIER, "GET /connection/sse": CARRIER,
    "POST /connection/sse": CARRIER, "POST /emulation": CARRIER,
}  # fmt: skip
GRPC = {"Connect": CARRIER}
HUB = {
    "stop": OF_SERVER, "ready": OF_SERVER,
    "connect": OF_CLIENT, "request": OF_CLIENT, "label": OF_CLIENT, "hooks": OF_SERVER,
    "claim": OF_CLIENT, "queued": OF_SERVER, "rename": OF_CLIENT, "identify": OF_CLIENT, "on_queued": OF_CLIENT,
    "on_publication": NotHere("the broker calls it"), "on_publications": NotHere("the broker calls it"),
    "on_announcement": NotHere("the broker calls it"), "on_lost": NotHere("the broker calls it"),
    "on_broker_change": NotHere("the broker calls it"), "not_ready": OF_SERVER,
}  # fmt: skip
MEMBER = {"leave": LEAVES, "disconnect": OF_CLIENT, "close": OF_CLIENT, "closed": OF_CLIENT}
#: the public names that a program serves or calls, with the edges that use them
PUBLIC = {
    "ChatFactory", "ChatProtocol", "GrpcFactory", "Hub", "LiveResource", "LiveSite", "LocalMember", "LongConnService",
    "ServerAPI", "SharedPortFactory", "WebSocketFactory",
}  # fmt: skip
#: the public names that hold values, and those with which a program writes gRPC services of its own
VALUES = {
    "Data", "GrpcCall", "HookDisconnectError", "HookRefusalError", "HookReply", "HookRequest", "Hooks", "Info",
    "Services", "Settings", "StatusCode", "StatusError", "__version__", "program_hooks",
}  # fmt: skip
#: methods of the door: an edge and a command that reach it, or why there is none
DOOR: dict[str, Any] = {
    "publish": ("HTTP", "POST text"), "publish_many": ("HTTP", "POST x-ndjson"),
    "subscribe": ("HTTP", "GET events"), "presence": ("chat", "/who"),
    "history": ("HTTP", "GET history"), "wait_for_news": ("HTTP", "GET long poll"),
    "remove_history": ("server API", "history_remove"), "check": ("HTTP", "HEAD events"),
    "may": NotHere("it asks for a right, and does nothing"),
    "update": NotHere("the hub calls it when a client's name or user is another"),
    "subscribers_here": NotHere("`presence` asks it"),
    "unsubscribe": LEAVES, "leave_all": LEAVES,
    "ask_to_renew": NotHere("it asks about a subscription that there is"),
    "announce": NotHere("the hub tells what it did"), "announce_client": NotHere("the hub tells what it did"),
    "may_recover": OF_SERVER,
    "stop": OF_SERVER,
}  # fmt: skip


class RegistryTests(Case):
    """What the code offers is in the table, or is named with the reason why it is not."""

    def setUp(self) -> None:
        super().setUp()
        self.serve()
        self.addCleanup(self.server.stop)

    def commands(self, *families: str) -> set[str]:
        return {command for family in families for command in TABLE[family]}

    def test_every_row_has_an_edge(self) -> None:
        self.assertEqual({each.family for each in EDGES}, set(TABLE))

    def test_chat(self) -> None:
        offered = {f"/{name}" for name in chat.COMMANDS} | {"line"}
        for family in ("chat", "chat on WebSocket"):
            self.assertEqual(offered, self.commands(family) | {f"/{name}" for name in CHAT})

    def test_http(self) -> None:
        resource = LiveResource(self.hub)
        offered = set()
        for path, route in resource.routes.table.items():
            offered |= {f"GET {path}"} if route.get is not None else set()
            offered |= {f"POST {path}"} if route.post is not None else set()
        of_api = {f"POST /api/{name}" for name in (*TABLE["server API"], *API)}
        self.assertEqual(offered, set(ROUTES) | of_api)
        named = {command for each in ROUTES.values() if not isinstance(each, NotHere) for command in each}
        self.assertEqual(named, self.commands("HTTP", "WebSocket handshake"))

    def test_centrifugo(self) -> None:
        self.assertEqual(set(READERS), self.commands("Centrifugo") | set(CENTRIFUGO))

    def test_codecs(self) -> None:
        """Whatever turns bytes into commands of a session has an edge."""
        members = [each for each in vars(Codec) if not each.startswith("_")]
        found = set()
        for module in pkgutil.walk_packages(longconn.__path__, "longconn."):
            if not module.name.endswith("__main__"):
                for name, each in vars(importlib.import_module(module.name)).items():
                    if (
                        isinstance(each, type)
                        and each is not Codec
                        and all(hasattr(each, member) for member in members)
                    ):
                        found.add(name)
        # SSECodec is CentrifugoJSON, but for what it refuses in the URL of a GET.
        self.assertEqual(found, {"CentrifugoJSON", "SSECodec", "CentrifugoProtobuf", "ConnectCodec"})

    def test_sessions(self) -> None:
        """Whatever a session executes, a codec of the table can ask for."""
        names = {each.__name__.removeprefix("Read").lower() for each in get_args(commands.Command)}
        offered = {each.replace("_", "") for each in (*TABLE["Centrifugo"], *CENTRIFUGO)}
        self.assertEqual(names, offered | {"refusedcommand"})

    def test_grpc(self) -> None:
        prefix = "/longconn.v1.LongConn/"
        offered = {each.removeprefix(prefix) for each in services(self.hub) if each.startswith(prefix)}
        self.assertEqual(offered, self.commands("gRPC calls") | set(GRPC))
        others = {each.split("/")[1] for each in services(self.hub)} - {"longconn.v1.LongConn"}
        self.assertEqual(others, OTHER_SERVICES)
        fields = pb.ConnectRequest.DESCRIPTOR.oneofs_by_name["command"].fields
        self.assertEqual({each.name for each in fields}, self.commands("gRPC Connect") | set(CONNECT))

    def test_the_server_api(self) -> None:
        for family in ("server API", "server API in transport mode"):
            self.assertEqual({*METHODS, "batch"}, self.commands(family) | set(API))

    def test_programs(self) -> None:
        public = {f"Hub.{name}" for name in vars(Hub) if not name.startswith("_")}
        self.assertEqual(public, self.commands("program") | {f"Hub.{name}" for name in HUB})

        public = {name for name in vars(LocalMember) if not name.startswith("_")}
        self.assertEqual(public, self.commands("local member") | set(MEMBER))
        self.assertEqual(set(longconn.__all__), PUBLIC | VALUES)

    def test_the_operations_of_the_server_api(self) -> None:
        """Programs call them, and so does each method; `remove_history` is `history_remove` there, and `channels` calls
        `busiest_channels`, too."""
        public = {name for name in vars(ServerAPI) if not name.startswith("_")}
        names = {name.replace("history_remove", "remove_history") for name in METHODS if name != "presence_stats"}
        self.assertEqual(public, names | {"many", "stop", "busiest_channels"})

    def test_the_door(self) -> None:
        self.assertEqual({name for name in vars(Door) if not name.startswith("_")}, set(DOOR))
        for each in DOOR.values():
            if not isinstance(each, NotHere):
                family, command = each
                self.assertIn(command, TABLE[family])

    def test_what_is_spoken_on_ports(self) -> None:
        closed = {"TLS", "PROXY", "SSH", "RTSP", "MAIL", "IRC", "STOMP", "REDIS", "XMPP", "UTF16", "BINARY"}
        spoken = {"HTTP2", "HTTP1", "CENTRIFUGO", "CHAT"}
        self.assertEqual({each.name for each in Kind}, closed | spoken | {"UNDECIDED", "EMPTY"})
        self.assertEqual(set(WebSocketFactory(self.hub).spoken), {"chat", "echo", "centrifugo", "centrifugo-protobuf"})


class DoorTests(Case):
    def test_every_edge_with_every_command_and_every_refusal(self) -> None:
        failures: list[str] = []
        met = 0
        for edge in EDGES:
            for command, row in TABLE[edge.family].items():
                for refusal in REFUSALS:
                    expected = getattr(row, refusal)
                    if isinstance(expected, NotHere):
                        continue
                    met += 1
                    for late in (False, True) if refusal == "broker_away" else (False,):
                        try:
                            self.check(edge, command, refusal, row.needs, expected, late)
                        except Exception as error:
                            failures.append(
                                f"{edge.__name__}, {command}, {refusal}, {late=}: {type(error).__name__} {error}"
                            )
        self.assertEqual(failures, [], "\n".join(failures))
        self.assertGreater(met, 300)

    def check(self, kind: type[Edge], command: str, refusal: str, needs: str, expected: Any, late: bool) -> None:
        self.records.clear()
        channel = {
            "bad_channel": "no channel",
            "unknown_namespace": "unknown:a",
            "no_right": f"no{needs}:a",
            "new_channel_over_rate": "open:new",
        }.get(refusal, GOOD)
        settings: dict[str, Any] = {"publish_rate": 1, "publish_burst": 1} if refusal == "over_rate" else {}
        if refusal == "new_channel_over_rate":
            settings["channel_rate"] = 1
        if issubclass(kind, TCPConnect):
            settings["default_channel"] = channel
        self.serve(**settings)
        try:
            edge = kind(self.server, self.factories)
            self.refuse(edge, command, refusal, needs, channel, expected, late)
        finally:
            self.server.stop()
        self.assertEqual([each.getMessage() for each in self.records if each.exc_info or each.levelno > 30], [])

    def refuse(
        self, edge: Edge, command: str, refusal: str, needs: str, channel: str, expected: Any, late: bool
    ) -> None:
        data = "x" * (MOST + 1) if refusal == "too_large" else "x"
        if command != "/join":
            edge.enter(channel)
        if refusal == "new_channel_over_rate":
            spend_new_channels(self.server)
        # An address has the rate of ten clients.
        for attempt in range(ADDRESS_SHARE + 1 if refusal == "over_rate" else 1):
            channel = OTHER if attempt and needs == "subscribe" else channel
            if attempt and edge.closed:  # it was answered by a stream
                edge = type(edge)(self.server, self.factories)
            before = self.state()
            self.broker.away, self.broker.late = refusal == "broker_away", late
            answer = edge.ask(command, channel, data)
            self.broker.away = False
            if answer != OK:
                break
        self.assertEqual(answer, expected)
        after = self.state()
        if edge.closed or isinstance(edge, TCPConnect | Handshake):
            # A client has come or gone, and is in no channel.
            self.assertEqual(after[0], before[0])
            self.assertEqual([each for each in after[1] if each[1] and each not in before[1]], [])
            self.assertLessEqual(set(after[2]), set(before[2]))
        else:
            self.assertEqual(after, before)
        self.server.advance(5)
        if expected == WAITS:
            self.assertEqual(edge.answer(), OK)
        self.server.advance(5)
        if edge.closed:
            edge = type(edge)(self.server, self.factories)
        if command != "/join":
            edge.enter(NEXT)
        if not isinstance(edge, TCPConnect):
            self.assertEqual(edge.ask(command, NEXT, "x"), OK)
