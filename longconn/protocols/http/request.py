"""A request's head as bytes, and its body in memory."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

from twisted.web.http import parse_qs
from twisted.web.server import Request

from longconn.core.settings import Settings
from longconn.protocols.http.errors import HTTPError
from longconn.wire.first_bytes import REQUEST_LINE

_ABSOLUTE = re.compile(rb"https?://([^/?]*)((?:[/?].*)?)", re.IGNORECASE)
#: Header lines of a request.
MAX_HEADERS = 500
#: More digits than any length that is allowed has. `int` refuses some thousand of them (`sys.int_info`).
_LENGTH_DIGITS = 18
_SERVER = b"longconn"


def find_head(data: bytearray, start: int, limit: int) -> int | None:
    """Where the head at the beginning of `data` ends, before its empty line; None if the end has not come yet.

    `start` is where to search from. Raises HTTPError for a head that is larger than `limit` bytes
    (431, or 414 if its first line is), or whose first line is no request line of HTTP/1 (400).
    """
    line_end = data.find(b"\n")
    end = data.find(b"\r\n\r\n", start)
    if line_end >= start:  # it has just come
        if data[line_end - 1 : line_end] != b"\r":
            raise HTTPError(400, "the lines of a head end in CR LF")
        _check_request_line(bytes(data[: line_end - 1]))
    if 0 <= end <= limit - 4:
        return end
    if end < 0 and len(data) <= limit:
        return None
    if not 0 <= line_end < limit:
        raise HTTPError(414, f"the request line is longer than {limit} bytes")
    raise HTTPError(431, f"the head is larger than {limit} bytes")


def _check_request_line(line: bytes) -> None:
    if REQUEST_LINE.fullmatch(line) is None:
        raise HTTPError(400, "the first line is METHOD, target and HTTP/1.1, with one space between them")


def check_lines(lines: list[bytes]) -> None:
    """Raises HTTPError for lines of a head that twisted.web would wrongly accept, or would fail on."""
    if len(lines) - 1 > MAX_HEADERS:
        raise HTTPError(431, f"more than {MAX_HEADERS} header lines")
    for line in lines[1:]:
        if line.translate(None, b"\0\r\n") != line:  # RFC 9110, section 5.5; Twisted 24 accepts them
            raise HTTPError(400, "a header has no NUL, CR or LF in it")
        name, _, value = line.partition(b":")
        if name[:1] in (b" ", b"\t"):  # obsolete line folding (RFC 9112, section 5.2)
            raise HTTPError(400, "a header may not be folded over lines")
        if name.lower() == b"content-length" and value.strip().isdigit() and len(value) > _LENGTH_DIGITS:
            raise HTTPError(413, "the body is too large")


def body_limit(settings: Settings, content_type: str) -> int:
    """The limit on a body of this Content-Type, in bytes."""
    return settings.max_bulk_body if media_type(content_type) == "application/x-ndjson" else settings.max_body


def api_key(own: str, authorization: str) -> bytes:
    """The key of a request to the server API, by its headers X-API-Key and Authorization (`apikey KEY`)."""
    if not own:
        scheme, _, rest = authorization.strip().partition(" ")
        own = rest.strip() if scheme.lower() == "apikey" else ""
    return own.encode()


def media_type(content_type: str) -> str:
    """A Content-Type without its parameters (RFC 9110, section 8.3.1), in lower case."""
    return content_type.partition(";")[0].strip().lower()


class BufferedRequest(Request):
    """A request whose body is kept in memory and counted, and never parsed as a form."""

    channel: Any
    content: Any
    args: Any

    def render(self, resource: Any) -> None:
        self.responseHeaders.setRawHeaders(b"Server", [_SERVER])  # twisted.web's names its version
        super().render(resource)  # type: ignore[no-untyped-call]

    def _handleStar(self) -> None:
        self.responseHeaders.setRawHeaders(b"Server", [_SERVER])
        super()._handleStar()  # type: ignore[no-untyped-call]

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        if self.channel.count_body(len(data)):
            self.content.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        # twisted.web would parse a POST by its Content-Type, and `curl -d` declares every text as a form.
        self.content.seek(0)
        absolute = _ABSOLUTE.fullmatch(path)
        if absolute is not None:  # RFC 9112, section 3.2.2: the target replaces Host
            self.requestHeaders.setRawHeaders(b"Host", [absolute[1]])
            path = b"/" + absolute[2].removeprefix(b"/")
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, query = path.partition(b"?")
        self.args = parse_qs(query, True)
        self.process()  # type: ignore[no-untyped-call]
