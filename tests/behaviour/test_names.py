"""Names: others read the same one over every protocol, and each returns to its owner after a cut.

A cut is not noticed at once: the server takes the old connection for open. The same user, and a client with the same
secret (`resume`), get the name at once. Another client is refused in a way after which programs try again, but a reader
is let in by another name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from centrifuge.protocol import client_pb2 as sdk
from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from longconn.protocols.centrifugo.protobuf import delimited, split
from longconn.v1 import longconn_pb2 as pb
from tests.behaviour.grpc_members import SERVICE
from tests.behaviour.test_gate import Server, authorization, sign
from tests.protocols.grpc.http2_kit import Peer, prefixed

NAME = "desk"

#: Opens a client that asks for NAME, with a token and a resume id, or without (""); returns what it received.
Way = Callable[[Server, str, str], Callable[[], Any]]


def chat(path: str = "", port: str = "shared") -> Way:
    """`/nick` over chat lines: TCP, or WebSocket at `path`."""

    def come(server: Server, token: str, resume: str) -> Callable[[], Any]:
        factory = server.factories[port]
        client: Any = server.memory.websocket_client(path, factory) if path else server.memory.line_client(factory)
        client.say(*([f"/login token {token}"] if token else []), f"/nick {NAME}")
        return lambda: [each for each in client.read() if str(each).startswith("! ")]

    return come


def stream(path: str, accept: str = "") -> Way:
    def come(server: Server, token: str, resume: str) -> Callable[[], Any]:
        connection = server.memory.connect(server.factories["shared"])
        lines = [f"GET {path}?name={NAME}{_resume(resume)} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in _headers(token)] + ([f"Accept: {accept}"] if accept else [])
        connection.send("\r\n".join([*lines, "", ""]).encode())
        return lambda: bytes(connection.received).decode()

    return come


def upgrade(path: str, port: str) -> Way:
    def come(server: Server, token: str, resume: str) -> Callable[[], Any]:
        client = server.memory.websocket_client(
            f"{path}?name={NAME}{_resume(resume)}", server.factories[port], _headers(token)
        )
        return lambda: client.status

    return come


def program(server: Server, token: str, resume: str) -> Callable[[], Any]:
    client = server.memory.line_client(server.factories["shared"])
    client.say(json.dumps({"id": 1, "connect": {"token": token, "data": {"chat": {"name": NAME, "resume": resume}}}}))
    return lambda: json.loads(str(client.read()[0]))


def page(server: Server, token: str, resume: str) -> Callable[[], Any]:
    client = server.memory.websocket_client("/connection/websocket", server.factories["shared"])
    client.say(json.dumps({"id": 1, "connect": {"token": token, "data": {"chat": {"name": NAME, "resume": resume}}}}))
    return lambda: json.loads(str(client.read()[0]))


def grpc_subscribe(server: Server, token: str, resume: str) -> Callable[[], Any]:
    peer = Peer(server.memory, server.factories["grpc"])
    request = pb.SubscribeRequest(channel="lobby", name=NAME, resume=resume).SerializeToString()
    call = peer.call(f"{SERVICE}Subscribe", request, headers=tuple(_headers(token)))
    return lambda: (peer.status(call), peer.trailers(call).get("grpc-retry-pushback-ms"))


def grpc_connect(server: Server, token: str, resume: str) -> Callable[[], Any]:
    peer = Peer(server.memory, server.factories["grpc"])
    request = pb.ConnectRequest(id=1, connect=pb.ConnectCommand(name=NAME, token=token, resume=resume))
    call = peer.begin(f"{SERVICE}Connect")
    peer.send(call, prefixed(request.SerializeToString()))
    return lambda: (peer.status(call), peer.trailers(call).get("grpc-retry-pushback-ms"))


def _resume(resume: str) -> str:
    return f"&resume={resume}" if resume else ""


def _headers(token: str) -> list[tuple[str, str]]:
    return authorization("token", token) if token else []


def is_let_in(answer: str) -> bool:
    """A reader speaks under no name: it is let in by another one."""
    return answer.startswith("HTTP/1.1 200 ") and NAME not in answer


def is_temporary(reply: Any) -> bool:
    return bool(reply["error"]["code"] == 153 and reply["error"]["temporary"])


#: Ways to a name, and whether what a client received lets its program go on: a refusal after which it tries again, or
#: an answer that lets it in by another name.
WAYS: dict[str, tuple[Way, Callable[[Any], bool]]] = {
    "chat over TCP": (chat(port="chat"), lambda said: said == [f"! the name {NAME} is taken"]),
    "chat on the shared port": (chat(), lambda said: said == [f"! the name {NAME} is taken"]),
    "chat over WebSocket": (chat("/ws"), lambda said: said == [f"! the name {NAME} is taken"]),
    "/ws?name": (upgrade("/ws", "shared"), lambda status: status == 503),
    "/ws?name on a port of its own": (upgrade("/ws", "websocket"), lambda status: status == 503),
    "EventSource": (stream("/channels/lobby/events", "text/event-stream"), is_let_in),
    "events": (stream("/channels/lobby/events"), is_let_in),
    "stream": (stream("/channels/lobby/stream"), is_let_in),
    "Centrifugo's client protocol": (program, is_temporary),
    "the page": (page, is_temporary),
    "gRPC's Connect": (grpc_connect, lambda end: end == ((14, f"the name {NAME} is taken"), "5000")),
    "gRPC's Subscribe": (grpc_subscribe, lambda end: end == ((14, f"the name {NAME} is taken"), "5000")),
}


#: Chat lines have no form for a resume id: `nc` does not come back by itself.
RESUMED = {name: way for name, (way, _) in WAYS.items() if not name.startswith("chat ")}
SECRET, OTHER = "s" * 22, "o" * 22


class NameTests(SynchronousTestCase):
    def come(self, way: Way, user: str, resume: str = "") -> Any:
        received = way(self.server, sign(sub=user) if user else "", resume)
        self.server.memory.settle()
        return received()

    def owners(self) -> list[str]:
        return [each.user for each in self.server.hub.clients.values() if each.name == NAME]

    def serve(self) -> None:
        self.server = Server(anonymous="yes")
        self.addCleanup(self.server.memory.stop)

    def test_a_user_gets_the_name_back_from_its_own_old_connection(self) -> None:
        for old, (old_way, _) in WAYS.items():
            for new, (way, _) in WAYS.items():
                self.serve()
                self.come(old_way, "ann")
                self.assertEqual(self.owners(), ["ann"], old)
                (ghost,) = [each for each in self.server.hub.clients.values() if each.name == NAME]
                self.come(way, "ann")
                self.assertEqual(self.owners(), ["ann"], (old, new))
                self.assertTrue(ghost.live)
                self.assertEqual(ghost.name, "ann", (old, new))
                ghost.gone()  # it does not take the name along
                self.assertEqual(self.owners(), ["ann"], (old, new))

    def test_an_anonymous_client_gets_the_name_back_by_its_resume_id(self) -> None:
        for old, old_way in RESUMED.items():
            for new, way in RESUMED.items():
                self.serve()
                self.come(old_way, "", SECRET)
                (ghost,) = [each for each in self.server.hub.clients.values() if each.name == NAME]
                self.come(way, "", OTHER)
                self.assertEqual(ghost.name, NAME, (old, new))
                self.come(way, "", SECRET)
                self.assertEqual((self.owners(), ghost.name), ([""], ghost.address), (old, new))
                self.assertTrue(ghost.live)
                ghost.gone()
                self.assertEqual(self.owners(), [""], (old, new))

    def test_a_resume_id_that_could_be_guessed_is_refused(self) -> None:
        for name, way in RESUMED.items():
            for resume in ("short", "x" * 65, "with-a-dot.-and-20-more"):
                self.serve()
                self.come(way, "", resume)
                self.assertEqual(self.owners(), [], (name, resume))

    def test_others_are_refused_in_a_way_after_which_programs_try_again(self) -> None:
        for name, (way, is_retried) in WAYS.items():
            for holder, other in (("ann", "bob"), ("ann", ""), ("", "ann"), ("", "")):
                self.serve()
                self.come(way, holder)
                (ghost,) = [each for each in self.server.hub.clients.values() if each.name == NAME]
                answer = self.come(way, other)
                self.assertTrue(is_retried(answer), (name, holder, other, answer))
                for each in list(self.server.hub.clients.values()):
                    if each is not ghost and is_retried is is_let_in:
                        each.gone()
                self.assertEqual(self.owners(), [holder], name)
                ghost.gone()
                self.come(way, other)
                self.assertEqual(self.owners(), [other], name)

    def test_a_request_may_speak_under_the_name_of_the_user_s_own_client(self) -> None:
        self.serve()
        self.come(stream("/channels/lobby/events"), "ann")
        for user, status in (("ann", 200), ("bob", 409), ("", 409)):
            self.assertEqual(self.post(user=user), status, user)
        self.assertEqual(self.owners(), ["ann"])

    def post(self, path: str = f"/channels/lobby?name={NAME}", user: str = "") -> int:
        client = self.server.memory.http_client(self.server.factories["shared"])
        answer = client.request("POST", path, "hello", _headers(sign(sub=user)) if user else [])
        self.server.memory.settle()
        return answer.status

    def test_two_scripts_may_speak_under_one_label_at_the_same_time(self) -> None:
        self.serve()
        first, second = (labelled(self.server) for _ in range(2))
        self.assertEqual([first.name, second.name], ["cron", "cron"])
        self.assertEqual([first.chat, second.chat], [False, False])
        self.assertEqual(self.post("/channels/lobby?name=cron"), 200)
        person = self.server.memory.line_client(self.server.factories["chat"])
        person.say("/nick cron")
        self.assertEqual([each for each in person.read() if each.startswith("!")], [])
        self.assertEqual(self.post("/channels/lobby?name=cron"), 409)
        with self.assertRaises(AssertionError):
            labelled(self.server)

    def test_tabs_of_one_user_are_called_alike_and_nobody_else_is(self) -> None:
        self.serve()
        tabs = [identified(self.server, sign(sub="ann")) for _ in range(3)]
        self.assertEqual([each.name for each in tabs], ["ann"] * 3)
        for gone in range(3):
            stranger = self.server.memory.line_client(self.server.factories["chat"])
            stranger.say("/nick Ann")
            self.assertIn("! the name Ann is taken", stranger.read())
            tabs[gone].gone()
        stranger.say("/nick Ann")
        self.assertIn(f"* {stranger.address} is now Ann", stranger.read())
        self.assertEqual(identified(self.server, sign(sub="ann")).name.partition(":")[0], "127.0.0.1")

    def test_the_application_s_name_for_a_user_is_the_name(self) -> None:
        self.serve()
        visitor = self.server.memory.line_client(self.server.factories["chat"])
        visitor.say("/nick Eve")
        for user, info, name in (
            ("7", {"name": "Ann Smith", "n": 1}, "Ann Smith"), ("8", {"name": "Ann Smith"}, "Ann Smith"),
            ("9", {"name": 9}, "9"), ("10", {"n": 1}, "10"), ("11", {"name": "a\tb"}, "11"),
            ("12", {"name": "Eve"}, "Eve"),
        ):  # fmt: skip
            self.assertEqual(identified(self.server, sign(sub=user, info=info)).name, name)
        self.assertIn(f"* Eve is now {visitor.address}", visitor.read())

    def test_others_read_that_the_old_connection_has_another_name(self) -> None:
        self.serve()
        witness = self.server.memory.line_client(self.server.factories["chat"])
        self.come(chat(port="chat"), "ann")
        witness.read()
        self.come(stream("/channels/lobby/events"), "ann")
        said = [str(each) for each in witness.read()]
        self.assertEqual(len([each for each in said if each.startswith(f"* {NAME} is now ")]), 1, said)


# One name everywhere.


def labelled(server: Server) -> Any:
    """The client of a script that speaks as `cron`."""
    before = set(server.hub.clients)
    client = server.memory.line_client(server.factories["shared"])
    client.say(json.dumps({"id": 1, "connect": {"data": {"chat": {"label": "cron"}}}}))
    assert "error" not in str(client.read()[0])
    return server.hub.clients[(set(server.hub.clients) - before).pop()]


def identified(server: Server, token: str) -> Any:
    """The client of a program with a token."""
    before = set(server.hub.clients)
    client = server.memory.line_client(server.factories["shared"])
    client.say(json.dumps({"id": 1, "connect": {"token": token}}))
    client.read()
    return server.hub.clients[(set(server.hub.clients) - before).pop()]


class Everyone:
    """Clients of every protocol in `lobby`, without names of their own. Each `…_names` gives what one read."""

    def __init__(self, server: Server) -> None:
        self.server = server
        memory, factories = server.memory, server.factories
        self.tcp = memory.line_client(factories["chat"])
        self.ws = memory.websocket_client("/ws", factories["shared"])
        self.json = memory.line_client(factories["shared"])
        self.json.say('{"id":1,"connect":{}}', '{"id":2,"subscribe":{"channel":"lobby","join_leave":true}}')
        self.protobuf = memory.websocket_client("/connection/websocket?cf_protocol=protobuf", factories["shared"])
        self.command(sdk.Command(id=1, connect=sdk.ConnectRequest()))
        self.command(sdk.Command(id=2, subscribe=sdk.SubscribeRequest(channel="lobby")))
        self.streams = [memory.http_client(factories["shared"]) for _ in range(2)]
        self.events, self.stream = (
            each.get(f"/channels/lobby/{path}") for each, path in zip(self.streams, ("events", "stream"), strict=True)
        )
        self.grpc = Peer(memory, factories["grpc"])
        request = pb.SubscribeRequest(channel="lobby").SerializeToString()
        self.subscribing = self.grpc.call(f"{SERVICE}Subscribe", request)
        self.connecting = self.grpc.begin(f"{SERVICE}Connect")
        self.ask(pb.ConnectRequest(id=1, connect=pb.ConnectCommand()))
        self.ask(pb.ConnectRequest(id=2, subscribe=pb.SubscribeRequest(channel="lobby")))
        memory.settle()

    def command(self, command: Any) -> None:
        self.protobuf.say(delimited(command.SerializeToString()))

    def ask(self, request: pb.ConnectRequest) -> None:
        self.grpc.send(self.connecting, prefixed(request.SerializeToString()))

    def post(self, path: str, body: str) -> Any:
        answer = self.server.memory.http_client(self.server.factories["shared"]).post(path, body)
        self.server.memory.settle()
        return answer

    def unary(self, method: str, request: Any) -> bytes:
        call = self.grpc.call(f"{SERVICE}{method}", request.SerializeToString())
        self.server.memory.settle()
        return self.grpc.messages(call)[0]

    #: By protocol: how something is said.
    def speakers(self) -> dict[str, Callable[[str], Any]]:
        return {
            "tcp": lambda text: self.tcp.say(text),
            "ws": lambda text: self.ws.say(text),
            "json": lambda text: self.json.say(json.dumps({"id": 9, "publish": {"channel": "lobby", "data": text}})),
            "protobuf": lambda text: self.command(
                sdk.Command(id=9, publish=sdk.PublishRequest(channel="lobby", data=json.dumps(text).encode()))
            ),
            "POST": lambda text: self.post("/channels/lobby", text),
            "gRPC Publish": lambda text: self.unary("Publish", pb.PublishRequest(channel="lobby", text=text)),
            "gRPC Connect": lambda text: self.ask(
                pb.ConnectRequest(id=9, publish=pb.PublishRequest(channel="lobby", text=text))
            ),
        }

    #: By protocol: the names that are read beside the texts.
    def read(self) -> dict[str, dict[str, str]]:
        self.server.memory.settle()
        found: dict[str, dict[str, str]] = {"tcp": {}, "ws": {}, "json": {}, "protobuf": {}}
        for kind, client in (("tcp", self.tcp), ("ws", self.ws)):
            for line in map(str, client.read()):
                if not line.startswith(("*", "!")):
                    name, _, text = line.rpartition(": ")
                    found[kind][text] = name
        for line in self.json.read():
            pub = json.loads(str(line)).get("push", {}).get("pub")
            if pub:
                found["json"][pub["data"]] = pub["info"]["conn_info"]["name"]
        for message in self.protobuf.read():
            for each in split(bytes(message)):  # type: ignore[arg-type]
                pushed = sdk.Reply.FromString(each).push
                if pushed.HasField("pub"):
                    found["protobuf"][json.loads(pushed.pub.data)] = json.loads(pushed.pub.info.conn_info)["name"]
        found["events"] = {
            value["data"]: value["name"]
            for value in (each.json() for each in self.events.read() if each.event == "message")
        }
        found["stream"] = {value["data"]: value["name"] for value in map(json.loads, filter(None, self.stream.lines()))}
        for kind, call, message in (
            ("gRPC Subscribe", self.subscribing, pb.SubscribeResponse),
            ("gRPC Connect", self.connecting, pb.ConnectResponse),
        ):  # fmt: skip
            publications = [message.FromString(each).publication for each in self.grpc.messages(call)]
            found[kind] = {json.loads(each.data): each.name for each in publications if each.data}
        client = self.server.memory.http_client(self.server.factories["shared"])
        kept = client.get(f"/channels/lobby?since={self.epoch()}:0").json()["publications"]
        found["history"] = {each["data"]: each["name"] for each in kept}
        return found

    def epoch(self) -> str:
        results: list[Any] = []
        self.server.hub.history("lobby", results.append)
        return str(results[0].position.epoch)

    #: By protocol: the names of those who are there.
    def present(self) -> dict[str, list[str]]:
        self.tcp.read()
        self.tcp.say("/who")
        (who,) = self.tcp.read()
        self.json.read()
        self.json.say('{"id":7,"presence":{"channel":"lobby"}}')
        answer = json.loads(str(self.json.read()[0]))["presence"]["presence"]
        grpc = pb.PresenceResponse.FromString(self.unary("Presence", pb.PresenceRequest(channel="lobby")))
        return {
            "/who": sorted(who.partition(" in lobby: ")[2].split(", ")),
            "json": sorted(each["conn_info"]["name"] for each in answer.values()),
            "gRPC": sorted(each.name for each in grpc.clients),
        }


class OneNameTests(SynchronousTestCase):
    def serve(self, **settings: Any) -> Everyone:
        self.server = Server(anonymous="yes", **settings)
        self.addCleanup(self.server.memory.stop)
        return Everyone(self.server)

    def test_what_is_said_has_the_same_name_for_every_reader(self) -> None:
        for names, form in (("auto", r"127\.0\.0\.1:\d+"), ("address", r"127\.0\.0\.1:\d+"), ("guest", r"guest-\d+")):
            everyone = self.serve(names=names)
            for protocol, say in everyone.speakers().items():
                say(protocol)
            read = everyone.read()
            expected = read["history"]
            self.assertEqual(set(expected), set(everyone.speakers()), names)
            for name in expected.values():
                self.assertRegex(name, f"^{form}$")
            for protocol, found in read.items():
                self.assertEqual(found, expected, (names, protocol))
            clients = {each.name: each for each in self.server.hub.clients.values()}
            self.assertTrue({expected[each] for each in ("tcp", "ws", "json", "protobuf")} <= set(clients))

    def test_who_is_there_has_the_same_names_for_every_reader(self) -> None:
        everyone = self.serve(names="guest")
        here = sorted(each.name for each in self.server.hub.clients.values())
        self.assertEqual(len(here), 8)
        for protocol, found in everyone.present().items():
            self.assertEqual(found, here, protocol)

    def test_no_address_is_told_once_a_client_may_come_from_another_machine(self) -> None:
        for reach in ("a port", "a proxy", "a client"):
            settings = {"trusted_proxy": ("127.0.0.1",)} if reach == "a proxy" else {}
            self.server = Server(anonymous="yes", **settings)
            self.addCleanup(self.server.memory.stop)
            if reach == "a port":
                self.server.hub.names.is_public = True
            remote = IPv4Address("TCP", "192.0.2.9" if reach == "a client" else "127.0.0.1", 4000)
            self.server.memory.line_client(self.server.factories["chat"], local=remote)
            everyone = Everyone(self.server)
            for protocol, say in everyone.speakers().items():
                say(protocol)
            told = [name for found in everyone.read().values() for name in found.values()]
            told += [name for found in everyone.present().values() for name in found]
            self.assertEqual([each for each in told if not re.fullmatch(r"guest-\d+", each)], [], reach)
            self.assertTrue(all(":" in each.address for each in self.server.hub.clients.values()))
