"""One message crosses every protocol on one port, and all read the same in the same order."""

from typing import Any

import treq
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.web.client import Agent, HTTPConnectionPool

from longconn.core.publication import Data, Info
from tests.live.common import Case, reactor


class Browser(WebSocketClientProtocol):
    """A WebSocket client of somebody else's making."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.opened: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()

    def onOpen(self) -> None:
        self.opened.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.messages.append(payload.decode())

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.ended.callback(None)


class CrossingTests(Case):
    async def browser(self) -> Browser:
        factory: Any = WebSocketClientFactory(f"ws://127.0.0.1:{self.port}/ws?name=browser", reactor=reactor)
        factory.protocol = Browser
        browser: Browser = await TCP4ClientEndpoint(reactor, "127.0.0.1", self.port).connect(factory)
        await browser.opened

        def hang_up() -> Deferred[None]:
            browser.dropConnection(abort=True)
            return browser.ended

        self.addCleanup(hang_up)
        return browser

    async def test_what_each_says_all_the_others_read_in_one_order(self) -> None:
        self.serve()
        first, second = await self.line_client(), await self.line_client()
        browser = await self.browser()
        events = await self.stream("/channels/lobby/events")
        pool = HTTPConnectionPool(reactor)
        self.addCleanup(pool.closeCachedConnections)
        agent = Agent(reactor, pool=pool)
        url = f"http://127.0.0.1:{self.port}/channels/lobby"
        for number in range(10):
            first.say(f"first {number}")
            second.say(f"second {number}")
            browser.sendMessage(f"browser {number}".encode())
            if number % 3 == 0:
                answer = await treq.post(url, f"post {number}".encode(), agent=agent)
                self.assertEqual(answer.code, 200)
                await answer.content()
        await treq.post(url, b"the end", agent=agent).addCallback(treq.content)
        for client in (first, second):
            await client.connection.until(lambda client=client: "the end" in client.lines[-1])
        connection: Any = events.connection  # type: ignore[attr-defined]
        await connection.until(lambda: "the end" in events.text)
        orders = [[line.split(": ")[1] for line in client.lines if ": " in line] for client in (first, second)]
        orders.append([line.split(": ")[1] for line in browser.messages if ": " in line])
        orders.append([event.json()["data"] for event in events.events() if event.event == "message"])
        self.assertEqual(len(orders[0]), 35)
        self.assertEqual([order for order in orders if order != orders[0]], [])

    async def test_what_goes_to_clients_that_read_goes_directly_to_the_kernel(self) -> None:
        """The guard of direct sends rests on names of Twisted's own: a release that breaks it fails here."""
        self.serve(publish_rate=0, publish_bytes=0)
        lines = [await self.line_client() for _ in range(20)]
        sockets = [await self.websocket_client() for _ in range(10)]
        self.assertEqual(self.hub.counters.indirect_sends, 0)
        # What opens a stream waits for the head of the answer, which twisted.web writes.
        streams = [await self.stream("/channels/lobby/events") for _ in range(5)]
        before = self.hub.counters.indirect_sends
        for number in range(100):
            self.hub.publish("lobby", Data.of_text(f"message {number}"), Info("hub"), lambda result: None)
            if number % 10 == 9:
                await lines[-1].connection.until(lambda number=number: lines[-1].lines[-1] == f"hub: message {number}")
        for client in (*lines, *sockets):
            said = client.lines if client in lines else client.messages
            await client.connection.until(lambda said=said: said[-1] == "hub: message 99")
            self.assertEqual([each for each in said if "hub: " in each], [f"hub: message {n}" for n in range(100)])
        for stream in streams:
            connection: Any = stream.connection  # type: ignore[attr-defined]
            await connection.until(lambda stream=stream: "message 99" in stream.text)
        self.assertEqual(self.hub.counters.indirect_sends - before, 0)
