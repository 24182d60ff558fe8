"""What the tests of the chat page need: a server process, a browser, and people of other kinds."""

import contextlib
import json
import socket
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.live.devtools import CHROMIUM, PATIENCE, Page, browser
from tests.live.programs import Cable, Server

#: What stands in the list: messages as NAME: TEXT, other lines as they are.
SAID = """[...document.querySelectorAll("#messages > li")].map(li => li.className.startsWith("message")
    ? li.querySelector(".name").textContent + ": " + li.querySelector(".text").textContent : li.textContent)"""
MESSAGES = f"{SAID}.filter(each => each.includes(': '))"
PEOPLE = 'document.querySelector("#people-list").innerText.split("\\n").filter(each => each.length > 1)'
STATE = 'document.querySelector("#state-text").textContent'
WAY = 'document.querySelector("#state-way").textContent'
FOCUS = "document.activeElement.id"


def text_of(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)}).textContent"


class Proxy(Cable):
    """A cable in which WebSockets are blocked (`upgrades`), or that forgets connections without a word (`forget`)."""

    def __init__(self, target: Any) -> None:
        self.upgrades = True
        self._forgotten = threading.Event()
        super().__init__(target)

    def forget(self) -> None:
        """Connections that there are pass nothing on from now on, and do not end; new ones are served."""
        self._forgotten.set()
        self._forgotten = threading.Event()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        forgotten = self._forgotten
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self.upgrades and b"\r\nUpgrade: websocket\r\n" in data:
                    break
                if not forgotten.is_set():
                    target.sendall(data)
        self._end(source, target)


class PageCase(SynchronousTestCase):
    """`serve` starts a server, which pages of the browser reach through `proxy`."""

    timeout = 120
    if CHROMIUM is None:
        skip = "no Chromium is installed (chromium, chromium-browser, google-chrome)"

    def serve(self, settings: str = "") -> None:
        self.server = Server(settings)
        self.addCleanup(self.server.clean_up)
        self.proxy = Proxy(lambda: self.server.port)
        self.addCleanup(self.proxy.stop)
        self.browser = browser()
        self.addCleanup(self.browser.forget)

    def visit(self, name: str | None = "", fragment: str = "", profile: str | None = None) -> Page:
        """A page of somebody who was never here, who takes a name, or none (""); None: is not asked."""
        profile = profile or self.browser.profile()
        page = self.browser.page(f"http://127.0.0.1:{self.proxy.port}/{fragment}", profile)
        if name is not None:
            page.until("document.querySelector('#naming')?.open")
            page.type(name)
            page.press("Enter")
        page.until(STATE, "Connected")
        page.until("document.querySelector('#naming').open", False)
        page.until("document.querySelector('#people-count').textContent !== ''")
        return page

    def say(self, page: Page, text: str) -> None:
        page.evaluate("document.querySelector('#text').focus()")
        page.type(text)
        page.press("Enter")

    def nc(self, greeted: bool = True) -> Any:
        """A connection by TCP, of a chat client that is greeted; what it is sent is read by `read`."""
        client = socket.create_connection(("127.0.0.1", self.server.port), PATIENCE)
        self.addCleanup(client.close)
        lines = client.makefile("rwb", buffering=0)
        self.addCleanup(lines.close)
        if greeted:
            lines.write(b"ping\n")
            self.assertEqual(lines.readline(), b"pong\r\n")
        return lines

    def read(self, client: Any) -> str:
        text: str = client.readline().decode().rstrip("\r\n")
        return text

    def clean(self, *pages: Page) -> None:
        """Nothing went wrong on these pages, their policy included."""
        for page in pages:
            page.evaluate("1")  # what was told before is read
            self.assertEqual(page.problems, [])
