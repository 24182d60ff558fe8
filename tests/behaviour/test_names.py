"""Names: each returns to its owner after a change of network, while the server still takes the old connection for open.

The same user gets it at once. Another client, also an anonymous one that comes back, is refused in a way after which
programs try again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn.v1 import longconn_pb2 as pb
from tests.behaviour.grpc_members import SERVICE
from tests.behaviour.test_gate import Server, authorization, sign
from tests.protocols.grpc.http2_kit import Peer, prefixed

NAME = "desk"

#: Opens a client that asks for NAME, with a token or without (""); returns what it received.
Way = Callable[[Server, str], Callable[[], Any]]


def chat(path: str = "", port: str = "shared") -> Way:
    """`/nick` over chat lines: TCP, or WebSocket at `path`."""

    def come(server: Server, token: str) -> Callable[[], Any]:
        factory = server.factories[port]
        client: Any = server.memory.websocket_client(path, factory) if path else server.memory.line_client(factory)
        client.say(*([f"/login token {token}"] if token else []), f"/nick {NAME}")
        return lambda: [each for each in client.read() if str(each).startswith("! ")]

    return come


def stream(path: str, accept: str = "") -> Way:
    def come(server: Server, token: str) -> Callable[[], Any]:
        connection = server.memory.connect(server.factories["shared"])
        lines = [f"GET {path}?name={NAME} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in _headers(token)] + ([f"Accept: {accept}"] if accept else [])
        connection.send("\r\n".join([*lines, "", ""]).encode())
        return lambda: bytes(connection.received).decode()

    return come


def upgrade(path: str, port: str) -> Way:
    def come(server: Server, token: str) -> Callable[[], Any]:
        client = server.memory.websocket_client(f"{path}?name={NAME}", server.factories[port], _headers(token))
        return lambda: client.status

    return come


def program(server: Server, token: str) -> Callable[[], Any]:
    client = server.memory.line_client(server.factories["shared"])
    client.say(json.dumps({"id": 1, "connect": {"token": token, "data": {"chat": {"name": NAME}}}}))
    return lambda: json.loads(str(client.read()[0]))


def page(server: Server, token: str) -> Callable[[], Any]:
    client = server.memory.websocket_client("/connection/websocket", server.factories["shared"])
    client.say(json.dumps({"id": 1, "connect": {"token": token, "data": {"chat": {"name": NAME}}}}))
    return lambda: json.loads(str(client.read()[0]))


def grpc_subscribe(server: Server, token: str) -> Callable[[], Any]:
    peer = Peer(server.memory, server.factories["grpc"])
    request = pb.SubscribeRequest(channel="lobby", name=NAME).SerializeToString()
    call = peer.call(f"{SERVICE}Subscribe", request, headers=tuple(_headers(token)))
    return lambda: (peer.status(call), peer.trailers(call).get("grpc-retry-pushback-ms"))


def grpc_connect(server: Server, token: str) -> Callable[[], Any]:
    peer = Peer(server.memory, server.factories["grpc"])
    request = pb.ConnectRequest(id=1, connect=pb.ConnectCommand(name=NAME, token=token))
    call = peer.begin(f"{SERVICE}Connect")
    peer.send(call, prefixed(request.SerializeToString()))
    return lambda: (peer.status(call), peer.trailers(call).get("grpc-retry-pushback-ms"))


def _headers(token: str) -> list[tuple[str, str]]:
    return authorization("token", token) if token else []


def is_503(answer: str) -> bool:
    return answer.startswith("HTTP/1.1 503 ") and "\r\nRetry-After: 5\r\n" in answer and '"code":153' in answer


def is_temporary(reply: Any) -> bool:
    return bool(reply["error"]["code"] == 153 and reply["error"]["temporary"])


#: Ways to a name, and whether what a client received is a refusal after which its program tries again.
WAYS: dict[str, tuple[Way, Callable[[Any], bool]]] = {
    "chat over TCP": (chat(port="chat"), lambda said: said == [f"! the name {NAME} is taken"]),
    "chat on the shared port": (chat(), lambda said: said == [f"! the name {NAME} is taken"]),
    "chat over WebSocket": (chat("/ws"), lambda said: said == [f"! the name {NAME} is taken"]),
    "/ws?name": (upgrade("/ws", "shared"), lambda status: status == 503),
    "/ws?name on a port of its own": (upgrade("/ws", "websocket"), lambda status: status == 503),
    "EventSource": (
        stream("/channels/lobby/events", "text/event-stream"),
        lambda answer: '"reconnect":true' in answer and "\nretry: " in answer and " 200 " in answer,
    ),
    "events": (stream("/channels/lobby/events"), is_503),
    "stream": (stream("/channels/lobby/stream"), is_503),
    "Centrifugo's client protocol": (program, is_temporary),
    "the page": (page, is_temporary),
    "gRPC's Connect": (grpc_connect, lambda end: end == ((14, f"the name {NAME} is taken"), "5000")),
    "gRPC's Subscribe": (grpc_subscribe, lambda end: end == ((14, f"the name {NAME} is taken"), "5000")),
}


class NameTests(SynchronousTestCase):
    def come(self, way: Way, user: str) -> Any:
        received = way(self.server, sign(sub=user) if user else "")
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
                self.assertEqual(ghost.name, ghost.address, (old, new))
                ghost.gone()  # it does not take the name along
                self.assertEqual(self.owners(), ["ann"], (old, new))

    def test_others_are_refused_in_a_way_after_which_programs_try_again(self) -> None:
        for name, (way, is_retried) in WAYS.items():
            for holder, other in (("ann", "bob"), ("ann", ""), ("", "ann"), ("", "")):
                self.serve()
                self.come(way, holder)
                (ghost,) = [each for each in self.server.hub.clients.values() if each.name == NAME]
                answer = self.come(way, other)
                self.assertTrue(is_retried(answer), (name, holder, other, answer))
                self.assertEqual(self.owners(), [holder], name)
                ghost.gone()
                self.come(way, other)
                self.assertEqual(self.owners(), [other], name)

    def test_a_request_may_speak_under_the_name_of_the_user_s_own_client(self) -> None:
        self.serve()
        self.come(stream("/channels/lobby/events"), "ann")
        for user, status in (("ann", 200), ("bob", 409), ("", 409)):
            client = self.server.memory.http_client(self.server.factories["shared"])
            headers = _headers(sign(sub=user)) if user else []
            answer = client.request("POST", f"/channels/lobby?name={NAME}", "hello", headers)
            self.server.memory.settle()
            self.assertEqual(answer.status, status, user)
        self.assertEqual(self.owners(), ["ann"])

    def test_others_read_that_the_old_connection_has_another_name(self) -> None:
        self.serve()
        witness = self.server.memory.line_client(self.server.factories["chat"])
        self.come(chat(port="chat"), "ann")
        witness.read()
        self.come(stream("/channels/lobby/events"), "ann")
        said = [str(each) for each in witness.read()]
        self.assertEqual(len([each for each in said if each.startswith(f"* {NAME} is now ")]), 1, said)
