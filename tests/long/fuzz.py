"""Sends random bytes, and valid input cut, spoilt and mixed at random, to the shared port.

No exception may be raised and no error logged, and witness clients of every protocol must read on undisturbed.
"""

import logging
import random
import time
from typing import Any

from twisted.logger import LogLevel, globalLogPublisher

from longconn.core.publication import Data, Info
from longconn.testing import client_frame
from tests.behaviour.members import EventMember, StreamMember, TCPMember, WebSocketMember
from tests.behaviour.suite import Case

_HEAD = b"Host: localhost\r\n"
_UPGRADE = (
    b"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Wrong(AssertionError):
    """A check failed. The same seed repeats it."""


class Fuzz:
    """One server, its witness clients, and the attacking connections."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.case = Case()
        self.case.serve(publish_rate=0, publish_bytes=0, channel_rate=0, empty_line="ignore", history_size=20)
        self.server = self.case.server
        kinds: tuple[Any, ...] = (TCPMember, WebSocketMember, EventMember, StreamMember)
        self.witnesses = [kind(self.server, self.case.factories, "quiet") for kind in kinds]
        self.rounds = 0
        self.errors: list[str] = []

    def run(self, rounds: int) -> None:
        """Attack in `rounds` rounds. Raises Wrong."""
        handler = logging.Handler(logging.ERROR)
        handler.emit = lambda record: self.errors.append(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("longconn")
        logger.addHandler(handler)
        globalLogPublisher.addObserver(self._observe)
        try:
            for _ in range(rounds):
                self._attack()
                self._check()
        finally:
            logger.removeHandler(handler)
            globalLogPublisher.removeObserver(self._observe)
        self.server.stop()

    def _observe(self, event: dict[str, Any]) -> None:
        if event["log_level"] >= LogLevel.error:
            self.errors.append(str(event.get("log_format")))

    def _attack(self) -> None:
        """Open a few connections at once, and send their bytes in random segments."""
        attackers = []
        for _ in range(self.random.randrange(1, 4)):
            factory = self.case.factories[self.random.choice(("shared", "shared", "chat", "websocket"))]
            attackers.append((self.server.connect(factory), self._input()))
        while attackers:
            index = self.random.randrange(len(attackers))
            connection, data = attackers[index]
            if not data:
                ends = (connection.reset, connection.close, connection.half_close)
                self.random.choice(ends)()
                del attackers[index]
                continue
            size = self.random.choice((1, 2, 3, 10, 100, len(data)))
            connection.send(data[:size])
            attackers[index] = connection, data[size:]
            chance = self.random.random()
            if chance < 0.3:
                self.server.clock.turn()
            elif chance < 0.33:
                self.server.advance(self.random.choice((0.1, 0.25, 1, 11, 80)))

    def _check(self) -> None:
        self.rounds += 1
        text = f"round {self.rounds}"
        self.server.settle()
        self.server.hub.publish("quiet", Data.of_text(text), Info("fuzz"), lambda result: None)
        for each in self.witnesses:
            if each.says() != [text]:
                raise Wrong(f"{type(each).__name__} was disturbed in round {self.rounds}")
        if self.errors:
            raise Wrong(f"logged: {self.errors}")

    # Input.

    def _input(self) -> bytes:
        source = self.random
        parts = [source.choice(self._makers)(self) for _ in range(source.randrange(1, 4))]
        data = b"".join(parts)
        for _ in range(source.choice((0, 0, 1, 3))):
            data = self._spoil(data)
        return data

    def _spoil(self, data: bytes) -> bytes:
        source = self.random
        at = source.randrange(len(data) + 1)
        end = min(len(data), at + source.randrange(1, 20))
        return source.choice(
            (
                data[:at] + source.randbytes(end - at) + data[end:],
                data[:at] + data[end:],
                data[:at] + data[at:end] * source.randrange(1, 50) + data[end:],
                data[:at],
                data[:at] + source.choice((b"\r\n", b"\n", b"\r", b"\0", b"\xff", b" ", b":")) + data[at:],
            )
        )

    def _noise(self) -> bytes:
        return self.random.randbytes(self.random.choice((1, 2, 20, 300, 5_000)))

    def _lines(self) -> bytes:
        source = self.random
        lines = (
            b"hello", b"", b"ping", b"pingping", b"/nick ada", b"/nick \xff", b"/join den", b"/join lobby", b"/who",
            b"/channels", b"/history", b"/history 99999999999", b"/help", b"/quit", b"/json {", b'/json "\\ud800"',
            b'/json "a\\nb\\u001b"', b"/json " + b"[" * 2_000, b"//x", b"/", b"\xff\xfe", b"\x1b[2J", b"x" * 70_000,
            "\u202e房间\u2028".encode(), b"GET / HTTP/1.1", b'{"connect": {}}',
        )  # fmt: skip
        end = source.choice((b"\n", b"\r\n"))
        return b"".join(source.choice(lines) + end for _ in range(source.randrange(1, 8)))

    def _request(self) -> bytes:
        source = self.random
        paths = (
            b"/", b"/PrintHello", b"/nowhere", b"/channels/den", b"/channels/den/events", b"/channels/den/stream",
            b"/channels/%ff", b"/channels/a%20b", b"/channels//events", b"/channels/den?since=a:1&wait=1", b"/ws", b"*",
            b"/channels/den?since=x", b"/channels/den?wait=nan", b"/health/ready", b"//", b"/%",
            b"/channels/den?name=a&name=b",
            b"http://localhost/PrintHello", b"/\xff", b"/channels/den/events?since=zzz",
        )  # fmt: skip
        methods = (b"GET", b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"BREW")
        headers = (
            b"", b"Origin: null\r\n", b"Expect: 100-continue\r\n", b"X: " + b"y" * 17_000 + b"\r\n",
            b"Connection: close\r\n",
            b"Content-Type: application/json\r\n", b"Content-Type: application/x-ndjson\r\n", b"Host: evil.example\r\n",
            b"Last-Event-ID: x:1\r\n", b" folded\r\n", b"Transfer-Encoding: gzip\r\n", b"Content-Length: 3\r\n",
        )  # fmt: skip
        body = source.choice((b"", b"text", b'{"a": 1}\n[2]\n', b"\xff", b"{"))
        version = source.choice((b"1.1", b"1.1", b"1.0"))
        head = source.choice(methods) + b" " + source.choice(paths) + b" HTTP/" + version + b"\r\n" + _HEAD
        head += source.choice(headers)
        if source.random() < 0.3:
            return head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def _websocket(self) -> bytes:
        source = self.random
        path = source.choice((b"/ws", b"/echo", b"/websocket", b"/ws?channel=den&name=ada", b"/ws?channel=a%20b"))
        frames = b""
        for _ in range(source.randrange(6)):
            payload = source.choice(
                (b"", b"x", b"hi\nthere", b"\xff", b"ping", b"/who", b"x" * 300, b"y" * 70_000, b"\x03\xe8")
            )
            frames += client_frame(
                payload, source.choice((1, 1, 1, 2, 0, 8, 9, 10, 3)),
                final=source.random() < 0.9, masked=source.random() < 0.95,
            )  # fmt: skip
        return b"GET " + path + b" HTTP/1.1\r\n" + _UPGRADE + frames

    def _others(self) -> bytes:
        return self.random.choice(
            (b"\x16\x03\x01\x02\x00\x01\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16", b"SSH-2.0-x\r\n")
        )

    _makers = (_noise, _lines, _lines, _request, _request, _websocket, _websocket, _others)


def main(seed: int, seconds: float, say: Any) -> None:
    """Repeat runs until the time is over, each with the next seed."""
    logging.getLogger("longconn").setLevel(logging.ERROR)
    end = time.monotonic() + seconds
    runs = rounds = 0
    while time.monotonic() < end:
        fuzz = Fuzz(seed + runs)
        try:
            fuzz.run(100)
        except BaseException:
            say(f"failed with seed {seed + runs}: python -m tests.long fuzz --seed {seed + runs} --seconds 1")
            raise
        runs += 1
        rounds += fuzz.rounds
    say(f"{runs} servers, {rounds} rounds; nothing was raised, logged or disturbed")
