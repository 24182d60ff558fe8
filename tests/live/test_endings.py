"""Beginnings in pieces and endings of every kind, as kernels deliver them."""

import logging
import socket
import struct
from typing import Any

from twisted.internet.defer import gatherResults

from tests.live.common import Case, until

GET = b"GET /PrintHello HTTP/1.1\r\nHost: localhost\r\n\r\n"


class BeginningTests(Case):
    async def test_a_connection_opened_long_before_its_request_is_served(self) -> None:
        self.serve()
        http = await self.http_client()
        await until(lambda: len(self.hub.clients) == 1)  # it was silent: a listener
        self.assertEqual((await self.answer(http, "GET", "/PrintHello")).text, "hello word")
        self.assertEqual((await self.answer(http, "GET", "/PrintHello")).text, "hello word")
        self.assertEqual(len(self.hub.clients), 0)

    async def test_and_closed_if_something_was_written_to_it(self) -> None:
        self.serve()
        link = await self.dial()
        await until(lambda: len(self.hub.clients) == 1)
        speaker = await self.line_client()
        speaker.say("hello")
        await link.until(lambda: b"hello" in link.received)
        with self.assertLogs("longconn", logging.INFO) as logs:
            link.send(GET)
            await link.until(lambda: link.closed)
        self.assertNotIn(b"HTTP", bytes(link.received))
        self.assertIn("a connection that was written to", str(logs.output))

    async def test_a_request_line_in_two_segments(self) -> None:
        self.serve()
        other = await self.line_client()
        for size in (1, 3, 10, len(GET) - 2):
            http = await self.http_client()
            http.connection.transport.setTcpNoDelay(True)
            response = http.expect()
            http.connection.send(GET[:size])
            # By the time that this round trip is over, the server has read what was sent before it.
            for _ in range(2):
                count = len(other.lines)
                other.say("ping")
                await other.connection.until(lambda count=count: len(other.lines) > count)
            http.connection.send(GET[size:])
            await http.connection.until(lambda response=response: response.complete)
            self.assertEqual(response.text, "hello word")

    async def test_through_a_unix_socket(self) -> None:
        path = self.folder() / "socket"
        self.serve(f"unix:{path}")
        first, second = await self.line_client(f"unix:{path}"), await self.line_client(f"unix:{path}")
        second.say("hello")
        await first.connection.until(lambda: first.lines[-1] == "unix:2: hello")
        http = await self.http_client(f"unix:{path}")
        self.assertEqual((await self.answer(http, "GET", "/PrintHello")).text, "hello word")
        self.assertEqual(self.hub.counters.indirect_sends, 0)


class EndingTests(Case):
    async def test_a_half_close_reads_its_own_last_words(self) -> None:
        """As `echo hello | nc -N localhost 9999`."""
        self.serve()
        for data, answer in ((b"hello\n", b": hello\r\n"), (b"/who\n", b" in lobby: ")):
            link = await self.dial()
            link.send(data)
            link.transport.loseWriteConnection()
            await link.until(lambda link=link: link.closed)
            self.assertIn(answer, bytes(link.received))

    async def test_a_mebibyte_without_a_line_end(self) -> None:
        self.serve()
        witness = await self.line_client()
        client = await self.line_client()
        client.connection.send(b"x" * (1024 * 1024) + b"\nstill here\n")
        await client.connection.until(lambda: client.lines[-1].endswith(": still here"))
        self.assertEqual(len([line for line in client.lines if line == "! too large: at most 65536 bytes"]), 1)
        await witness.connection.until(lambda: witness.lines[-1].endswith(": still here"))
        self.assertLess(sum(map(len, witness.lines)), 1_000)

    async def test_resets_in_the_middle_of_things_disturb_nobody(self) -> None:
        self.serve()
        witness = await self.line_client()
        upgrade = (
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        middles = (
            b"", b"hel", b"hello\nwor", b"ping", b"GET / HT", GET[:-2], GET * 3,
            b"POST /channels/lobby HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf",
            b"GET /channels/lobby/events HTTP/1.1\r\nHost: localhost\r\n\r\n", upgrade, upgrade + b"\x81\xfe\x01",
            b"\x16\x03\x01", b"/history 100\n" * 50,
        )  # fmt: skip
        for reset in (True, False):
            for data in middles:
                bare = self.bare_socket()
                bare.sendall(data)
                if reset:
                    bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                bare.close()
        witness.say("still here")
        await witness.connection.until(lambda: any(line.endswith("still here") for line in witness.lines))
        await until(lambda: len(self.hub.clients) == 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_a_reset_while_something_is_written_to_it(self) -> None:
        self.serve(publish_rate=0, publish_bytes=0)
        witness = await self.line_client()
        bares = [self.bare_socket() for _ in range(10)]
        for bare in bares:
            bare.sendall(b"ping\n")
        await until(lambda: len(self.hub.clients) == 11)
        for number, bare in enumerate(bares):
            witness.say(f"number {number}")
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            bare.close()
            await witness.connection.until(
                lambda number=number: any(f"number {number}" in each for each in witness.lines)
            )
        await until(lambda: len(self.hub.clients) == 1)
        witness.say("alone")
        await witness.connection.until(lambda: any("alone" in each for each in witness.lines))

    async def test_a_shutdown_tells_everybody(self) -> None:
        self.serve()
        line, web = await self.line_client(), await self.websocket_client()
        events = await self.stream("/channels/lobby/events")
        connection: Any = events.connection  # type: ignore[attr-defined]
        ended = gatherResults(
            [each.until(lambda each=each: each.closed) for each in (line.connection, web.connection, connection)]
        )
        await self.service.stopService()
        await ended
        self.assertEqual(line.lines[-1], "! disconnected: the server is shutting down; come back soon")
        self.assertEqual(web.close_code, 1001)
        self.assertIn("retry: ", events.text)
        self.assertTrue(events.complete)
