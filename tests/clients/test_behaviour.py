"""The behaviour of clients, over each transport."""

from decimal import Decimal
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from longconn.clients import (
    Closed,
    ConnectionFailed,
    ConnectionState,
    Disconnected,
    Joined,
    JSONText,
    Left,
    Lost,
    OutcomeUnknown,
    Position,
    Publication,
    Refused,
)
from longconn.core.disconnects import FORCE_DISCONNECT, FORCE_RECONNECT
from tests.clients.network import URLS, Case


class Suite:
    """Mixed into a case for each transport."""

    def test_publish_and_receive(self: Any) -> None:
        self.serve()
        ann, bob = self.client(name="ann"), self.client()
        subscription = self.subscribed(ann)
        self.get(bob.publish("news", {"free": 1.5, "what": "größer 大"}))
        event = self.next(subscription)
        self.assertEqual((event.channel, event.offset, event.data), ("news", 1, {"free": 1.5, "what": "größer 大"}))
        self.assertEqual((event.client, event.epoch), (bob.id, subscription.position.epoch))
        self.get(ann.publish("news", None))
        self.assertEqual((self.next(subscription).name, subscription.position.offset), ("ann", 2))

    def test_values_are_received_and_published_as_they_were_written(self: Any) -> None:
        self.serve()
        ann, bob = self.client(), self.client(name="bob")
        subscription = self.subscribed(ann)
        since = subscription.position
        texts = ["1.50", "1e999", "-0", "7" * 5000, '{"a":1,"a":2}', "12345678901234567890123", "[" * 500 + "]" * 500]
        for text in texts:
            self.post(text, content_type="application/json")
            self.assertEqual(self.next(subscription).json, text)
            self.get(bob.publish("news", JSONText(text)))
            self.assertEqual(self.next(subscription).json, text)
        self.post("after")
        self.assertEqual(self.next(subscription).data, "after")
        found = self.get(bob.history("news", limit=-1)).publications
        self.assertEqual([each.json for each in found], [each for text in texts for each in (text, text)] + ['"after"'])
        values = [each.data for each in found[:8:2]]
        self.assertEqual(values[:3], [1.5, Decimal("1e999"), 0])
        self.assertEqual(str(values[3]), "7" * 5000)
        again = self.get(self.client().subscribe("news", since=since))
        self.assertEqual([self.next(again).json for _ in found], [each.json for each in found])

    def test_events_and_readers_wait_for_each_other(self: Any) -> None:
        self.serve()
        ann = self.client()
        subscription = self.subscribed(ann)
        first, second = subscription.__anext__(), subscription.__anext__()
        first.addErrback(lambda _: None)
        first.cancel()
        self.post("1", "2", "3")
        self.assertEqual(self.get(second).data, "1")
        self.assertEqual([self.next(subscription).data for _ in range(2)], ["2", "3"])

    def test_presence_history_and_names(self: Any) -> None:
        self.serve()
        ann = self.client(name="ann")
        self.subscribed(ann)
        self.post("1", "2", "3")
        self.assertEqual([(each.client, each.name) for each in self.get(ann.presence("news"))], [(ann.id, "ann")])
        self.get(ann.rename("eve"))
        self.assertEqual([each.name for each in self.get(ann.presence("news"))], ["eve"])
        self.assertEqual(self.fails(Refused, ann.rename("no name")).code, 152)
        page = self.get(ann.history("news", limit=2))
        self.assertEqual([each.data for each in page.publications], ["1", "2"])
        page = self.get(ann.history("news", limit=-1, since=Position(page.position.epoch, 1)))
        self.assertEqual(([each.data for each in page.publications], page.position.offset), (["2", "3"], 3))
        page = self.get(ann.history("news", limit=1, reverse=True))
        self.assertEqual([each.data for each in page.publications], ["3"])
        self.assertEqual([each.data for each in self.get(ann.history("news")).publications], ["1", "2", "3"])
        self.assertEqual(self.get(ann.history("news", limit=0)).publications, [])

    def test_joins_and_leaves(self: Any) -> None:
        self.serve()
        ann, bob = self.client(), self.client(name="bob")
        subscription = self.subscribed(ann, join_leave=True)
        self.assertEqual(self.next(subscription).member.client, ann.id)
        theirs = self.subscribed(bob)
        self.get(theirs.unsubscribe())
        joined, left = self.next(subscription), self.next(subscription)
        self.assertEqual((type(joined), joined.member.name), (Joined, "bob"))
        self.assertEqual((type(left), left.member), (Left, joined.member))

    def test_async_with_closes_the_client_whatever_the_end(self: Any) -> None:
        self.serve()
        used = []

        async def use(error: Exception | None) -> None:
            async with self.client() as ann:
                used.append(ann)
                await ann.publish("news", 1)
                if error is not None:
                    raise error

        for error in (None, ValueError("the program's")):
            waited = Deferred.fromCoroutine(use(error))
            if error is None:
                self.get(waited, 2)
            else:
                self.assertIs(self.fails(ValueError, waited, 2), error)
            self.assertIs(used[-1].state.state, ConnectionState.CLOSED)

    def test_unsubscribing_ends_the_iteration_and_allows_another_subscription(self: Any) -> None:
        self.serve()
        ann = self.client()
        subscription = self.subscribed(ann)
        waiting = subscription.__anext__()
        self.get(subscription.unsubscribe())
        self.fails(StopAsyncIteration, waiting)
        self.fails(StopAsyncIteration, subscription.__anext__())
        self.assertEqual(self.get(ann.presence("news")), [])
        self.subscribed(ann)
        self.assertEqual(self.fails(Refused, ann.subscribe("news")).code, 105)

    def test_missed_publications_come_after_a_lost_connection(self: Any) -> None:
        self.serve()
        ann = self.client()
        subscription = self.subscribed(ann)
        self.post("1")
        self.next(subscription)
        self.break_off()
        self.assertIs(ann.state.state, ConnectionState.RECONNECTING)
        self.post("2", "3")
        self.network.advance(ann.state.retry_in)
        self.assertIs(ann.state.state, ConnectionState.CONNECTED)
        self.post("4")
        self.assertEqual([self.next(subscription).data for _ in range(3)], ["2", "3", "4"])
        self.assertEqual(subscription.position.offset, 4)

    def test_unrecoverable_publications_give_a_loss(self: Any) -> None:
        self.serve()
        ann = self.client()
        subscription = self.subscribed(ann)
        self.post("1")
        old = self.get(ann.history("news")).position
        self.serve()
        self.post("other")
        self.break_off()
        self.network.advance(1)
        self.post("2")
        events = [self.next(subscription) for _ in range(3)]
        self.assertEqual([type(each) for each in events], [Publication, Lost, Publication])
        self.assertEqual((events[1].position, events[2].data), (old, "2"))
        self.assertEqual(events[1].resumed, Position(events[2].epoch, 1))

    def test_subscribing_since_a_position(self: Any) -> None:
        self.serve()
        self.post("1", "2", "3")
        ann = self.client()
        epoch = self.get(ann.history("news")).position.epoch
        subscription = self.subscribed(ann, since=Position(epoch, 1))
        self.assertEqual(subscription.position.offset, 1)
        self.assertEqual([self.next(subscription).data for _ in range(2)], ["2", "3"])
        self.get(subscription.unsubscribe())
        self.assertIsInstance(self.next(self.subscribed(ann, since=Position("other", 1))), Lost)

    def test_without_history_a_lost_connection_gives_a_loss(self: Any) -> None:
        self.serve(history_size=0)
        ann = self.client()
        subscription = self.subscribed(ann)
        other = self.subscribed(ann, "other", recover=False)
        self.break_off()
        self.network.advance(1)
        self.post("1")
        self.post("2", channel="other")
        self.assertEqual(self.next(subscription), Lost("news", Position("", 0), Position("", 0)))
        self.assertEqual(self.next(subscription).data, "1")
        self.assertEqual(self.next(other).data, "2")

    def test_a_dead_server_is_detected(self: Any) -> None:
        self.serve(ping_interval=25.0)
        ann = self.client()
        subscription = self.subscribed(ann)
        self.network.advance(120)
        self.assertEqual((len(self.states), ann.state.state), (1, ConnectionState.CONNECTED))
        self.network.dead = True
        self.network.advance(36)
        self.assertIs(self.states[1].state, ConnectionState.RECONNECTING)
        self.assertIn("nothing came from the server for 35 s", self.states[1].reason)
        self.network.dead = False
        self.post("1")
        self.network.advance(30)
        self.assertEqual(self.next(subscription).data, "1")

    def test_delays_between_attempts_grow(self: Any) -> None:
        ann = self.client()
        self.network.advance(70)
        waits = [round(later - now, 1) for now, later in pairwise(self.network.attempts)]
        self.assertEqual(waits, [1.0, 1.5, 2.5, 4.5, 8.5, 16.5, 20.0])
        self.assertIn("connection refused", ann.state.reason)
        self.serve()
        for lasts, wait in ((0, 20.0), (25, 1.0), (1, 1.5), (1, 2.5)):
            self.get(ann.connected(), ann.state.retry_in + 1)
            self.network.advance(lasts)
            self.break_off()
            self.assertEqual(ann.state.retry_in, wait)

    def test_commands_wait_for_the_connection(self: Any) -> None:
        ann = self.client(timeout=5)
        early = ann.publish("news", "1")
        overdue = ann.publish("news", "0")
        pending = ann.subscribe("news")
        given_up = ann.publish("news", "no")
        given_up.addErrback(lambda _: None)
        given_up.cancel()
        self.serve()
        self.get(early, 3)
        self.get(overdue)
        self.get(pending)
        self.assertEqual([each.data for each in self.get(ann.history("news", limit=-1)).publications], ["1", "0"])
        self.network.server = None
        self.break_off()
        late = ann.publish("news", "2")
        asked = ann.subscribe("other")
        error = self.fails(ConnectionFailed, late, 6)
        self.assertIn("not connected within 5 s: 127.0.0.1:9999: connection refused", str(error))
        self.fails(ConnectionFailed, asked)

    def test_a_publish_with_an_unknown_outcome_is_not_repeated(self: Any) -> None:
        self.serve()
        ann = self.client()
        self.get(ann.connected())
        asked, published = ann.presence("news"), ann.publish("news", "1")
        self.network.dead = True
        self.network.advance(0)
        self.break_off()
        self.network.dead = False
        self.assertIn("whether publish was carried out is not known", str(self.fails(OutcomeUnknown, published)))
        self.assertEqual(self.get(asked, 2), [])  # asked again, and answered
        self.assertEqual(self.get(ann.history("news", limit=-1)).publications, [])

    def test_disconnects_that_allow_and_forbid_a_reconnect(self: Any) -> None:
        hub = self.serve()
        ann, bob = self.client(), self.client()
        subscription = self.subscribed(ann)
        self.get(bob.connected())
        hub.clients[ann.id].close(FORCE_RECONNECT)
        hub.clients[bob.id].close(FORCE_DISCONNECT)
        self.network.settle()
        self.assertEqual((ann.state.state, ann.state.code), (ConnectionState.RECONNECTING, 3011))
        self.assertEqual((bob.state.state, bob.state.code), (ConnectionState.CLOSED, 3503))
        self.assertEqual(self.fails(Disconnected, bob.connected()).code, 3503)
        self.fails(Disconnected, bob.publish("news", "1"))
        self.fails(Disconnected, bob.subscribe("news"))
        self.assertEqual(self.get(bob.closed()).code, 3503)
        self.network.advance(1)
        self.post("1")
        self.assertEqual(self.next(subscription).data, "1")

    def test_the_iteration_raises_the_final_error(self: Any) -> None:
        hub = self.serve()
        ann = self.client(reconnect=False)
        subscription = self.subscribed(ann)
        self.post("1")
        self.network.settle()
        hub.clients[ann.id].close(FORCE_RECONNECT)
        self.network.settle()
        self.assertEqual(self.next(subscription).data, "1")
        self.assertEqual(self.fails(Disconnected, subscription.__anext__()).code, 3011)

    def test_closing_leaves_nothing(self: Any) -> None:
        self.serve()
        ann = self.client()
        subscription = self.subscribed(ann)
        self.get(ann.publish("news", "1"))
        waiting, asked, ended = self.subscribed(ann, "other").__anext__(), ann.presence("news"), ann.closed()
        self.get(ann.close())
        self.fails(StopAsyncIteration, waiting)
        self.fails(Closed, asked)
        self.fails(StopAsyncIteration, subscription.__anext__())
        self.assertEqual(self.get(ended), ann.state)
        self.assertEqual((ann.state.state, ann.state.error), (ConnectionState.CLOSED, None))
        self.assertEqual(self.network.transports, [])
        self.fails(Closed, ann.connected())
        self.fails(Closed, ann.publish("news", "2"))
        self.get(ann.close())

    def test_closing_before_there_is_a_connection(self: Any) -> None:
        for prepare in (lambda: None, self.network.settle, lambda: self.network.advance(1.2)):
            ann = self.client()
            waiting, asked = ann.connected(), ann.subscribe("news")
            prepare()
            self.get(ann.close())
            self.fails(Closed, waiting)
            self.fails(Closed, asked)
        self.network.dead = True
        ann = self.client()
        self.network.settle()
        self.get(ann.close())
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_unread_events_stop_the_server_and_nothing_is_lost(self: Any) -> None:
        self.serve(history_size=5000, publish_rate=0, ping_interval=25.0, send_queue=8_000_000, write_timeout=0)
        ann, bob = self.client(), self.client()
        subscription = self.subscribed(ann)
        down = self.network.transports[0]
        for number in range(3000):
            bob.publish("news", [number, "x" * 200])
            if number % 100 == 0:
                self.network.settle()
        self.network.settle()
        self.assertFalse(down.reading)
        self.assertLess(len(subscription._events), 1500)
        self.network.advance(300)  # neither side takes the other for dead
        self.assertEqual(ann.state.state, ConnectionState.CONNECTED)
        for number in range(3000):
            self.assertEqual(self.next(subscription).data[0], number)
        self.assertTrue(down.reading)
        self.assertEqual([each.state for each in self.states].count(ConnectionState.RECONNECTING), 0)

    def test_a_client_that_does_not_read_stays_alive(self: Any) -> None:
        """All publications have come, and the program does not read them. The client reads no pings then."""
        self.serve(history_size=5000, publish_rate=0, ping_interval=25.0, pong_timeout=10.0)
        ann, bob = self.client(), self.client()
        subscription = self.subscribed(ann)
        for number in range(1030):
            self.get(bob.publish("news", number))
        self.assertFalse(self.network.transports[0].reading)
        self.network.advance(300)
        self.assertEqual([self.next(subscription).data for _ in range(1030)], list(range(1030)))
        self.network.advance(300)
        self.assertEqual([each.state for each in self.states], [ConnectionState.CONNECTED] * 2)

    def test_publications_are_recovered_after_a_disconnect_as_slow(self: Any) -> None:
        self.serve(history_size=5000, publish_rate=0, send_queue=8_000_000)
        ann, bob = self.client(), self.client()
        subscription = self.subscribed(ann)
        for number in range(3000):
            bob.publish("news", [number, "x" * 200])
            if number % 100 == 0:
                self.network.settle()
        self.network.advance(60)
        found = [self.get(subscription.__anext__(), 2).data[0] for _ in range(3000)]
        self.assertEqual(found, list(range(3000)))
        self.assertEqual([each.state for each in self.states].count(ConnectionState.RECONNECTING), 1)

    def test_an_answer_is_read_while_events_are_unread(self: Any) -> None:
        """A program that waits for an answer before it reads its events would wait for ever otherwise."""
        self.serve(history_size=5000, publish_rate=0, send_queue=8_000_000)
        ann = self.client()
        subscription = self.subscribed(ann)
        for number in range(1500):
            self.get(ann.publish("news", number))
        self.assertEqual(len(subscription._events), 1500)
        self.assertEqual(len(self.get(ann.presence("news"))), 1)

    def test_a_server_that_never_answers(self: Any) -> None:
        self.serve()
        self.network.dead = True
        ann = self.client(reconnect=False, timeout=3)
        self.assertIn("no answer within 3 s", str(self.fails(ConnectionFailed, ann.connected(), 7)))


class TooLargeTests(Case):
    url = URLS["ws"]

    def test_a_message_that_is_too_large(self) -> None:
        """The server closes with 1009. Of several commands, only the last one is certainly not carried out."""
        self.serve(max_message=1000, publish_rate=0)
        ann = self.client()
        self.get(ann.connected())
        refused = self.fails(Refused, ann.publish("news", "x" * 50_000))
        self.assertEqual(str(refused), "too large for the server (1009)")
        self.get(ann.connected(), 2)
        first, last = ann.publish("news", "x" * 50_000), ann.publish("news", 1)
        self.fails(OutcomeUnknown, first)
        self.assertEqual(self.fails(Refused, last).code, 1009)


def _add(scheme: str, url: str) -> None:
    name = f"{scheme.title().replace('_', '')}Tests"
    globals()[name] = type(name, (Suite, Case), {"url": url, "__module__": __name__})


for _scheme, _url in URLS.items():
    _add(_scheme, _url)
assert issubclass(Case, SynchronousTestCase)
