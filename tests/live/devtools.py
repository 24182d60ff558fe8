"""A headless Chromium, told by its debugging protocol. All of it blocks: where the reactor has to run, use a thread."""

import atexit
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from base64 import b64decode
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)  # fmt: skip
#: Seconds within which a browser starts, however busy the machine.
_START = 60
#: Seconds for one thing to happen on a page, and between two looks whether it did.
PATIENCE = 20.0
_LOOK = 0.02


class Browser:
    """The process. `profile` makes what pages share, `page` opens them, `forget` closes all of them.

    Messages go through two pipes, and each ends with a zero byte (`--remote-debugging-pipe`). Chromium ends when its
    pipe does: none is left behind, however the tests end.
    """

    def __init__(self) -> None:
        assert CHROMIUM is not None
        self._count = 0
        self._pages: dict[str, Page] = {}
        self._profiles: list[str] = []
        self._data = b""
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._in = os.pipe()
        self._out, theirs_out = os.pipe()
        # Beyond 4, so that neither takes the other's place there.
        pair = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (theirs_in, theirs_out)]

        def place() -> None:
            os.dup2(pair[0], 3)
            os.dup2(pair[1], 4)

        self._process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={self._folder.name}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=place,
            pass_fds=(3, 4),
        )
        for each in (theirs_in, theirs_out, *pair):
            os.close(each)
        self.call("Browser.getVersion", seconds=_START)

    def profile(self) -> str:
        """What pages share (storage, cookies) that are opened with it, and others do not."""
        profile: str = self.call("Target.createBrowserContext")["browserContextId"]
        self._profiles.append(profile)
        return profile

    def forget(self) -> None:
        """Close all pages and forget all profiles."""
        self._pages.clear()
        while self._profiles:
            self.call("Target.disposeBrowserContext", browserContextId=self._profiles.pop())

    def page(self, url: str, profile: str | None = None, width: int = 1200, height: int = 800) -> "Page":
        """A page that has this profile, or one of its own."""
        profile = profile or self.profile()
        target = self.call("Target.createTarget", url="about:blank", browserContextId=profile)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, target)
        for each in ("Runtime", "Page", "Log", "Network"):
            page.call(f"{each}.enable")
        # As if each page were the one that is looked at: those behind are given no frames.
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)
        page.size(width, height)
        page.call("Page.navigate", url=url)
        return page

    def call(self, method: str, session: str | None = None, seconds: float = 30, **params: Any) -> Any:
        self._count += 1
        number = self._count
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._in, data) :]
        while True:
            answer = self.read(seconds)
            if answer.get("id") == number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def read(self, seconds: float) -> Any:
        """The next message; what a page logged is kept there."""
        end = time.monotonic() + seconds
        while b"\0" not in self._data:
            if not select.select([self._out], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"the browser said nothing for {seconds:g} s")
            data = os.read(self._out, 1 << 20)
            if not data:
                raise EOFError("the browser ended")
            self._data += data
        line, _, self._data = self._data.partition(b"\0")
        message = json.loads(line)
        page = self._pages.get(message.get("sessionId", ""))
        if page is not None:
            page.heard(message.get("method"), message.get("params"))
        return message

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.call("Browser.close")
        os.close(self._in)
        os.close(self._out)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._folder.cleanup()


_running: list[Browser] = []


def browser() -> Browser:
    """The one of this process, which ends with it. `forget` is to be called after each test."""
    if not _running:
        _running.append(Browser())
        atexit.register(close)
    return _running[0]


def close() -> None:
    """Close the browser of this process, if there is one."""
    while _running:
        _running.pop().close()


class Page:
    """One page. `logs` has what it wrote to its console, `problems` errors of any kind, those of its policy too.

    `sent` has the messages that it sent over WebSockets.
    """

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser = browser
        self._session = session
        self._target = target
        self.logs: list[str] = []
        self.problems: list[str] = []
        self.sent: list[str] = []

    def heard(self, method: str | None, params: Any) -> None:
        if method == "Runtime.consoleAPICalled":
            self.logs.append(" ".join(str(each.get("value")) for each in params["args"]))
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(str(details.get("exception", {}).get("description", details["text"])))
        elif method == "Network.webSocketFrameSent":
            self.sent.append(params["response"]["payloadData"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def call(self, method: str, **params: Any) -> Any:
        return self._browser.call(method, self._session, **params)

    def read_until(self, text: str, lines: list[str] | None = None, seconds: float = 30) -> list[str]:
        """What the page logged, or what is in `lines`, up to one that starts with `text`."""
        lines = self.logs if lines is None else lines
        end = time.monotonic() + seconds
        while not any(line.startswith(text) for line in lines):
            self._browser.read(end - time.monotonic())
        return lines

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, on the page. A page that is just being left has none: None."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def until(self, expression: str, value: Any = True, seconds: float = PATIENCE) -> None:
        """Wait until an expression has a value. Raises AssertionError with the one that it had."""
        end = time.monotonic() + seconds
        while True:
            try:
                found = self.evaluate(expression)
            except AssertionError as error:  # of a page that is being loaded
                found = error
            if found == value:
                return
            if time.monotonic() > end:
                raise AssertionError(f"{expression}: {found!r} is not {value!r}; {self.problems} {self.logs}")
            time.sleep(_LOOK)

    def reload(self) -> None:
        """Load it anew; the old one is gone then."""
        self.evaluate("window.isOld = true")
        self.call("Page.reload")
        self.until("window.isOld === undefined")

    def press(self, key: str, shift: bool = False) -> None:
        """A key of the keyboard, by its name (`Enter`, `Tab`, …)."""
        code = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40, "PageUp": 33, "End": 35}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        options = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **options, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **options)

    def type(self, text: str) -> None:
        """As from a keyboard, or pasted, where the focus is."""
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of an element."""
        place = f"(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector({json.dumps(selector)})"
        x, y = self.evaluate(f"{place}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def size(self, width: int, height: int) -> None:
        options = {"deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, **options)

    def dark(self, dark: bool) -> None:
        """Whether its user likes dark colours."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def picture(self) -> bytes:
        """What it looks like, as PNG."""
        return b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)
