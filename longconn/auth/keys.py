"""Loads the keys that verify tokens from the settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from longconn.core.errors import ConfigError, shown
from longconn.core.settings import Settings

#: Keys by the name of the algorithm (RFC 7518, section 3.1; RFC 8037, section 3.1), in the order they are tried.
Keys = dict[str, list[Any]]
_HMAC = ("HS256", "HS384", "HS512")
_RSA = ("RS256", "RS384", "RS512")
#: The algorithm of each curve (RFC 7518, section 3.4), by the curve's name in `cryptography`.
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
#: The algorithms whose keys are public.
ASYMMETRIC = (*_RSA, *_CURVES.values(), "EdDSA")
_PEM = "-----BEGIN "
_BLOCK = re.compile(r"-----BEGIN [^-]+-----.*?-----END [^-]+-----", re.DOTALL)


def load_keys(settings: Settings) -> Keys:
    """The keys that the settings name. Raises ConfigError for one that cannot be read or has a wrong type."""
    keys: Keys = {}
    for secret in (settings.token_hmac_secret_key, settings.token_hmac_previous_secret_key):
        if secret:
            _add(keys, _HMAC, secret.encode())
    for name, kind in (("rsa", "RSA"), ("ecdsa", "ECDSA"), ("eddsa", "EdDSA")):
        option = f"token_{name}_public_key"
        for key in _public(option, getattr(settings, option)):
            algorithms = algorithms_of(key)
            if not algorithms and kind == "ECDSA" and isinstance(key, EllipticCurvePublicKey):
                raise ConfigError(f"{option}: the curve is {key.curve.name}; allowed: {', '.join(_CURVES)}")
            if _KINDS.get(algorithms[0] if algorithms else "") != kind:
                raise ConfigError(f"{option}: this is no key of {kind}")
            _add(keys, algorithms, key)
    return keys


_KINDS = dict.fromkeys(_RSA, "RSA") | dict.fromkeys(_CURVES.values(), "ECDSA") | {"EdDSA": "EdDSA"}


def algorithms_of(key: Any) -> tuple[str, ...]:
    """The algorithms that a public key is used for; none for a key of another kind."""
    if isinstance(key, RSAPublicKey):
        return _RSA
    if isinstance(key, EllipticCurvePublicKey):
        return (_CURVES[key.curve.name],) if key.curve.name in _CURVES else ()
    return ("EdDSA",) if isinstance(key, Ed25519PublicKey | Ed448PublicKey) else ()


def _add(keys: Keys, algorithms: tuple[str, ...], key: Any) -> None:
    for each in algorithms:
        keys.setdefault(each, []).append(key)


def _public(name: str, value: str) -> list[Any]:
    """The public keys in `value`: blocks of PEM, whose line ends may be written `\\n`, or the name of their file."""
    text = value.strip()
    if not text:
        return []
    if text.startswith(_PEM):
        text = text.replace("\\n", "\n")
    else:
        try:
            text = Path(value).read_bytes().decode("latin-1")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"{name}: neither PEM nor a file: cannot read {shown(value, 200)}: {why}") from None
    try:
        return [load_pem_public_key(each.encode()) for each in _BLOCK.findall(text) or [text]]
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{name}: this is no public key in PEM (-----BEGIN PUBLIC KEY-----)") from None
