"""The released npm package `centrifuge`, unmodified, over each of its transports, against a server process."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.live.programs import Process, Server
from tests.live.sdk import SDKBehaviour

FOLDER = Path(__file__).with_name("javascript")
#: Seconds for npm.
INSTALLING = 180.0


def installed() -> Path:
    """A folder with the program and its packages, outside of this one, made once. Raises SkipTest."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise SkipTest("needs node and npm")
    files = {name: (FOLDER / name).read_bytes() for name in ("package.json", "client.js", "events.js")}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longconn-tests"
    folder = cache / hashlib.sha256(b"\0".join(files.values())).hexdigest()[:16]
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be at it
        if not folder.exists():
            _install(npm, files, folder)
    return folder


def _install(npm: str, files: dict[str, bytes], folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        for name, data in files.items():
            (Path(made) / name).write_bytes(data)
        command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        try:
            done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=INSTALLING, check=False)
        except subprocess.TimeoutExpired:
            raise SkipTest(f"npm install took more than {INSTALLING:g} s") from None
        if done.returncode:
            raise SkipTest("npm install: " + " ".join(done.stderr.split())[-200:])
        Path(made).rename(folder)
        Path(made).mkdir()  # which is then removed


class JavaScriptTests(SDKBehaviour):
    transport = "websocket"
    flavour = "json"

    def setUp(self) -> None:
        self.folder = installed()

    def client(self, port: int, asks_tokens: bool) -> list[str]:
        scheme = "ws" if self.transport == "websocket" else "http"
        base = f"127.0.0.1:{port}"
        endpoints = [f"{scheme}://{base}/connection/{self.transport}", f"http://{base}/emulation"]
        program = ["node", str(self.folder / "client.js"), self.transport, *endpoints]
        return [*program, "tokens" if asks_tokens else "none", self.flavour]


class JavaScriptStreamTests(JavaScriptTests):
    transport = "http_stream"


class JavaScriptProtobufTests(JavaScriptTests):
    flavour = "protobuf"


class JavaScriptProtobufStreamTests(JavaScriptTests):
    transport, flavour = "http_stream", "protobuf"


class JavaScriptEventsTests(JavaScriptTests):
    transport = "sse"


class ExampleTests(SynchronousTestCase):
    def start(self, name: str, *arguments: str) -> Process:
        folder = installed()
        self.server = Server()
        self.addCleanup(self.server.clean_up)
        program = Path(__file__).parents[2] / "docs" / "examples" / name
        packages = f"NODE_PATH={folder / 'node_modules'}"
        client = Process(["env", packages, "node", str(program), f"127.0.0.1:{self.server.port}", *arguments])
        self.addCleanup(client.stop)
        return client

    def test_the_example_of_the_documentation(self) -> None:
        client = self.start("sdk_client.js")
        self.assertEqual(client.line(), "subscribed")
        self.assertRegex(client.line(), r'^thermometer: \{"temperature":21\.5\}$')
        self.server.publish("lobby", "how warm is it?")
        self.assertRegex(client.line(), r'^127\.0\.0\.1:\d+: "how warm is it\?"$')

    def test_that_over_http_alone(self) -> None:
        for transport in ("http_stream", "sse"):
            client = self.start("sdk_streams.js", transport)
            self.assertEqual([client.line(), client.line()], ["subscribed", '{"temperature":21.5}'])
            self.server.publish("lobby", "how warm is it?")
            self.assertEqual(client.line(), '"how warm is it?"')


del SDKBehaviour
