"""Tokens that count no more though they have not expired."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from longconn.core.errors import LIMIT_EXCEEDED, CommandError
from longconn.core.identity import Identity

#: Revocations that are kept at once.
MOST = 10_000
#: Seconds that one is kept unless it says otherwise: no token should live longer.
DEFAULT_AGE = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Revocation:
    """Revokes the token with an id, or those of a user (empty: of every user), issued before a time (None: all).

    Times are in seconds since 1970. It is kept until `until`, when such tokens have expired.
    """

    until: float
    user: str = ""
    token_id: str = ""
    issued_before: float | None = None

    def covers(self, identity: Identity) -> bool:
        """Whether what proved `identity` is revoked. A token that does not say when it was issued counts as old."""
        if self.token_id:
            return identity.token_id == self.token_id
        if not identity.user or self.user not in ("", identity.user):
            return False
        return self.issued_before is None or (identity.issued_at or 0.0) < self.issued_before


class Revocations:
    """The revocations in force. `now` is the time in seconds since 1970."""

    def __init__(self) -> None:
        self._by_token: dict[str, Revocation] = {}
        self._by_user: dict[str, list[Revocation]] = {}

    def add(self, revocation: Revocation, now: float) -> None:
        """Raises CommandError(LIMIT_EXCEEDED) if there are `MOST` in force."""
        if len(self) >= MOST:
            self._forget_old(now)
        if len(self) >= MOST:
            raise CommandError(LIMIT_EXCEEDED, what="revocations")
        if revocation.token_id:
            self._by_token[revocation.token_id] = revocation
        else:
            self._by_user.setdefault(revocation.user, []).append(revocation)

    def __len__(self) -> int:
        return len(self._by_token) + sum(map(len, self._by_user.values()))

    def __iter__(self) -> Iterator[Revocation]:
        yield from self._by_token.values()
        for each in self._by_user.values():
            yield from each

    def cover(self, identity: Identity, now: float) -> bool:
        """Whether a token that was just read is revoked."""
        if not (self._by_token or self._by_user):
            return False
        found = [self._by_token[identity.token_id]] if identity.token_id in self._by_token else []
        found += self._by_user.get(identity.user, [])
        found += self._by_user.get("", [])
        return any(each.until > now and each.covers(identity) for each in found)

    def in_force(self, now: float) -> list[Revocation]:
        """Those that count at `now`."""
        self._forget_old(now)
        return list(self)

    def _forget_old(self, now: float) -> None:
        self._by_token = {id: each for id, each in self._by_token.items() if each.until > now}
        kept = {user: [each for each in found if each.until > now] for user, found in self._by_user.items()}
        self._by_user = {user: found for user, found in kept.items() if found}
