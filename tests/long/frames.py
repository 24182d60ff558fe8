"""Attacks for `disturb` by frames of HTTP/2, by JSON that is hard to read, and by publications without a pause.

Each function attacks a server on a port until a time, as those of `tests.long.crowds` do.
"""

import itertools
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from longconn.wire import http2
from tests.long.crowds import HEAD, UPGRADE, _field, _fill, connect

#: Bytes of one message: the server takes 64 KiB.
LARGE = 60_000
_GRPC = [(b":scheme", b"http"), (b":authority", b"localhost"), (b"te", b"trailers")]


def flood(
    port: int, until: float, begin: Callable[[int], socket.socket], units: Callable[[], Iterator[bytes]], count: int = 1
) -> None:
    """Send, over `count` connections, what `units` yields for each. A connection that the server closes is replaced.

    At its end a connection is held, and read.
    """
    selector = selectors.DefaultSelector()
    both = selectors.EVENT_READ | selectors.EVENT_WRITE

    def add() -> None:
        try:
            connection = begin(port)
        except OSError:
            return
        connection.setblocking(False)
        selector.register(connection, both, [memoryview(b""), units()])

    while time.monotonic() < until:
        while len(selector.get_map()) < count and time.monotonic() < until:
            before = len(selector.get_map())
            add()
            if len(selector.get_map()) == before:
                time.sleep(0.05)
        for key, events in selector.select(0.2):
            connection: Any = key.fileobj
            try:
                if events & selectors.EVENT_READ and not connection.recv(1 << 18):
                    raise ConnectionError
                if events & selectors.EVENT_WRITE:
                    left = key.data[0] or memoryview(next(key.data[1], b""))
                    key.data[0] = left[connection.send(left) :]
                    if not left:
                        selector.modify(connection, selectors.EVENT_READ, key.data)
            except BlockingIOError:
                key.data[0] = left
            except OSError:
                selector.unregister(connection)
                connection.close()


# HTTP/2.


def _http2(port: int) -> socket.socket:
    connection = connect(port)
    connection.sendall(http2.PREFACE + http2.settings({}))
    return connection


def _no_window(port: int) -> socket.socket:
    connection = connect(port)
    connection.sendall(http2.PREFACE + http2.settings({4: 0}))
    return connection


def _headers(path: bytes) -> bytes:
    fields = [(b":method", b"POST"), (b":path", path), *_GRPC, (b"content-type", b"application/grpc")]
    return http2.encode_headers(fields)


def _streams() -> Iterator[int]:
    return iter(range(1, http2.MAX_STREAM_ID, 2))


def _some(units: Iterator[bytes]) -> Iterator[bytes]:
    """A hundred units at a time."""
    while part := b"".join(itertools.islice(units, 100)):
        yield part


def _resets() -> Iterator[bytes]:
    block = _headers(b"/longconn.v1.LongConn/Connect")
    cancel = int(http2.ErrorCode.CANCEL).to_bytes(4, "big")
    return _some(
        http2.frame(http2.HEADERS, http2.END_HEADERS, each, block) + http2.frame(http2.RST_STREAM, 0, each, cancel)
        for each in _streams()
    )


def _continuations() -> Iterator[bytes]:
    yield http2.frame(http2.HEADERS, 0, 1, _headers(b"/"))
    yield from itertools.repeat(http2.frame(http2.CONTINUATION, 0, 1, b"") * 1_000)


def _asks() -> Iterator[bytes]:
    """A hundred streams ask for a history of 1 MiB, with no window, and then give a byte of it at a time."""
    block = _headers(b"/longconn.v1.LongConn/History")
    message = _field(1, b"large")
    body = b"\0" + len(message).to_bytes(4, "big") + message
    streams = list(itertools.islice(_streams(), 100))
    for each in streams:
        head = http2.frame(http2.HEADERS, http2.END_HEADERS, each, block)
        yield head + http2.frame(http2.DATA, http2.END_STREAM, each, body)
    while True:
        yield b"".join(http2.window_update(each, 1) for each in streams)


def windows(port: int, until: float) -> None:
    """50 connections have 100 calls each for a history of 1 MiB, and a window of a byte."""
    _fill(port)
    flood(port, until, _no_window, _asks, 50)


def _repeated(unit: bytes) -> Callable[[], Iterator[bytes]]:
    return partial(itertools.repeat, unit)


# JSON.


def bombs() -> tuple[bytes, ...]:
    """Values of JSON that take a parser long, or deep."""
    keys = ",".join(f'"{each}":0' for each in range(LARGE // 9))
    return (
        b"[" * LARGE,
        b"[" * (LARGE // 2) + b"]" * (LARGE // 2),
        b'{"a":' * (LARGE // 6) + b"0" + b"}" * (LARGE // 6),
        b"[" + b"0," * (LARGE // 2) + b"0]",
        b"[" + b"{}," * (LARGE // 3) + b"0]",
        b"{" + b'"a":0,' * (LARGE // 6) + b'"a":0}',
        b"{" + keys.encode() + b"}",
        b"1" * LARGE,
        b"1e" + b"9" * LARGE,
        b'"' + rb"\u0000" * (LARGE // 6) + b'"',
        b'"' + b"\xf0\x9f\x98\x80" * (LARGE // 4) + b'"',
    )


def _posts() -> Iterator[bytes]:
    head = f"POST /channels/other {HEAD}Content-Type: application/json\r\nContent-Length: "
    return itertools.cycle([f"{head}{len(each)}\r\n\r\n".encode() + each for each in bombs()])


def _text(payload: bytes) -> bytes:
    """A masked frame of text (RFC 6455, section 5.2)."""
    return b"\x81" + struct.pack(">BH4x", 0x80 | 126, len(payload)) + payload


def _structured(port: int) -> socket.socket:
    connection = connect(port)
    connection.sendall(UPGRADE.replace(b"/ws?channel=other", b"/connection/websocket"))
    connection.recv(1 << 16)
    connection.sendall(_text(b'{"id":1,"connect":{}}' + b" " * 200))
    return connection


def _commands() -> Iterator[bytes]:
    return itertools.cycle([_text(b'{"id":2,"publish":{"channel":"other","data":' + each + b"}}") for each in bombs()])


# Publications.


def _line_client(first: bytes, port: int) -> socket.socket:
    connection = connect(port)
    connection.sendall(first)
    return connection


_PUBLISH = b'{"id":2,"publish":{"channel":"other","data":"news"}}\n' * 1_000

FRAMES: dict[str, Callable[[int, float], None]] = {
    "http2-rapid-resets": partial(flood, begin=_http2, units=_resets, count=10),
    "http2-settings": partial(flood, begin=_http2, units=_repeated(http2.settings({4: 65_535}) * 1_000), count=10),
    "http2-pings": partial(flood, begin=_http2, units=_repeated(http2.ping(b"12345678") * 1_000), count=10),
    "http2-continuations": partial(flood, begin=_http2, units=_continuations, count=10),
    "http2-windows": windows,
    "json-posts": partial(flood, begin=connect, units=_posts, count=20),
    "json-commands": partial(flood, begin=_structured, units=_commands, count=20),
    "publishers": partial(
        flood, begin=partial(_line_client, b'{"id":1,"connect":{}}\n'), units=_repeated(_PUBLISH), count=50
    ),
    "speakers": partial(
        flood, begin=partial(_line_client, b"/join other\n"), units=_repeated(b"news\n" * 1_000), count=50
    ),
}
