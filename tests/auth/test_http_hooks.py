"""Hooks over HTTP, against a back end on a real socket."""

import json
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from longconn import LongConnService, Settings
from longconn.auth.http_hooks import http_hooks
from longconn.core.counters import Counters
from longconn.core.errors import INTERNAL, CommandError, ConfigError
from longconn.core.hooks import HookDisconnectError, HookRefusalError, HookReply, HookRequest
from longconn.core.identity import Granted


class BackEnd(Resource):
    """Notes each request, and answers as `answer` says: bytes, a status, or None for never."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.answer: bytes | int | None = b'{"result":{}}'
        self.asked: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.connections: set[Any] = set()
        self.held: list[Any] = []

    def render_POST(self, request: Any) -> Any:
        self.asked.append((request.path.decode(), json.loads(request.content.read())))
        self.headers.append({name.decode().lower(): values[0].decode() for name, values in
                             request.requestHeaders.getAllRawHeaders()})  # fmt: skip
        self.connections.add(request.channel)
        if self.answer is None:
            self.held.append(request)
            request.notifyFinish().addErrback(lambda _: None)
            return NOT_DONE_YET
        if isinstance(self.answer, int):
            request.setResponseCode(self.answer)
            return b'{"result":{}}'
        return self.answer


class Case(TestCase):
    def setUp(self) -> None:
        self.back_end = BackEnd()
        self.site = Site(self.back_end)
        self.port: Any = reactor.listenTCP(0, self.site, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(self.stop)
        self.number = self.port.getHost().port

    async def stop(self) -> None:
        for each in list(self.back_end.connections):
            if each.transport is not None:
                each.transport.abortConnection()
        await self.port.stopListening()
        await deferLater(reactor, 0.05)  # type: ignore[arg-type]

    def ask(self, event: str, request: HookRequest | None = None, **settings: Any) -> "Deferred[Any]":
        url = f"http://127.0.0.1:{self.number}/{event}"
        hooks = http_hooks(Settings(**{f"hook_{event}": url}, **settings), reactor, Counters())
        self.addCleanup(hooks.stop)
        return self.asked(getattr(hooks, event), request)

    def asked(self, hook: Any, request: HookRequest | None = None) -> "Deferred[Any]":
        result: Deferred[Any] = Deferred()
        hook(request or HookRequest(), result.callback)
        return result.addTimeout(10, reactor)  # type: ignore[arg-type]


class FormTests(Case):
    """The JSON of Centrifugo's proxies (centrifugal/centrifugo, internal/proxyproto)."""

    async def test_what_is_posted(self) -> None:
        common = {"client": "c", "transport": "websocket", "protocol": "json", "encoding": "json"}
        for event, request, body in (
            ("connect", HookRequest("c", "websocket", data=b'{"a":1.50}'), {"data": {"a": 1.5}}),
            ("refresh", HookRequest("c", "websocket", user="ann"), {"user": "ann"}),
            ("subscribe", HookRequest("c", "websocket", user="ann", channel="n"), {"user": "ann", "channel": "n"}),
            ("publish", HookRequest("c", "websocket", "", "", "n", data=b"1"), {"user": "", "channel": "n", "data": 1}),
            ("sub_refresh", HookRequest("c", "websocket", user="a", channel="n"), {"user": "a", "channel": "n"}),
            ("rpc", HookRequest("c", "websocket", method="m", data=b"[]"), {"user": "", "method": "m", "data": []}),
        ):
            self.assertEqual(await self.ask(event, request), HookReply())
            self.assertEqual(self.back_end.asked.pop(), (f"/{event}", common | body))
            self.assertEqual(self.back_end.headers.pop()["content-type"], "application/json")

    async def test_named_headers(self) -> None:
        await self.ask("connect", HookRequest(headers={"cookie": "s=1"}), hook_header=("Cookie",))
        self.assertEqual(self.back_end.headers.pop()["cookie"], "s=1")

    async def test_decisions(self) -> None:
        for answer, reply in (
            ({"result": {"user": "56", "expire_at": 9, "info": {"n": 1}, "data": [1]}},
             HookReply("56", 9.0, False, b'{"n":1}', b"[1]")),
            ({"result": {"channels": ["a"], "subs": {"b": {"data": 1, "info": None}}, "override": {}}},
             HookReply(subs={"a": Granted(), "b": Granted(b"", b"1")})),
            ({"result": {"expired": True}}, HookReply(expired=True)),
            ({"result": {"skip_history": True, "data": "x"}}, HookReply(data=b'"x"', skip_history=True)),
        ):  # fmt: skip
            self.back_end.answer = json.dumps(answer).encode()
            self.assertEqual(await self.ask("connect"), reply)

    async def test_refusals(self) -> None:
        self.back_end.answer = b'{"error":{"code":1000,"message":"not {you}","temporary":true}}'
        error = await self.ask("connect")
        self.assertIsInstance(error, HookRefusalError)
        self.assertEqual((error.reason.code, str(error), error.reason.temporary), (1000, "not {you}", True))
        self.back_end.answer = b'{"disconnect":{"code":4500,"reason":"banned"}}'
        error = await self.ask("connect")
        self.assertIsInstance(error, HookDisconnectError)
        self.assertEqual((error.disconnect.code, error.disconnect.text), (4500, "banned"))

    async def test_what_is_no_decision(self) -> None:
        for answer in (
            b"", b"{}", b"[]", b"null", b'{"result":null}', b'{"result":[]}', b'{"result":{"user":1}}', b"<html>",
            b'{"error":{"code":0,"message":""}}', b'{"disconnect":{"code":1000,"reason":""}}', b"\xff", 500, 404, 302,
            b'{"result":{"data":"%b"}}' % (b"x" * 2_000_000),
        ):  # fmt: skip
            self.back_end.answer = answer
            error = await self.ask("publish")
            self.assertIsInstance(error, CommandError, str(answer)[:50])
            self.assertIs(error.reason, INTERNAL, str(answer)[:50])

    def test_urls(self) -> None:
        for url in ("connect", "ftp://x/", "http://", "//x"):
            error = self.assertRaises(ConfigError, http_hooks, Settings(hook_connect=url), reactor, Counters())
            self.assertIn("hook_connect", str(error))


class TimeTests(Case):
    async def test_a_late_answer(self) -> None:
        self.back_end.answer = None
        error = await self.ask("connect", hook_timeout=0.2)
        self.assertIs(error.reason, INTERNAL)

    async def test_nobody_is_there(self) -> None:
        await self.port.stopListening()
        self.port.stopListening = lambda: succeed(None)
        self.assertIs((await self.ask("connect")).reason, INTERNAL)

    async def test_connections_are_kept_and_requests_bounded(self) -> None:
        url = f"http://127.0.0.1:{self.number}/"
        hooks = http_hooks(Settings(hook_connect=url, hook_requests=2, hook_timeout=5), reactor, Counters())
        self.addCleanup(hooks.stop)
        hook: Any = hooks.connect
        for _ in range(5):
            await self.asked(hook)
        self.assertEqual(len(self.back_end.connections), 1)
        self.back_end.answer = None
        results = [self.asked(hook) for _ in range(2 + 2 * 10 + 3)]
        for each in results[-3:]:
            self.assertIs((await each).reason, INTERNAL)  # more than may wait
        while len(self.back_end.held) < 2:
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        await deferLater(reactor, 0.05)  # type: ignore[arg-type]
        self.assertEqual(len(self.back_end.held), 2)
        self.back_end.answer = b'{"result":{"user":"late"}}'
        for each in self.back_end.held:
            each.write(b'{"result":{"user":"first"}}')
            each.finish()
        users = [(await each).user for each in results[:-3]]
        self.assertEqual(users, ["first"] * 2 + ["late"] * 20)

    async def test_the_service(self) -> None:
        settings = Settings(hook_connect=f"http://127.0.0.1:{self.number}/connect", hook_header=("Cookie",))
        service = LongConnService(reactor, settings, port=["tcp:0:interface=127.0.0.1"])
        service.startService()
        self.addCleanup(service.stopService)
        self.assertEqual(service.hub.hooks.header_names, ("cookie",))
        self.back_end.answer = b'{"result":{"user":"56"}}'
        self.assertEqual((await self.asked(service.hub.hooks.connect)).user, "56")
