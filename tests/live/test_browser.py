"""A page of another local server, in a real browser, over the shared port."""

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import Site
from websockets.sync.client import ClientConnection, connect

from longconn.core.publication import Data, Info
from tests.live.common import Case, reactor, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_PAGE = """<!doctype html><title>a page of somebody else</title><script>
var socket = new WebSocket("ws://localhost:%d/ws");
socket.onopen = function () { console.log("open"); socket.send("hello from the page"); };
socket.onmessage = function (event) { console.log("message " + event.data); };
socket.onclose = function (event) { console.log("close " + event.code + " " + event.wasClean); };
</script>"""
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)  # fmt: skip
#: Seconds within which a browser starts, however busy the machine.
_START = 60


class Page(Resource):
    isLeaf = True

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def render_GET(self, request: Any) -> bytes:
        request.setHeader("Content-Type", "text/html")
        return self._text.encode()


class Browser:
    """A headless Chromium that is told by its debugging protocol. All of it blocks: call it in a thread."""

    def __init__(self, folder: str) -> None:
        assert CHROMIUM is not None
        self.logs: list[str] = []
        self._count = 0
        self._process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._socket: ClientConnection | None = None
        self._port_file = Path(folder, "DevToolsActivePort")

    def open(self, url: str) -> None:
        """Start, and go to the page."""
        end = time.monotonic() + _START
        # Chromium tells its port by a file, and only that; an event of the file system would be one more program.
        while not self._port_file.exists() or len(self._port_file.read_text().split("\n")) < 2:
            if time.monotonic() > end or self._process.poll() is not None:
                raise TimeoutError("the browser did not start")
            time.sleep(0.02)
        port, path = self._port_file.read_text().split("\n")[:2]
        self._socket = connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None)
        targets = self._call("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in targets if each["type"] == "page")
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Runtime.enable", session)
        self._call("Page.enable", session)
        self._call("Page.navigate", session, url=url)

    def read_until(self, text: str, seconds: float = 30) -> list[str]:
        """What the page logged, up to a line that starts with `text`."""
        end = time.monotonic() + seconds
        while not any(line.startswith(text) for line in self.logs):
            self._read(end - time.monotonic())
        return self.logs

    def _call(self, method: str, session: str | None = None, **params: Any) -> Any:
        assert self._socket is not None
        self._count += 1
        number = self._count
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        self._socket.send(json.dumps(message))
        while True:
            answer = self._read(30)
            if answer.get("id") == number:
                return answer["result"]

    def _read(self, seconds: float) -> Any:
        assert self._socket is not None
        message = json.loads(self._socket.recv(timeout=seconds))
        if message.get("method") == "Runtime.consoleAPICalled":
            self.logs.append(" ".join(str(each.get("value")) for each in message["params"]["args"]))
        return message

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._call("Browser.close")
        if self._socket is not None:
            self._socket.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)


class BrowserTests(Case):
    timeout = 120
    if CHROMIUM is None:
        skip = "no Chromium is installed (chromium, chromium-browser, google-chrome)"

    async def test_a_page_of_another_server_logs_open_message_and_close(self) -> None:
        self.serve()
        site: Any = Site(Page(_PAGE % self.port))
        listening = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        browser = Browser(folder)
        self.addCleanup(lambda: deferToThread(browser.close))
        await deferToThread(browser.open, f"http://127.0.0.1:{listening.getHost().port}/")
        await until(lambda: len(self.hub.presence("lobby")) == 1)
        await deferToThread(browser.read_until, "message")
        self.hub.publish("lobby", Data.of_text("for the page"), Info("desk"), lambda result: None)
        await deferToThread(browser.read_until, "message desk")
        await self.service.stopService()
        logs = await deferToThread(browser.read_until, "close")
        name = logs[1].split(" ")[1]
        self.assertEqual(
            logs, ["open", f"message {name} hello from the page", "message desk: for the page", "close 1001 true"]
        )
