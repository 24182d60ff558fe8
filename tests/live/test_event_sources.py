"""An EventSource stays a reader: of the browser, and of npm's `eventsource` in each of its versions.

It comes back after every refusal that passes, and misses nothing that was published while it was away.
"""

import json
import socket
import urllib.request
from typing import Any, Protocol

from twisted.trial.unittest import SynchronousTestCase

from tests.live.devtools import CHROMIUM, browser
from tests.live.programs import Cable, Process, Server
from tests.live.test_sdk_javascript import installed

_PAGE = """
window.found = [];
window.source = new EventSource("/channels/lobby/events");
for (const kind of ["position", "message", "disconnect", "unrecovered"]) {
    source.addEventListener(kind, ({data}) => found.push({kind, data: JSON.parse(data)}));
}
source.onerror = () => source.readyState === 2 && found.push({kind: "gave up"});
0
"""


class Reader(Protocol):
    def start(self) -> None: ...

    def next(self) -> Any:
        """The next event: its kind, and its data."""

    def stop(self) -> None: ...


class NodeReader:
    """npm's `eventsource`."""

    def __init__(self, package: str, port: int) -> None:
        self._package = package
        self._url = f"http://127.0.0.1:{port}/channels/lobby/events"
        self._process: Process | None = None

    def start(self) -> None:
        folder = installed()
        self._process = Process(["node", str(folder / "events.js"), self._package, self._url], folder)

    def next(self) -> Any:
        assert self._process is not None
        return json.loads(self._process.line())

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()


class BrowserReader:
    """The EventSource of Chromium, on a page of the server."""

    def __init__(self, port: int) -> None:
        self._browser = browser()
        # No script of this page asks for anything.
        self._page = self._browser.page(f"http://127.0.0.1:{port}/page/icon.svg")

    def start(self) -> None:
        self._page.evaluate(_PAGE)

    def next(self) -> Any:
        self._page.until("found.length > 0")
        return json.loads(self._page.evaluate("JSON.stringify(found.shift())"))

    def stop(self) -> None:
        self._browser.forget()


class EventSourceTests(SynchronousTestCase):
    timeout = 240

    def serve(self, settings: str = "") -> None:
        self.server = Server(settings)
        self.addCleanup(self.server.stop)
        self.cable = Cable(lambda: self.server.port)
        self.addCleanup(self.cable.stop)

    def reader(self, package: str) -> Reader:
        reader: Reader
        reader = BrowserReader(self.cable.port) if package == "chromium" else NodeReader(package, self.cable.port)
        self.addCleanup(reader.stop)
        return reader

    def publish(self, text: str) -> None:
        url = f"http://127.0.0.1:{self.server.port}/channels/lobby"
        urllib.request.urlopen(url, text.encode(), timeout=20).close()

    def packages(self) -> list[str]:
        installed()
        return ["eventsource", "eventsource-3", "eventsource-4", *(["chromium"] if CHROMIUM is not None else [])]

    def test_what_is_published_before_the_first_event_is_not_lost(self) -> None:
        """The first event has an id, and data: without data `eventsource` takes no id."""
        self.serve()
        for package in self.packages():
            reader = self.reader(package)
            reader.start()
            self.assertEqual(reader.next()["kind"], "position", package)
            self.cable.cut()
            self.publish(package)
            self.cable.mend()
            event = reader.next()
            while event["kind"] == "position":
                event = reader.next()
            self.assertEqual((event["kind"], event["data"]["data"]), ("message", package))
            reader.stop()

    def test_a_full_server_lets_it_in_later(self) -> None:
        for package in self.packages():
            self.serve("max_connections = 1")
            reader = self.reader(package)
            holder = socket.create_connection(("127.0.0.1", self.server.port))
            holder.sendall(b"hello\n")
            self.assertIn(b"hello", holder.recv(100))
            reader.start()
            event = reader.next()
            self.assertEqual((event["kind"], event["data"]["reconnect"]), ("disconnect", True), package)
            holder.close()
            while event["kind"] == "disconnect":
                event = reader.next()
            self.assertEqual(event["kind"], "position", package)
            reader.stop()
            self.server.stop()
