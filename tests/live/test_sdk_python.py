"""The released `centrifuge-python`, unmodified, against a server process."""

from importlib.util import find_spec
from unittest import SkipTest

from tests.live.sdk import SDKBehaviour


class PythonTests(SDKBehaviour):
    main = "tests.live.sdk_python_client:run"
    flavour = "json"

    def setUp(self) -> None:
        if find_spec("centrifuge") is None:
            raise SkipTest("needs centrifuge-python")

    def client(self, port: int, asks_tokens: bool) -> list[str]:
        address = f"ws://127.0.0.1:{port}/connection/websocket"
        return ["sdk_python_client", address, "tokens" if asks_tokens else "none", self.flavour]


class PythonProtobufTests(PythonTests):
    flavour = "protobuf"


del SDKBehaviour
