"""Centrifugo's protocol over WebSocket: a message holds commands, one a line. A binary one is read as a text."""

from __future__ import annotations

from longconn.core.disconnects import Disconnect
from longconn.core.session import Session
from longconn.protocols.websocket.connection import WebSocketConnection
from longconn.wire.centrifugo import CentrifugoJSON, text_frame


class CentrifugoWebSocket:
    """What is spoken over an open WebSocket (`longconn.protocols.websocket.connection.Spoken`)."""

    def __init__(self, socket: WebSocketConnection) -> None:
        """Raises CommandError where there are too many clients."""
        hub = socket.hub
        # A command that is too large is refused by its own reply; so there must be room for what is around the data.
        socket.limit_messages(2 * hub.settings.max_message)
        #: the session's own pings need an answer by the client's program, those of WebSocket do not
        self.pinged = socket.wants_pings
        codec = CentrifugoJSON(text_frame, hub.settings.max_message, pings=not self.pinged)
        self._session = Session(hub, socket.outlet, codec, socket, "websocket", socket.host, socket.address)

    @property
    def held_back(self) -> bool:
        return self._session.queue.held_back

    def receive(self, payloads: list[bytes], binary: bool) -> None:
        self._session.receive([line for each in payloads for line in each.split(b"\n")])

    def close_code(self, disconnect: Disconnect) -> int:
        return disconnect.code

    def stop(self) -> None:
        self._session.stop()
