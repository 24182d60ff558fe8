"""A peer of HTTP/2 in memory, by the `h2` library, that can also send what no library would."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame
from twisted.trial.unittest import SynchronousTestCase

from longconn import GrpcFactory, Settings
from longconn.protocols.grpc.call import GrpcCall, Services
from longconn.testing import MemoryServer
from tests.protocols.grpc import frames
from tests.protocols.grpc.frames import messages, prefixed

LARGE = 2**31 - 1


class Peer:
    """The client's end of one connection. Windows open by themselves, unless `window` is given."""

    def __init__(self, server: MemoryServer, factory: Any, window: int | None = None, **options: Any) -> None:
        self.server = server
        self.connection = server.connect(factory, **options)
        self.connection.on_data = self._on_data
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.events: list[Any] = []
        self._window = window
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: LARGE if window is None else window})
        if window is None:
            self.h2.increment_flow_control_window(LARGE - 65_535)
        #: number, last stream and text of each
        self.goaways: list[tuple[int, int, str]] = []
        self._unread = b""
        #: what waits for the windows of streams, and whether it ends them
        self._unsent: dict[int, tuple[bytes, bool]] = {}
        self.flush()

    def _on_data(self, data: bytes) -> None:
        whole, self._unread = frames.read(self._unread + data)
        for each, its_bytes in whole:
            if isinstance(each, GoAwayFrame):
                # The library would read nothing more, and more comes: calls that were begun go on.
                self.goaways.append((each.error_code, each.last_stream_id, each.additional_data.decode()))
            else:
                self.events += self.h2.receive_data(its_bytes)
        self.flush()
        for stream in list(self._unsent):
            self._send_unsent(stream)

    def flush(self) -> None:
        """Send what the library wants to be sent."""
        data = self.h2.data_to_send()
        if data:
            self.connection.send(data)

    def raw(self, data: bytes) -> None:
        """Send bytes that the library knows nothing of."""
        self.connection.send(data)
        self.server.settle()

    # Calls.

    def begin(self, path: str, *headers: tuple[str, str], end: bool = False) -> int:
        """A request's headers; `headers` replace those that have the same name."""
        stream = self._begin(path, *headers, end=end)
        self.flush()
        self.server.settle()
        return stream

    def _begin(self, path: str, *headers: tuple[str, str], end: bool = False) -> int:
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        fields.update(headers)
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [each for each in fields.items() if each[1]], end_stream=end)
        return stream

    def send(self, stream: int, data: bytes, end: bool = False) -> None:
        """A part of the request, in frames as large as they may be. What has no window yet is sent when it opens."""
        self._unsent[stream] = (self._unsent.get(stream, (b"", False))[0] + data, end)
        self._send_unsent(stream)
        self.server.settle()

    def _send_unsent(self, stream: int) -> None:
        data, end = self._unsent.pop(stream)
        while not self._is_reset(stream):
            size = min(16_384, self.h2.local_flow_control_window(stream))
            if data and size <= 0:
                self._unsent[stream] = (data, end)
                break
            part, data = data[: max(0, size)], data[max(0, size) :]
            self.h2.send_data(stream, part, end_stream=end and not data)
            self.flush()
            if not data:
                break

    def reset(self, stream: int) -> None:
        """Cancel a call."""
        self._unsent.pop(stream, None)
        self.h2.reset_stream(stream, 8)
        self.flush()
        self.server.settle()

    def _is_reset(self, stream: int) -> bool:
        return any(isinstance(each, events.StreamReset) and each.stream_id == stream for each in self.events)

    def call(self, path: str, *requests: bytes, headers: tuple[tuple[str, str], ...] = ()) -> int:
        """A whole request."""
        stream = self._begin(path, *headers)
        self.send(stream, b"".join(map(prefixed, requests)), end=True)
        return stream

    # What came.

    def of(self, kind: Any, stream: int | None = None) -> list[Any]:
        """Events of a kind, of a stream."""
        self.server.settle()
        found = [each for each in self.events if isinstance(each, kind)]
        return found if stream is None else [each for each in found if each.stream_id == stream]

    def headers(self, stream: int) -> dict[str, str]:
        """The response's headers."""
        found = self.of(events.ResponseReceived, stream)
        return dict(found[0].headers) if found else {}

    def data(self, stream: int) -> bytes:
        return b"".join(each.data for each in self.of(events.DataReceived, stream))

    def messages(self, stream: int) -> list[bytes]:
        """Whole messages of a response."""
        return messages(self.data(stream))[0]

    def trailers(self, stream: int) -> dict[str, str]:
        """What came with the end of the stream: trailers, or headers that are all of it."""
        found = self.of(events.TrailersReceived, stream) or self.of(events.ResponseReceived, stream)
        return dict(found[0].headers) if found else {}

    def status(self, stream: int) -> tuple[int, str] | None:
        """The number and the text; None while there is none."""
        found = self.trailers(stream)
        if "grpc-status" not in found:
            return None
        return int(found["grpc-status"]), unquote(found.get("grpc-message", ""))

    def resets(self, stream: int) -> list[int]:
        return [int(each.error_code) for each in self.of(events.StreamReset, stream)]


class Case(SynchronousTestCase):
    """A server in memory whose services are the test's."""

    def setUp(self) -> None:
        self.serve()

    def serve(self, **settings: Any) -> None:
        self.server = MemoryServer(Settings(**settings))
        self.addCleanup(self._stop, self.server)
        self.hub = self.server.hub
        self.clock = self.server.clock
        self.calls: list[GrpcCall] = []
        self.factory = GrpcFactory(
            self.hub, Services({"/t/Echo": self.echo, "/t/Both": self.both, "/t/Stall": self.stall})
        )
        self.services = self.factory.services

    def _stop(self, server: MemoryServer) -> None:
        server.stop()
        # Whatever the test did: nothing is left of it.
        self.assertEqual((self.factory.budget.kept, self.hub.places.guests), (0, 0))
        self.assertEqual((set(self.hub.waiting), self.hub._queued), (set(), 0))
        self.assertEqual(self.factory.connections, set())
        self.assertEqual([each for each in self.calls if not each.over], [])

    def peer(self, **options: Any) -> Peer:
        return Peer(self.server, self.factory, **options)

    # Services.

    async def echo(self, call: GrpcCall) -> None:
        """One message back."""
        self.calls.append(call)
        call.write(await call.read_one())

    async def both(self, call: GrpcCall) -> None:
        """Each message back as it comes."""
        self.calls.append(call)
        while (message := await call.read()) is not None:
            call.write(message)
            await call.drained()

    async def stall(self, call: GrpcCall) -> None:
        """Nothing is read, nothing is said but the headers."""
        self.calls.append(call)
        call.start()
        await call.wait()

    def works(self, peer: Peer) -> None:
        """A call by `peer` is served."""
        stream = peer.call("/t/Echo", b"hello")
        self.assertEqual((peer.messages(stream), peer.status(stream)), ([b"hello"], (0, "")))
