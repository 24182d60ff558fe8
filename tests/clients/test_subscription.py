"""Subscriptions with answers that the real server rarely gives, or never."""

from typing import Any

from twisted.internet.defer import Deferred

from longconn.clients import (
    ClientError,
    Lost,
    Position,
    Refused,
)
from tests.clients.scripted_server import ScriptedCase


class SubscribeTests(ScriptedCase):
    def test_temporary_refusals_are_tried_again(self) -> None:
        pending = self.subscribing(self.client())
        for wait in (1.0, 1.5):
            self.script.refuse("subscribe", 100, temporary=True)
            self.assertEqual(self.script.commands[1:], [])
            self.network.advance(wait)
        self.script.answer("subscribe")
        self.get(pending)

    def test_a_refusal(self) -> None:
        ann = self.client()
        pending = self.subscribing(ann)
        self.script.refuse("subscribe", 103)
        self.assertEqual(self.fails(Refused, pending).code, 103)
        self.subscribing(ann).addErrback(lambda _: None)  # nothing of it is left

    def test_a_refusal_after_a_reconnect_ends_the_iteration(self) -> None:
        subscription = self.live(self.client())
        self.break_off()
        self.network.advance(1)
        self.script.refuse("subscribe", 103)
        self.assertEqual(self.fails(Refused, subscription.__anext__()).code, 103)

    def test_an_unrecoverable_position_gives_a_loss(self) -> None:
        pending = self.subscribing(self.client(), since=Position("old", 7))
        asked = self.script.refuse("subscribe", 112)
        self.assertEqual((asked["epoch"], asked["offset"], asked["recover"]), ("old", 7, True))
        self.assertNotIn("recover", self.script.answer("subscribe", recoverable=True, epoch="e", offset=3))
        subscription = self.get(pending)
        self.assertEqual(self.next(subscription), Lost("c", Position("old", 7), Position("e", 3)))
        self.assertEqual(subscription.position, Position("e", 3))

    def test_the_server_ends_the_subscription(self) -> None:
        subscription = self.live(self.client())
        self.script.say({"push": {"channel": "c", "unsubscribe": {"code": 2501, "reason": "again"}}})
        result = {"recoverable": True, "epoch": "e", "offset": 3, "was_recovering": True, "recovered": True}
        asked = self.script.answer("subscribe", **result)
        self.assertEqual(asked["offset"], 3)
        self.script.say({"push": {"channel": "c", "unsubscribe": {"code": 2000, "reason": "over"}}})
        self.assertEqual(self.fails(Refused, subscription.__anext__()).code, 2000)

    def test_a_missing_publication_is_recovered_by_a_new_connection(self) -> None:
        subscription = self.live(self.client())
        self.script.say({"push": {"channel": "c", "pub": {"data": 5, "offset": 5}}})
        self.network.settle()
        self.assertIn("publications of c are missing", self.states[-1].reason)
        self.network.advance(1)
        missed = [{"data": 4, "offset": 4}, {"data": 5, "offset": 5}]
        result = {"recoverable": True, "epoch": "e", "offset": 5, "was_recovering": True, "recovered": True}
        self.assertEqual(self.script.answer("subscribe", publications=missed, **result)["offset"], 3)
        self.assertEqual([self.next(subscription).data for _ in range(2)], [4, 5])

    def test_a_command_sent_while_a_connection_ends_goes_over_the_next_one(self) -> None:
        ann = self.client()
        self.live(ann)
        said: list[Deferred[Any]] = []

        def then(_: Any) -> None:
            self.network.callLater(0, lambda: said.append(ann.publish("c", 1)))

        ann.presence("c").addCallback(then)
        self.network.settle()
        gap = {"push": {"channel": "c", "pub": {"data": 5, "offset": 5}}}
        self.script.say({"id": self.script.commands.pop()["id"], "presence": {"presence": {}}}, gap)
        self.network.settle()
        self.network.advance(1)
        self.assertEqual([list(each)[1] for each in self.script.commands], ["connect", "subscribe", "publish"])
        self.script.answer("publish")
        self.get(said[0])

    def test_a_connection_lost_before_the_answer(self) -> None:
        pending = self.subscribing(self.client())
        self.network.settle()
        self.break_off()
        self.network.advance(1)
        self.assertEqual([list(each)[1] for each in self.script.commands], ["connect", "subscribe"])
        self.script.answer("subscribe")
        self.get(pending)

    def test_a_cancelled_or_overdue_subscribe_is_followed_by_an_unsubscribe(self) -> None:
        for end in (lambda pending: pending.cancel(), lambda pending: self.network.advance(10)):
            ann = self.client(timeout=10)
            pending = self.subscribing(ann)
            self.network.settle()
            end(pending)
            self.fails(ClientError, pending)
            self.network.settle()
            ends = [each for each in self.script.commands if "unsubscribe" in each]
            self.assertEqual([each["unsubscribe"] for each in ends], [{"channel": "c"}])
