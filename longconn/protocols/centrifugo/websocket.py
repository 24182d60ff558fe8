"""Centrifugo's protocol over WebSocket: a message is a frame of commands, whether it is binary or text."""

from __future__ import annotations

from collections.abc import Callable

from longconn.core.codec import Codec
from longconn.core.disconnects import Disconnect
from longconn.core.session import Session
from longconn.protocols.websocket.connection import WebSocketConnection


class CentrifugoWebSocket:
    """What is spoken over an open WebSocket (`longconn.protocols.websocket.connection.Spoken`)."""

    def __init__(self, make_codec: Callable[[int], Codec], socket: WebSocketConnection) -> None:
        """`make_codec` gets the most bytes of a command. Raises CommandError where there are too many clients."""
        hub = socket.hub
        # A command that is too large is refused by its own reply; so there must be room for what is around the data.
        socket.limit_messages(2 * hub.settings.max_message)
        #: the session's own pings need an answer by the client's program, those of WebSocket do not
        self.pinged = socket.wants_pings
        codec = make_codec(hub.settings.max_message)
        self._split = codec.split
        self._session = Session(
            hub, socket.outlet, codec, socket, "websocket", socket.host, socket.address,
            pings=not self.pinged, identity=socket.identity,
        )  # fmt: skip
        self._session.client.headers = socket.headers

    @property
    def held_back(self) -> bool:
        return self._session.queue.held_back

    def receive(self, payloads: list[bytes], binary: bool) -> None:
        self._session.receive([item for each in payloads for item in self._split(each)])

    def close_code(self, disconnect: Disconnect) -> int:
        return disconnect.code

    def stop(self) -> None:
        self._session.stop()
