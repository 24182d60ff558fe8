"""Requests, pooled connections, repeated requests and time-outs, in memory with a clock."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost

from longconn.clients.errors import (
    AddressError,
    Closed,
    ConnectionFailed,
    NotLongconn,
)
from longconn.clients.keepalive import Response
from longconn.clients.keepalive.response import HIGH_WATER
from tests.clients.keepalive.kit import Case, answer, head


class ExchangeTests(Case):
    def test_the_attributes_of_a_response(self) -> None:
        asked = self.ask()
        wire = self.accept()
        self.reactor.advance(1.5)
        wire.says(head(4, "404 Not Found", "X-What: this\r\n") + b"bo")
        self.reactor.advance(0.5)
        wire.says(b"dy")
        response = self.successResultOf(asked)
        self.assertEqual((response.status, response.source_port, response.reused), (404, 50001, False))
        self.assertEqual(response.headers.getRawHeaders("x-what"), ["this"])
        self.assertEqual(response.seconds, 2.0)
        self.assertEqual(self.successResultOf(response.collect()), b"body")

    def test_an_endless_head(self) -> None:
        """The limit holds for each response of a connection, and does not count bodies."""
        wire, response = self.first(head(200_000) + b"x" * 1000)
        collected = response.collect()
        wire.says(b"x" * 199_000)
        self.assertEqual(len(self.successResultOf(collected)), 200_000)
        asked = self.ask()
        wire.says(b"HTTP/1.1 200 OK\r\n")
        for _ in range(7):
            wire.says(b"X-A: b\r\n" * 1169)
        self.assertTrue(wire.connected)
        wire.says(b"X-A: b\r\n" * 8)
        self.assertFalse(wire.connected)
        self.reactor.advance(0)
        text = str(self.failureResultOf(asked, NotLongconn).value)
        self.assertEqual(text, "127.0.0.1:80: the head of its answer has more than 65536 bytes")
        self.assert_goes_elsewhere(wire)

    def test_a_request(self) -> None:
        self.ask("POST", params={"a": "1 2"}, headers={"X-Y": "z"}, data=b"body", auth=("ann", "se:cret"))
        text = self.accept().asked()
        self.assertTrue(text.startswith(b"POST /x?a=1+2 HTTP/1.1\r\n"), text)
        self.assertTrue(text.endswith(b"\r\n\r\nbody"), text)
        for line in (
            b"Authorization: Basic YW5uOnNlOmNyZXQ=", b"X-Y: z", b"Content-Length: 4", b"Accept-Encoding: identity",
            b"Host: 127.0.0.1",
        ):  # fmt: skip
            self.assertIn(b"\r\n" + line.lower() + b"\r\n", text.lower().replace(line.lower(), line.lower()))

    def test_a_password_stays_with_its_request(self) -> None:
        wire, _ = self.first(answer())
        self.ask(auth=("ann", "secret"))
        self.assertIn(b"Authorization", wire.asked())
        wire.says(answer())
        self.ask()
        self.assertNotIn(b"Authorization", wire.asked())

    def test_redirections_are_not_followed(self) -> None:
        wire, response = self.first(head(0, "302 Found", "Location: http://other.example/\r\n"))
        self.assertEqual(response.status, 302)
        self.assert_goes_over(wire)

    def test_packed_bodies_stay_packed(self) -> None:
        _, response = self.first(head(3, more="Content-Encoding: gzip\r\n") + b"\x1f\x8b\x08")
        self.assertEqual(response.headers.getRawHeaders("content-encoding"), ["gzip"])
        self.assertEqual(self.successResultOf(response.collect()), b"\x1f\x8b\x08")

    def test_chunks_and_bodies_that_end_with_the_connection(self) -> None:
        wire, response = self.first(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        self.assertEqual(self.successResultOf(response.collect()), b"abc")
        self.assert_goes_over(wire)
        self.make()
        wire, response = self.first(b"HTTP/1.0 200 OK\r\n\r\nall there is")
        body = response.collect()
        self.assertNoResult(body)
        wire.lose(ConnectionDone())
        self.assertEqual(self.successResultOf(body), b"all there is")

    def test_bad_urls(self) -> None:
        for url in (
            "",
            "nothing",
            "ftp://host/",
            "http://",
            "http://[::1/",
            "http://[::zz]/",
            "http://host:port/",
            "http://a b/",
        ):
            self.failureResultOf(self.ask(url=url), AddressError)
        self.assertEqual(self.attempts, 0)

    def test_a_server_that_does_not_speak_http(self) -> None:
        asked = self.ask()
        self.accept().says(b"SSH-2.0-OpenSSH_9.2\r\n")
        self.assertEqual(str(self.failureResultOf(asked, NotLongconn).value), "127.0.0.1:80: the answer is not HTTP")


class PoolTests(Case):
    def test_one_connection_serves_one_request_after_the_other(self) -> None:
        wire, _ = self.first(answer())
        for _ in range(3):
            self.assert_goes_over(wire)

    def test_no_more_connections_than_allowed(self) -> None:
        self.make(connections=2)
        asked = [self.ask() for _ in range(4)]
        one, two = self.accept(), self.accept()
        self.assertEqual(self.attempts, 0)
        two.says(answer(b"two"))
        self.successResultOf(asked[1])
        self.assertEqual(self.attempts, 0)
        self.assertEqual(two.value().count(b"GET"), 2)
        self.assertNoResult(asked[0])
        one.lose(ConnectionLost())
        self.failureResultOf(asked[0], ConnectionFailed)
        self.accept().says(answer(b"three"))
        self.assertFalse(self.successResultOf(asked[3]).reused)

    def test_hosts_do_not_wait_for_each_other(self) -> None:
        self.ask()
        self.ask(url="http://127.0.0.1:81/")
        self.assertEqual([each[1] for each in self.reactor.tcpClients], [80, 81])

    def test_a_cancelled_request_lets_the_next_one_run(self) -> None:
        for at_its_head in (False, True):
            self.make()
            under_way, in_line = self.ask(), self.ask()
            in_line.cancel()
            wire = self.accept()
            if at_its_head:
                wire.says(b"HTTP/1.1 200 OK\r\n")
            under_way.cancel()
            self.failureResultOf(in_line)
            self.failureResultOf(under_way)
            self.assert_goes_elsewhere(wire)

    def test_close_breaks_off_and_closes_all(self) -> None:
        self.make(connections=3)
        kept, _ = self.first(answer())
        kept_asked = self.ask()
        kept.says(answer())
        self.successResultOf(kept_asked)
        waiting, half = self.ask(), self.ask(url="http://127.0.0.1:81/")
        wire = self.accept()
        wire.says(head(1000) + b"a")
        response = self.successResultOf(half)
        read = self.read(response)
        self.assertEqual(self.successResultOf(read), b"a")
        rest = self.read(response)
        closed = self.client.close()
        self.reactor.advance(0)
        self.successResultOf(closed)
        self.failureResultOf(waiting, Closed)
        self.failureResultOf(rest, Closed)
        self.failureResultOf(self.ask(), Closed)
        self.assertFalse(kept.connected)
        self.assertFalse(wire.connected)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class RetryTests(Case):
    def stale(self, method: str, reason: Exception | None = None, **options: Any) -> Deferred[Response]:
        """A request on a pooled connection that is lost before anything comes back."""
        wire, _ = self.first(answer())
        asked = self.ask(method, **options)
        self.assertIn(method.encode(), wire.value())
        wire.lose(reason or ConnectionLost())
        return asked

    def test_idempotent_requests_are_sent_again(self) -> None:
        for method in ("GET", "HEAD", "OPTIONS", "DELETE", "PUT"):
            self.make()
            asked = self.stale(method, data=b"body" if method == "PUT" else None)
            wire = self.accept()
            text = wire.asked()
            self.assertTrue(text.startswith(method.encode() + b" /x HTTP/1.1\r\n"), text)
            self.assertEqual(text.endswith(b"\r\nbody"), method == "PUT")
            wire.says(answer(b"" if method == "HEAD" else b"ok"))
            response = self.successResultOf(asked)
            self.assertEqual((response.status, response.reused, response.source_port), (200, False, 50000 + self.taken))

    def test_other_requests_are_not_sent_again(self) -> None:
        for method in ("POST", "PATCH"):
            self.make()
            self.failureResultOf(self.stale(method, data=b"once"), ConnectionFailed)
            self.assertEqual(self.attempts, 0)

    def test_every_pooled_connection_may_be_gone(self) -> None:
        self.make(connections=3)
        asked = [self.ask() for _ in range(3)]
        wires = [self.accept() for _ in range(3)]
        for each in wires:
            each.says(answer())
        self.assertEqual(len([self.successResultOf(each) for each in asked]), 3)
        last = self.ask()
        for each in wires:
            each.lose(ConnectionDone())
        self.accept().says(answer(b"there"))
        self.assertEqual(self.successResultOf(self.successResultOf(last).collect()), b"there")

    def test_a_new_connection_is_not_tried_twice(self) -> None:
        asked = self.ask()
        self.accept().lose(ConnectionLost())
        self.failureResultOf(asked, ConnectionFailed)
        asked = self.stale("GET")
        self.accept().lose(ConnectionLost())
        self.failureResultOf(asked, ConnectionFailed)
        self.assertEqual(self.attempts, 0)

    def test_a_request_answered_in_part_is_not_sent_again(self) -> None:
        wire, _ = self.first(answer())
        asked = self.ask()
        wire.says(b"HTTP/1.1 200 OK\r\n")
        wire.lose(ConnectionLost())
        self.failureResultOf(asked, ConnectionFailed)
        self.assertEqual(self.attempts, 0)

    def test_a_request_without_an_answer_is_not_sent_again(self) -> None:
        wire, _ = self.first(answer())
        asked = self.ask()
        self.reactor.advance(30)
        error = self.failureResultOf(asked, ConnectionFailed).value
        self.assertEqual(str(error), "127.0.0.1:80: no answer for 30 s")
        self.assert_goes_elsewhere(wire)


class TimeoutTests(Case):
    def test_connecting(self) -> None:
        self.make(connect_timeout=5)
        asked = self.ask()
        self.reactor.advance(4.9)
        self.assertNoResult(asked)
        self.reactor.advance(0.1)
        self.assertEqual(
            str(self.failureResultOf(asked, ConnectionFailed).value), "127.0.0.1:80: no connection for 5 s"
        )
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_each_byte_of_a_body_gives_more_time(self) -> None:
        wire, response = self.first(head(1000))
        body = response.collect()
        for _ in range(5):
            self.reactor.advance(29)
            wire.says(b"x")
        self.assertNoResult(body)
        self.reactor.advance(30)
        self.assertEqual(str(self.failureResultOf(body, ConnectionFailed).value), "no byte of a response for 30 s")
        self.assert_goes_elsewhere(wire)

    def test_a_slow_reader_is_given_all_the_time(self) -> None:
        wire, response = self.first(head(HIGH_WATER * 3) + b"a" * (HIGH_WATER + 1))
        self.assertTrue(wire.paused)
        self.reactor.advance(1000)
        self.assertEqual(len(self.successResultOf(self.read(response))), HIGH_WATER + 1)
        rest = self.read(response)
        self.assertFalse(wire.paused)
        wire.says(b"b")
        self.assertEqual(self.successResultOf(rest), b"b")

    def test_an_unused_connection_is_closed(self) -> None:
        self.make(idle_timeout=7)
        wire, _ = self.first(answer())
        self.reactor.advance(7)
        self.assert_goes_elsewhere(wire)
