"""What is spoken over a WebSocket: echo, chat lines, or the structured protocol."""

from __future__ import annotations

from typing import Protocol

from longconn.core.client import Client
from longconn.protocols.centrifugo.session import Session
from longconn.protocols.chat.session import ChatSession
from longconn.protocols.connection.command_queue import CommandQueue, Reader
from longconn.protocols.connection.socket_outlet import SocketOutlet
from longconn.wire.websocket import frame

_BINARY = 0x82
_UNSUPPORTED_DATA = 1003  # RFC 6455, section 7.4.1


class Socket(Reader, Protocol):
    """The connection (`longconn.protocols.websocket.connection.LiveWebSocket`)."""

    def sendCloseFrame(self, code: int | None, reasonUtf8: bytes | None) -> None: ...


class Echo(CommandQueue[tuple[bytes, bool]]):
    """Sends every message back as it came, within the client's rate."""

    __slots__ = ("_client", "_outlet")

    def __init__(self, client: Client, outlet: SocketOutlet, socket: Socket) -> None:
        super().__init__(client.hub, socket)
        self._client = client
        self._outlet = outlet

    def receive(self, payloads: list[bytes], binary: bool = False) -> None:
        self.take([(each, binary) for each in payloads])

    @property
    def over(self) -> bool:
        return not self._client.live

    def act(self, message: tuple[bytes, bool]) -> float:
        wait = self._client.allowance()
        if not wait:
            payload, binary = message
            self._client.spend(len(payload))
            self._outlet.write(frame(payload, _BINARY) if binary else frame(payload))
        return wait

    def stop(self) -> None:
        self.forget()
        self._client.gone()


class Chat:
    """Chat lines in text frames."""

    def __init__(self, conversation: ChatSession, socket: Socket) -> None:
        self._conversation = conversation
        self._socket = socket

    @property
    def held_back(self) -> bool:
        return self._conversation.held_back

    def receive(self, payloads: list[bytes], binary: bool = False) -> None:
        if binary:
            self._socket.sendCloseFrame(_UNSUPPORTED_DATA, b"chat lines are text")
            return
        lines: list[bytes] = []
        for payload in payloads:
            if b"\n" not in payload:
                lines.append(payload)
            else:
                # A frame may hold several lines; the end of its last line is not one more, an empty one.
                parts = payload.split(b"\n")
                if not parts[-1]:
                    parts.pop()
                lines.extend(each[:-1] if each.endswith(b"\r") else each for each in parts)
        self._conversation.feed(lines)

    def stop(self) -> None:
        self._conversation.stop()


class Structured:
    """The structured protocol: a text frame holds commands, one a line."""

    def __init__(self, session: Session, socket: Socket) -> None:
        self._session = session
        self._socket = socket

    @property
    def held_back(self) -> bool:
        return self._session.held_back

    def receive(self, payloads: list[bytes], binary: bool = False) -> None:
        if binary:
            self._socket.sendCloseFrame(_UNSUPPORTED_DATA, b"the JSON protocol is text")
        else:
            self._session.receive([line for each in payloads for line in each.split(b"\n")])

    def stop(self) -> None:
        self._session.stop()
