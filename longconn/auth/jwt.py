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
Centrifugo either. A token with `override` is refused: it would give a client options that do not exist here.

    caps          [{channels, match, allow}]: further rights. `match` is empty for exact names, `wildcard` for names
                  that may end in `*`; `allow` has `sub`, `pub`, `prs`, `hst`
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from longconn.auth.keys import ASYMMETRIC, Keys, load_keys
from longconn.core.errors import INTERNAL, TOKEN_EXPIRED, CommandError, ConfigError, shown
from longconn.core.identity import Capability, Granted, Identity
from longconn.core.log import about, log
from longconn.core.namespaces import Action
from longconn.core.publication import Data
from longconn.core.settings import Settings
from longconn.core.tokens import SubscriptionToken, TokenError

if TYPE_CHECKING:
    from longconn.auth.jwks import JWKS

#: A claim that is not supported. A token means something else without it, so it cannot be ignored.
_UNSUPPORTED = "override"
#: The actions of the claim `caps`, by their names there (centrifugal.dev, "Channel capabilities").
_ALLOW = {"sub": Action.SUBSCRIBE, "pub": Action.PUBLISH, "prs": Action.PRESENCE, "hst": Action.HISTORY}
#: The least length of a secret in bytes (RFC 7518, section 3.2).
_SECRET_BYTES = 32


class JWTVerifier:
    """Verifies tokens with the keys of `settings`. Without keys it refuses every token.

    `make_jwks` makes the set of keys at `settings.jwks`; without it there is none. Raises ConfigError for a key that
    cannot be read, and if there are keys but PyJWT is not installed.
    """

    def __init__(self, settings: Settings, make_jwks: Callable[[str], JWKS] | None = None) -> None:
        self._audience = settings.token_audience
        self._issuer = settings.token_issuer
        self._leeway = settings.token_leeway
        self._keys: Keys = load_keys(settings)
        self._jwks: JWKS | None = None
        secrets = (settings.token_hmac_secret_key, settings.token_hmac_previous_secret_key)
        self._short = any(0 < len(each.encode()) < _SECRET_BYTES for each in secrets)
        self._allowed = tuple(self._keys)
        if settings.jwks:
            self._allowed = (*(each for each in self._keys if each not in ASYMMETRIC), *ASYMMETRIC)
        if not self._allowed:
            return
        try:
            # PyJWT is an extra: a server without keys for tokens runs without it.
            import jwt
        except ImportError:
            raise ConfigError("keys for tokens need PyJWT: pip install 'longconn[jwt]'") from None
        self._jwt = jwt
        self._jws = jwt.PyJWS(algorithms=list(self._allowed))
        if settings.jwks and make_jwks is not None:
            self._jwks = make_jwks(settings.jwks)

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The accepted algorithms."""
        return self._allowed

    def load(self) -> None:
        """Fetch the keys that are elsewhere."""
        if self._jwks is not None:
            self._jwks.load()

    def warn(self) -> None:
        """Log a warning for a weak key."""
        if self._short:
            log.warning(
                "token_hmac_secret_key is shorter than %d bytes: it can be guessed",
                _SECRET_BYTES,
                extra=about("weak_key"),
            )

    def prepare(self, token: str, ready: Callable[[], None]) -> None:
        """Call `ready` when the key that `token` names is there, or cannot be had."""
        if self._jwks is None:
            ready()
            return
        try:
            header = self._jws.get_unverified_header(token)
        except (self._jwt.exceptions.PyJWTError, ValueError, RecursionError):
            ready()  # it is refused
            return
        if header.get("alg") in self._keys and "kid" not in header:
            ready()
        else:
            self._jwks.prepare(_key_id(header), ready)

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
            capabilities=claims.caps(),
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
        if not self._allowed:
            raise TokenError(which, "the server has no key to check it by")
        errors = self._jwt.exceptions
        try:
            header = self._jws.get_unverified_header(token)
            algorithm = header.get("alg")
            if not isinstance(algorithm, str) or algorithm not in self._allowed:
                raise TokenError(which, f"signed by {shown(algorithm, 20)}; allowed: {', '.join(self._allowed)}")
            if "crit" in header:  # RFC 7515, section 4.1.11: no extension is supported
                raise TokenError(which, "its header asks for an extension")
            for key in self._candidates(which, algorithm, _key_id(header)):
                with warnings.catch_warnings(), suppress(errors.InvalidSignatureError):
                    warnings.simplefilter("ignore")  # `warn` logs a short secret once
                    payload: bytes = self._jws.decode_complete(token, key, algorithms=[algorithm])["payload"]
                    return payload
        except (errors.PyJWTError, ValueError, RecursionError):
            raise TokenError(which, "it is no JWT") from None
        raise TokenError(which, "its signature is wrong")

    def _candidates(self, which: str, algorithm: str, id: str) -> list[Any]:
        """The keys that may have signed a token. Raises TokenError for none, CommandError(INTERNAL) for none yet."""
        found = self._keys.get(algorithm, [])
        if self._jwks is not None and algorithm in ASYMMETRIC:
            found = [*self._jwks.keys(algorithm, id), *found]
            if not found and (self._jwks.failed or not self._jwks.loaded):
                raise CommandError(INTERNAL)  # temporary: the set of keys may come
        if not found:
            raise TokenError(which, "its key is not known here")
        return found

    def _check(self, claims: _Claims, now: float) -> None:
        claims.refuse_unsupported()
        if self._audience and self._audience not in claims.texts("aud"):
            raise claims.bad("its audience is another")
        if self._issuer and claims.text("iss") != self._issuer:
            raise claims.bad("its issuer is another")
        # A token before its `nbf` is answered as in Centrifugo: the client asks its back end for another one.
        expires, begins = claims.time("exp"), claims.time("nbf")
        leeway = self._leeway
        if (expires is not None and expires + leeway <= now) or (begins is not None and begins - leeway > now):
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
            if isinstance(claims, dict) and claims.get(_UNSUPPORTED):
                raise self.bad(f"its claim {_UNSUPPORTED} is not supported")

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

    def caps(self) -> tuple[Capability, ...]:
        values = self._values.get("caps") or []
        if not isinstance(values, list) or not all(isinstance(each, dict) for each in values):
            raise self._wrong("caps")
        found = []
        for each in values:
            match, channels, allow = each.get("match", ""), each.get("channels"), each.get("allow")
            if match not in ("", "wildcard"):
                raise self.bad(f"its claim caps has the match {shown(match, 20)}; supported: wildcard")
            for names in (channels, allow):
                if not isinstance(names, list) or not all(isinstance(name, str) and _is_text(name) for name in names):
                    raise self._wrong("caps")
            actions = frozenset(_ALLOW[name] for name in allow if name in _ALLOW)
            for name in channels:
                if match and "*" in name[:-1]:
                    raise self.bad("its claim caps has a * that is not at the end")
                is_prefix = bool(match) and name.endswith("*")
                found.append(Capability(name[:-1] if is_prefix else name, is_prefix, actions))
        return tuple(found)

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


def _key_id(header: dict[str, Any]) -> str:
    id = header.get("kid", "")
    return id if isinstance(id, str) else ""


def _is_text(value: str) -> bool:
    """Whether a string has a UTF-8 form. JSON can spell a lone surrogate, which has none."""
    return value.isascii() or not any("\ud800" <= each <= "\udfff" for each in value)
