"""Loads the keys that verify tokens from the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from longconn.core.errors import ConfigError, shown
from longconn.core.settings import Settings

#: Keys by the name of the algorithm (RFC 7518, section 3.1).
Keys = dict[str, Any]
#: The algorithm of each curve (RFC 7518, section 3.4), by the curve's name in `cryptography`.
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_PEM = "-----BEGIN "


def load_keys(settings: Settings) -> Keys:
    """The keys that the settings name. Raises ConfigError for one that cannot be read or has a wrong type."""
    keys: Keys = {}
    if settings.token_hmac_secret_key:
        keys |= dict.fromkeys(("HS256", "HS384", "HS512"), settings.token_hmac_secret_key.encode())
    if settings.token_rsa_public_key:
        keys |= _rsa(_public("token_rsa_public_key", settings.token_rsa_public_key))
    if settings.token_ecdsa_public_key:
        keys |= _ecdsa(_public("token_ecdsa_public_key", settings.token_ecdsa_public_key))
    return keys


def _rsa(key: Any) -> Keys:
    if not isinstance(key, RSAPublicKey):
        raise ConfigError("token_rsa_public_key: this is no key of RSA")
    return dict.fromkeys(("RS256", "RS384", "RS512"), key)


def _ecdsa(key: Any) -> Keys:
    if not isinstance(key, EllipticCurvePublicKey):
        raise ConfigError("token_ecdsa_public_key: this is no key of ECDSA")
    if key.curve.name not in _CURVES:
        raise ConfigError(f"token_ecdsa_public_key: the curve is {key.curve.name}; allowed: {', '.join(_CURVES)}")
    return {_CURVES[key.curve.name]: key}


def _public(name: str, value: str) -> Any:
    """The public key in `value`: PEM, whose line ends may be written `\\n`, or the name of a PEM file."""
    text = value.strip()
    if text.startswith(_PEM):
        data = text.replace("\\n", "\n").encode()
    else:
        try:
            data = Path(value).read_bytes()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"{name}: neither PEM nor a file: cannot read {shown(value, 200)}: {why}") from None
    try:
        return load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{name}: this is no public key in PEM (-----BEGIN PUBLIC KEY-----)") from None
