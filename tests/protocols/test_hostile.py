"""Bad input at the shared port: a clear answer where there is one, no traceback, no effect on other clients."""

import logging
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn.testing import HTTPClient, client_frame
from tests.behaviour.members import EventMember, TCPMember, WebSocketMember
from tests.behaviour.suite import Case as Suite
from tests.long.fuzz import Fuzz

HEAD = b"Host: localhost\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Case(Suite):
    """A test fails if anything is logged as an error."""

    def setUp(self) -> None:
        super().setUp()
        errors: list[str] = []
        handler = logging.Handler(logging.ERROR)
        handler.emit = lambda record: errors.append(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("longconn")
        logger.addHandler(handler)
        self.addCleanup(lambda: self.assertEqual(errors, []))
        self.addCleanup(logger.removeHandler, handler)

    def witnesses(self) -> list[Any]:
        return [self.join("quiet", kind) for kind in (TCPMember, WebSocketMember, EventMember)]

    def undisturbed(self, witnesses: list[Any]) -> None:
        self.clear(*witnesses)
        self.post("still here", "quiet")
        self.assertEqual([each.says() for each in witnesses], [["still here"]] * 3)


class CutTests(Case):
    def test_clients_that_end_their_connection_at_any_byte(self) -> None:
        self.serve(empty_line="ignore", history_size=5)
        inputs = (
            b"hello\n/nick ada\n/join den\n/who\nping",
            b"GET /channels/lobby/events HTTP/1.1\r\n" + HEAD + b"\r\n",
            b"POST /channels/lobby HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\n\r\nhello",
            b"POST /channels/lobby HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"GET /channels/lobby?since=a:1&wait=20 HTTP/1.1\r\n" + HEAD + b"\r\n",
            UPGRADE + client_frame(b"hello") + client_frame(b"x" * 200, final=False) + client_frame(b"y", 0),
            b"\x16\x03\x01\x00\x05hello",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        )
        witnesses = self.witnesses()
        for number, data in enumerate(inputs):
            for size in range(len(data) + 1):
                connection = self.server.connect(self.factories["shared"])
                connection.send(data[:size])
                ends = (connection.close, connection.reset, connection.half_close)
                if (number + size) % 2:
                    self.server.clock.turn()
                ends[size % 3]()
        self.server.advance(1)
        self.undisturbed(witnesses)
        self.server.advance(100)
        self.assertEqual(len(self.server.hub.clients), 3)


class AnswerTests(Case):
    def answer(self, data: bytes) -> Any:
        client = HTTPClient(self.server.connect(self.factories["shared"]))
        response = client.expect()
        client.connection.send(data)
        self.server.settle()
        return response

    def test_heads_that_are_not_utf8(self) -> None:
        witnesses = self.witnesses()
        for name in (
            b"Content-Type",
            b"Transfer-Encoding",
            b"Origin",
            b"Last-Event-ID",
            b"Upgrade",
            b"X",
            b"Connection",
        ):
            head = HEAD + name + b": caf\xe9\r\nContent-Length: 2\r\n\r\nhi"
            for line in (b"POST /channels/lobby", b"GET /channels/lobby/events", b"GET /ws", b"GET /"):
                status = self.answer(line + b" HTTP/1.1\r\n" + head).status
                self.assertIn(status, (200, 308, 400, 403, 415, 426), (name, line))
        self.assertEqual(self.answer(b"GET /\xff HTTP/1.1\r\n" + HEAD + b"\r\n").status, 400)
        self.assertEqual(self.answer(b"GET /PrintHello HTTP/1.1\r\nHost: caf\xe9\r\n\r\n").status, 400)
        self.undisturbed(witnesses)

    def test_a_request_that_is_refused_has_no_effect(self) -> None:
        member = self.join()
        refused = {
            403: b"Host: localhost\r\nOrigin: https://evil.example\r\nContent-Length: 5\r\n\r\nhello",
            400: HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            413: HEAD + b"Content-Length: 20000000\r\n\r\n" + b"x" * 100_000,
            431: HEAD + b"X: " + b"y" * 17_000 + b"\r\nContent-Length: 5\r\n\r\nhello",
            415: HEAD + b"Content-Length: 2\r\n\r\n\xff\xff",
        }
        for status, rest in refused.items():
            self.assertEqual(self.answer(b"POST /channels/lobby HTTP/1.1\r\n" + rest).status, status)
        rebound = b"POST /channels/lobby HTTP/1.1\r\nHost: rebound.example\r\nContent-Length: 5\r\n\r\nhello"
        self.assertEqual(self.answer(rebound).status, 403)
        self.assertEqual(member.hear(), [])

    member = TCPMember


class FuzzTests(SynchronousTestCase):
    def test_a_short_run_of_the_fuzzer(self) -> None:
        """`python -m tests.long fuzz` runs for longer."""
        for seed in range(4):
            fuzz = Fuzz(seed)
            fuzz.run(30)
            self.assertEqual(fuzz.rounds, 30)
