"""Random identifiers."""

from __future__ import annotations

import secrets


def new_id(size: int = 8) -> str:
    """`size` random bytes as text, of letters, digits and `_`.

    Without a `-`: a command would take an identifier that begins with one for an option.
    """
    return secrets.token_urlsafe(size).replace("-", "_")
