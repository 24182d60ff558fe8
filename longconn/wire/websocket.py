"""WebSocket's answer to a handshake, and frames of whole messages (RFC 6455). Autobahn reads and writes all others."""

from __future__ import annotations

import base64
import hashlib
import re

from longconn.core.disconnects import CLOSED, SHUTDOWN, Disconnect

# The first byte of a frame: FIN and the opcode.
_TEXT = 0x81
BINARY = 0x82
_PING = 0x89

# Close codes of RFC 6455, section 7.4.1, that say the same as a disconnect. Others go by their own number.
_CLOSE_CODES = {CLOSED: 1000, SHUTDOWN: 1001}


def close_code(disconnect: Disconnect) -> int:
    """The close code for a disconnect, in protocols without numbers of their own."""
    return _CLOSE_CODES.get(disconnect, disconnect.code)


#: RFC 6455, section 4.2.1, point 5: Base64 of 16 bytes.
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def is_key(text: str) -> bool:
    """Whether `text` is a value of Sec-WebSocket-Key."""
    return _KEY.fullmatch(text) is not None


def handshake_answer(key: bytes, subprotocol: str | None) -> bytes:
    """The answer to a handshake (section 4.2.2, point 5)."""
    accept = base64.b64encode(hashlib.sha1(key + _MAGIC).digest())
    chosen = b"" if subprotocol is None else b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nServer: longconn\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        b"%bSec-WebSocket-Accept: %b\r\n\r\n" % (chosen, accept)
    )


def frame(payload: bytes, first: int = _TEXT) -> bytes:
    """One whole unmasked frame (section 5.2); a text frame unless `first`, its first byte, says otherwise."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2) + payload
    return bytes((first, 127)) + size.to_bytes(8) + payload


def text_frames(lines: list[str]) -> bytes:
    """Each line as a text frame."""
    return b"".join([frame(line.encode()) for line in lines])


PING = frame(b"", _PING)


def take_texts(data: bytes, limit: int) -> tuple[list[bytes], int]:
    """The payloads of the whole text frames at the start of `data`, and where they end.

    It takes only plain frames: FIN set, no reserved bits, opcode 1, masked, at most `limit` bytes, complete. It stops
    at anything else, which a full parser has to read. It does not check that payloads are UTF-8.
    """
    texts = []
    start, size = 0, len(data)
    while start + 6 <= size and data[start] == _TEXT:
        length = data[start + 1]
        if length < 128:
            break  # not masked: a violation
        length -= 128
        mask = start + 2
        if length > 125:
            if length == 127 or start + 8 > size:
                break
            length = int.from_bytes(data[start + 2 : start + 4])
            if length < 126:
                break  # not in the shortest form
            mask = start + 4
        payload = mask + 4
        end = payload + length
        if end > size or length > limit:
            break
        key = data[mask:payload]
        if length:
            whole = (key * (length // 4 + 1))[:length]
            texts.append((int.from_bytes(data[payload:end]) ^ int.from_bytes(whole)).to_bytes(length))
        else:
            texts.append(b"")
        start = end
    return texts, start
