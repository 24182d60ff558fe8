"""The chat page and the admin page: files, and the headers that protect them from other sites."""

from __future__ import annotations

from hashlib import sha256
from html import escape
from pathlib import Path
from urllib.parse import quote

from longconn.protocols.http.errors import HTTPError
from longconn.protocols.http.exchange import HTTPExchange

_WEB = Path(__file__).parents[2] / "web"
#: Content types of the page's files, served as `/page/NAME`, by the end of the name.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# In CSP level 3 'self' includes WebSockets to the same host. It does not in Safari before 15.4: there the page uses
# server-sent events. With trusted types, code that would read text as markup throws, in browsers that know them.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


def _files(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.suffix in _TYPES}


# Read when this module is loaded: at the time of the first request the process may be in a chroot.
_PAGE = (_WEB / "index.html").read_bytes()
_FILES = _files(_WEB)
_ADMIN_PAGE = (_WEB / "admin" / "index.html").read_bytes()
# The two that the chat page has as well.
_ADMIN_FILES = _files(_WEB / "admin") | {name: _FILES[name] for name in ("icon.svg", "elements.js")}


def page(exchange: HTTPExchange) -> None:
    """Answer with the page itself."""
    channel = exchange.hub.settings.default_channel
    body = _PAGE.replace(b"{channel}", escape(channel).encode())
    body = body.replace(b"{login}", b"password" if exchange.hub.gate.passwords is not None else b"")
    history = f"#{channel} {exchange.hub.namespaces.options(channel).describe_history()}."
    body = body.replace(b"{history}", escape(history).encode())
    body = body.replace(b"{segment}", escape(quote(channel, safe="")).encode())
    _answer(exchange, body, "text/html; charset=utf-8")


def admin_page(exchange: HTTPExchange) -> None:
    """Answer with the admin page. It is the same for all, and knows nothing: it asks the server API."""
    _answer(exchange, _ADMIN_PAGE, "text/html; charset=utf-8")


def admin_page_file(exchange: HTTPExchange, name: str) -> None:
    """Answer with one of the files that the admin page is made of. Raises HTTPError(404)."""
    _answer_file(exchange, _ADMIN_FILES, name)


def page_file(exchange: HTTPExchange, name: str) -> None:
    """Answer with one of the files that the page is made of. Raises HTTPError(404)."""
    _answer_file(exchange, _FILES, name)


def _answer_file(exchange: HTTPExchange, files: dict[str, bytes], name: str) -> None:
    body = files.get(name)
    if body is None:
        raise HTTPError(404, "there is nothing at this path")
    _answer(exchange, body, _TYPES[Path(name).suffix])


def _answer(exchange: HTTPExchange, body: bytes, content_type: str) -> None:
    """Answer with a file that a browser keeps but validates each time: after an upgrade it gets only new files."""
    tag = f'"{sha256(body).hexdigest()[:16]}"'
    headers = [
        ("Cache-Control", "no-cache"),
        ("ETag", tag),
        ("Content-Security-Policy", _POLICY),
        ("Referrer-Policy", "no-referrer"),
        ("X-Frame-Options", "DENY"),
    ]
    # RFC 9110, section 13.1.2: the comparison is weak, since a proxy that compresses makes a tag a weak one.
    known = {each.strip().removeprefix("W/") for each in exchange.header("if-none-match").split(",")}
    if tag not in known:
        exchange.answer(200, body, content_type, headers)
        return
    request = exchange.request
    request.setResponseCode(304)
    for name, value in headers:
        request.setHeader(name, value)
    request.finish()


def redirect_below(exchange: HTTPExchange) -> None:
    """Redirect to the address with a slash at its end: the page's links are relative to that."""
    path, question, query = exchange.request.uri.partition(b"?")
    last = path.rpartition(b"/")[2].decode("ascii", "replace")
    # With `./` in front, so that nothing can be read as a scheme or a host.
    where = f"./{last}/" + (question + query).decode("ascii", "replace")
    exchange.text(308, "the page is one level below\n", [("Location", where)])
