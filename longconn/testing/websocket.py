"""A WebSocket client (RFC 6455). It has its own framing, so that it shares no mistake with the server."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterable
from typing import Any

from longconn.testing.lines import ConnectedClient, Connection

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10


def client_frame(payload: bytes, opcode: int = _TEXT, *, final: bool = True, masked: bool = True) -> bytes:
    """One frame as a client sends it (section 5.2). A server must refuse one with `masked=False`."""
    size = len(payload)
    head = bytes([opcode | (0x80 if final else 0)])
    bit = 0x80 if masked else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + size.to_bytes(2)
    else:
        head += bytes([bit | 127]) + size.to_bytes(8)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


class WebSocketClient(ConnectedClient):
    """Performs the handshake, then sends and reads messages, `str` or `bytes`.

    `status` is that of the handshake: 101 once the connection is open. `body` has the response to a handshake that was
    refused. `messages` has all messages so far; `read` returns those since the last call. Pings are counted, and
    answered unless `answers_pings` is False. `close_code` and `close_reason` come from the server's close frame.
    """

    def __init__(
        self,
        connection: Connection,
        path: str = "/ws",
        headers: Iterable[tuple[str, str]] = (),
        settle: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__(connection, settle)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.messages: list[str | bytes] = []
        self.pings = 0
        self.pongs: list[bytes] = []
        self.answers_pings = True
        self.close_code: int | None = None
        self.close_reason = ""
        self._seen = 0
        self._data = b""
        self._part: tuple[int, bytes] | None = None
        self._key = base64.b64encode(os.urandom(16))
        connection.on_data = self._on_data
        given = dict(headers)
        lines = {
            "Host": "localhost:9999",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": self._key.decode(),
            **given,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        connection.send(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())

    def say(self, *messages: str | bytes) -> None:
        """Send messages, each in a frame: text for `str`, binary for `bytes`."""
        frames = [
            client_frame(each.encode()) if isinstance(each, str) else client_frame(each, _BINARY) for each in messages
        ]
        self.connection.send(b"".join(frames))

    def ping(self, payload: bytes = b"") -> None:
        self.connection.send(client_frame(payload, _PING))

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        """Start the closing handshake."""
        self.connection.send(client_frame(code.to_bytes(2) + reason.encode(), _CLOSE))

    def read(self) -> list[str | bytes]:
        """The messages since the last call. Runs all calls that are due first."""
        if self._settle is not None:
            self._settle()
        fresh = self.messages[self._seen :]
        self._seen = len(self.messages)
        return fresh

    def _on_data(self, data: bytes) -> None:
        self._data += data
        if self.status != 101:
            self._read_head()
        if self.status == 101:
            while self._read_frame():
                pass
        if self.on_read is not None:
            self.on_read()

    def _read_head(self) -> None:
        if self.status:
            self.body, self._data = self.body + self._data, b""
            return
        head, found, rest = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.status = int(first.split()[1])
        self._data = rest
        if self.status != 101:
            self.body, self._data = rest, b""
        elif self.headers.get("sec-websocket-accept", "").encode() != self._accept():
            raise ValueError("the handshake's response does not match our key")

    def _accept(self) -> bytes:
        return base64.b64encode(hashlib.sha1(self._key + _GUID).digest())  # section 4.2.2

    def _read_frame(self) -> bool:
        data = self._data
        if len(data) < 2:
            return False
        if data[0] & 0x70 or data[1] & 0x80:
            raise ValueError(f"a server's frame may not start with {data[:2]!r}")
        size, start = data[1], 2
        if size > 125:
            start = 4 if size == 126 else 10
            if len(data) < start:
                return False
            size = int.from_bytes(data[2:start])
        if len(data) < start + size:
            return False
        self._data = data[start + size :]
        self._take(data[0] & 0x0F, bool(data[0] & 0x80), data[start : start + size])
        return True

    def _take(self, opcode: int, final: bool, payload: bytes) -> None:
        if opcode == _CLOSE:
            self.close_code = int.from_bytes(payload[:2]) if payload else 1005
            self.close_reason = payload[2:].decode()
            self.connection.send(client_frame(payload, _CLOSE))
        elif opcode == _PING:
            self.pings += 1
            if self.answers_pings:
                self.connection.send(client_frame(payload, _PONG))
        elif opcode == _PONG:
            self.pongs.append(payload)
        else:
            if self._part is not None:
                opcode, payload = self._part[0], self._part[1] + payload
            self._part = None if final else (opcode, payload)
            if final:
                self.messages.append(payload.decode() if opcode == _TEXT else payload)
