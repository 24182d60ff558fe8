"""The transports over HTTP: the fallback, POSTs of commands, and other responses."""

from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from longconn.clients import ConnectionFailed, ConnectionState, NotLongconn, OutcomeUnknown, Refused
from longconn.clients.address import parse_address
from longconn.clients.transports.base import find_transports
from tests.clients.network import URLS, Case

URL = "http://127.0.0.1:9999"


class Switch(Protocol):
    """Answers a request from `answers`, by its path; passes other requests on to the real server."""

    def __init__(self, case: "SwitchCase", real: Any) -> None:
        self._case = case
        self._real = real

    def connectionMade(self) -> None:
        self._real.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        path = data.split(b" ", 2)[1].split(b"?")[0].decode() if b" HTTP/1.1" in data else ""
        if path:
            self._case.paths.append(path)
        answer = self._case.answers.get(path)
        if answer is None:
            self._real.dataReceived(data)
        elif self.transport is not None:
            self.transport.write(answer)

    def connectionLost(self, reason: Any = None) -> None:
        self._real.connectionLost(reason)


class SwitchCase(Case):
    url = URL

    def setUp(self) -> None:
        super().setUp()
        self.paths: list[str] = []
        self.answers: dict[str, bytes] = {}

    def serve(self, **settings: Any) -> Any:
        hub = super().serve(**settings)
        real = self.network.server

        class Between(Factory):
            def buildProtocol(factory, addr: Any) -> Protocol:
                return Switch(self, real.buildProtocol(addr))

        self.network.server = Between()
        return hub


def answer(status: str, body: str = "", kind: str = "text/html", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return (head + body).encode()


class FallbackTests(SwitchCase):
    def test_the_transports_of_a_url(self) -> None:
        for path, number in (("", 2), ("/live", 2), ("/live/connection/sse", 1), ("/connection/http_stream?a=b", 1)):
            self.assertEqual(len(find_transports(parse_address(URL + path))), number)

    def test_streaming_comes_first(self) -> None:
        self.serve()
        self.get(self.client().connected())
        self.assertEqual(self.paths, ["/connection/http_stream"])

    def test_events_where_streaming_is_refused(self) -> None:
        self.serve()
        self.answers["/connection/http_stream"] = answer("405 Method Not Allowed")
        ann = self.client()
        subscription = self.subscribed(ann)
        self.assertEqual(self.paths, ["/connection/http_stream", "/connection/sse", "/emulation"])
        self.break_off()
        self.network.advance(1)
        self.post("1")
        self.assertEqual(self.next(subscription).data, "1")
        self.assertEqual(self.paths.count("/connection/http_stream"), 1)  # the transport that worked is used again

    def test_events_where_streaming_is_held_up(self) -> None:
        self.serve()
        self.answers["/connection/http_stream"] = b""
        ann = self.client(timeout=3)
        published, pending = ann.publish("news", 1), ann.subscribe("news")
        self.get(ann.connected(), 1.6)
        self.assertEqual(self.paths[:2], ["/connection/http_stream", "/connection/sse"])
        self.get(published)  # the time-out of commands is longer
        self.get(pending)

    def test_both_transports_share_the_time_for_connecting(self) -> None:
        self.serve()
        self.answers.update({"/connection/http_stream": b"", "/connection/sse": b""})
        start = self.network.seconds()
        ann = self.client(timeout=3)
        self.network.advance(8)
        attempts = [round(each - start, 1) for each in self.network.attempts]
        self.assertEqual(attempts, [0.0, 1.5, 4.0, 5.5])  # each attempt has all of it
        self.assertEqual(self.paths, ["/connection/http_stream", "/connection/sse"] * 2)
        self.assertEqual(ann.state.reason, "127.0.0.1:9999: no answer within 3 s")

    def test_a_silent_server_fails_in_time(self) -> None:
        self.serve()
        for refused, first in ((False, b""), (True, answer("405 Method Not Allowed"))):
            self.answers.update({"/connection/http_stream": first, "/connection/sse": b""})
            ann = self.client(timeout=3, reconnect=False)
            self.network.advance(2.9)
            self.assertIs(ann.state.state, ConnectionState.CONNECTING, refused)  # a refusal leaves events all the time
            self.assertIn("no answer within 3 s", str(self.fails(ConnectionFailed, ann.connected(), 0.2)))

    def test_the_time_for_a_token_does_not_count(self) -> None:
        self.serve()
        self.answers["/connection/http_stream"] = b""

        def token() -> Any:
            return deferLater(self.network, 4, lambda: "")

        self.get(self.client(timeout=3, token=token).connected(), 9.6)

    def test_a_transport_that_connects_and_then_fails_is_tried_again_after_a_pause(self) -> None:
        """Otherwise two transports in turn would connect without a pause."""
        self.serve()
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: "
        reply = b'{"id":1,"connect":{"client":"me"}}\n'
        self.answers["/connection/http_stream"] = head + b"application/json\r\n\r\n" + reply + b'{"what":1}\n'
        self.answers["/connection/sse"] = head + b"text/event-stream\r\n\r\ndata: " + reply + b'data: {"what":1}\n\n'
        self.client()
        self.network.advance(2.5)
        self.assertEqual(self.paths, ["/connection/http_stream", "/connection/sse", "/connection/http_stream"])
        self.assertIs(self.states[1].state, ConnectionState.RECONNECTING)
        ann = self.client(reconnect=False)
        self.network.settle()
        self.assertIsInstance(ann.state.error, NotLongconn)

    def test_both_transports_fail(self) -> None:
        self.serve()
        for path in ("/connection/http_stream", "/connection/sse"):
            self.answers[path] = answer("404 Not Found")
        self.assertIn("HTTP 404", str(self.fails(NotLongconn, self.client().connected())))


class UpTests(SwitchCase):
    url = URLS["http_stream"]

    def setUp(self) -> None:
        super().setUp()
        self.serve(publish_rate=0)
        self.ann = self.client()
        self.get(self.ann.connected())
        self.paths.clear()

    def posts(self) -> int:
        return sum(each.count(b"POST /emulation") for each in self.network.sent)

    def test_commands_of_one_turn_go_up_in_few_requests_and_in_order(self) -> None:
        waiting = [self.ann.publish("news", number) for number in range(100)]
        for each in waiting:
            self.get(each)
        page = self.get(self.ann.history("news", limit=-1))
        self.assertEqual([each.data for each in page.publications], list(range(100)))
        self.assertEqual(self.posts(), 3)

    def test_large_commands_have_requests_of_their_own(self) -> None:
        for each in [self.ann.publish("news", "x" * 30_000) for _ in range(10)]:
            self.get(each)
        self.assertEqual(self.posts(), 6)

    def test_commands_are_sent_again_after_429(self) -> None:
        self.answers["/emulation"] = answer("429 Too Many Requests")
        waiting = self.ann.publish("news", 1)
        self.network.settle()
        self.answers.clear()
        self.get(waiting, 1)
        self.assertEqual([each.data for each in self.get(self.ann.history("news", limit=-1)).publications], [1])

    def test_a_session_that_is_gone(self) -> None:
        self.answers["/emulation"] = answer("404 Not Found")
        asked = self.ann.presence("news")
        self.network.settle()
        self.assertIs(self.ann.state.state, ConnectionState.RECONNECTING)
        self.answers.clear()
        self.assertEqual(self.get(asked, 1), [])  # on the new connection

    def test_a_post_that_hangs(self) -> None:
        self.answers["/emulation"] = b""
        waiting = self.ann.publish("news", 1)
        self.fails(Exception, waiting, 11)
        self.assertIn("commands do not get through", self.states[1].reason)

    def test_a_server_that_is_gone(self) -> None:
        for transport in self.network.transports:
            transport.connection.send = lambda data: None  # the stream itself goes on
        self.network.server = None
        waiting = self.ann.publish("news", 1)
        self.fails(OutcomeUnknown, waiting)
        self.assertEqual(self.states[1].reason, "127.0.0.1:9999: connection refused")

    def test_an_idle_connection_is_closed_before_the_server_closes_it(self) -> None:
        self.get(self.ann.close())
        self.serve(ping_interval=0)
        ann = self.client()
        for seconds, left in ((25, 2), (25, 2), (31, 1)):
            self.get(ann.publish("news", 1))
            self.network.advance(seconds)
            self.assertEqual(len(self.network.transports), left)


class OtherTests(SwitchCase):
    url = URLS["http_stream"]

    def refused(self, response: bytes) -> Any:
        self.serve()
        self.answers["/connection/http_stream"] = response
        ann = self.client()
        self.network.settle()
        return ann.state

    def test_responses_that_are_no_stream(self) -> None:
        self.assertIn("answered with text/html", str(self.refused(answer("200 OK", "<p>hello")).error))
        self.assertIsInstance(self.refused(answer("200 OK", "hello\n", "application/json")).error, NotLongconn)
        self.assertIsInstance(self.refused(b"SSH-2.0-OpenSSH\r\n\r\n").error, NotLongconn)
        refusal = self.refused(answer("403 Forbidden", '{"error":{"code":103,"message":"not from there"}}'))
        self.assertIsInstance(refusal.error, Refused)
        self.assertEqual((refusal.code, refusal.reason), (103, "not from there (103)"))
        refusal = self.refused(answer("200 OK", "x" * 5000))
        self.assertIs(refusal.state, ConnectionState.CLOSED)

    def test_an_endless_head(self) -> None:
        head = b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 20_000
        for name in ("http_stream", "sse"):
            self.serve()
            self.answers[f"/connection/{name}"] = head
            ann = self.client(URLS[name])
            self.network.settle()
            self.assertEqual(str(ann.state.error), "127.0.0.1:9999: the head of its answer has more than 65536 bytes")

    def test_statuses_after_which_the_client_tries_again(self) -> None:
        for status in ("502 Bad Gateway", "503 Service Unavailable"):
            state = self.refused(answer(status))
            self.assertIs(state.state, ConnectionState.RECONNECTING)
            self.assertIsInstance(state.error, ConnectionFailed)
        state = self.refused(answer("503 Service Unavailable", more="Retry-After: 7\r\n"))
        self.assertEqual(state.retry_in, 7)

    def test_retry_of_events(self) -> None:
        self.serve()
        self.answers["/connection/sse"] = (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            b': hello\nretry: 9000\ndata: {"id":1,"connect":{"client":"me"}}\n\n'
        )
        ann = self.client(URLS["sse"])
        self.get(ann.connected())
        self.break_off()
        self.assertEqual(ann.state.retry_in, 9)
