"""Which protocol a client speaks, by the first bytes that it sends."""

from __future__ import annotations

import enum
import re

from longconn.wire.centrifugo_commands import starts_connect

# RFC 9112, section 3: method SP request-target SP HTTP-version; the method is a token (RFC 9110, 5.6.2).
_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^ \r\n]+ HTTP/1\.[0-9]\r?")
# A request line that is too long to have come whole: as a browser writes it, whatever it is made to ask for.
_REQUEST_START = re.compile(rb"[A-Z]+ (?:/|https?:)[^ \r\n]*(?: [HTP/1.0-9\r]*)?")
_PREFACE = b"PRI * HTTP/2.0"  # RFC 9113, section 3.4: the first line of the client's preface


class Kind(enum.Enum):
    """What the first bytes are. The values are for the log."""

    UNDECIDED = "undecided"
    TLS = "TLS"
    HTTP2 = "HTTP/2"
    HTTP1 = "HTTP/1"
    CENTRIFUGO = "the structured protocol"
    CHAT = "chat lines"


def detect(data: bytes | bytearray, limit: int, before: int = 0) -> Kind:
    """What a connection speaks that has sent `data` so far. Beyond `limit` bytes a line needs no end to be decided.

    `before` is how many of these bytes were UNDECIDED at the last call.
    """
    end = data.find(b"\n", before)
    if end < 0 and before >= 2 and len(data) <= limit:
        return Kind.UNDECIDED  # two bytes tell TLS, and only a whole line tells the rest
    if data[:1] == b"\x16":
        if len(data) == 1:
            return Kind.UNDECIDED
        if data[1] == 3:
            return Kind.TLS
    if end < 0:
        if len(data) <= limit:
            return Kind.UNDECIDED
        return Kind.HTTP1 if _REQUEST_START.fullmatch(data) else Kind.CHAT
    line = bytes(data[:end])
    if line.rstrip(b"\r") == _PREFACE:
        return Kind.HTTP2
    if _REQUEST_LINE.fullmatch(line):
        return Kind.HTTP1
    return Kind.CENTRIFUGO if starts_connect(line) else Kind.CHAT
