"""The claims of tokens, and the interface of a verifier. The token's format is the verifier's business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from longconn.core.errors import LongConnError


class TokenError(LongConnError):
    """A token is refused. The text says which one and why, and does not contain the token.

    `mismatch` says that the token is valid, but for another channel, user or client.
    """

    def __init__(self, which: str, why: str, mismatch: bool = False) -> None:
        super().__init__(f"{which} token: {why}")
        self.mismatch = mismatch


@dataclass(frozen=True, slots=True)
class Granted:
    """A token's right to one channel: JSON for presence and publications (`info`), and for the subscriber (`data`)."""

    info: bytes = b""
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class ConnectionToken:
    """The identity of a client. `expires_at` is in seconds since 1970 (None: never), `info` is JSON (empty: none)."""

    user: str
    expires_at: float | None = None
    info: bytes = b""
    #: the channels to which the server subscribes the client
    subs: Mapping[str, Granted] = field(default_factory=dict)

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(self.subs)


@dataclass(frozen=True, slots=True)
class SubscriptionToken:
    """The right to subscribe to one channel; members as in `ConnectionToken` and `Granted`."""

    channel: str
    user: str
    expires_at: float | None = None
    info: bytes = b""
    data: bytes = b""


class Verifier(Protocol):
    """Verifies tokens and returns their claims. `now` is in seconds since 1970.

    Raises CommandError(TOKEN_EXPIRED) for a valid token that has expired, TokenError for any other it refuses.
    """

    def connection(self, token: str, now: float) -> ConnectionToken: ...

    def subscription(self, token: str, channel: str, user: str, now: float, client: str = "") -> SubscriptionToken:
        """The right of `user` to subscribe to `channel`; `client` is the id of the client that asks."""
