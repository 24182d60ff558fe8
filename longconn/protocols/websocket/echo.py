"""Echo over WebSocket."""

from __future__ import annotations

from longconn.core.command_queue import CommandQueue
from longconn.core.disconnects import IDLE, Disconnect
from longconn.protocols.websocket.connection import WebSocketConnection
from longconn.wire.websocket import BINARY, close_code, frame


class EchoWebSocket:
    """Sends every message back as it came, within the client's rate (see `Spoken`)."""

    pinged = True

    def __init__(self, socket: WebSocketConnection) -> None:
        """Raises CommandError where there are too many clients."""
        self._socket = socket
        self._hub = hub = socket.hub
        self._outlet = socket.outlet
        self._client = self._outlet.client = hub.connect(self._outlet, "echo", socket.host, socket.address)
        self._queue: CommandQueue[tuple[bytes, bool]] = CommandQueue(
            hub.clock, hub.command_rates, hub.slices, socket.host, socket, self._execute
        )
        #: the second at which its timer ends (`Timed` in core/timers.py)
        self.due = 0
        if hub.settings.idle_timeout:
            hub.wheel.set(self, hub.settings.idle_timeout)

    @property
    def held_back(self) -> bool:
        return self._queue.held_back

    def receive(self, payloads: list[bytes], binary: bool) -> None:
        self._queue.feed([(each, binary) for each in payloads])

    def _execute(self, message: tuple[bytes, bool]) -> float:
        if not self._client.live:
            return 0.0
        payload, binary = message
        wait = self._hub.rates.publish_wait(self._client, len(payload))
        if not wait:
            self._outlet.write(frame(payload, BINARY) if binary else frame(payload))
        return wait

    def on_due(self, now: float) -> None:
        """The timer ended: close a client that was idle for too long."""
        timeout = self._hub.settings.idle_timeout
        idle = now - self._socket.heard
        if idle >= timeout:
            self._client.close(IDLE)
        else:
            self._hub.wheel.set(self, timeout - idle)

    def close_code(self, disconnect: Disconnect) -> int:
        return close_code(disconnect)

    def stop(self) -> None:
        self._hub.wheel.clear(self)
        self._queue.stop()
        self._client.gone()
