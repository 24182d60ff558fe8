"""Reads the credentials of a request: `Authorization`, a header of HTTP or metadata of gRPC, or else a cookie."""

from __future__ import annotations

import base64
import binascii

from longconn.core.errors import UNAUTHORIZED, CommandError
from longconn.core.identity import NO_CREDENTIALS, Credentials


def read_authorization(value: str) -> Credentials:
    """Basic (RFC 7617) or Bearer (RFC 6750). Raises CommandError(UNAUTHORIZED) for any other, and for a broken one."""
    scheme, _, rest = value.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer" and rest:
        return Credentials(token=rest)
    if scheme.lower() == "basic":
        try:
            user, colon, password = base64.b64decode(rest, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise CommandError(UNAUTHORIZED) from None
        if colon:
            return Credentials(user=user, password=password)
    raise CommandError(UNAUTHORIZED)


def read_credentials(authorization: str, cookies: str, name: str) -> Credentials:
    """What the headers Authorization and Cookie bring; of the cookies only that called `name` (empty: none) counts.

    Raises CommandError(UNAUTHORIZED) for an Authorization that is neither Basic nor Bearer.
    """
    if authorization:
        return read_authorization(authorization)
    for each in cookies.split(";") if name else ():  # RFC 6265, section 4.2.1
        found, _, value = each.strip().partition("=")
        if found == name and value:
            return Credentials(token=value.strip('"'))
    return NO_CREDENTIALS
