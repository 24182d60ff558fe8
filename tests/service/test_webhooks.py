"""Webhooks: what is told, in which order, signed how; and what becomes of it where nothing answers."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from longconn import GrpcFactory, Hooks, Settings
from longconn.core.counters import Counters
from longconn.core.disconnects import FORCE_DISCONNECT
from longconn.core.errors import UNAUTHORIZED, CommandError, ConfigError
from longconn.service.webhooks import COLLECT, LAST_WAIT, MOST_EVENTS, MOST_WAITING, TIMEOUT, TRIES, Webhooks
from longconn.testing import MemoryServer
from longconn.v1 import longconn_pb2 as pb
from tests.live.common import Case as LiveCase
from tests.live.common import reactor, until
from tests.protocols.grpc.http2_kit import Peer

SECRET = "whsec_" + base64.b64encode(b"a secret of the tests").decode()
URL = "https://app.example/hook"


class BackEnd:
    """Answers requests as it is told: with a status, with an error, or (None) not at all."""

    def __init__(self) -> None:
        self.answer: int | Exception | None = 200
        self.headers: list[dict[str, str]] = []
        self.bodies: list[Any] = []
        self.raw: list[bytes] = []
        self.open: list[Deferred[int]] = []

    def __call__(self, url: str, body: bytes, headers: dict[str, str]) -> Deferred[int]:
        assert url == URL
        self.headers.append(headers)
        self.raw.append(body)
        self.bodies.append(json.loads(body))
        result: Deferred[int] = Deferred()
        if self.answer is None:
            self.open.append(result)
        elif isinstance(self.answer, Exception):
            result.errback(self.answer)
        else:
            result.callback(self.answer)
        return result

    @property
    def events(self) -> list[str]:
        return [each["event"] for body in self.bodies for each in body["events"]]


def settings(**options: Any) -> Settings:
    return Settings(**{"webhook": URL, "webhook_secret": SECRET, **options})


class Case(SynchronousTestCase):
    def serve(self, **options: Any) -> None:
        self.server = MemoryServer(settings(**options))
        self.addCleanup(self.server.stop)
        self.back_end = BackEnd()
        hub = self.server.hub
        self.hooks = Webhooks(
            hub.settings, hub.node, self.server.clock, lambda: 1_700_000_000.5, self.back_end, hub.counters.webhook_lost
        )
        hub.observer = self.hooks
        self.addCleanup(self.hooks.stop)


class EventTests(Case):
    """Each protocol's clients, from their coming to their end."""

    def lines(self) -> Callable[[], Any]:
        client = self.server.line_client()
        client.say("/join news")
        return client.connection.close

    def websocket(self) -> Callable[[], Any]:
        return self.server.websocket_client("/ws?channel=news", self.server._factory("http")).connection.close

    def program(self) -> Callable[[], Any]:
        client = self.server.websocket_client("/connection/websocket", self.server._factory("http"))
        client.say('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"news"}}')
        return client.connection.close

    def events(self) -> Callable[[], Any]:
        client = self.server.http_client()
        client.get("/channels/news/events")
        return client.connection.close

    def stream(self) -> Callable[[], Any]:
        client = self.server.http_client()
        client.get("/channels/news/stream")
        return client.connection.close

    def grpc(self) -> Callable[[], Any]:
        peer = Peer(self.server, GrpcFactory(self.server.hub))
        peer.call("/longconn.v1.LongConn/Subscribe", pb.SubscribeRequest(channel="news").SerializeToString())
        return peer.connection.close

    def test_each_protocol(self) -> None:
        protocols = {
            self.lines: "tcp", self.websocket: "websocket", self.program: "websocket", self.events: "sse",
            self.stream: "stream", self.grpc: "grpc",
        }  # fmt: skip
        for come, protocol in protocols.items():
            self.serve()
            leave = come()
            self.server.settle()
            self.server.advance(COLLECT)
            told = [each for body in self.back_end.bodies for each in body["events"]]
            first = told[0]
            self.assertEqual((first["event"], first["protocol"]), ("client_connected", protocol))
            self.assertEqual(set(first), {"event", "time", "client", "user", "name", "protocol", "address"})
            self.assertIn({"event": "channel_occupied", "time": 1_700_000_000_500, "channel": "news"}, told)
            leave()
            self.server.settle()
            self.server.advance(COLLECT + 1)
            events = [each for each in self.back_end.events if each.startswith("client_")]
            self.assertEqual(events, ["client_connected", "client_disconnected"], protocol)
            last = self.back_end.bodies[-1]["events"][-1]
            self.assertEqual(self.back_end.events[-2:].count("channel_vacated"), 1, protocol)
            self.assertEqual(last.get("client", first["client"]), first["client"])

    def test_one_that_is_refused_is_not_told_of(self) -> None:
        self.serve()
        self.server.hub.hooks = Hooks(connect=lambda request, done: done(CommandError(UNAUTHORIZED)))
        self.server.line_client().say("hello")
        client = self.server.websocket_client("/connection/websocket", self.server._factory("http"))
        client.say('{"id":1,"connect":{"token":"x"}}')
        self.server.advance(10)
        self.assertEqual(self.back_end.bodies, [])

    def test_why_the_server_closed_it(self) -> None:
        self.serve()
        self.server.line_client()
        (client,) = self.server.hub.clients.values()
        client.close(FORCE_DISCONNECT)
        self.server.advance(10)
        (ended,) = (each for body in self.back_end.bodies for each in body["events"] if "code" in each)
        self.assertEqual((ended["event"], ended["code"], ended["reason"]),
                         ("client_disconnected", 3503, "force disconnect"))  # fmt: skip

    def test_only_those_that_are_named(self) -> None:
        self.serve(webhook_event=("channel_vacated", "channel_occupied"))
        self.lines()()
        self.server.advance(10)
        self.assertEqual({*self.back_end.events}, {"channel_vacated", "channel_occupied"})


class RequestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.back_end = BackEnd()
        self.hooks = self.make()

    def make(self, **options: Any) -> Webhooks:
        #: what is dropped, by reason
        self.lost = Counters().webhook_lost
        clock, back_end = self.clock, self.back_end
        return Webhooks(
            settings(**options), "node-1", clock, lambda: 1_700_000_000 + clock.seconds(), back_end, self.lost
        )

    def happen(self, count: int, start: int = 0) -> None:
        for number in range(start, start + count):
            self.hooks.channel_occupied(f"c-{number}")

    def channels(self) -> list[str]:
        return [each["channel"] for body in self.back_end.bodies for each in body["events"]]

    def test_a_signature_of_standard_webhooks(self) -> None:
        for secret, key in ((SECRET, b"a secret of the tests"), ("plain", b"plain")):
            self.hooks = self.make(webhook_secret=secret)
            self.happen(1)
            self.clock.advance(COLLECT)
            headers = self.back_end.headers[-1]
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + self.back_end.raw[-1]
            expected = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
            self.assertEqual(headers["webhook-signature"], f"v1,{expected}")
            self.assertEqual(headers["webhook-id"], self.back_end.bodies[-1]["id"])
            self.assertNotIn(secret.encode(), self.back_end.raw[-1])

    def test_batches_in_order_one_at_a_time(self) -> None:
        self.back_end.answer = None
        self.happen(250)
        self.assertEqual(self.back_end.bodies, [])
        self.clock.advance(COLLECT)
        self.assertEqual([len(each["events"]) for each in self.back_end.bodies], [MOST_EVENTS])
        self.happen(1, 250)
        while self.back_end.open:
            self.back_end.open.pop(0).callback(204)
        self.assertEqual([len(each["events"]) for each in self.back_end.bodies], [100, 100, 51])
        self.assertEqual(self.channels(), [f"c-{number}" for number in range(251)])
        self.assertEqual(len({each["id"] for each in self.back_end.bodies}), 3)
        self.assertEqual({each["node"] for each in self.back_end.bodies}, {"node-1"})

    def test_it_is_tried_again_with_the_same_id(self) -> None:
        for answer in (500, 302, 404, OSError("refused"), None):
            self.setUp()
            self.back_end.answer = answer
            self.happen(1)
            self.clock.advance(COLLECT)
            self.happen(1, 1)
            times = [self.clock.seconds()]
            while len(self.back_end.bodies) < 4:
                seen = len(self.back_end.bodies)
                while len(self.back_end.bodies) == seen:
                    self.clock.advance(0.1)
                times.append(self.clock.seconds())
            self.back_end.answer = 200
            self.clock.advance(TIMEOUT + 60)
            self.clock.advance(60)
            self.assertEqual(len({each["id"] for each in self.back_end.bodies}), 2, answer)
            self.assertEqual(self.channels()[-2:], ["c-0", "c-1"])
            wait = TIMEOUT if answer is None else 0
            pauses = [after - before - wait for before, after in pairwise(times)]
            for pause, expected in zip(pauses, (1, 2, 4), strict=True):
                self.assertTrue(0.79 * expected <= pause <= 1.2 * expected + 0.2, pauses)
            stamps = [int(each["webhook-timestamp"]) for each in self.back_end.headers]
            self.assertGreater(stamps[1], stamps[0])

    def test_given_up_it_is_counted_and_told(self) -> None:
        self.back_end.answer = 503
        self.happen(3)
        for _ in range(400):
            self.clock.advance(1)
        self.assertEqual((len(self.back_end.bodies), self.lost), (TRIES, {"full": 0, "refused": 3, "end": 0}))
        self.back_end.answer = 200
        self.happen(1, 3)
        self.clock.advance(COLLECT)
        self.assertEqual((self.back_end.bodies[-1]["dropped"], self.channels()[-1]), (3, "c-3"))
        self.happen(1, 4)
        self.clock.advance(COLLECT)
        self.assertEqual(self.back_end.bodies[-1]["dropped"], 0)

    def test_what_waits_is_bounded(self) -> None:
        self.back_end.answer = None
        self.happen(1)
        self.clock.advance(COLLECT)
        self.happen(MOST_WAITING + 7, 1)
        self.assertEqual(self.lost["full"], 7)
        self.hooks.channel_occupied("x" * 200)
        self.assertEqual(self.lost["full"], 8)

    def test_at_the_end_what_waits_is_sent(self) -> None:
        self.happen(150)
        ended = self.hooks.stop()
        self.assertEqual((self.successResultOf(ended), len(self.channels())), (None, 150))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_the_end_a_back_end_that_is_away_is_not_waited_for(self) -> None:
        for answer in (500, None):
            self.setUp()
            self.back_end.answer = answer
            self.happen(150)
            self.clock.advance(COLLECT)
            ended = self.hooks.stop()
            self.clock.advance(LAST_WAIT)
            self.assertIsNone(self.successResultOf(ended))
            self.assertEqual(self.clock.getDelayedCalls(), [], answer)

    def test_with_nothing_to_say_the_end_is_at_once(self) -> None:
        self.successResultOf(self.hooks.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_settings_that_do_not_do(self) -> None:
        for options, text in (
            ({"webhook": "app.example"}, "is no URL"),
            ({"webhook": "ftp://app.example"}, "is no URL"),
            ({"webhook_secret": ""}, "webhook needs webhook_secret"),
            ({"webhook_secret": "whsec_?"}, "what follows whsec_ is no base64"),
            ({"webhook_event": ("client_came",)}, "'client_came' is none of client_connected"),
        ):
            error = self.assertRaises(ConfigError, self.make, **options)
            self.assertIn(text, str(error))
            self.assertNotIn("whsec_?", str(error))


class Receiver(Resource):
    isLeaf = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bodies: list[Any] = []
        self.connections: set[Any] = set()

    def render_POST(self, request: Any) -> bytes:
        self.connections.add(request.getClientAddress().port)
        self.bodies.append(json.loads(request.content.read()))
        return b"thanks"


class SocketTests(LiveCase):
    async def test_a_service_tells_over_a_kept_connection(self) -> None:
        receiver = Receiver()
        port = reactor.listenTCP(0, Site(receiver), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.serve(webhook=f"http://127.0.0.1:{port.getHost().port}/hook", webhook_secret=SECRET)
        client = await self.line_client()
        client.say("hello")
        await until(lambda: receiver.bodies)
        client.connection.close()
        await until(lambda: not self.hub.clients)
        await self.service.stopService()
        events = [each["event"] for body in receiver.bodies for each in body["events"]]
        self.assertEqual(
            sorted(events), ["channel_occupied", "channel_vacated", "client_connected", "client_disconnected"]
        )
        self.assertEqual(len(receiver.connections), 1)
