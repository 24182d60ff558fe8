"""A client for chat lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Connection(Protocol):
    """The connection that a client needs. `MemoryConnection` is one."""

    on_data: Callable[[bytes], None] | None
    on_closed: Callable[[], None] | None

    def send(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class ConnectedClient:
    """The base of `LineClient`, `WebSocketClient` and `HTTPClient`."""

    def __init__(self, connection: Connection, settle: Callable[[], Any] | None) -> None:
        self.connection: Any = connection
        #: called after every read from the connection
        self.on_read: Callable[[], None] | None = None
        self._settle = settle

    @property
    def closed(self) -> bool:
        """Whether the server closed the connection."""
        return bool(self.connection.closed)

    @property
    def address(self) -> str:
        """HOST:PORT of this client, which is its name in the chat until it takes another."""
        return f"{self.connection.local.host}:{self.connection.local.port}"


class LineClient(ConnectedClient):
    """Reads lines that end in CRLF or LF, and sends lines.

    `lines` has all lines so far; `read` returns those since the last call. `rest` is the start of an unfinished line.
    """

    def __init__(self, connection: Connection, settle: Callable[[], Any] | None = None) -> None:
        super().__init__(connection, settle)
        self.lines: list[str] = []
        self.rest = b""
        self._seen = 0
        connection.on_data = self._on_data

    def say(self, *lines: str) -> None:
        """Send lines, in one segment."""
        self.connection.send("".join(line + "\n" for line in lines).encode())

    def read(self) -> list[str]:
        """The lines since the last call. Runs all calls that are due first."""
        if self._settle is not None:
            self._settle()
        fresh = self.lines[self._seen :]
        self._seen = len(self.lines)
        return fresh

    def _on_data(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.lines += [line.removesuffix(b"\r").decode() for line in lines]
        if self.on_read is not None:
            self.on_read()
