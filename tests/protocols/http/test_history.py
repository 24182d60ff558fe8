"""History over HTTP, and the long poll."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address

from longconn.core.publication import Data, Info
from tests.protocols.http.kit import Answer, Connection, HTTPTestCase


def said(answer: Any) -> list[Any]:
    return [each["data"] for each in answer["publications"]]


class HistoryTests(HTTPTestCase):
    def get(self, query: str = "") -> Any:
        answer = self.request(f"GET /channels/lobby{query}")
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.headers["cache-control"], "no-store")
        return answer.json

    def test_the_position_now(self) -> None:
        self.publish("one")
        epoch, _, offset = self.position().partition(":")
        expected = {"epoch": epoch, "offset": int(offset), "recovered": True, "publications": []}
        self.assertEqual(self.get(), expected)
        self.assertEqual(self.get("?since="), expected)
        self.assertEqual(self.get("?wait=25"), expected)

    def test_since(self) -> None:
        self.publish("one")
        since = self.position()
        self.publish("two")
        self.publish("three")
        answer = self.get(f"?since={since}")
        self.assertEqual((said(answer), answer["recovered"]), (["two", "three"], True))
        self.assertEqual(f"{answer['epoch']}:{answer['offset']}", self.position())
        publication = answer["publications"][0]
        self.assertEqual(set(publication), {"channel", "offset", "epoch", "data", "name", "time"})
        self.assertEqual(said(self.get(f"?since={self.position()}")), [])

    def test_lost_positions(self) -> None:
        self.publish("one")
        for query in ("?since=gone:1", "?since=gone:1&wait=25", "?since=" + self.position() + "9"):
            answer = self.get(query)
            self.assertEqual((said(answer), answer["recovered"]), (["one"], False))

    def test_malformed(self) -> None:
        waits = [f"?since=a:1&wait={each}" for each in ("x", "-1", "1e9", "nan", "%FF")]
        for query in ("?since=1", "?since=a:b", "?%zz", *waits):
            self.assertEqual(self.request(f"GET /channels/lobby{query}").status, 400, query)

    def test_head(self) -> None:
        answer = self.request(f"HEAD /channels/lobby?since={self.position()}&wait=25")
        self.assertEqual((answer.status, answer.rest), (200, b""))


class LargeAnswerTests(HTTPTestCase):
    """An answer that its reader does not take counts in `send_queue_total`."""

    SIZE = 200_000

    def start(self, **settings: Any) -> None:
        super().start(max_message=self.SIZE, **settings)

    def unread(self, peer: str = "192.0.2.1") -> Connection:
        connection = self.connect(peer=IPv4Address("TCP", peer, 50000))
        connection.transport.full = True
        connection.ask("GET /channels/lobby?since=gone:1")
        return connection

    def test_what_is_not_read_counts_until_it_is_read(self) -> None:
        self.publish("x" * self.SIZE)
        connection = self.unread()
        data = connection.take()
        self.assertLess(len(data), 10_000)
        self.assertGreater(self.hub.queued, self.SIZE - 10_000)
        connection.transport.drain()
        answer = Answer(data + connection.take())
        self.assertEqual(said(answer.json), ["x" * self.SIZE])
        self.assertEqual(self.hub.queued, 0)
        self.assertEqual(connection.request("GET /PrintHello").status, 200, "the connection is kept")

    def test_the_total_holds(self) -> None:
        self.start(send_queue_total=4 * self.SIZE)
        self.publish("x" * self.SIZE)
        connections = [self.unread(f"192.0.2.{number}") for number in range(10)]
        self.assertLessEqual(self.hub.queued, 4 * self.SIZE)
        refused = [each.answer() for each in connections[4:]]
        self.assertEqual({(each.status, each.headers.get("retry-after")) for each in refused}, {(503, "1")})
        for each in connections[:4]:
            each.lose()
        self.assertEqual(self.hub.queued, 0)
        self.assertEqual(self.request("GET /channels/lobby?since=gone:1").status, 200)

    def test_one_address_has_a_quarter_of_the_total(self) -> None:
        self.start(send_queue_total=10 * self.SIZE)
        self.publish("x" * self.SIZE)
        statuses = [self.unread().answer().status for _ in range(5)]
        self.assertEqual(statuses, [200, 200, 503, 503, 503])
        self.assertEqual(self.unread("192.0.2.2").answer().status, 200)

    def test_a_reader_that_takes_nothing_is_cut_off(self) -> None:
        self.publish("x" * self.SIZE)
        connection = self.unread()
        with self.assertLogs("longconn", "WARNING"):
            self.clock.pump([1] * 40)
        self.assertTrue(connection.transport.disconnected)
        self.assertEqual(self.hub.queued, 0)

    def test_nothing_is_left_when_the_client_goes(self) -> None:
        self.publish("x" * self.SIZE)
        connection = self.unread()
        connection.lose()
        self.assertEqual((self.hub.queued, self.hub.waiting), (0, set()))

    def test_head_is_not_refused(self) -> None:
        self.start(send_queue_total=1)
        self.publish("x" * self.SIZE)
        self.assertEqual(self.request("HEAD /channels/lobby?since=gone:1").status, 200)


class PollCase(HTTPTestCase):
    def poll(self, wait: str = "25", since: str = "", channel: str = "lobby") -> Connection:
        connection = self.connect()
        connection.ask(f"GET /channels/{channel}?since={since or self.position(channel)}&wait={wait}")
        return connection


class PollTests(PollCase):
    def test_at_once(self) -> None:
        self.publish("one")
        epoch = self.position().partition(":")[0]
        self.assertEqual(said(self.poll(since=f"{epoch}:0").answer().json), ["one"])

    def test_waits(self) -> None:
        since = self.position()
        connections = [self.poll() for _ in range(3)]
        self.clock.pump([1] * 20)
        self.assertEqual([each.take() for each in connections], [b""] * 3)
        self.assertEqual(self.hub.presence("lobby"), [], "a poll is no client")
        for text in ("one", "two"):
            self.hub.publish("lobby", Data.of_text(text), Info("ann"), lambda result: None)
        self.turns()
        for each in connections:
            answer = each.answer().json
            self.assertEqual((said(answer), answer["recovered"]), (["one", "two"], True))
            self.assertEqual(f"{answer['epoch']}:{answer['offset']}", self.position())
        self.assertEqual(self.hub.channels, {})
        self.assertEqual(since.partition(":")[0], answer["epoch"])

    def test_other_channels_do_not_count(self) -> None:
        connection = self.poll()
        self.publish("x", "other")
        self.assertEqual(connection.take(), b"")

    def test_times_out(self) -> None:
        self.publish("one")
        connection = self.poll("5")
        self.clock.pump([1] * 4)
        self.assertEqual(connection.take(), b"")
        self.clock.pump([1] * 3)
        answer = connection.answer().json
        self.assertEqual((answer["publications"], answer["recovered"]), ([], True))
        self.assertEqual(f"{answer['epoch']}:{answer['offset']}", self.position())
        self.assertEqual(self.hub.channels, {})
        self.assertEqual(connection.request("GET /PrintHello").status, 200)

    def test_waits_a_minute_at_most(self) -> None:
        connection = self.poll("999999")
        self.clock.pump([1] * 62)
        self.assertEqual(connection.answer().status, 200)

    def test_poller_leaves(self) -> None:
        connection = self.poll()
        connection.lose()
        self.assertEqual(self.hub.channels, {})
        self.publish("x")

    def test_their_number_is_bounded(self) -> None:
        self.start(max_connections=2)
        self.poll()
        self.connect().ask("GET /channels/lobby/events")
        self.assertEqual(self.poll().answer().status, 503)

    def test_refused_channel(self) -> None:
        self.assertEqual(self.poll(since="a:1", channel="%20").answer().status, 400)

    def test_beside_subscribers(self) -> None:
        stream = self.connect()
        stream.ask("GET /channels/lobby/stream")
        connection = self.poll()
        stream.lose()
        self.publish("x")
        self.assertEqual(said(connection.answer().json), ["x"])


class LateTests(PollCase):
    """With a broker that answers turns later."""

    late = True

    def test_history(self) -> None:
        connection = self.connect()
        connection.ask("GET /channels/lobby")
        self.assertEqual(connection.take(), b"")
        self.turns()
        self.assertEqual(connection.answer().status, 200)

    def test_published_while_it_asks(self) -> None:
        for turns in range(8):
            connection = self.poll()
            self.turns(turns)
            self.hub.publish("lobby", Data.of_text("x"), Info("ann"), lambda result: None)
            self.turns(12)
            self.assertEqual(said(connection.answer().json), ["x"], turns)

    def test_poller_leaves_while_it_asks(self) -> None:
        for turns in range(5):
            connection = self.poll()
            self.turns(turns)
            connection.lose()
            self.turns()
            self.assertEqual(self.hub.channels, {})

    def test_broker_fails(self) -> None:
        since = self.position()
        self.broker.failures = 1
        poll, history = self.poll(since=since), self.connect()
        history.ask("GET /channels/lobby")
        self.turns()
        self.assertEqual((poll.answer().status, history.answer().status), (503, 503))
        self.assertEqual(self.hub.channels, {})
