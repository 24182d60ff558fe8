"""For tests of the chat page: a server process, a browser, and chat clients over TCP."""

import contextlib
import json
import socket
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.live.devtools import CHROMIUM, PATIENCE, Page, browser
from tests.live.programs import Cable, Server

#: The lines of the list: messages as NAME: TEXT, other lines as they are.
SAID = """[...document.querySelectorAll("#messages > li")].map(li => li.className.startsWith("message")
    ? li.querySelector(".name").textContent + ": " + li.querySelector(".text").textContent : li.textContent)"""
MESSAGES = f"{SAID}.filter(each => each.includes(': '))"
PEOPLE = 'document.querySelector("#people-list").innerText.split("\\n").filter(each => each.length > 1)'
STATE = 'document.querySelector("#status-text").textContent'
WAY = 'document.querySelector("#status-transport").textContent'
FOCUS = "document.activeElement.id"


def text_of(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)}).textContent"


class Proxy(Cable):
    """A cable that blocks WebSockets (`upgrades`), or drops all further bytes of its connections (`forget`)."""

    def __init__(self, target: Any) -> None:
        self.upgrades = True
        self._forgotten = threading.Event()
        super().__init__(target)

    def forget(self) -> None:
        """Pass no further byte of the current connections on, without closing them. New connections are served."""
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
        """A page in a fresh profile. It takes `name`; "" is none, and with None no dialog is expected."""
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
        """A chat client over TCP, for `read`. If `greeted`, it has sent `ping`, so that it is announced."""
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
        """Assert that the browser reported no problem on these pages, such as a violation of their policy."""
        for page in pages:
            page.evaluate("1")  # reads all events before this reply
            self.assertEqual(page.problems, [])
