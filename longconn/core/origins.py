"""The forms of origins and hosts in the settings `allowed_origin` and `allowed_host`."""

from __future__ import annotations

import re

# RFC 6454, section 6.2: scheme, host, port; no path. Lower case as a browser sends it.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?", re.ASCII)
# Cordova and Android's WebView send `file://` for a page of a file; others may have schemes of their own without hosts.
_WITHOUT_HOST = re.compile(r"(?!https?:|wss?:)[a-z][a-z0-9+.-]*://", re.ASCII)
_HOST = re.compile(r"[a-z0-9_.-]+|\[[0-9a-f:.]+\]", re.ASCII)


def normal_origin(value: str) -> str | None:
    """An origin as browsers send it, or `null` or `*`; None if it is no origin."""
    value = value.strip().lower()
    if not _WITHOUT_HOST.fullmatch(value):
        value = value.removesuffix("/")
    # A browser leaves the default port of a scheme out.
    value = re.sub(r"^(http://.*):80$|^(https://.*):443$", r"\1\2", value)
    if _WITHOUT_HOST.fullmatch(value):
        return value
    return value if value in ("*", "null") or _ORIGIN.fullmatch(value) else None


def normal_host(value: str) -> str | None:
    """A host in lower case, or `*`; None if it is no host, or has a port."""
    value = value.strip().lower()
    return value if value == "*" or _HOST.fullmatch(value) else None
