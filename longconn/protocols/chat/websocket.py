"""Chat lines in text frames of WebSocket."""

from __future__ import annotations

from longconn.core.disconnects import BAD_REQUEST, Disconnect
from longconn.core.errors import CommandError
from longconn.core.log import about, log
from longconn.protocols.chat.session import ChatSession
from longconn.protocols.websocket.connection import UNSUPPORTED_DATA, WebSocketConnection
from longconn.wire.chat import ChatFormat
from longconn.wire.first_bytes import is_connect
from longconn.wire.websocket import close_code


class ChatWebSocket:
    """Chat lines over an open WebSocket (`longconn.protocols.websocket.connection.Spoken`)."""

    pinged = True

    def __init__(self, format: ChatFormat, socket: WebSocketConnection) -> None:
        """Raises CommandError where there are too many clients, or for a channel or a name that is refused."""
        hub, outlet = socket.hub, socket.outlet
        self._socket = socket
        self._said_nothing = True
        user = socket.identity.user if socket.identity is not None else ""
        name, resume = socket.name or (None, "")
        client = hub.connect(outlet, "websocket", socket.host, socket.address, name, user=user, resume=resume)
        client.headers = socket.headers
        self._session = ChatSession(hub, client, outlet, format, socket)
        try:
            channel = socket.channel or hub.settings.default_channel
            self._session.enter(channel, announce=True, identity=socket.identity, at_once=True)
        except CommandError:
            self._session.stop()
            raise

    @property
    def held_back(self) -> bool:
        return self._session.queue.held_back

    def receive(self, payloads: list[bytes], binary: bool) -> None:
        if binary:
            self._socket.sendCloseFrame(UNSUPPORTED_DATA, b"chat lines are text")
            return
        lines: list[bytes] = []
        for payload in payloads:
            if b"\n" not in payload:
                lines.append(payload)
            else:
                # A frame may hold several lines. The rest after its last line end is a line only if it is not empty.
                parts = payload.split(b"\n")
                if not parts[-1]:
                    parts.pop()
                lines.extend(each[:-1] if each.endswith(b"\r") else each for each in parts)
        if self._said_nothing and lines:
            self._said_nothing = False
            if is_connect(lines[0]):  # an SDK with the wrong path: its token must not be published
                log.info(
                    "%s sent a connect of Centrifugo's client protocol on /ws",
                    self._session.client.address,
                    extra=about("wrong_protocol", self._session.client),
                )
                self._session.client.close(BAD_REQUEST)
                return
        self._session.feed(lines)

    def close_code(self, disconnect: Disconnect) -> int:
        return close_code(disconnect)

    def stop(self) -> None:
        self._session.stop()
