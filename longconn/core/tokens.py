"""What tokens say of clients, and who reads them. How they are written is for those who read them to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from longconn.core.errors import LongConnError


class TokenError(LongConnError):
    """A token cannot be believed, or is for somebody else; the text says which and why, without the token.

    `mismatch` says that the token is good, but for another channel, user or client.
    """

    def __init__(self, which: str, why: str, mismatch: bool = False) -> None:
        super().__init__(f"{which} token: {why}")
        self.mismatch = mismatch


@dataclass(frozen=True, slots=True)
class Granted:
    """What a token says of one channel: `info` for presence and publications, `data` for the subscriber; JSON."""

    info: bytes = b""
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class ConnectionToken:
    """Who a client is. `expires_at` is in seconds since 1970, None for never; `info` is JSON, empty for none."""

    user: str
    expires_at: float | None = None
    info: bytes = b""
    #: the channels that the client is subscribed to by the server
    subs: Mapping[str, Granted] = field(default_factory=dict)

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(self.subs)


@dataclass(frozen=True, slots=True)
class SubscriptionToken:
    """A right to subscribe to one channel."""

    channel: str
    user: str
    expires_at: float | None = None
    info: bytes = b""
    data: bytes = b""


class Verifier(Protocol):
    """Reads tokens. `now` is in seconds since 1970.

    Raises CommandError(TOKEN_EXPIRED) for a good one whose time is over, TokenError for any other.
    """

    def connection(self, token: str, now: float) -> ConnectionToken: ...

    def subscription(self, token: str, channel: str, user: str, now: float, client: str = "") -> SubscriptionToken:
        """The right of `user`, as the client with the id `client`, to subscribe to `channel`."""
