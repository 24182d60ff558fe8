"""The numbered reasons for which the server closes a client.

Numbers and ranges are those of Centrifugo's client protocol (centrifugal/centrifuge,
`disconnect.go`): 3000 to 3499 say "come back", 3500 to 3999 say "do not". The edges
map them: `longconn.wire.websocket` to close codes, `longconn.wire.texts` to chat texts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Why a client is closed: a number, a key for catalogues, a text for logs and close frames."""

    code: int
    key: str
    text: str

    @property
    def reconnect(self) -> bool:
        """Whether the client is advised to come back."""
        return self.code < 3500


CLOSED = Disconnect(3000, "closed", "connection closed")
SHUTDOWN = Disconnect(3001, "shutdown", "shutdown")
SERVER_ERROR = Disconnect(3004, "server_error", "internal server error")
SLOW = Disconnect(3008, "slow", "slow")
WRITE_TIMEOUT = Disconnect(3009, "write_timeout", "no progress in sending")
NO_PONG = Disconnect(3012, "no_pong", "no pong")
IDLE = Disconnect(3502, "idle", "idle for too long")
CONNECTION_LIMIT = Disconnect(3504, "connection_limit", "connection limit")

#: All of them by number; a test checks that no number is used twice.
DISCONNECTS = {
    each.code: each
    for each in (
        CLOSED,
        SHUTDOWN,
        SERVER_ERROR,
        SLOW,
        WRITE_TIMEOUT,
        NO_PONG,
        IDLE,
        CONNECTION_LIMIT,
    )
}
