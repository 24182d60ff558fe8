"""The released `centrifuge-python`, unmodified, against a server process."""

import sys
from importlib.util import find_spec
from pathlib import Path
from unittest import SkipTest

from tests.live.sdk import SDKBehaviour


class PythonTests(SDKBehaviour):
    def setUp(self) -> None:
        if find_spec("centrifuge") is None:
            raise SkipTest("needs centrifuge-python")

    def client(self, port: int, asks_tokens: bool) -> list[str]:
        program = Path(__file__).with_name("sdk_python_client.py")
        address = f"ws://127.0.0.1:{port}/connection/websocket"
        return [sys.executable, str(program), address, "tokens" if asks_tokens else "none"]


del SDKBehaviour
