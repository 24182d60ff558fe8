"""Verifies the tokens of clients: JWTs (RFC 7519) with Centrifugo's claims.

PyJWT verifies signatures (`pip install longconn[jwt]`). This module checks the claims, against the time that the caller
gives. The keys that are set decide which algorithms are accepted. A key is never used for another kind of algorithm,
and the algorithm `none` is refused.

    sub           the user; missing or empty: anonymous     expire_at   when the connection or subscription
    exp, nbf      until and from when the token is valid                expires, if not at `exp`; 0: never
    aud, iss      must match the settings, if those are set subs        {CHANNEL: {info, data, …}}, or
    info, b64info JSON that other clients see               channels    [CHANNEL]: subscribed by the server
    channel       the channel of a subscription token; a connection token must not have it

The claims are those of centrifugal/centrifugo, `internal/jwtverify`. `meta` is not read: no client sees it in
Centrifugo either. A token with `override` or `caps` is refused: they would give a client options or rights that do not
exist here.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import math
import warnings
from collections.abc import Callable
from typing import Any

from longconn.auth.keys import Keys, load_keys
from longconn.core.errors import TOKEN_EXPIRED, CommandError, ConfigError, shown
from longconn.core.identity import Granted, Identity
from longconn.core.publication import Data
from longconn.core.settings import Settings
from longconn.core.tokens import SubscriptionToken, TokenError

log = logging.getLogger("longconn")

#: Claims that are not supported. A token means something else without them, so they cannot be ignored.
_UNSUPPORTED = ("override", "caps")
#: The least length of a secret in bytes (RFC 7518, section 3.2).
_SECRET_BYTES = 32


class JWTVerifier:
    """Verifies tokens with the keys of `settings`. Without keys it refuses every token.

    Raises ConfigError for a key that cannot be read, and if there are keys but PyJWT is not installed.
    """

    def __init__(self, settings: Settings) -> None:
        self._audience = settings.token_audience
        self._issuer = settings.token_issuer
        self._keys: Keys = load_keys(settings)
        secret = settings.token_hmac_secret_key
        self._short = bool(secret) and len(secret.encode()) < _SECRET_BYTES
        if not self._keys:
            return
        try:
            # PyJWT is an extra: a server without keys for tokens runs without it.
            import jwt
        except ImportError:
            raise ConfigError("keys for tokens need PyJWT: pip install 'longconn[jwt]'") from None
        self._jwt = jwt
        self._jws = jwt.PyJWS(algorithms=list(self._keys))

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The accepted algorithms."""
        return tuple(self._keys)

    def warn(self) -> None:
        """Log a warning for a weak key."""
        if self._short:
            log.warning("token_hmac_secret_key is shorter than %d bytes: it can be guessed", _SECRET_BYTES)

    def prepare(self, token: str, ready: Callable[[], None]) -> None:
        """The keys are those of the settings: they are there."""
        ready()

    def connection(self, token: str, now: float) -> Identity:
        """Verify a connection token. Raises CommandError(TOKEN_EXPIRED) or TokenError."""
        claims = _Claims("connection", self._payload("connection", token))
        self._check(claims, now)
        if claims.text("channel"):
            raise claims.bad("it is for a channel, and not for a connection")
        return Identity(
            claims.text("sub"),
            claims.expires_at(),
            claims.info(),
            claims.subs(),
            claims.text("jti"),
            claims.time("iat"),
        )

    def subscription(self, token: str, channel: str, user: str, now: float, client: str = "") -> SubscriptionToken:
        """Verify a token for the subscription to a channel. Raises CommandError(TOKEN_EXPIRED) or TokenError."""
        claims = _Claims("subscription", self._payload("subscription", token))
        self._check(claims, now)
        found = claims.text("channel")
        if not found:
            raise claims.bad("it names no channel")
        if found != channel:
            raise claims.bad(f"it is for the channel {shown(found, 40)}", mismatch=True)
        if claims.text("sub") != user:
            raise claims.bad("it is for another user", mismatch=True)
        if claims.text("client") not in ("", client):
            raise claims.bad("it is for another client", mismatch=True)
        return SubscriptionToken(found, user, claims.expires_at(), claims.info(), claims.data())

    def _payload(self, which: str, token: str) -> bytes:
        """The payload of a token with a valid signature. Raises TokenError."""
        if not self._keys:
            raise TokenError(which, "the server has no key to check it by")
        errors = self._jwt.exceptions
        try:
            header = self._jws.get_unverified_header(token)
            algorithm = header.get("alg")
            if not isinstance(algorithm, str) or algorithm not in self._keys:
                raise TokenError(which, f"signed by {shown(algorithm, 20)}; allowed: {', '.join(self._keys)}")
            if "crit" in header:  # RFC 7515, section 4.1.11: no extension is supported
                raise TokenError(which, "its header asks for an extension")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # `warn` logs a short secret once
                whole = self._jws.decode_complete(token, self._keys[algorithm], algorithms=[algorithm])
        except errors.InvalidSignatureError:
            raise TokenError(which, "its signature is wrong") from None
        except (errors.PyJWTError, ValueError, RecursionError):
            raise TokenError(which, "it is no JWT") from None
        payload: bytes = whole["payload"]
        return payload

    def _check(self, claims: _Claims, now: float) -> None:
        claims.refuse_unsupported()
        if self._audience and self._audience not in claims.texts("aud"):
            raise claims.bad("its audience is another")
        if self._issuer and claims.text("iss") != self._issuer:
            raise claims.bad("its issuer is another")
        # A token before its `nbf` is answered as in Centrifugo: the client asks its back end for another one.
        expires, begins = claims.time("exp"), claims.time("nbf")
        if (expires is not None and expires <= now) or (begins is not None and begins > now):
            raise CommandError(TOKEN_EXPIRED)


class _Claims:
    """The claims of one token. Each method raises TokenError for a value of a wrong type."""

    def __init__(self, which: str, payload: bytes) -> None:
        self._which = which
        try:
            self._values: Any = json.loads(payload)
        except (ValueError, RecursionError):
            self._values = None
        if not isinstance(self._values, dict):
            raise self.bad("its payload is no JSON object")

    def bad(self, why: str, mismatch: bool = False) -> TokenError:
        return TokenError(self._which, why, mismatch)

    def _wrong(self, name: str) -> TokenError:
        return self.bad(f"its claim {name} is not valid")

    def refuse_unsupported(self) -> None:
        """Raise TokenError for a claim that is not supported, unless it is empty."""
        subs = self._values.get("subs")
        inside = subs.values() if isinstance(subs, dict) else ()
        for claims in (self._values, *inside):
            for name in _UNSUPPORTED:
                if isinstance(claims, dict) and claims.get(name):
                    raise self.bad(f"its claim {name} is not supported")

    def text(self, name: str) -> str:
        """A string; empty if the claim is missing."""
        value = self._values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str) or not _is_text(value):
            raise self._wrong(name)
        return value

    def texts(self, name: str) -> list[str]:
        """A list of strings, or one string for a list of one (RFC 7519, section 4.1.3)."""
        value = self._values.get(name)
        found = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(each, str) and _is_text(each) for each in found):
            raise self._wrong(name)
        return found

    def time(self, name: str) -> float | None:
        """Seconds since 1970."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._wrong(name)
        return value

    def expires_at(self) -> float | None:
        at = self.time("expire_at")
        if at is None:
            return self.time("exp")
        return at if at > 0 else None

    def info(self) -> bytes:
        return self._json(self._values, "info")

    def data(self) -> bytes:
        return self._json(self._values, "data")

    def subs(self) -> dict[str, Granted]:
        subs = self._values.get("subs")
        if not subs:
            return dict.fromkeys(self.texts("channels"), Granted())
        if not isinstance(subs, dict) or not all(isinstance(each, dict) for each in subs.values()):
            raise self._wrong("subs")
        if not all(map(_is_text, subs)):
            raise self._wrong("subs")
        return {name: Granted(self._json(each, "info"), self._json(each, "data")) for name, each in subs.items()}

    def _json(self, values: dict[str, Any], name: str) -> bytes:
        """The claim `b64NAME` or else `NAME` as compact JSON; empty if both are missing."""
        try:
            encoded = values.get("b64" + name)
            if encoded:
                return Data.of_json(base64.b64decode(encoded, validate=True)).json
            value = values.get(name)
            if value is None:
                return b""
            return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
        except (binascii.Error, CommandError, TypeError, ValueError, RecursionError):
            raise self._wrong(name) from None


def _is_text(value: str) -> bool:
    """Whether a string has a UTF-8 form. JSON can spell a lone surrogate, which has none."""
    return value.isascii() or not any("\ud800" <= each <= "\udfff" for each in value)
