"""Runs the test suite of centrifuge-python, in the installed version, against this server.

The suite comes from the source distribution on PyPI. It needs a server on port 8000 with the configuration of its
docker-compose.yml; `SETTINGS` says the same with our options. The rounds that offer delta compression get publications
whole. A published value loses the white space between its tokens, and over Protobuf the suite
compares bytes; so its data are written without.
"""

import importlib.metadata
import os
import re
import socket
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tests.live.programs import Server

SETTINGS = """
token_hmac_secret_key = "secret"
user_personal_channel = true
publish_rate = 0
channel_rate = 0
[channel_without_namespace]
force_recovery = true
force_push_join_leave = true
[namespaces.smallhistory]
force_recovery = true
history_size = 2
"""
PORT = 8000
#: A replacement in the tests: (pattern, by).
REPLACED = (r"json\.dumps\(", 'json.dumps(separators=(",", ":"), obj=')
#: Seconds for one test: some tests wait for ever if an event does not come.
PATIENCE = 30
_RUNNER = f"""
import asyncio, inspect, unittest
original = unittest.IsolatedAsyncioTestCase._callTestMethod
def bounded(self, method):
    async def call():
        await asyncio.wait_for(method(), {PATIENCE})
    return original(self, call if inspect.iscoroutinefunction(method) else method)
unittest.IsolatedAsyncioTestCase._callTestMethod = bounded
unittest.main(module=None, argv=["sdk", "discover", "-v", "-s", "tests", "-t", "."])
"""


class Failed(AssertionError):
    """A test of the SDK failed."""


def sources(folder: Path) -> Path:
    """Unpack the tests of the SDK's source distribution, without the SDK itself: the installed one is tested."""
    version = importlib.metadata.version("centrifuge-python")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", "-d", str(folder)]
    subprocess.run([*command, f"centrifuge-python=={version}"], check=True, timeout=300)
    archive = next(folder.glob("*.tar.gz"))
    with tarfile.open(archive) as opened:
        opened.extractall(folder / "source", filter="data")
    root = next((folder / "source").iterdir())
    (root / "centrifuge").rename(folder / "unused")
    for path in (root / "tests").glob("*.py"):
        path.write_text(re.sub(*REPLACED, path.read_text()))
    return root


def main(seed: int, seconds: float, say: Any) -> None:
    """Run the suite once; it ends by itself."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", PORT))  # raises OSError if the port is in use
    with tempfile.TemporaryDirectory() as made:
        root = sources(Path(made))
        server = Server(SETTINGS, PORT)
        try:
            environ = os.environ | {"PYTHONPATH": str(root)}
            done = subprocess.run(
                [sys.executable, "-c", _RUNNER], cwd=root, env=environ, capture_output=True, text=True, check=False
            )
        finally:
            server.clean_up()
    for line in done.stderr.splitlines():
        if re.match(r"(FAIL|ERROR): |Ran \d+ tests|OK|FAILED", line):
            say(line)
    if done.returncode:
        say(done.stderr[-4_000:])
        raise Failed("not all tests of the SDK passed")
