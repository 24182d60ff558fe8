"""A page of another local server, in a real browser, over the shared port."""

from typing import Any

from twisted.internet.threads import deferToThread
from twisted.protocols.policies import WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import Site

from longconn.core.publication import Data, Info
from tests.live.common import Case, reactor, until
from tests.live.devtools import CHROMIUM, browser

_PAGE = """<!doctype html><title>a page of somebody else</title><script>
var socket = new WebSocket("ws://localhost:%d/ws");
socket.onopen = function () { console.log("open"); socket.send("hello from the page"); };
socket.onmessage = function (event) { console.log("message " + event.data); };
socket.onclose = function (event) { console.log("close " + event.code + " " + event.wasClean); };
</script>"""


class Page(Resource):
    isLeaf = True

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def render_GET(self, request: Any) -> bytes:
        request.setHeader("Content-Type", "text/html")
        return self._text.encode()


class BrowserTests(Case):
    timeout = 120
    if CHROMIUM is None:
        skip = "no Chromium is installed (chromium, chromium-browser, google-chrome)"

    def hang_up(self, site: Any) -> Any:
        """The browser keeps its connections: it goes on after this test."""
        for each in list(site.protocols):
            each.transport.abortConnection()
        return until(lambda: not site.protocols)

    async def test_a_page_of_another_server_logs_open_message_and_close(self) -> None:
        self.serve()
        site: Any = WrappingFactory(Site(Page(_PAGE % self.port)))
        listening = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.hang_up, site)
        self.addCleanup(listening.stopListening)
        chromium = await deferToThread(browser)
        self.addCleanup(deferToThread, chromium.forget)
        page = await deferToThread(chromium.page, f"http://127.0.0.1:{listening.getHost().port}/")
        await until(lambda: len(self.hub.presence("lobby")) == 1)
        await deferToThread(page.read_until, "message")
        self.hub.publish("lobby", Data.of_text("for the page"), Info("desk"), lambda result: None)
        await deferToThread(page.read_until, "message desk")
        await self.service.stopService()
        logs = await deferToThread(page.read_until, "close")
        name = logs[1].split(" ")[1]
        self.assertEqual(
            logs, ["open", f"message {name} hello from the page", "message desk: for the page", "close 1001 true"]
        )
