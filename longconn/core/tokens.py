"""The claims of tokens, and the interface of a verifier. The token's format is the verifier's business."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from longconn.core.identity import AdmissionError, Identity


class TokenError(AdmissionError):
    """A token is refused. `why` says which one and why, and does not contain the token.

    `mismatch` says that the token is valid, but for another channel, user or client.
    """

    def __init__(self, which: str, why: str, mismatch: bool = False) -> None:
        super().__init__(f"{which} token: {why}")
        self.mismatch = mismatch


@dataclass(frozen=True, slots=True)
class SubscriptionToken:
    """The right to subscribe to one channel; members as in `Identity` and `Granted`."""

    channel: str
    user: str
    expires_at: float | None = None
    info: bytes = b""
    data: bytes = b""


class Verifier(Protocol):
    """Verifies tokens and returns their claims. `now` is in seconds since 1970.

    Raises CommandError(TOKEN_EXPIRED) for a valid token that has expired, TokenError for any other it refuses.
    """

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The accepted algorithms, for the log."""

    def prepare(self, token: str, ready: Callable[[], None]) -> None:
        """Call `ready` when the key of `token` is there, or cannot be had: at once, or when it was fetched."""

    def connection(self, token: str, now: float) -> Identity: ...

    def subscription(self, token: str, channel: str, user: str, now: float, client: str = "") -> SubscriptionToken:
        """The right of `user` to subscribe to `channel`; `client` is the id of the client that asks."""
