"""Which protocol a client speaks, by the first bytes that it sends.

The opening of another protocol may hold a password, a cookie or a token, and so do the lines that follow it. So
a line that looks like an opening is never chat, even if it is malformed: the protocol that it resembles answers it,
or the connection is closed.
"""

from __future__ import annotations

import enum
import re

from longconn.core.json_text import BOM

#: RFC 9112, section 3: method SP request-target SP HTTP-version; the method is a token (RFC 9110, 5.6.2).
REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^ \r\n]+ HTTP/1\.[0-9]")

_PREFACE = b"PRI * HTTP/2.0"  # RFC 9113, section 3.4: the first line of the client's preface
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"  # haproxy's proxy-protocol.txt, section 2.2
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# White space before a line. The bytes of a BOM count as such here.
_BLANKS = b" \t\v\f\r" + BOM
# Control characters that no terminal sends in a line of text, and that binary protocols begin with: TLS records, SOCKS,
# MQTT, LDAP, databases. NUL is in any ASCII text that is written as UTF-16.
_BINARY = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")


class Kind(enum.Enum):
    """The protocol that the first bytes show. The values are for the log."""

    UNDECIDED = "undecided"
    EMPTY = "empty lines"
    TLS = "TLS"
    HTTP2 = "HTTP/2"
    HTTP1 = "HTTP/1"
    CENTRIFUGO = "Centrifugo's client protocol"
    CHAT = "chat lines"
    PROXY = "the PROXY protocol"
    SSH = "SSH"
    RTSP = "RTSP or SIP"
    MAIL = "SMTP, IMAP or POP"
    IRC = "IRC"
    STOMP = "STOMP or NATS"
    REDIS = "Redis"
    XMPP = "XMPP"
    UTF16 = "UTF-16"
    BINARY = "binary data"


_METHODS = rb"(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI|PROPFIND|REPORT|M-SEARCH)"
_VERSION = rb"HTTP(?:/[\d.]*|[ ]\d[\d.]*)"
_URI = rb"(?:[/*]|[a-z][a-z0-9+.-]*://)"

#: The kind of a first line without blanks around it: that of the first row that matches from its start.
_OPENINGS: tuple[tuple[Kind, re.Pattern[bytes]], ...] = (
    (Kind.RTSP, re.compile(rb"\S+\s+(?i:rtspu?|rtsps|sips?|icap):\S|.*\s(?:RTSP|SIP|ICAP)/\d[\d.]*$|(?:RTSP|SIP)/\d")),
    # Of a family of requests as these: RTSP, Icecast, and those that are still to come.
    (Kind.RTSP, re.compile(rb"\S+\s+" + _URI + rb"\S*\s+(?!HTTP/)[A-Z]{2,10}/\d[\d.]*$")),
    # A request, and one that is almost one: other blanks, another version, a method in lower case, a target with
    # blanks, no version at all (HTTP/0.9); or the start of a response.
    (Kind.HTTP1, re.compile(REQUEST_LINE.pattern + rb"$")),
    (Kind.HTTP1, re.compile(_METHODS + rb"\s*" + _URI)),
    (Kind.HTTP1, re.compile(rb"(?i:" + _METHODS + rb"\s.*\s" + _VERSION + rb")$")),
    (Kind.HTTP1, re.compile(rb"(?i:\S+\s+" + _URI + rb".*\s" + _VERSION + rb")$")),
    (Kind.HTTP1, re.compile(rb"(?i:" + _METHODS + rb")\s+/\S*$")),
    (Kind.HTTP1, re.compile(rb"HTTP/\d")),
    (Kind.CENTRIFUGO, re.compile(rb"[{\[]")),
    (Kind.PROXY, re.compile(rb"PROXY\s+(?:TCP[46]|UNKNOWN)\b")),
    (Kind.SSH, re.compile(rb"SSH-\d")),
    (Kind.MAIL, re.compile(rb"(?:EHLO|HELO|LHLO|ehlo|lhlo)\s+\S+$|CAPA$|APOP\s+\S+\s+\S+$|AUTH\s+[A-Z]")),
    (Kind.MAIL, re.compile(rb"(?:[A-Za-z]*\d+|\.)\s+(?:CAPABILITY|STARTTLS|LOGIN\s|AUTHENTICATE\s)")),
    (Kind.IRC, re.compile(rb"CAP\s+(?:LS|REQ)\b|(?:PASS|NICK)\s+\S+$|USER\s+\S+(?:\s+\S+\s+\S+\s+.*)?$")),
    (Kind.STOMP, re.compile(rb"(?:CONNECT|STOMP)$|CONNECT\s*\{")),
    (Kind.REDIS, re.compile(rb"\*\d+$|AUTH\s+\S+$")),
    (Kind.XMPP, re.compile(rb"<\?xml\b|<stream:stream\b")),
)
#: The same for a line that is too long to have come whole.
_LONG_OPENINGS: tuple[tuple[Kind, re.Pattern[bytes]], ...] = (
    (Kind.CENTRIFUGO, re.compile(rb"[{\[]")),
    (Kind.HTTP1, re.compile(rb"(?i:" + _METHODS + rb")(?:\s|/)")),
    (Kind.XMPP, re.compile(rb"<\?xml\b|<stream:stream\b")),
)


def detect(data: bytes | bytearray, limit: int, before: int = 0) -> Kind:
    """The protocol of a connection that has sent `data` so far. Over `limit` bytes a line is decided without its end.

    `before` is how many of these bytes were UNDECIDED at the last call. A BOM before a line, and empty lines before a
    request (RFC 9112, section 2.2), do not change the result.
    """
    if before >= 2 and len(data) <= limit and data.find(b"\n", before) < 0:
        return Kind.UNDECIDED  # two bytes tell TLS, and only a whole line tells the rest
    if data[:1] == b"\x16":
        if len(data) == 1:
            return Kind.UNDECIDED
        if data[1] == 3:
            return Kind.TLS
    if _BINARY.match(data):
        return Kind.BINARY
    if data.startswith(_UTF16):
        return Kind.UTF16
    if data.startswith(PROXY_V2):
        return Kind.PROXY
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        line = bytes(data[start:end])
        if line not in (b"", b"\r"):
            return _kind_of(line, whole=True, first=start == 0)
        start = end + 1
    if start == len(data) > 0:
        return Kind.EMPTY
    if len(data) <= limit:
        return Kind.UNDECIDED
    return _kind_of(bytes(data[start:]), whole=False, first=start == 0)


def _kind_of(line: bytes, whole: bool, first: bool) -> Kind:
    if first and line.rstrip(b"\r") == _PREFACE:
        return Kind.HTTP2
    if _BINARY.search(line):
        return Kind.BINARY
    text = line.lstrip(_BLANKS).rstrip()
    for kind, opening in _OPENINGS if whole else _LONG_OPENINGS:
        if opening.match(text):
            return kind
    return Kind.CHAT


def is_connect(line: bytes) -> bool:
    """Whether a line looks like a connect of Centrifugo's client protocol, even if it is malformed."""
    return line.lstrip(_BLANKS).startswith((b"{", b"[")) and b'"connect"' in line
