"""A set of public keys (JWKS, RFC 7517, section 5) in a file, or at an address of the application's identity provider.

The address is that of the settings alone: one that a token names would let anybody sign tokens. The set is fetched when
a token names a key that is not in it, at most once a minute, and after an hour. What was fetched last stays until then,
also if a fetch fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from longconn.auth.keys import algorithms_of
from longconn.core.log import about, log

#: Seconds between two fetches, and until a set is fetched again though no token asks for that.
LEAST_PAUSE = 60.0
MOST_AGE = 3600.0
#: The most bytes of a set, and keys in it.
MOST_BYTES = 256 * 1024
_MOST_KEYS = 100

#: Calls one of the two: with the bytes of an address, or with an error.
Fetch = Callable[[str, Callable[[bytes], None], Callable[[object], None]], None]


class Seconds(Protocol):
    """A clock that does not jump."""

    def seconds(self) -> float: ...


class JWKS:
    """The keys of `where`: a file, or a URL that `fetch` gets."""

    def __init__(self, where: str, clock: Seconds, fetch: Fetch) -> None:
        self._where = where
        self._clock = clock
        self._fetch = fetch if where.startswith(("https://", "http://")) else _read_file
        self._keys: list[tuple[str, tuple[str, ...], Any]] = []
        self._asked_at: float | None = None
        #: whether there is a set; it may be old
        self.loaded = False
        #: whether the last fetch failed
        self.failed = False
        self._waiting: list[Callable[[], None]] | None = None

    def keys(self, algorithm: str, id: str) -> list[Any]:
        """The keys for a token's algorithm; that called `id` alone, unless `id` is empty."""
        return [key for name, algorithms, key in self._keys if algorithm in algorithms and id in ("", name)]

    def prepare(self, id: str, ready: Callable[[], None]) -> None:
        """Call `ready` when the key called `id` is there, or cannot be had now."""
        now = self._clock.seconds()
        age = None if self._asked_at is None else now - self._asked_at
        known = any(id in ("", name) for name, _, _ in self._keys)
        if self._waiting is not None:
            if known:
                ready()
            else:
                self._waiting.append(ready)
        elif not known and (age is None or age >= LEAST_PAUSE):
            self._waiting = [ready]
            self._start(now)
        else:
            if age is not None and age >= MOST_AGE:
                self._waiting = []
                self._start(now)
            ready()

    def load(self) -> None:
        """Fetch the set, if that was not done yet."""
        if self._asked_at is None and self._waiting is None:
            self._waiting = []
            self._start(self._clock.seconds())

    def _start(self, now: float) -> None:
        self._asked_at = now
        self._fetch(self._where, self._got, self._failed)

    def _got(self, data: bytes) -> None:
        try:
            self._keys = _read(data)
        except (ValueError, RecursionError) as error:
            self._failed(error)
            return
        self.loaded, self.failed = True, False
        log.info("%d keys for tokens from %s", len(self._keys), self._where, extra=about("keys_read"))
        self._tell()

    def _failed(self, error: object) -> None:
        self.failed = True
        log.warning(
            "the keys for tokens cannot be read from %s: %s",
            self._where,
            " ".join(str(error).split()),
            extra=about("keys_unreadable"),
        )
        self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        for ready in waiting:
            ready()


def _read(data: bytes) -> list[tuple[str, tuple[str, ...], Any]]:
    """The usable keys of a set, each with its id and algorithms. Raises ValueError for what is no set."""
    # PyJWT is an extra.
    from jwt import PyJWK
    from jwt.exceptions import PyJWTError

    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    value = json.loads(data)
    found = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise ValueError("no JWK set: it has no list `keys`")
    keys = []
    for each in found[:_MOST_KEYS]:
        # A symmetric key in a set would be a secret that everybody can fetch; others are for other purposes.
        if not isinstance(each, dict) or each.get("kty") == "oct" or each.get("use", "sig") != "sig":
            continue
        try:
            key = PyJWK(each).key
        except (PyJWTError, ValueError, TypeError, KeyError):
            continue
        algorithms = algorithms_of(key)
        if "alg" in each:
            algorithms = tuple(name for name in algorithms if name == each["alg"])
        id = each.get("kid", "")
        if algorithms and isinstance(id, str):
            keys.append((id, algorithms, key))
    return keys


def _read_file(where: str, got: Callable[[bytes], None], failed: Callable[[object], None]) -> None:
    try:
        data = Path(where).read_bytes()
    except OSError as error:
        failed(error.strerror or error)
    else:
        got(data)
