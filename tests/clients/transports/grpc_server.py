"""A gRPC server in memory, by the `h2` library, whose answers the test gives."""

import struct
from collections.abc import Callable
from typing import Any

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from longconn.v1 import longconn_pb2 as pb


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """A frame of HTTP/2, valid or not."""
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def message(response: pb.ConnectResponse) -> bytes:
    data = response.SerializeToString()
    return b"\0" + len(data).to_bytes(4, "big") + data


class Answering(Protocol):
    """One connection. The script is called with it when the first message of a call has come."""

    transport: Any

    def __init__(self, script: Callable[["Answering"], None], made: list["Answering"]) -> None:
        self.script = script
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.request: dict[str, str] = {}
        self.events: list[Any] = []
        self.lost = False
        made.append(self)

    def connectionMade(self) -> None:
        self.h2.initiate_connection()
        self.flush()

    def dataReceived(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, events.RequestReceived):
                self.request = {str(name): str(value) for name, value in event.headers}
            elif isinstance(event, events.DataReceived) and self.script is not None:
                script, self.script = self.script, None  # type: ignore[assignment]
                script(self)
        self.flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def raw(self, data: bytes) -> None:
        """Send bytes past the library."""
        self.flush()
        self.transport.write(data)

    # The call.

    def head(self, end: bool = False, **fields: str) -> None:
        named = {":status": "200", "content-type": "application/grpc"}
        named |= {each.replace("_", "-"): value for each, value in fields.items() if each != "status"}
        if "status" in fields:
            named[":status"] = fields["status"]
        self.h2.send_headers(1, list(named.items()), end_stream=end)

    def say(self, **event: Any) -> None:
        self.h2.send_data(1, message(pb.ConnectResponse(**event)))

    def greet(self) -> None:
        """The answer to `connect`."""
        self.head()
        self.say(id=1, connected=pb.Connected(client="me"))

    def end(self, status: int, text: str = "", code: int = 0) -> None:
        """Trailers."""
        fields = [("grpc-status", str(status))]
        if text:
            fields.append(("grpc-message", text))
        if code:
            fields.append(("longconn-code", str(code)))
        self.h2.send_headers(1, fields, end_stream=True)


def serving(script: Callable[[Answering], None]) -> Any:
    """A factory; its `made` are its connections."""
    factory: Any = Factory()
    factory.noisy = False
    factory.made = []
    factory.buildProtocol = lambda address: Answering(script, factory.made)
    return factory
