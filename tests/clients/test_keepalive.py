"""The keep-alive HTTP client: in memory with a clock, and over sockets where the socket matters."""

import gc
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, KeyPair, PrivateCertificate, trustRootFromCertificates
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from docs.terminals import reserve
from longconn.clients.errors import (
    AddressError,
    CertificateError,
    ClientError,
    Closed,
    ConnectionFailed,
    NotLongconn,
)
from longconn.clients.http_body import DRAIN_BYTES, HIGH_WATER
from longconn.clients.keepalive import BodyTooLarge, KeepAliveClient, Response
from tests.live.certificates import write_certificate
from tests.live.common import until

reactor: Any = installed
URL = "http://127.0.0.1:80/x"


def head(length: int | str, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def answer(body: bytes = b"ok") -> bytes:
    return head(len(body)) + body


class Wire(StringTransportWithDisconnection):
    """One connection as its server sees it."""

    reactor: Any
    paused = property(lambda self: self.producerState == "paused")

    def loseConnection(self) -> None:
        # As sockets do: not at once.
        if self.connected:
            self.connected = False
            self.reactor.callLater(0, self.protocol.connectionLost, Failure(ConnectionDone()))

    abortConnection = loseConnection

    def says(self, data: bytes) -> None:
        assert not self.paused
        self.protocol.dataReceived(data)

    def asked(self) -> bytes:
        found: bytes = self.value()
        self.clear()
        return found

    def lose(self, reason: Exception) -> None:
        self.connected = False
        self.protocol.connectionLost(Failure(reason))


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.taken = 0
        self.client = self.make()

    def make(self, **options: Any) -> KeepAliveClient:
        self.client = KeepAliveClient(self.reactor, **{"connections": 1, "read_timeout": 30.0} | options)
        return self.client

    def ask(self, method: str = "GET", url: str = URL, **options: Any) -> Deferred[Response]:
        return self.client.request(method, url, **options)

    def accept(self) -> Wire:
        """The next connection that is made."""
        host, port, factory, *_ = self.reactor.tcpClients[self.taken]
        self.taken += 1
        wire = Wire(
            peerAddress=IPv4Address("TCP", host, port), hostAddress=IPv4Address("TCP", host, 50000 + self.taken)
        )
        wire.reactor = self.reactor
        wire.protocol = factory.buildProtocol(None)
        wire.protocol.makeConnection(wire)
        return wire

    @property
    def attempts(self) -> int:
        return len(self.reactor.tcpClients) - self.taken

    def run_now(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def read(self, response: Response) -> Deferred[bytes]:
        """The next piece."""
        return Deferred.fromCoroutine(response.__anext__())

    def first(self, data: bytes) -> tuple[Wire, Response]:
        """A response of which so much came, on a new connection."""
        asked = self.ask()
        wire = self.accept()
        wire.says(data)
        return wire, self.successResultOf(asked)

    def assert_goes_over(self, wire: Wire) -> None:
        """The next request uses this connection, and its answer is its own."""
        wire.clear()
        asked = self.ask(url=URL + "/next")
        self.assertTrue(wire.value().startswith(b"GET /x/next HTTP/1.1\r\n"), wire.value())
        wire.says(answer(b"its own"))
        response = self.successResultOf(asked)
        self.assertTrue(response.reused)
        self.assertEqual(self.successResultOf(response.collect()), b"its own")

    def assert_goes_elsewhere(self, wire: Wire) -> None:
        """The connection was dropped, and the next request gets a new one."""
        self.assertFalse(wire.connected)
        self.reactor.advance(0)
        asked = self.ask()
        self.accept().says(answer(b"new"))
        response = self.successResultOf(asked)
        self.assertFalse(response.reused)
        self.assertEqual(self.successResultOf(response.collect()), b"new")


class ExchangeTests(Case):
    def test_what_a_response_tells(self) -> None:
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

    def test_a_head_without_end(self) -> None:
        """Not of the first response of a connection, and not of a later one; long bodies are none."""
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
        told = str(self.failureResultOf(asked, NotLongconn).value)
        self.assertEqual(told, "127.0.0.1:80: the head of its answer has more than 65536 bytes")
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
        for url in ("", "nothing", "ftp://host/", "http://", "http://[::1/", "http://host:port/", "http://a b/"):
            self.failureResultOf(self.ask(url=url), AddressError)
        self.assertEqual(self.attempts, 0)

    def test_what_is_not_http(self) -> None:
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

    def test_a_cancelled_request_frees_its_place(self) -> None:
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
        """A request on a pooled connection that goes away before anything comes back."""
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

    def test_others_are_not(self) -> None:
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

    def test_what_was_answered_in_part_is_not_asked_again(self) -> None:
        wire, _ = self.first(answer())
        asked = self.ask()
        wire.says(b"HTTP/1.1 200 OK\r\n")
        wire.lose(ConnectionLost())
        self.failureResultOf(asked, ConnectionFailed)
        self.assertEqual(self.attempts, 0)

    def test_silence_is_not_asked_again(self) -> None:
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


class BodyTests(Case):
    """However a caller leaves a body, the next request gets its own answer."""

    #: a body of which more than what waits unread is still to come
    LARGE = head(HIGH_WATER * 100) + b"a" * (HIGH_WATER + 1)

    def test_a_body_in_pieces_is_held_in_pieces(self) -> None:
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

    def test_left_with_nobody_knows_how_much_to_come(self) -> None:
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

    def test_what_is_thrown_away_has_to_come_soon(self) -> None:
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


class Scripted(Protocol):
    """Answers the first request of each connection, and then does as its script says."""

    transport: Any
    factory: Any

    def connectionMade(self) -> None:
        self.factory.connections.append(self)
        self.requests = 0

    def dataReceived(self, data: bytes) -> None:
        for _ in range(data.count(b"\r\n\r\n")):
            self.requests += 1
            self.factory.script(self)


class SocketTests(TestCase):
    """Over real sockets, and TLS."""

    timeout = 20

    def serve(self, script: Callable[[Scripted], Any], context: Any = None) -> str:
        factory: Any = Factory.forProtocol(Scripted)
        factory.script = script
        factory.connections = self.connections = []
        if context is None:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            port = reactor.listenSSL(0, factory, context, interface="0.0.0.0")
        self.addCleanup(port.stopListening)
        return f"{'https' if context else 'http'}://127.0.0.1:{port.getHost().port}/"

    def make(self, **options: Any) -> KeepAliveClient:
        self.client = KeepAliveClient(reactor, **options)
        self.addCleanup(self.client.close)
        return self.client

    async def test_a_server_that_closes_what_it_promised_to_keep(self) -> None:
        def script(connection: Scripted) -> None:
            if connection.requests == 1:
                connection.transport.write(answer(b"%d" % len(self.connections)))
            else:
                connection.transport.abortConnection()

        url = self.serve(script)
        client = self.make(connections=1)
        seen = []
        for _ in range(4):
            async with await client.request("GET", url) as response:
                seen.append((await response.collect(), response.reused))
        self.assertEqual(seen, [(b"1", False), (b"2", False), (b"3", False), (b"4", False)])
        # It did use the old ones first.
        self.assertEqual([each.requests for each in self.connections], [2, 2, 2, 1])

    async def test_backpressure_reaches_the_server(self) -> None:
        total = 40 * 1024 * 1024
        sent = 0

        class Source:
            def __init__(self, transport: Any) -> None:
                self.transport = transport

            def resumeProducing(self) -> None:
                nonlocal sent
                size = min(65536, total - sent)
                sent += size
                self.transport.write(b"a" * size)
                if sent == total:
                    self.transport.unregisterProducer()

            def stopProducing(self) -> None:
                pass

        def script(connection: Scripted) -> None:
            connection.transport.write(head(total))
            connection.transport.registerProducer(Source(connection.transport), False)

        client = self.make()
        response = await client.request("GET", self.serve(script))
        # Nobody reads: it stands still once the buffers between are full.
        stood = -1
        while stood != sent:
            stood = sent
            wait: Deferred[None] = Deferred()
            reactor.callLater(0.05, wait.callback, None)
            await wait
        self.assertLess(sent, total // 2)
        size = 0
        async for piece in response:
            self.assertLess(len(piece), 4 * HIGH_WATER)
            size += len(piece)
        self.assertEqual(size, total)

    async def test_certificates(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        key, certificate = (path.read_bytes() for path in write_certificate(folder))
        mine = PrivateCertificate.fromCertificateAndKeyPair(Certificate.loadPEM(certificate), KeyPair.load(key, 1))
        url = self.serve(lambda connection: connection.transport.write(answer(b"secret")), mine.options())
        root = trustRootFromCertificates([Certificate.loadPEM(certificate)])
        async with await self.make(trust_root=root).request("GET", url) as response:
            self.assertEqual(await response.collect(), b"secret")
        elsewhere = url.replace("127.0.0.1", "127.0.0.2")
        for address, trusted, text in (
            (url, None, "of nobody that is trusted, or has expired"),
            (elsewhere, root, "for another name"),
        ):
            with self.assertRaises(CertificateError) as caught:
                await self.make(trust_root=trusted).request("GET", address)
            self.assertEqual(str(caught.exception), f"{address.split('/')[2]}: the server's certificate is {text}")

    async def test_no_connection(self) -> None:
        refusing = reserve()
        self.addCleanup(refusing.close)
        where = f"127.0.0.1:{refusing.getsockname()[1]}"
        plain = self.serve(lambda connection: None)
        for url, text in (
            (f"http://{where}/", f"{where}: connection refused"),
            ("http://nowhere.invalid/", "nowhere.invalid:80: unknown host"),
            (plain.replace("http:", "https:"), f"{plain.split('/')[2]}: "),
        ):
            with self.assertRaises(ConnectionFailed) as caught:
                await self.make(read_timeout=0.1).request("GET", url)
            self.assertTrue(str(caught.exception).startswith(text), caught.exception)

    async def test_nothing_is_left_after_close(self) -> None:
        client = self.make()
        url = self.serve(lambda connection: connection.transport.write(head(10**9) + b"a"))
        response = await client.request("GET", url)
        piece = await response.__anext__()
        self.assertEqual(piece, b"a")
        await client.close()
        try:
            await response.__anext__()
        except ClientError:
            pass
        else:
            self.fail("it went on")
        lost: list[Any] = []
        for each in self.connections:
            each.connectionLost = lost.append
        await until(lambda: lost)
