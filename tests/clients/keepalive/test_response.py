"""Bodies: however a caller leaves one, the next request gets its own answer."""

import gc
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost

from longconn.clients.errors import (
    Closed,
    ConnectionFailed,
)
from longconn.clients.keepalive import BodyTooLarge, Response
from longconn.clients.keepalive.response import DRAIN_BYTES, HIGH_WATER
from tests.clients.keepalive.kit import Case, Wire, answer, head


class BodyTests(Case):
    """However a caller leaves a body, the next request gets its own answer."""

    #: the start of a body that is longer than the client keeps unread
    LARGE = head(HIGH_WATER * 100) + b"a" * (HIGH_WATER + 1)

    def test_a_reader_gets_pieces_of_limited_size(self) -> None:
        wire, response = self.first(self.LARGE)
        total = 0
        for _ in range(98):
            piece = self.read(response)
            total += len(self.successResultOf(piece))
            ahead = self.read(response)
            wire.says(b"a" * HIGH_WATER)
            total += len(self.successResultOf(ahead))
            if total < HIGH_WATER * 99:
                wire.says(b"a" * (HIGH_WATER // 2))
                self.assertFalse(wire.paused)
                wire.says(b"a" * (HIGH_WATER // 2 + 1))
                self.assertTrue(wire.paused)
            else:
                break
        self.assertGreaterEqual(total, HIGH_WATER * 99)

    def test_short_and_never_read(self) -> None:
        wire, response = self.first(answer(b"a" * HIGH_WATER))
        self.assert_goes_over(wire)
        self.assertEqual(len(self.successResultOf(response.collect())), HIGH_WATER)

    def test_large_and_never_read(self) -> None:
        wire, response = self.first(self.LARGE)
        waiting = self.ask()
        self.assertEqual(self.attempts, 0)
        del response
        gc.collect()
        self.assertFalse(wire.connected)
        self.reactor.advance(0)
        self.accept().says(answer())
        self.successResultOf(waiting)

    def left(self, data: bytes, leave: Callable[[Response], Coroutine[Any, Any, None]]) -> Wire:
        asked = self.ask()
        wire = self.accept()
        wire.says(data)

        async def caller() -> None:
            await leave(await asked)

        Deferred.fromCoroutine(caller()).addErrback(lambda failure: failure.trap(ZeroDivisionError))
        gc.collect()
        return wire

    async def stops(self, response: Response) -> None:
        async for _ in response:
            break

    async def raises(self, response: Response) -> None:
        async with response:
            async for _ in response:
                raise ZeroDivisionError

    async def collects_too_much(self, response: Response) -> None:
        try:
            await response.collect(limit=10)
        except BodyTooLarge as error:
            self.assertEqual(str(error), "a body of more than 10 bytes")
        else:
            self.fail("it was collected")

    def test_too_large_is_left_at_once(self) -> None:
        wire, response = self.first(head(HIGH_WATER * 100) + b"a" * 11)
        self.failureResultOf(response.collect(limit=10), BodyTooLarge)
        self.assertFalse(wire.connected)
        self.failureResultOf(self.read(response), Closed)

    def test_left_with_little_to_come(self) -> None:
        for leave in (self.stops, self.raises, self.collects_too_much):
            self.make()
            wire = self.left(head(HIGH_WATER + 1000) + b"a" * (HIGH_WATER + 1), leave)
            self.assertTrue(wire.connected)
            self.assertFalse(wire.paused)
            wire.says(b"a" * 999)
            self.assert_goes_over(wire)

    def test_left_with_much_to_come(self) -> None:
        for leave in (self.stops, self.raises, self.collects_too_much):
            self.make()
            self.assert_goes_elsewhere(self.left(self.LARGE, leave))

    def test_left_with_an_unknown_rest_to_come(self) -> None:
        for leave in (self.stops, self.raises, self.collects_too_much):
            chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            self.make()
            wire = self.left(chunked + b"b\r\nhello world\r\n", leave)
            wire.says(b"5\r\nhello\r\n0\r\n\r\n")
            self.assert_goes_over(wire)
            self.make()
            wire = self.left(chunked + b"b\r\nhello world\r\n", leave)
            wire.says(b"%x\r\n" % (DRAIN_BYTES + 1) + b"a" * DRAIN_BYTES)
            self.assertTrue(wire.connected)
            wire.says(b"a")
            self.assert_goes_elsewhere(wire)

    def test_an_unwanted_rest_has_to_come_soon(self) -> None:
        wire, response = self.first(head(100))
        response.close()
        self.reactor.advance(1)
        wire.says(b"a")
        self.assertTrue(wire.connected)
        self.reactor.advance(1)
        self.assert_goes_elsewhere(wire)

    def test_after_closing_there_is_nothing_to_read(self) -> None:
        wire, response = self.first(head(100))
        waiting = self.read(response)
        response.close()
        response.close()
        self.failureResultOf(waiting, Closed)
        self.failureResultOf(self.read(response), Closed)
        wire.says(b"a" * 100)
        self.assert_goes_over(wire)

    def test_lost_in_the_middle(self) -> None:
        wire, response = self.first(head(100) + b"half")
        wire.lose(ConnectionLost())
        self.assertEqual(self.successResultOf(self.read(response)), b"half")
        error = self.failureResultOf(self.read(response), ConnectionFailed).value
        self.assertEqual(str(error), "the connection was lost in the middle of a response")
        self.assert_goes_elsewhere(wire)
