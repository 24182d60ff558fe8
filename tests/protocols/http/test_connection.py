"""Connections: limits on heads and bodies, time-outs, and answers to malformed requests."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from longconn.protocols.http.connection import ASK_AFTER, LAST_ANSWER, LINGER, LINGER_BYTES, READ_AHEAD
from longconn.protocols.http.history import LONGEST_WAIT
from longconn.protocols.http.request import MAX_HEADERS
from longconn.service.embedding import LiveSite
from longconn.testing import HTTPClient, HTTPResponse, MemoryServer
from tests.protocols.http.kit import Answer, HTTPTestCase


class HeadTests(HTTPTestCase):
    def test_keep_alive_counts_requests(self) -> None:
        connection = self.connect()
        for number in (1, 2, 3):
            answer = connection.request("GET /PrintHello")
            self.assertEqual((answer.status, answer.body), (200, b"hello word"))
            self.assertEqual(answer.headers["x-connection"], f"192.0.2.1:50000; request={number}")
            self.assertTrue(answer.headers["content-type"].startswith("text/plain"))
        self.assertFalse(connection.closing)

    def test_names_of_peers(self) -> None:
        for peer, name in ((IPv6Address("TCP", "::1", 5), "[::1]:5"), (UNIXAddress(None), "unix:1")):
            connection = self.connect(peer=peer)
            for number in (1, 2):
                answer = connection.request("GET /PrintHello")
                self.assertEqual(answer.headers["x-connection"], f"{name}; request={number}")

    def test_http_1_0_closes(self) -> None:
        connection = self.connect()
        connection.send(b"GET /PrintHello HTTP/1.0\r\n\r\n")
        answer = connection.answer()
        self.assertEqual((answer.version, answer.status), ("HTTP/1.0", 200))
        self.assertTrue(connection.closing)
        self.clock.advance(LINGER + 2)
        self.assertTrue(connection.transport.disconnected, "a peer that does not read may not stay")

    def test_byte_by_byte(self) -> None:
        connection = self.connect()
        for byte in b"\r\nPOST /channels/lobby HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi":
            connection.send(bytes([byte]))
        self.assertEqual(connection.answer().status, 200)

    def test_pipelining(self) -> None:
        connection = self.connect()
        get = b"GET /PrintHello HTTP/1.1\r\nHost: a\r\n\r\n"
        post = b"POST /channels/lobby HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        connection.send(get + post + get + b"GET /nothing HTTP/1.1\r\nHo")
        answers = []
        rest = connection.take()
        while rest:
            answers.append(Answer(rest))
            rest = answers[-1].rest
        self.assertEqual([each.status for each in answers], [200, 200, 200])
        connection.send(b"st: a\r\n\r\n")
        self.assertEqual(connection.answer().status, 404)

    def test_pipelined_chunked(self) -> None:
        connection = self.connect()
        connection.send(
            b"POST /channels/lobby HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nhi\r\n0\r\n\r\nGET /PrintHello HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        first = connection.answer()
        self.assertEqual(first.status, 200)
        self.assertEqual(Answer(first.rest).body, b"hello word")

    def test_absolute_form(self) -> None:
        other = "//other.internal"
        for target, body in ((f"http:{other}/PrintHello?x", b"hello word"), (f"HTTP:{other}?x", b"<!doc")):
            answer = self.request(f"GET {target}", "Origin: http://other.internal")
            self.assertEqual((answer.status, answer.body[: len(body)]), (200, body))

    def refused(self, data: bytes, status: int) -> Answer:
        connection = self.connect()
        connection.send(data)
        answer = connection.answer()
        self.assertEqual(answer.status, status, data[:80])
        self.assertEqual(answer.headers.get("connection"), "close", data[:80])
        self.assertEqual(answer.headers["cache-control"], "no-store")
        self.assertEqual(answer.json["error"]["code"], status)
        self.assertEqual(answer.rest, b"")
        self.assertTrue(connection.closing)
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 10)
        self.assertEqual(connection.take(), b"")
        return answer

    def test_bad_requests(self) -> None:
        post = b"POST /channels/lobby HTTP/1.1\r\nHost: a\r\n"
        for head in (
            post + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            post + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
            post + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
            post + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
            post + b"Content-Length: -2\r\n\r\nhi",
            post + b"Content-Length: +2\r\n\r\nhi",
            post + b"Content-Length: 2, 2\r\n\r\nhi",
            post + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
            post + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nhi",
            post + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            post.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            post + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
            post + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc",
            post + b"X: a\r\n folded\r\n\r\n",
            post + b"X: a\r\n\tfolded\r\n\r\n",
            post + b" X: folded\r\n\r\n",
            post + b"X : a\r\n\r\n",
            post + b"no colon\r\n\r\n",
            post + b"X: a\0b\r\n\r\n",
            post + b"X: a\rb\r\n\r\n",
            post + b"X: a\nb\r\n\r\n",
            post + b": a\r\n\r\n",
            b"GET / HTTP/1.1\nHost: a\n\n",
            b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 5\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/2.0\r\n\r\n",
            b"GET / HTTP/1.7\r\nHost: a\r\n\r\n",
            b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"G\x80T / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\0\0\0\0\r\n\r\n",
        ):
            self.refused(head, 400)

    def test_a_first_line_that_is_no_request_line_is_refused_before_the_head_is_whole(self) -> None:
        for line in (
            b"GET /",
            b"GET  / HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b"GET / HTTP/1.10",
            b"get / http/1.1",
            b"\xef\xbb\xbfGET / HTTP/1.1",
        ):
            self.refused(line + b"\r\n", 400)

    def test_the_number_of_header_lines(self) -> None:
        head = b"GET /health/live HTTP/1.1\r\nHost: a\r\n"
        connection = self.connect()
        connection.send(head + b"X: 1\r\n" * (MAX_HEADERS - 1) + b"\r\n")
        self.assertEqual(connection.answer().status, 200)
        answer = self.refused(head + b"X: 1\r\n" * MAX_HEADERS + b"\r\n", 431)
        self.assertIn(str(MAX_HEADERS), answer.json["error"]["message"])

    def test_connection_close_wherever_it_stands(self) -> None:
        get = b"GET /PrintHello HTTP/1.1\r\nHost: a\r\n"
        for close in (
            b"Connection: close",
            b"Connection: TE, Close",
            b"Connection: close,TE",
            b"Connection: keep-alive\r\nConnection: close",
        ):
            connection = self.connect()
            connection.send(get + close + b"\r\n\r\n")
            answer = connection.answer()
            self.assertEqual((answer.status, answer.headers.get("connection")), (200, "close"), close)
            self.assertTrue(connection.closing, close)
        connection = self.connect()
        connection.send(get + b"Connection: closed, keep-alive\r\n\r\n")
        self.assertNotIn("connection", connection.answer().headers)
        self.assertFalse(connection.closing)

    def test_chunk_extensions(self) -> None:
        post = b"POST /channels/lobby HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        for extension in (
            b";a", b";a=b", b' ;a="b"', b';a="b\\"c\\\\"', b"\t; a = b\t;c", b';a="x;y=\\" z"', b';a="";b="\xff"',
        ):  # fmt: skip
            data = post + b"5" + extension + b"\r\nhello\r\n0" + extension + b"\r\n\r\n"
            for size in (1, 1000):
                connection = self.connect()
                for start in range(0, len(data), size):
                    connection.send(data[start : start + size])
                self.assertEqual(connection.answer().status, 200, extension)
        for extension in (b'a="b', b"\\", b';a="\\', b" x", b';a="\0"', b";a=" + b"b" * 2000):
            connection = self.connect()
            connection.send(post + b"5" + extension + b"\r\nhello\r\n0\r\n\r\n")
            self.assertEqual(connection.answer().status, 400, extension)

    def test_host_is_required(self) -> None:
        for head in (b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"):
            connection = self.connect()
            connection.send(head)
            self.assertEqual(connection.answer().status, 400)

    def test_too_many_digits(self) -> None:
        self.refused(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413)

    def test_long_header_line(self) -> None:
        answer = self.refused(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 17 * 1024 + b"\r\n\r\n", 431)
        self.assertIn("16384", answer.error)
        self.refused(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: aaaaaaaaaaaa\r\n" * 1100, 431)
        self.refused(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 17 * 1024, 431)

    def test_largest_head(self) -> None:
        head = b"GET /PrintHello HTTP/1.1\r\nHost: a\r\nX: "
        room = 16 * 1024 - len(head) - 4
        connection = self.connect()
        connection.send(head + b"a" * room + b"\r\n\r\n")
        self.assertEqual(connection.answer().status, 200)
        self.refused(head + b"a" * (room + 1) + b"\r\n\r\n", 431)

    def test_long_request_line(self) -> None:
        self.refused(b"GET /" + b"a" * 17 * 1024 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414)
        self.refused(b"GET /" + b"a" * 17 * 1024, 414)

    def test_only_carriage_returns(self) -> None:
        self.refused(b"\r" * 17 * 1024, 414)

    def test_answer_to_head_has_no_body(self) -> None:
        connection = self.connect()
        connection.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
        answer = connection.answer(head_only=True)
        self.assertEqual((answer.status, answer.rest), (413, b""))


class TimeTests(HTTPTestCase):
    def test_slow_head(self) -> None:
        connection = self.connect()
        for byte in b"GET / HTTP/1":
            connection.send(bytes([byte]))
            self.clock.advance(1)
        self.assertEqual(connection.answer().status, 408)
        self.assertTrue(connection.closing)

    def test_slow_head_after_a_request(self) -> None:
        connection = self.connect()
        connection.request("GET /PrintHello")
        self.clock.pump([1] * 60)
        connection.send(b"GET / HT")
        self.clock.pump([1] * 9)
        self.assertEqual(connection.take(), b"")
        self.clock.pump([1] * 2)
        self.assertEqual(connection.answer().status, 408)

    def test_idle(self) -> None:
        connection = self.connect()
        for _ in range(3):
            self.clock.pump([1] * 74)
            self.assertFalse(connection.closing)
            connection.request("GET /PrintHello")
        self.clock.pump([1] * 77)
        self.assertTrue(connection.closing)
        self.assertEqual(connection.take(), b"")

    def test_body_stops(self) -> None:
        connection = self.connect()
        connection.send(b"POST /channels/lobby HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        self.clock.pump([1] * 29)
        self.assertEqual(connection.take(), b"")
        self.clock.pump([1] * 8)
        self.assertEqual(connection.answer().status, 408)

    def test_body_trickles(self) -> None:
        connection = self.connect()
        connection.send(b"POST /channels/lobby HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n")
        for _ in range(59):
            connection.send(b"x")
            self.clock.advance(1)
        self.assertEqual(connection.take(), b"")
        for _ in range(8):
            connection.send(b"x")
            self.clock.advance(1)
        self.assertEqual(connection.answer().status, 408)

    def test_without_limits(self) -> None:
        self.start(head_timeout=0, http_idle_timeout=0)
        connection = self.connect()
        self.clock.pump([10] * 30)
        connection.send(b"GET /PrintHello HTTP/1.1\r\n")
        self.clock.pump([10] * 30)
        connection.send(b"Host: a\r\n\r\n")
        self.assertEqual(connection.answer().status, 200)

    def test_close_idle(self) -> None:
        idle, heading, polling = self.connect(), self.connect(), self.connect()
        idle.request("GET /PrintHello")
        heading.send(b"GET /PrintHello HTTP/1.1\r\n")
        polling.ask(f"GET /channels/lobby?since={self.position()}&wait=25")
        self.site.close_idle()
        self.assertTrue(idle.closing)
        self.assertFalse(heading.closing)
        self.assertEqual(polling.answer().json["publications"], [])
        heading.send(b"Host: a\r\n\r\n")
        self.assertEqual(heading.answer().status, 200)
        self.site.close_idle()
        self.assertTrue(heading.closing)
        self.assertTrue(polling.closing)


class BodyTests(HTTPTestCase):
    def test_too_large_is_refused_unread(self) -> None:
        connection = self.connect()
        head = b"POST /channels/lobby HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        connection.send(head % 20_000_000)
        answer = connection.answer()
        self.assertEqual(answer.status, 413)
        self.assertIn(str(1024 * 1024), answer.error)
        # The client sends it all the same, and may: a reset would take the answer from it.
        for _ in range(20_000_000 // 64_000):
            connection.send(b"x" * 64_000)
        self.assertFalse(connection.transport.disconnected)
        self.assertEqual(self.site.state.bodies, 0)
        self.clock.advance(LINGER + 1)
        self.assertTrue(connection.transport.disconnected)

    def test_only_so_much_of_a_refused_body_is_read(self) -> None:
        connection = self.connect()
        connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n")
        lost: list[int] = []
        self.patch(connection.transport, "loseConnection", lambda: lost.append(1))
        connection.send(b"x" * LINGER_BYTES)
        self.assertEqual(lost, [])
        connection.send(b"x")
        self.assertEqual(lost, [1])

    def test_continue(self) -> None:
        connection = self.connect()
        connection.send(
            b"POST /channels/lobby HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        self.assertEqual(connection.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.send(b"hi")
        self.assertEqual(connection.answer().status, 200)

    def test_chunked_too_large(self) -> None:
        self.start(max_body=1000)
        connection = self.connect()
        connection.send(b"POST /channels/lobby HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(10):
            connection.send(b"64\r\n" + b"x" * 100 + b"\r\n")
        self.assertEqual((connection.take(), self.site.state.bodies), (b"", 1000))
        connection.send(b"1\r\nx\r\n")
        self.assertEqual(connection.answer().status, 413)
        self.assertEqual(self.site.state.bodies, 0)
        self.assertEqual(self.hub.channels, {})

    def test_a_chunk_that_is_too_large_is_refused_by_its_size(self) -> None:
        self.start(max_body=1000)
        for before, size in ((b"", b"3e9"), (b"", b"1" + b"0" * 20), (b"", b"f" * 1000), (b"1\r\nx\r\n", b"3e8;a=b")):
            connection = self.connect()
            connection.send(b"POST /channels/lobby HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + before)
            connection.send(size + b"\r\n")
            self.assertEqual(connection.answer().status, 413, size)
        self.assertEqual((self.site.state.bodies, self.hub.channels), (0, {}))

    def test_bulk_may_be_larger(self) -> None:
        self.start(max_body=100, max_bulk_body=200)
        body = b'"x"\n' * 30
        self.assertEqual(self.request("POST /channels/a", body=body).status, 413)
        answer = self.request("POST /channels/a", "Content-Type: Application/X-NDJSON; charset=utf-8", body=body)
        self.assertEqual(answer.status, 200)
        answer = self.request("POST /channels/a", "Content-Type: application/x-ndjson", body=body * 2)
        self.assertEqual(answer.status, 413)

    def test_all_bodies(self) -> None:
        self.start(max_body_total=1000)
        head = b"POST /channels/lobby HTTP/1.1\r\nHost: a\r\nContent-Length: 600\r\n\r\n"
        one, two, three = self.connect(), self.connect(), self.connect()
        one.send(head + b"x" * 500)
        two.send(head)
        answer = two.answer()
        self.assertEqual(answer.status, 503)
        self.assertIn("retry-after", answer.headers)
        three.send(b"POST /channels/lobby HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        three.send(b"1F4\r\n" + b"x" * 500 + b"\r\n1\r\nx\r\n")
        self.assertEqual(three.answer().status, 503)
        self.assertEqual(self.site.state.bodies, 500)
        one.send(b"x" * 100)
        self.assertEqual(one.answer().status, 200)
        self.assertEqual(self.site.state.bodies, 0)

    def half_sent(self, peer: str, size: int, path: str = "/channels/lobby", *headers: str) -> Any:
        """A request of which `size` bytes have come and one has not."""
        connection = self.connect(peer=IPv4Address("TCP", peer, 50000))
        lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {size + 1}", *headers]
        connection.send("\r\n".join(lines).encode() + b"\r\n\r\n" + b"x" * size)
        return connection

    def test_one_address_has_a_quarter_of_all_bodies(self) -> None:
        self.start(max_body_total=4000)
        opened = [self.half_sent("192.0.2.1", 300) for _ in range(10)]
        self.assertEqual([bytes(each.take()[:12]) for each in opened], [b""] * 3 + [b"HTTP/1.1 503"] * 7)
        other = self.half_sent("192.0.2.2", 1500)
        other.send(b"x")
        self.assertEqual(other.answer().status, 200, "one body may be larger than a share")
        opened[0].send(b"x")
        self.assertEqual(opened[0].answer().status, 200)
        opened[1].lose()
        opened[2].lose()
        self.assertEqual(self.site.state.bodies_of, {})

    def test_peers_without_an_address_have_no_share(self) -> None:
        self.start(max_body_total=4000)
        opened = []
        for _ in range(10):
            connection = self.connect(peer=UNIXAddress(None))
            connection.send(b"POST /channels/a HTTP/1.1\r\nHost: a\r\nContent-Length: 301\r\n\r\n" + b"x" * 300)
            opened.append(connection.take())
        self.assertEqual(opened, [b""] * 10)

    def test_the_server_api_has_a_part_of_its_own(self) -> None:
        self.start(max_body_total=8000, api_key="k")
        for number in range(7):
            self.assertEqual(self.half_sent(f"192.0.2.{number}", 999).take(), b"")
        for path, headers, status in (
            ("/channels/lobby", ["X-API-Key: k"], b"503"),
            ("/api/info", [], b"503"),
            ("/api/info", ["X-API-Key: x"], b"503"),
            ("/api/info", ["X-API-Key: k"], b""),
            ("/api/info", ["Authorization: apikey k"], b""),
        ):
            connection = self.half_sent("192.0.2.1", 400, path, *headers)
            self.assertEqual(connection.take()[9:12], status, (path, headers))

    def test_lost_in_the_middle(self) -> None:
        for data in (b"GET / HT", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"):
            connection = self.connect()
            connection.send(data)
            connection.lose()
        self.assertEqual(self.site.state.bodies, 0)

    def test_reads_ahead_a_little(self) -> None:
        connection = self.connect()
        connection.ask(f"GET /channels/lobby?since={self.position()}&wait=25")
        connection.send(b"GET /PrintHello HTTP/1.1\r\nHost: a\r\nX: " + b"x" * READ_AHEAD)
        self.assertEqual(connection.transport.producerState, "paused")
        self.publish("now")
        self.assertEqual(len(connection.answer().json["publications"]), 1)
        self.assertEqual(connection.transport.producerState, "producing")

    def test_a_client_that_does_not_read_gets_no_further_answer(self) -> None:
        since = self.position()
        self.publish("x" * 60_000)
        connection = self.connect()
        connection.transport.full = True
        line = f"GET /channels/lobby?since={since} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        connection.send(line * 100)
        connection.send(line * 300)
        self.assertEqual(connection.transport.producerState, "paused")
        answered = 0
        data = b""
        while answered < 400:
            taken = connection.take()
            self.assertLess(len(taken), 100_000)
            data += taken
            while data and len((answer := Answer(data)).body) == int(answer.headers["content-length"]):
                self.assertEqual(answer.status, 200)
                data = answer.rest
                answered += 1
            connection.transport.drain(full=True)
            self.clock.turn()  # requests beyond the connection's share of a turn wait for the next one
        self.assertEqual(connection.transport.producerState, "producing")


class HalfCloseTests(SynchronousTestCase):
    """A client that sends no more (`nc -N`) gets the answers to all its complete requests."""

    def setUp(self) -> None:
        self.server = MemoryServer()
        self.addCleanup(self.server.stop)
        self.site = LiveSite(self.server.hub)

    def ask(self, *targets: str, rest: bytes = b"") -> tuple[HTTPClient, list[HTTPResponse]]:
        client = self.server.http_client(self.site)
        answers = [client.expect() for _ in targets]
        heads = [f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for target in targets]
        client.connection.send(b"".join(heads) + rest)
        client.connection.half_close()
        self.server.settle()
        return client, answers

    def test_every_whole_request_is_answered(self) -> None:
        for rest in (b"", b"GET /Pri", b"POST /channels/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhi"):
            client, answers = self.ask("/PrintHello", "/nothing", "/health/live", rest=rest)
            self.assertEqual([each.status for each in answers], [200, 404, 200])
            self.assertTrue(client.closed and not client.connection.aborted)

    def test_slow_answers_are_still_sent_within_a_time_limit(self) -> None:
        top = self.server.http_client(self.site).get("/channels/lobby").json()
        poll = f"/channels/lobby?since={top['epoch']}:{top['offset']}&wait="
        client, answers = self.ask(poll + "5", "/PrintHello")
        self.assertFalse(client.closed)
        self.server.advance(7)
        self.assertEqual([each.status for each in answers], [200, 200])
        self.assertTrue(client.closed and not client.connection.aborted)
        client, answers = self.ask(poll + "60", "/PrintHello")
        self.server.advance(LONGEST_WAIT + 1)
        self.assertEqual([each.status for each in answers], [200, 200])

        class Never(Resource):
            isLeaf = True

            def render(self, request: Any) -> int:
                return NOT_DONE_YET

        self.site = LiveSite(self.server.hub, Never())
        client, _ = self.ask("/", "/")
        self.server.advance(LAST_ANSWER + 2)
        self.assertTrue(client.connection.aborted)

    def test_a_client_that_publishes_many_lines_is_asked_whether_it_is_there(self) -> None:
        head = "POST /channels/lobby HTTP/%s\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        for version, asked in (("1.1", b"HTTP/1.1 100 Continue\r\n\r\n" * 2), ("1.0", b"")):
            connection = self.server.connect(self.site)
            connection.send((head % version).encode() + b"Content-Length: 10000\r\n\r\n" + b"1\n" * 5000)
            self.server.settle()
            connection.half_close()
            self.server.advance(0.5)
            self.assertEqual(connection.received, b"")
            self.server.advance(10)
            self.assertEqual(connection.received, asked)
            connection.reset()

    def test_lines_of_a_client_that_has_closed_the_connection_are_not_published(self) -> None:
        connection = self.server.connect(self.site)
        head = "POST /channels/lobby HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        connection.send(head.encode() + b"Content-Length: 10000\r\n\r\n" + b"1\n" * 5000)
        self.server.settle()
        connection.close()
        self.server.advance(ASK_AFTER + 2)
        before = self.server.hub.counters.publications
        self.assertGreater(before, 0)
        self.server.advance(10)
        self.assertEqual(self.server.hub.counters.publications, before)

    def test_a_stream_ends_with_its_clients_input(self) -> None:
        for path in ("events", "stream"):
            client, answers = self.ask("/PrintHello", f"/channels/lobby/{path}")
            self.assertEqual(answers[0].status, 200)
            self.assertTrue(client.closed)
        self.assertEqual(self.server.hub.clients, {})

    def test_a_refused_request_is_answered_and_then_closed(self) -> None:
        client, answers = self.ask("/\0")
        self.assertEqual(answers[0].status, 400)
        self.assertTrue(client.closed and not client.connection.aborted)
        self.assertTrue(client.connection.transport.disconnected)

    def test_a_client_that_sent_nothing_is_closed(self) -> None:
        client, _ = self.ask()
        self.assertTrue(client.closed)

    def test_requests_after_a_slow_one_are_answered(self) -> None:
        top = self.server.http_client(self.site).get("/channels/lobby").json()
        poll = f"/channels/lobby?since={top['epoch']}:{top['offset']}&wait=5"
        client, answers = self.ask(poll, "/PrintHello", "/nothing", "/PrintHello")
        self.server.advance(7)
        self.assertEqual([each.status for each in answers], [200, 200, 404, 200])
        self.assertTrue(client.closed and not client.connection.aborted)

    def test_a_stream_that_begins_after_the_end_of_input(self) -> None:
        top = self.server.http_client(self.site).get("/channels/lobby").json()
        poll = f"/channels/lobby?since={top['epoch']}:{top['offset']}&wait=5"
        client, answers = self.ask(poll, "/channels/lobby/events")
        self.server.advance(7)
        self.assertEqual(answers[0].status, 200)
        self.assertTrue(client.closed)
        self.assertEqual(self.server.hub.clients, {})


class FloodTests(SynchronousTestCase):
    """Requests and chunks beyond a connection's share of a turn wait for the next one."""

    def setUp(self) -> None:
        self.server = MemoryServer()
        self.addCleanup(self.server.stop)

    def test_pipelined_requests_are_answered_in_several_turns_and_in_order(self) -> None:
        connection = self.server.connect(LiveSite(self.server.hub))
        requests = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\nGET /PrintHello HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.send(requests * 100)
        self.server.clock.turn()
        self.assertTrue(0 < connection.received.count(b"HTTP/1.1 404") < 60)
        self.server.settle()
        self.assertEqual(connection.received.count(b"HTTP/1.1 404"), 100)
        numbers = [int(each) for each in re.findall(rb"request=(\d+)", connection.received)]
        self.assertEqual(numbers, list(range(2, 201, 2)))

    def test_the_last_requests_before_the_end_of_the_input_are_answered(self) -> None:
        connection = self.server.connect(LiveSite(self.server.hub))
        connection.send(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        connection.half_close()
        self.server.settle()
        self.assertEqual(connection.received.count(b"HTTP/1.1 404"), 100)

    def test_tiny_chunks_are_read_in_several_turns(self) -> None:
        connection = self.server.connect(LiveSite(self.server.hub))
        head = b"POST /channels/lobby HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.send(head + b"1\r\nx\r\n" * 5_000 + b"0\r\n\r\nGET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.server.clock.turn()
        self.assertEqual(connection.received, b"")
        self.server.settle()
        self.assertEqual(re.findall(rb"HTTP/1.1 (\d+)", connection.received), [b"200", b"404"])
        found: list[Any] = []
        self.server.hub.history("lobby", found.append)
        self.assertEqual(found[0].publications[0].data.text, "x" * 5_000)
