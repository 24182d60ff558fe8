"""The numbered reasons for which the server closes a client.

Numbers and ranges are those of Centrifugo's client protocol (centrifugal/centrifuge, `disconnect.go`). A client should
reconnect after 3000 to 3499, and should not after 3500 to 3999. Numbers of applications follow the same rule: 4000 to
4499, and 4500 to 4999. Each protocol has a form of its own for them: a close code of WebSocket
(`longconn.wire.websocket`), a chat text (`longconn.wire.chat_texts`), a status of gRPC (`longconn.wire.grpc_status`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Disconnect:
    """A reason for closing a client: its number, its key in catalogues of texts, its text for logs and close frames."""

    code: int
    key: str
    text: str

    @property
    def reconnect(self) -> bool:
        """Whether the client should reconnect."""
        return self.code < 3500 or 4000 <= self.code < 4500


CLOSED = Disconnect(3000, "closed", "connection closed")
SHUTDOWN = Disconnect(3001, "shutdown", "shutdown")
SERVER_ERROR = Disconnect(3004, "server_error", "internal server error")
EXPIRED = Disconnect(3005, "expired", "connection expired")
SUBSCRIPTION_EXPIRED = Disconnect(3006, "subscription_expired", "subscription expired")
SLOW = Disconnect(3008, "slow", "slow")
WRITE_TIMEOUT = Disconnect(3009, "write_timeout", "no progress in sending")
INSUFFICIENT_STATE = Disconnect(3010, "insufficient_state", "insufficient state")
FORCE_RECONNECT = Disconnect(3011, "force_reconnect", "force reconnect")
NO_PONG = Disconnect(3012, "no_pong", "no pong")
INVALID_TOKEN = Disconnect(3500, "invalid_token", "invalid token")
BAD_REQUEST = Disconnect(3501, "bad_request", "bad request")
IDLE = Disconnect(3502, "idle", "idle for too long")
FORCE_DISCONNECT = Disconnect(3503, "force_disconnect", "force disconnect")
CONNECTION_LIMIT = Disconnect(3504, "connection_limit", "connection limit")
PERMISSION_DENIED = Disconnect(3507, "permission_denied", "permission denied")

#: All of them by number. A test checks that no number is used twice.
DISCONNECTS = {
    each.code: each
    for each in (
        CLOSED,
        SHUTDOWN,
        SERVER_ERROR,
        EXPIRED,
        SUBSCRIPTION_EXPIRED,
        SLOW,
        WRITE_TIMEOUT,
        INSUFFICIENT_STATE,
        FORCE_RECONNECT,
        NO_PONG,
        INVALID_TOKEN,
        BAD_REQUEST,
        IDLE,
        FORCE_DISCONNECT,
        CONNECTION_LIMIT,
        PERMISSION_DENIED,
    )
}
