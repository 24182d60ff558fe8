"""The first page: files of `longconn/web`, and the headers that keep others out of them."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path
from urllib.parse import quote

from longconn.protocols.http_exchange import Exchange

_WEB = Path(__file__).parent.parent / "web"
#: The files that are served, by the last segment of the path.
FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
}


@cache
def _read(name: str) -> bytes:
    return (_WEB / name).read_bytes()


def show(exchange: Exchange, segment: str) -> None:
    """Answer with one of `FILES`."""
    name, content_type = FILES[segment]
    body = _read(name)
    if name == "index.html":
        channel = exchange.hub.settings.default_channel
        body = body.replace(b"{channel}", escape(channel).encode())
        body = body.replace(b"{segment}", escape(quote(channel, safe="")).encode())
    # 'self' includes WebSockets to the same host in the CSP of today (level 3), not in Safari before 15.4.
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = [("Content-Security-Policy", policy), ("Referrer-Policy", "no-referrer"), ("X-Frame-Options", "DENY")]
    exchange.answer(200, body, content_type, headers)


def redirect_below(exchange: Exchange) -> None:
    """The page's own address ends in a slash, or its relative links would miss."""
    path, question, query = exchange.request.uri.partition(b"?")
    last = path.rpartition(b"/")[2].decode("ascii", "replace")
    # With `./` in front, so that nothing can be read as a scheme or a host.
    where = f"./{last}/" + (question + query).decode("ascii", "replace")
    exchange.text(308, "the page is one level below\n", [("Location", where)])
