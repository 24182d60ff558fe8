"""Attacks for `disturb` by many connections at once, and by answers that are large or are not read.

Each function attacks a server on a port until a time. It runs in a process of its own, which is killed at the end.
"""

import http.client
import json
import os
import random
import resource
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

#: Connections that are opened at the same time.
UNDER_WAY = 256
KEY = "key-of-the-tests"
HEAD = "HTTP/1.1\r\nHost: localhost\r\n"
UPGRADE = (
    f"GET /ws?channel=other {HEAD}Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
).encode()


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Crowd:
    """Connections of which each sends `first`. `answers` is called with one and with what it received."""

    def __init__(
        self, port: int, answers: Callable[[socket.socket, bytes], object] = lambda *_: None, buffer: int = 0
    ) -> None:
        # One socket a connection, and those of the server are another process's.
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._port = port
        self._answers = answers
        self._buffer = buffer
        self._selector = selectors.DefaultSelector()
        self.connections: set[socket.socket] = set()

    def come(self, count: int, first: bytes, until: float, reads: bool = True) -> None:
        """Open connections until there are `count`. One is under way until it was answered."""
        under_way: set[socket.socket] = set()
        while (len(self.connections) < count or under_way) and time.monotonic() < until:
            while len(self.connections) < count and len(under_way) < UNDER_WAY:
                connection = socket.socket()
                connection.setblocking(False)
                if self._buffer:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
                connection.connect_ex(("127.0.0.1", self._port))
                self._selector.register(connection, selectors.EVENT_WRITE)
                self.connections.add(connection)
                under_way.add(connection)
            for key, events in self._selector.select(0.2):
                found: Any = key.fileobj
                try:
                    if events & selectors.EVENT_WRITE:
                        found.sendall(first)
                        if reads:
                            self._selector.modify(found, selectors.EVENT_READ)
                        else:
                            self._selector.unregister(found)
                            under_way.discard(found)
                    else:
                        self._read(found)
                        under_way.discard(found)
                except OSError:
                    under_way.discard(found)
                    self._drop(found)

    def _read(self, connection: socket.socket) -> None:
        data = connection.recv(1 << 18)
        if not data:
            raise ConnectionError
        self._answers(connection, data)

    def _drop(self, connection: socket.socket) -> None:
        if connection in self._selector.get_map():
            self._selector.unregister(connection)
        connection.close()
        self.connections.discard(connection)

    def send(self, data: bytes) -> None:
        """Each sends this, if it can."""
        for each in tuple(self.connections):
            try:
                each.send(data)
            except BlockingIOError:
                pass
            except OSError:
                self._drop(each)

    def read(self, until: float) -> None:
        """Read what comes."""
        while time.monotonic() < until:
            for key, _ in self._selector.select(0.1):
                found: Any = key.fileobj
                try:
                    self._read(found)
                except BlockingIOError:
                    pass
                except OSError:
                    self._drop(found)

    def leave(self, seconds: float = 0) -> None:
        """Close all, in about this time."""
        for number, each in enumerate(tuple(self.connections)):
            self._drop(each)
            if seconds and number % 100 == 0:
                time.sleep(seconds / 50)


def openings(port: int, until: float) -> None:
    """5,000 WebSockets come as fast as they can, say nothing, and leave within a second. Again and again."""
    crowd = Crowd(port)
    while time.monotonic() < until:
        crowd.come(5_000, UPGRADE, until)
        crowd.read(min(until, time.monotonic() + 1))
        crowd.leave(1)


def joins(port: int, until: float) -> None:
    """5,000 chat clients join the channel of the member, and leave it. Again and again."""
    crowd = Crowd(port)
    crowd.come(5_000, b"/join other\n", until)
    while time.monotonic() < until:
        for line in (b"/join probe\n", b"/join other\n"):
            crowd.send(line)
            crowd.read(min(until, time.monotonic() + 0.5))


def who(port: int, until: float) -> None:
    """5,000 chat clients in a channel ask for its members, each as often as it was answered."""
    asked: dict[socket.socket, bytes] = {}

    def answered(connection: socket.socket, data: bytes) -> None:
        if data.endswith(b"\n") and connection in asked:
            connection.send(b"/who\n")

    crowd = Crowd(port, answered)
    crowd.come(5_000, b"/join other\n", until)
    asked.update(dict.fromkeys(crowd.connections, b""))
    crowd.send(b"/who\n")
    crowd.read(until)


def resets(port: int, until: float) -> None:
    """Connections come and are reset, as fast as they can."""
    while time.monotonic() < until:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.connect(("127.0.0.1", port))
            connection.send(b"GET")


def _publish(port: int, *bodies: tuple[str, Any]) -> None:
    """Publish by the server API, which no rate bounds."""
    api = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for channel, data in bodies:
        body = json.dumps({"channel": channel, "data": data})
        api.request("POST", "/api/publish", body, {"X-API-Key": KEY, "Content-Type": "application/json"})
        answer = api.getresponse()
        if answer.status != 200 or b'"error"' in answer.read():
            raise AssertionError("the API took no publication")
    api.close()


def _fill(port: int) -> None:
    """Give a channel a history of nearly 1 MiB."""
    text = "".join(random.Random(1).choices("abcdefghij", k=60_000))
    _publish(port, *[("large", text)] * 17)


def unread_histories(port: int, until: float) -> None:
    """600 clients get a history of 1 MiB, and read nothing."""
    _fill(port)
    crowd = Crowd(port)
    crowd.come(600, f"GET /channels/large {HEAD}\r\n".encode(), until, reads=False)
    while time.monotonic() < until:
        time.sleep(0.1)


def structured_histories(port: int, until: float) -> None:
    """500 structured clients ask for a history of 1 MiB, and read it."""
    _fill(port)
    ask = b'{"id":2,"history":{"channel":"large","limit":-1}}\n'

    def answered(connection: socket.socket, data: bytes) -> None:
        if data.endswith(b"\n"):
            connection.send(ask)

    crowd = Crowd(port, answered)
    crowd.come(500, b'{"id":1,"connect":{}}\n', until)
    crowd.read(until)


def long_polls(port: int, until: float) -> None:
    """1,000 long polls are woken twenty times a second."""
    _publish(port, ("polled", "news"))
    with connect(port) as connection:
        connection.sendall(f"GET /channels/polled {HEAD}\r\n".encode())
        _, _, body = connection.recv(1 << 16).partition(b"\r\n\r\n")
    epoch = json.loads(body)["epoch"]
    offset = 1

    def ask() -> bytes:
        return f"GET /channels/polled?wait=20&since={epoch}:{offset} {HEAD}\r\n".encode()

    def answered(connection: socket.socket, data: bytes) -> None:
        if b"\r\n\r\n" in data:
            connection.send(ask())

    crowd = Crowd(port, answered)
    crowd.come(1_000, ask(), min(until, time.monotonic() + 2), reads=False)
    for each in tuple(crowd.connections):
        crowd._selector.register(each, selectors.EVENT_READ)
    while time.monotonic() < until:
        _publish(port, ("polled", "news"))
        offset += 1
        crowd.read(min(until, time.monotonic() + 0.05))


def stopped_readers(port: int, until: float) -> None:
    """5,000 members do not read. What waits for them fills the total, and they are thrown out and come back."""
    crowd = Crowd(port, buffer=4096)
    while time.monotonic() < until:
        crowd.come(5_000, b"/join other\n", until, reads=False)
        for _ in range(100):
            _publish(port, ("other", "x" * 10_000))
            time.sleep(0.1)
        crowd.leave()


def bodies_of_lines(port: int, until: float) -> None:
    """30 bodies of x-ndjson with 100,000 lines each."""
    body = b'"a"\n' * 100_000
    head = f"POST /channels/other {HEAD}Content-Type: application/x-ndjson\r\nContent-Length: {len(body)}\r\n\r\n"

    def post() -> None:
        while time.monotonic() < until:
            try:
                with connect(port) as connection:
                    connection.sendall(head.encode() + body)
                    while connection.recv(1 << 16):
                        pass
            except OSError:
                pass

    threads = [threading.Thread(target=post, daemon=True) for _ in range(30)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(max(0.0, until - time.monotonic()))


def _calls(port: int, method: str, request: bytes, until: float) -> None:
    """100 calls on one connection of gRPC, each made again as soon as it was answered."""
    import grpc

    channel = grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_receive_message_length", -1)])
    call = channel.unary_unary(f"/longconn.v1.LongConn/{method}")
    free = threading.Semaphore(100)
    while time.monotonic() < until:
        if free.acquire(timeout=0.1):
            call.future(request, timeout=30).add_done_callback(lambda _: free.release())
    os._exit(0)


def _field(number: int, value: bytes) -> bytes:
    """A field of a message of Protobuf, of fewer than 128 bytes."""
    return bytes((number << 3 | 2, len(value))) + value


def grpc_presence(port: int, until: float) -> None:
    """100 calls at a time for the presence of a channel with 2,000 members."""
    crowd = Crowd(port)
    crowd.come(2_000, b"/join other\n", until)
    threading.Thread(target=crowd.read, args=(until,), daemon=True).start()
    _calls(port, "Presence", _field(1, b"other"), until)


def grpc_history(port: int, until: float) -> None:
    """100 calls at a time for a history of 1 MiB."""
    _fill(port)
    _calls(port, "History", _field(1, b"large"), until)


def grpc_gzip(port: int, until: float) -> None:
    """100 streams whose commands are gzip, of 60,000 bytes each, and wait behind their rate."""
    import grpc

    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    call = channel.stream_stream("/longconn.v1.LongConn/Connect")
    publish = b"\x0a\x05other\x1a" + b"\xe0\xd4\x03" + b"a" * 60_000
    command = b"\x08\x02\x2a" + b"\xeb\xd4\x03" + publish

    def commands() -> Any:
        yield b"\x08\x01\x12\x00"
        while time.monotonic() < until:
            yield command

    def read(answers: Any) -> None:
        try:
            for _ in answers:
                pass
        except grpc.RpcError:
            time.sleep(0.1)

    def stream() -> None:
        while time.monotonic() < until:
            read(call(commands(), compression=grpc.Compression.Gzip))

    threads = [threading.Thread(target=stream, daemon=True) for _ in range(100)]
    for each in threads:
        each.start()
    time.sleep(max(0.0, until - time.monotonic()))
    os._exit(0)


CROWDS: dict[str, Callable[[int, float], None]] = {
    "openings": openings,
    "joins": joins,
    "who": who,
    "resets": resets,
    "unread-histories": unread_histories,
    "structured-histories": structured_histories,
    "long-polls": long_polls,
    "stopped-readers": stopped_readers,
    "bodies-of-lines": bodies_of_lines,
    "grpc-presence": grpc_presence,
    "grpc-history": grpc_history,
    "grpc-gzip": grpc_gzip,
}
