"""Which protocol a connection to the shared port speaks, by its first bytes."""

from __future__ import annotations

import enum
import re

from longconn.wire.centrifugo import starts_connect

# RFC 9112, section 3: method SP request-target SP HTTP-version; the method is a token (RFC 9110, 5.6.2).
_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^ \r\n]+ HTTP/1\.[0-9]\r?")
# Of one that is too long to have come whole: as a browser writes it, whatever it is made to ask for.
_REQUEST_START = re.compile(rb"[A-Z]+ (?:/|https?:)[^ \r\n]*(?: [HTP/1.0-9\r]*)?")
_PREFACE = b"PRI * HTTP/2.0"  # RFC 9113, section 3.4, as far as its first line goes


class Kind(enum.Enum):
    """What the first bytes are, as far as they have come."""

    UNDECIDED = "undecided"
    TLS = "TLS"
    HTTP2 = "HTTP/2"
    HTTP1 = "HTTP/1"
    STRUCTURED = "the structured protocol"
    CHAT = "chat lines"


def detect(data: bytes, limit: int) -> Kind:
    """Decide by `data`, all that came so far. Past `limit` bytes without a line end it is chat or a request."""
    if data[:1] == b"\x16":
        if len(data) == 1:
            return Kind.UNDECIDED
        if data[1] == 3:
            return Kind.TLS
    end = data.find(b"\n")
    if end < 0:
        if len(data) <= limit:
            return Kind.UNDECIDED
        return Kind.HTTP1 if _REQUEST_START.fullmatch(data) else Kind.CHAT
    line = data[:end]
    if line.rstrip(b"\r") == _PREFACE:
        return Kind.HTTP2
    if _REQUEST_LINE.fullmatch(line):
        return Kind.HTTP1
    return Kind.STRUCTURED if starts_connect(line) else Kind.CHAT
