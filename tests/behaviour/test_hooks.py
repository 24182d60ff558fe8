"""The application decides: on every way in, and in every channel that wants it, before any effect."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from longconn import HookDisconnectError, HookRefusalError, HookReply, HookRequest, Hooks, Settings, program_hooks
from longconn.core.asking import PAUSE
from longconn.core.broker import Done
from longconn.core.errors import INTERNAL, CommandError
from longconn.core.hooks import MOST_WAITING
from longconn.core.identity import Granted
from longconn.core.namespaces import ChannelOptions, Namespaces
from longconn.core.publication import Data
from longconn.testing import MemoryServer
from tests.behaviour.centrifugo import StructuredWebSocketMember
from tests.behaviour.test_gate import GRPC, HTTP, IN, LINES, NOT_HERE, PROGRAM, SOCKET, UPGRADE_ALONE, WAYS, Case

#: For a family of answers (`test_gate.WAYS`): those to an error of the application, its disconnect, and its absence.
ANSWERS: list[tuple[Any, Any, Any, Any]] = [
    (
        LINES,
        ["! not you", "! disconnected: permission denied"],
        ["! unauthorized", "! disconnected: banned"],
        ["! internal error; try again", "! disconnected: internal server error"],
    ),
    (HTTP, (403, 1000), (401, 101), (503, 100)),
    (UPGRADE_ALONE, 403, 401, 503),
    (PROGRAM, 1000, ("disconnect", 4500), 100),
    (SOCKET, 1000, ("close", 4500), 100),
    (GRPC, ("PERMISSION_DENIED", 1000), ("UNAUTHENTICATED", 101), ("UNAVAILABLE", 100)),
]


class Application:
    """Decides as it is told, and notes what it was asked."""

    def __init__(self, answer: HookReply | CommandError | None) -> None:
        self.answer = answer
        self.asked: list[HookRequest] = []
        self.waiting: list[Done[HookReply]] = []

    def __call__(self, request: HookRequest, done: Done[HookReply]) -> None:
        self.asked.append(request)
        if self.answer is None:
            self.waiting.append(done)
        else:
            done(self.answer)


def answers_of(name: str, row: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    for family, *answers in ANSWERS:
        if row[1] is family or (isinstance(row[1], dict) and row[1].items() >= {IN: IN}.items() and row[1] == family):
            return answers[0], answers[1], answers[2]
    raise AssertionError(f"{name} is of no family")


class ConnectTests(Case):
    def test_each_way(self) -> None:
        refusals = (HookRefusalError(1000, "not you"), HookDisconnectError(4500, "banned"), CommandError(INTERNAL))
        for name, row in WAYS.items():
            for position, refusal in enumerate((None, *refusals)):
                with self.subTest(way=name, refusal=str(refusal)):
                    self.check(name, row, position, refusal)

    def check(self, name: str, row: tuple[Any, ...], position: int, refusal: CommandError | None) -> None:
        server = self.serve()
        gate = server.hub.gate
        gate.verifier = gate.passwords = None
        application = Application(HookReply("ann") if refusal is None else refusal)
        server.hub.hooks = Hooks(connect=application)
        before = server.state()
        self.records.clear()
        answer = row[0](server, "", None)
        if answer == NOT_HERE:
            return
        if refusal is None:
            self.assertEqual(answer, IN, name)
            self.assertGreater(len(application.asked), 0, name)
            return
        special = {
            "HEAD /channels/{channel}": ((403, None), (401, None), (503, None)),
            "GET /ws": (("close", 3507), ("close", 4500), ("close", 3004)),
            "/ws, by lines": (("close", 3507), ("close", 4500), ("close", 3004)),
            "WebSocket's own port, by lines": (403, 401, 503),
        }
        expected = (special.get(name) or self.family(name, row))[position - 1]
        self.assertEqual(answer, expected, f"{name}: {refusal}")
        self.assertEqual(server.state(), before, name)
        self.assertEqual(len([each for each in self.records if "refused" in each]), 1, f"{name}: {self.records}")

    def family(self, name: str, row: tuple[Any, ...]) -> tuple[Any, Any, Any]:
        if name == "WebSocket's own port, /echo":
            return 403, 401, 503
        return answers_of(name, row)

    def test_nothing_happens_before_a_late_decision(self) -> None:
        for name in ("chat lines", "POST /channels/{channel}", "/longconn.v1.LongConn/Publish"):
            server = self.serve()
            server.hub.gate.verifier = server.hub.gate.passwords = None
            server.hub.hooks = Hooks(connect=(application := Application(None)))
            before = server.state()
            with contextlib.suppress(AssertionError, IndexError, ValueError):  # there is no answer yet
                WAYS[name][0](server, "", None)
            server.memory.advance(0.1)
            self.assertEqual(server.state(), before, name)
            (done,) = application.waiting
            done(HookReply("ann"))
            server.memory.settle()
            self.assertNotEqual(server.state(), before)

    def test_what_it_is_told_and_what_it_grants(self) -> None:
        memory = MemoryServer()
        self.addCleanup(memory.stop)
        reply = HookReply(
            "ann", info=b'{"team":1}', data=b'{"hello":2}', subs={"news": Granted(b'{"seat":3}', b'{"first":4}')}
        )
        application = Application(reply)
        memory.hub.hooks = Hooks(connect=application, header_names=("cookie", "x-a"))
        client = memory.websocket_client(
            "/connection/websocket", memory._factory("http"), [("Cookie", "s=1"), ("X-B", "2"), ("Authorization", "x")]
        )
        client.say('{"id":1,"connect":{"data":{"from":[1.50]},"name":"js"}}')
        (request,) = application.asked
        self.assertEqual(dict(request.headers), {"cookie": "s=1"})
        self.assertEqual((request.protocol, request.data, request.user), ("websocket", b'{"from":[1.50]}', ""))
        said = str(client.read()[0])
        self.assertIn('"data":{"hello":2}', said)
        self.assertIn('"subs":{"news":{', said)
        (found,) = memory.hub.presence("news")
        self.assertEqual((found.user, found.chan_info), ("ann", b'{"seat":3}'))
        self.assertEqual(found.conn_info, b'{"name":"ann","team":1}')

    def test_a_connection_is_renewed_or_ends(self) -> None:
        for kind in ("lines", "program", "events"):
            memory = MemoryServer(Settings(ping_interval=0))
            self.addCleanup(memory.stop)
            now = memory.hub.wall_time()
            refresh = Application(HookReply(expires_at=now + 200))
            memory.hub.hooks = Hooks(connect=Application(HookReply("ann", now + 100)), refresh=refresh)
            if kind == "lines":
                memory.line_client().say("hello")
            elif kind == "program":
                memory.websocket_client("/connection/websocket", memory._factory("http")).say('{"id":1,"connect":{}}')
            else:
                memory.http_client().get("/channels/lobby/events")
            memory.settle()
            memory.advance(130)
            self.assertEqual(([each.user for each in refresh.asked], len(memory.hub.clients)), (["ann"], 1), kind)
            refresh.answer = HookReply(expired=True)
            memory.advance(130)
            self.assertEqual((len(refresh.asked), len(memory.hub.clients)), (2, 0), kind)


NAMED = {"app": ChannelOptions(hook_subscribe=True, hook_publish=True, hook_sub_refresh=True)}


class ChannelTests(SynchronousTestCase):
    """Channels whose options say that the application decides."""

    def setUp(self) -> None:
        self.memory = MemoryServer(Settings(namespaces=Namespaces(named=NAMED)))
        self.addCleanup(self.memory.stop)
        self.subscribe, self.publish = Application(None), Application(None)
        self.memory.hub.hooks = Hooks(subscribe=self.subscribe, publish=self.publish)

    def decide(self, application: Application, answer: HookReply | CommandError) -> None:
        application.waiting.pop(0)(answer)
        self.memory.settle()

    def kept(self, channel: str = "app:1") -> list[str | None]:
        results: list[Any] = []
        self.memory.hub.history(channel, results.append)
        return [each.data.json.decode() for each in results[0].publications]

    def test_chat_lines(self) -> None:
        client = self.memory.line_client()
        client.say("/join app:1", "hello")
        self.assertEqual([each.channel for each in self.subscribe.asked], ["app:1"])
        self.assertEqual(self.memory.hub.presence("app:1"), [])
        self.decide(self.subscribe, HookReply())
        self.assertEqual([each.data for each in self.publish.asked], [b'"hello"'])
        self.decide(self.publish, HookReply(data=b'"HELLO"'))
        self.assertEqual(client.read()[-1].rpartition(": ")[2], "HELLO")
        client.say("again")
        self.decide(self.publish, HookRefusalError(1001, "no {more}"))
        self.assertEqual(client.read()[-1], "! no {more}")
        self.assertEqual(self.kept(), ['"HELLO"'])

    def test_each_way_to_subscribe(self) -> None:
        """Refused before anything was sent, each in its own way."""
        from longconn import GrpcFactory
        from longconn.v1 import longconn_pb2 as pb
        from tests.protocols.grpc.http2_kit import Peer

        refusal = HookRefusalError(1001, "not there")
        lines = self.memory.line_client()
        lines.say("/join app:1")
        self.decide(self.subscribe, refusal)
        self.assertEqual(lines.read(), ["! not there"])
        socket = self.memory.websocket_client("/ws?channel=app:1")
        self.memory.settle()
        self.decide(self.subscribe, refusal)
        self.assertIn("! not there", [str(each) for each in socket.read()])
        for path in ("events", "stream"):
            answer = self.memory.http_client().get(f"/channels/app:1/{path}")
            self.memory.settle()
            self.assertEqual(answer.status, 0)
            self.decide(self.subscribe, refusal)
            self.assertEqual((answer.status, answer.json()["error"]["code"]), (403, 1001))
        peer = Peer(self.memory, GrpcFactory(self.memory.hub))
        stream = peer.call("/longconn.v1.LongConn/Subscribe", pb.SubscribeRequest(channel="app:1").SerializeToString())
        self.decide(self.subscribe, refusal)
        self.assertEqual(peer.trailers(stream)["longconn-code"], "1001")
        program = StructuredWebSocketMember(self.memory, {"shared": self.memory._factory("http")}, joins=False)
        number = program.ask("subscribe", channel="app:1")
        program.hear()
        self.decide(self.subscribe, refusal)
        program.hear()
        self.assertEqual(program.replies[number]["error"], {"code": 1001, "message": "not there"})
        self.assertEqual(self.memory.hub.presence("app:1"), [])

    def test_each_way_to_publish(self) -> None:
        http = self.memory.http_client()
        answer = http.post("/channels/app:1", "x")
        self.memory.settle()
        self.assertEqual((answer.status, self.kept()), (0, []))
        self.decide(self.publish, HookReply(skip_history=True))
        self.assertEqual((answer.status, self.kept()), (200, []))
        answer = http.post("/channels/app:1", "x")
        self.memory.settle()
        self.decide(self.publish, HookRefusalError(1001, "no", temporary=True))
        self.assertEqual((answer.status, answer.json()["error"]["code"]), (503, 1001))
        program = StructuredWebSocketMember(self.memory, {"shared": self.memory._factory("http")}, joins=False)
        number = program.ask("publish", channel="app:1", data={"a": 1})
        program.hear()
        self.decide(self.publish, HookDisconnectError(4501, "spam"))
        program.hear()
        self.assertEqual(program.client.close_code, 4501)
        self.assertNotIn("publish", program.replies.get(number, {}))
        self.assertEqual(self.kept(), [])

    def test_a_caller_keeps_its_order_and_others_do_not_wait(self) -> None:
        one = StructuredWebSocketMember(self.memory, {"shared": self.memory._factory("http")}, joins=False)
        two = self.memory.http_client()
        for number in range(3):
            one.ask("publish", channel="app:1" if number < 2 else "free", data=number)
        one.hear()
        answer = two.post("/channels/free", "other")
        self.memory.settle()
        self.assertEqual((answer.status, self.kept("free"), len(self.publish.asked)), (200, ['"other"'], 1))
        self.decide(self.publish, HookReply())
        self.assertEqual((self.kept(), self.kept("free"), len(self.publish.asked)), (["0"], ['"other"'], 2))
        self.decide(self.publish, HookReply())
        self.assertEqual((self.kept(), self.kept("free")), (["0", "1"], ['"other"', "2"]))

    def test_what_waits_is_bounded(self) -> None:
        program = StructuredWebSocketMember(self.memory, {"shared": self.memory._factory("http")}, joins=False)
        for number in range(2 * MOST_WAITING):
            program.ask("publish", channel="app:1", data=number)
        program.hear()
        (client,) = self.memory.hub.clients.values()
        assert client.decisions is not None
        self.assertEqual(len(client.decisions), MOST_WAITING)
        while self.publish.waiting:
            self.decide(self.publish, HookReply())
            self.memory.advance(PAUSE)
        self.assertEqual(self.kept(), [str(number) for number in range(2 * MOST_WAITING)])

    def test_a_client_that_leaves_before_the_decision(self) -> None:
        line, program = self.memory.line_client(), None
        line.say("/join app:1", "never")
        line.connection.close()
        self.memory.settle()
        self.decide(self.subscribe, HookReply())
        self.assertEqual((self.memory.hub.presence("app:1"), self.kept(), program), ([], [], None))

    def test_an_unsubscribe_before_the_decision(self) -> None:
        program = StructuredWebSocketMember(self.memory, {"shared": self.memory._factory("http")}, joins=False)
        first = program.ask("subscribe", channel="app:1")
        twice = program.ask("subscribe", channel="app:1")
        last = program.ask("unsubscribe", channel="app:1")
        program.hear()
        self.assertEqual(program.replies[twice]["error"]["code"], 105)
        self.decide(self.subscribe, HookReply())
        program.hear()
        self.assertIn("subscribe", program.replies[first])
        self.assertIn("unsubscribe", program.replies[last])
        self.assertEqual(self.memory.hub.presence("app:1"), [])

    def test_nobody_reads_past_it(self) -> None:
        self.memory.hub.publish("app:1", Data.of_text("secret"), self.info(), lambda position: None)
        for path in ("", "?since=x:0", "?since=x:0&wait=1"):
            answer = self.memory.http_client().get(f"/channels/app:1{path}")
            self.memory.settle()
            self.assertEqual((answer.status, answer.json()["error"]["code"]), (403, 103), path)
        client = self.memory.line_client()
        client.say("/channels")
        self.assertNotIn("app:1", " ".join(client.read()))

    def info(self) -> Any:
        from longconn import Info

        return Info("program")

    def test_a_subscription_is_renewed_or_ends(self) -> None:
        now = self.memory.hub.wall_time()
        renew = Application(HookReply(expires_at=now + 200))
        self.memory.hub.hooks = Hooks(subscribe=Application(HookReply(expires_at=now + 100)), sub_refresh=renew)
        program = StructuredWebSocketMember(self.memory, {"shared": self.memory._factory("http")}, joins=False)
        number = program.ask("subscribe", channel="app:1")
        program.hear()
        self.assertNotIn("expires", program.replies[number]["subscribe"])
        self.memory.advance(130)
        self.assertEqual(len(self.memory.hub.presence("app:1")), 1)
        renew.answer = HookReply(expired=True)
        self.memory.advance(130)
        self.assertEqual((len(renew.asked), self.memory.hub.presence("app:1")), (2, []))

    def test_a_subscription_of_a_client_without_a_session_is_renewed_or_ends(self) -> None:
        """It ends with its connection: the client may come back, and is decided about anew."""
        from longconn import GrpcFactory
        from longconn.v1 import longconn_pb2 as pb
        from tests.protocols.grpc.http2_kit import Peer

        def lines() -> Callable[[], Any]:
            client = self.memory.line_client()
            client.say("/join app:1")
            return lambda: client.read()[-1]

        def websocket() -> Callable[[], Any]:
            client = self.memory.websocket_client("/ws?channel=app:1", self.memory._factory("http"))
            return lambda: client.close_code

        def events(path: str) -> Callable[[], Any]:
            answer = self.memory.http_client().get(path)
            return lambda: ("3006" in answer.text, answer.complete)

        def grpc() -> Callable[[], Any]:
            peer = Peer(self.memory, GrpcFactory(self.memory.hub))
            request = pb.SubscribeRequest(channel="app:1").SerializeToString()
            stream = peer.call("/longconn.v1.LongConn/Subscribe", request)
            return lambda: peer.trailers(stream)["longconn-code"]

        for open_one, end in (
            (lines, "! disconnected: subscription expired"),
            (websocket, 3006),
            (partial(events, "/channels/app:1/events"), (True, True)),
            (partial(events, "/channels/app:1/stream"), (False, True)),
            (grpc, "3006"),
        ):
            for renews in (True, False):
                with self.subTest(way=open_one, renews=renews):
                    self.setUp()
                    now = self.memory.hub.wall_time()
                    renew = Application(HookReply(expires_at=now + 200))
                    self.memory.hub.hooks = Hooks(
                        subscribe=Application(HookReply(expires_at=now + 100)), sub_refresh=renew if renews else None
                    )
                    ended = open_one()
                    self.memory.settle()
                    self.assertEqual(len(self.memory.hub.presence("app:1")), 1)
                    self.memory.advance(102)
                    self.assertEqual(len(self.memory.hub.presence("app:1")), renews)
                    renew.answer = HookReply(expired=True)
                    self.memory.advance(100)
                    self.assertEqual((len(renew.asked), self.memory.hub.presence("app:1")), (2 * renews, []))
                    self.assertEqual(ended(), end)

    def test_calls(self) -> None:
        rpc = Application(HookReply(data=b'{"sum":3}'))
        self.memory.hub.hooks = Hooks(rpc=rpc)
        program = StructuredWebSocketMember(self.memory, {"shared": self.memory._factory("http")}, joins=False)
        number = program.ask("rpc", method="add", data=[1, 2])
        program.hear()
        self.assertEqual(program.replies[number]["rpc"], {"data": {"sum": 3}})
        self.assertEqual([(each.method, each.data) for each in rpc.asked], [("add", b"[1, 2]")])

    def test_without_a_hook_such_a_channel_is_closed(self) -> None:
        self.memory.hub.hooks = Hooks()
        client = self.memory.line_client()
        client.say("/join app:1")
        self.assertEqual(client.read(), ["! permission denied: subscribe to app:1"])


class ProgramTests(SynchronousTestCase):
    """Functions and coroutines of the program that embeds the hub."""

    def setUp(self) -> None:
        self.memory = MemoryServer()
        self.addCleanup(self.memory.stop)

    def status(self) -> int:
        answer = self.memory.http_client().post("/channels/lobby", "x")
        self.memory.settle()
        return answer.status

    def test_functions(self) -> None:
        waiting: list[Deferred[HookReply]] = []

        async def later(request: HookRequest) -> HookReply:
            waiting.append(Deferred())
            return await waiting[-1]

        def no(request: HookRequest) -> HookReply:
            raise HookRefusalError(1000, "no")

        def broken(request: HookRequest) -> HookReply:
            raise ZeroDivisionError

        for function, status in ((lambda request: HookReply("ann"), 200), (no, 403), (broken, 503), (later, 0)):
            self.memory.hub.hooks = program_hooks({"connect": function})
            self.assertEqual(self.status(), status)
        self.assertEqual(len(waiting), 1)
        waiting[0].callback(HookReply("ann"))

    def test_one_that_takes_too_long(self) -> None:
        self.memory.hub.hooks = program_hooks(
            {"connect": lambda request: Deferred()}, timeout=2, reactor=self.memory.clock
        )
        answer = self.memory.http_client().post("/channels/lobby", "x")
        self.memory.advance(1.9)
        self.assertEqual(answer.status, 0)
        self.memory.advance(0.2)
        self.assertEqual(answer.status, 503)

    def test_names(self) -> None:
        self.assertRaises(TypeError, program_hooks, {"conect": lambda request: HookReply()})
