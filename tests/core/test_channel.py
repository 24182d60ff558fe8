"""A channel: one batch a turn, one encoding a wire format, to each what it may see."""

import logging
from typing import Any

from longconn.core.channel import BATCH_BYTES, NAMED_SUBSCRIBERS
from longconn.core.disconnects import SERVER_ERROR
from longconn.core.publication import Data, Info, Position
from tests.behaviour.broker import LateBroker
from tests.core.common import Case, Words


class BatchTests(Case):
    def test_what_comes_back_in_a_turn_goes_out_together_at_its_end(self) -> None:
        ada = self.subscriber("ada", announced=False)
        for text in "abc":
            self.publish(text)
        self.assertEqual(ada.outlet.writes, [])
        self.turn()
        self.assertEqual(ada.outlet.writes, [b"a b c "])

    def test_one_encoding_a_batch_however_many_subscribers(self) -> None:
        clients = [self.subscriber(announced=False) for _ in range(500)]
        for text in "abc":
            self.publish(text)
        self.turn()
        self.assertEqual(self.words.encodings, 1)
        self.publish("d")
        self.turn()
        self.assertEqual(self.words.encodings, 2)
        self.assertEqual({self.read(each) for each in clients}, {"a b c d"})

    def test_all_are_sent_the_same_object(self) -> None:
        clients = [self.subscriber(announced=False) for _ in range(10)]
        self.publish("a")
        self.turn()
        self.assertEqual(len({id(each.outlet.writes[0]) for each in clients}), 1)

    def test_one_encoding_for_each_format(self) -> None:
        other = Words()
        for number in range(20):
            self.subscriber(announced=False, format=other if number % 2 else self.words)
        self.publish("a")
        self.publish("b")
        self.turn()
        self.assertEqual((self.words.encodings, other.encodings), (1, 1))

    def test_at_64_kib_it_does_not_wait_for_the_end_of_the_turn(self) -> None:
        ada = self.subscriber("ada", announced=False)
        self.publish("a" * (BATCH_BYTES - 200))
        self.assertEqual(ada.outlet.writes, [])
        self.publish("b" * 200)
        self.assertEqual(len(ada.outlet.writes), 1)
        self.publish("c")
        self.turn()
        self.assertEqual([each[:1] for each in ada.outlet.writes], [b"a", b"c"])

    def test_small_publications_count_for_what_frames_and_names_add(self) -> None:
        ada = self.subscriber("ada", announced=False)
        for _ in range(BATCH_BYTES // 40):
            self.publish("a")
        self.assertEqual(len(ada.outlet.writes), 1)

    def test_answers_go_out_after_what_was_published_before_them(self) -> None:
        ada = self.subscriber("ada", announced=False)
        self.publish("a")
        self.hub.turn.answer(lambda: ada.outlet.write(b"answer "))
        self.publish("b")
        self.turn()
        self.assertEqual(self.read(ada), "a b answer")
        self.hub.turn.answer(lambda: ada.outlet.write(b"at once"))
        self.assertEqual(self.read(ada), "at once")

    def test_an_answer_that_raises_keeps_nothing_else_from_being_sent(self) -> None:
        ada, bo = self.subscriber("ada", announced=False), self.subscriber("bo", "other", announced=False)

        def broken() -> None:
            raise ValueError("broken")

        for answer in (self.hub.turn.answer_first, self.hub.turn.answer):
            self.publish("a")
            self.publish("b", "other")
            answer(broken)
            self.hub.turn.answer_first(lambda: ada.outlet.write(b"first "))
            self.hub.turn.answer(lambda: ada.outlet.write(b"answer"))
            self.assertRaises(ValueError, self.turn)
            self.turn()
            self.assertEqual([self.read(each) for each in (ada, bo)], ["first a answer", "b"])


class NewcomerTests(Case):
    def test_a_newcomer_gets_what_follows_its_coming(self) -> None:
        ada = self.subscriber("ada", announced=False)
        self.publish("a")
        bo = self.subscriber("bo", announced=False)
        cy = self.subscriber("cy", announced=False)
        self.publish("b")
        dan = self.subscriber("dan", announced=False)
        self.publish("c")
        self.turn()
        self.assertEqual([self.read(each) for each in (ada, bo, cy, dan)], ["a b c", "b c", "b c", "c"])

    def test_newcomers_of_the_same_moment_share_an_encoding(self) -> None:
        self.subscriber("ada", announced=False)
        self.publish("a")
        for _ in range(100):
            self.subscriber(announced=False)
        self.publish("b")
        self.turn()
        self.assertEqual(self.words.encodings, 2)

    def test_who_leaves_within_the_turn_is_sent_what_came_until_then(self) -> None:
        ada, bo = self.subscriber("ada", announced=False), self.subscriber("bo", announced=False)
        self.publish("a")
        self.hub.door.unsubscribe(bo, "room")
        self.publish("b")
        self.turn()
        self.assertEqual([self.read(each) for each in (ada, bo)], ["a b", "a"])

    def test_and_nothing_from_before_it_came(self) -> None:
        self.subscriber("ada", announced=False)
        self.publish("a")
        bo = self.subscriber("bo", announced=False)
        self.publish("b")
        self.hub.door.unsubscribe(bo, "room")
        self.turn()
        self.assertEqual(self.read(bo), "b")

    def test_who_comes_again_within_the_turn_misses_only_the_between(self) -> None:
        self.subscriber("ada", announced=False)
        bo = self.subscriber("bo", announced=False)
        self.publish("a")
        self.hub.door.unsubscribe(bo, "room")
        self.publish("b")
        self.hub.door.subscribe(bo, "room", self.words, self.answers.append)
        self.publish("c")
        self.turn()
        self.assertEqual(self.read(bo), "a c")

    def test_a_backlog_and_what_follows_meet_without_a_gap_or_a_double(self) -> None:
        self.subscriber("ada", announced=False)
        first = self.publish("a")
        self.publish("b")
        bo = self.subscriber("bo", announced=False, since=first)
        self.publish("c")
        self.turn()
        backlog = self.answers[-1]
        self.assertEqual([each.data.text for each in backlog.publications], ["b"])
        self.assertEqual(backlog.position.offset, 2)
        self.assertEqual(self.read(bo), "c")

    def test_without_a_position_there_is_no_backlog(self) -> None:
        self.publish("a")
        self.subscriber("ada")
        answer = self.answers[-1]
        self.assertEqual((answer.publications, answer.position.offset, answer.recovered), ([], 1, True))


class LateAnswerTests(Case):
    """Over a broker that answers turns later."""

    lag = 0

    def setUp(self) -> None:
        super().setUp()
        self.make(lambda clock, settings: LateBroker(clock, settings, failures=0, lag=self.lag))

    def around(self, since: Position | None) -> tuple[Any, str]:
        """Publications before, in every turn of, and after a subscribe: its backlog, and what it then reads."""
        self.subscriber("ada", announced=False)
        client = self.connect("bo", announced=False)
        for number in range(0, 12, 2):
            self.publish(str(number))
            if number == 4:
                self.hub.door.subscribe(client, "room", self.words, self.answers.append, since)
            self.publish(str(number + 1))
            self.turn()
        self.clock.settle()
        return self.answers[-1], self.read(client)

    def test_a_backlog_meets_what_came_while_it_was_asked_for(self) -> None:
        self.publish("first")
        self.clock.settle()
        answers: list[Any] = []
        self.hub.history("room", answers.append)
        self.clock.settle()
        backlog, live = self.around(Position(answers[0].position.epoch, 1))
        texts = [each.data.text for each in backlog.publications]
        self.assertEqual([*texts, *live.split()], [str(number) for number in range(12)])
        self.assertEqual(backlog.position.offset, 1 + len(texts))
        self.assertGreater(len(live), 2)

    def test_without_a_position_live_ones_start_after_the_one_that_is_answered(self) -> None:
        backlog, live = self.around(None)
        self.assertEqual(backlog.publications, [])
        self.assertEqual(live.split(), [str(number) for number in range(backlog.position.offset, 12)])

    def test_who_is_gone_before_the_answer_leaves_nothing(self) -> None:
        for turns in range(5):
            client = self.subscriber("ada")
            for _ in range(turns):
                self.turn()
            client.gone()
            self.clock.settle()
            self.assertEqual((self.hub.channels, self.hub.clients), ({}, {}))

    def test_a_refused_subscribe_is_answered_and_may_be_tried_again(self) -> None:
        broker: Any = self.hub.broker
        broker.failures = 1
        client = self.subscriber("ada")
        self.clock.settle()
        self.assertEqual(self.answers.pop().reason.key, "internal")
        self.assertEqual((self.hub.channels, client.subscriptions), ({}, {}))
        broker.failures = 0
        self.hub.door.subscribe(client, "room", self.words, self.answers.append)
        self.clock.settle()
        self.publish("a")
        self.clock.settle()
        self.assertEqual(self.read(client), "a")

    def test_one_that_is_not_kept_is_in_no_backlog(self) -> None:
        self.publish("a")
        self.clock.settle()
        client = self.subscriber("ada", announced=False)
        self.clock.settle()
        self.hub.publish("room", Data.of_text("b"), Info("bo"), self.answers.append, keep=False)
        self.clock.settle()
        self.assertEqual(self.read(client), "b")


class LatePublicationTests(LateAnswerTests):
    """And whose publications take longer to come back than an answer, so that a backlog may have them already."""

    lag = 3


class AnnouncementTests(Case):
    def test_others_are_told_and_a_joiner_is_not_told_of_itself(self) -> None:
        ada = self.subscriber("ada")
        self.turn()
        bo = self.subscriber("bo")
        self.publish("a")
        self.turn()
        self.assertEqual((self.read(ada), self.read(bo)), ("+bo a", "a"))
        bo.gone()
        self.turn()
        self.assertEqual(self.read(ada), "-bo")

    def test_joiners_of_one_turn_are_told_of_each_other(self) -> None:
        ada, bo, cy = (self.subscriber(name) for name in ("ada", "bo", "cy"))
        self.turn()
        self.assertEqual([self.read(each) for each in (ada, bo, cy)], ["+bo +cy", "+cy", ""])

    def test_who_is_not_announced_comes_and_goes_unseen_until_it_is(self) -> None:
        ada = self.subscriber("ada")
        bo = self.subscriber("bo", announced=False)
        self.turn()
        self.assertEqual(self.read(ada), "")
        self.hub.door.announce_client(bo)
        self.hub.door.announce_client(bo)
        self.turn()
        self.assertEqual((self.read(ada), self.read(bo)), ("+bo", ""))

    def test_a_listener_that_leaves_is_not_told_of(self) -> None:
        ada = self.subscriber("ada")
        self.subscriber("bo", announced=False).gone()
        self.turn()
        self.assertEqual(self.read(ada), "")

    def test_a_rename_is_told_to_all_and_only_where_one_is(self) -> None:
        ada, bo = self.subscriber("ada"), self.subscriber("bo")
        cy = self.subscriber("cy", channel="other")
        self.turn()
        for each in (ada, bo, cy):
            self.read(each)
        self.hub.rename(bo, "bob")
        self.hub.rename(bo, "bob")
        self.turn()
        self.assertEqual([self.read(each) for each in (ada, bo, cy)], ["bo>bob", "bo>bob", ""])

    def test_joins_come_before_what_the_joiner_says_and_leaves_after(self) -> None:
        ada, bo = self.subscriber("ada"), self.subscriber("bo")
        self.hub.door.publish(bo, "room", *self.words_of("hello"))
        self.hub.door.unsubscribe(bo, "room")
        self.turn()
        self.assertEqual(self.read(ada), "+bo hello -bo")

    def words_of(self, text: str) -> Any:
        return Data.of_text(text), self.answers.append


class SummaryTests(Case):
    def crowd(self) -> list[Any]:
        clients = [self.subscriber(announced=False) for _ in range(NAMED_SUBSCRIBERS)]
        self.turn()
        return clients

    def test_up_to_a_hundred_are_named(self) -> None:
        clients = self.crowd()
        clients[0].gone()
        self.subscriber("bo")
        self.turn()
        self.assertEqual(self.read(clients[1]), "+bo")

    def test_above_a_hundred_their_number_is_told_at_most_once_a_second(self) -> None:
        clients = self.crowd()
        for _ in range(37):
            self.subscriber()
        self.clock.settle()
        first = self.read(clients[0])
        for each in (self.subscriber(), self.subscriber()):
            each.gone()
        self.subscriber()
        self.clock.settle()
        self.assertEqual((first, self.read(clients[0])), ("+37-0", ""))
        self.clock.advance(1)
        self.assertEqual(self.read(clients[0]), "+3-2")
        self.clock.advance(5)
        self.assertEqual(self.read(clients[0]), "")

    def test_a_joiner_is_not_counted_to_itself(self) -> None:
        self.crowd()
        alone = self.subscriber()
        self.clock.settle()
        self.assertEqual(self.read(alone), "")
        pair = [self.subscriber(), self.subscriber()]
        self.clock.advance(1)
        self.assertEqual([self.read(each) for each in (*pair, alone)], ["+1-0", "+1-0", "+2-0"])

    def test_all_who_joined_together_are_encoded_for_once(self) -> None:
        self.crowd()
        self.subscriber()
        self.clock.settle()
        joiners = [self.subscriber() for _ in range(50)]
        self.words.encodings = 0
        self.clock.advance(1)
        self.assertEqual([self.read(each) for each in joiners], ["+49-0"] * 50)
        self.assertEqual(self.words.encodings, 2)

    def test_summing_up_is_forgotten_when_all_leave(self) -> None:
        clients = [*self.crowd(), self.subscriber(), self.subscriber()]
        self.clock.settle()
        self.subscriber()
        for each in (*clients, *self.hub.clients.copy().values()):
            each.gone()
        self.clock.settle()
        self.assertEqual(self.hub.channels, {})
        self.assertFalse([each for each in self.clock.getDelayedCalls() if "_sum_up" in repr(each)])


class LongBatchTests(Case):
    """A batch that takes long to send is sent in several turns."""

    def setUp(self) -> None:
        super().setUp()
        self.clients = [self.subscriber(announced=False) for _ in range(2_000)]
        self.publish("a" * 20_000)
        self.turn()

    def count(self, text: str) -> int:
        """How many of the clients were sent this."""
        return len([each for each in self.clients if text.encode() in b"".join(self.writes(each))])

    def writes(self, client: Any) -> list[bytes]:
        found: list[bytes] = client.outlet.writes
        return found

    def test_others_are_served_in_between(self) -> None:
        other = self.subscriber("other", "elsewhere", announced=False)
        self.assertTrue(0 < self.count("a") < 1_000)
        self.publish("quick", "elsewhere")
        self.turn()
        self.assertEqual(self.read(other), "quick")
        self.assertLess(self.count("a"), 2_000)
        self.clock.settle()
        self.assertEqual(self.count("a"), 2_000)

    def test_what_comes_meanwhile_follows_in_its_order_and_in_one_batch(self) -> None:
        for text in "bcd":
            self.publish(text)
            self.turn()
        self.assertEqual(self.count("b"), 0)
        encodings = self.words.encodings
        self.clock.settle()
        self.assertEqual({b"".join(self.writes(each))[20_000:] for each in self.clients}, {b" b c d "})
        self.assertEqual(self.words.encodings, encodings + 1)

    def test_one_that_leaves_gets_it_once_and_nothing_after(self) -> None:
        first, last = self.clients[0], self.clients[-1]
        self.publish("b")
        for each in (first, last):
            self.hub.door.unsubscribe(each, "room")
        self.publish("c")
        self.clock.settle()
        self.assertEqual([self.read(each)[20_000:] for each in (first, last)], [" b"] * 2)
        self.assertEqual(self.count("c"), 1_998)

    def test_one_that_is_gone_is_passed_over(self) -> None:
        self.clients[-1].gone()
        self.clock.settle()
        self.assertEqual(self.count("a"), 1_999)

    def test_one_that_comes_meanwhile_begins_behind_it(self) -> None:
        newcomer = self.subscriber("new", announced=False)
        self.publish("b")
        self.clock.settle()
        self.assertEqual(self.read(newcomer), "b")

    def test_a_reply_waits_for_it(self) -> None:
        outlet: Any = self.clients[-1].outlet
        self.hub.turn.answer(lambda: outlet.write(b"reply"))
        self.turn()
        self.assertEqual(self.writes(self.clients[-1]), [])
        self.clock.settle()
        self.assertEqual([each[:5] for each in self.writes(self.clients[-1])], [b"aaaaa", b"reply"])

    def test_at_a_stop_all_of_it_is_sent(self) -> None:
        self.publish("b")
        self.hub.turn.finish()
        self.assertEqual((self.count("a"), self.count("b")), (2_000, 2_000))

    def test_a_wire_format_that_raises_closes_each_reader_once(self) -> None:
        class Broken(Words):
            def word(self, event: Any) -> str:
                raise ValueError("broken")

        self.clock.settle()
        readers = [self.subscriber(announced=False, format=Broken()) for _ in range(2)]
        with self.assertLogs("longconn", logging.ERROR) as logs:
            self.publish("b")
            self.clock.settle()
        self.assertEqual([each.outlet.closed for each in readers], [[SERVER_ERROR]] * 2)
        self.assertEqual((len(logs.output), self.count("b")), (2, 2_000))

    def test_what_waits_is_bounded(self) -> None:
        for _ in range(2 + 16):
            self.publish("b" * BATCH_BYTES)
        self.assertEqual(self.count("a"), 2_000)
        self.assertEqual(self.count("b"), 2_000)


class IsolationTests(Case):
    def test_a_write_that_raises_closes_that_client_and_reaches_all_others(self) -> None:
        clients = [self.subscriber(announced=False) for _ in range(3)]
        clients[1].outlet.broken = True
        with self.assertLogs("longconn", logging.ERROR) as logs:
            self.publish("a")
            self.turn()
        self.assertEqual([self.read(each) for each in clients], ["a", "", "a"])
        self.assertEqual(clients[1].outlet.closed, [SERVER_ERROR])
        self.assertIn(clients[1].name, logs.output[0])
        self.assertEqual(len(self.hub.presence("room")), 2)

    def test_a_wire_format_that_raises_closes_those_who_read_it_and_reaches_all_others(self) -> None:
        class Broken(Words):
            def word(self, event: Any) -> str:
                raise ValueError("broken")

        clients = [self.subscriber(announced=False) for _ in range(2)]
        others = [self.subscriber(announced=False, format=format) for format in (Broken(), self.words)]
        with self.assertLogs("longconn", logging.ERROR):
            self.publish("a")
            self.turn()
        self.assertEqual([self.read(each) for each in (*clients, *others)], ["a", "a", "", "a"])
        self.assertEqual(others[0].outlet.closed, [SERVER_ERROR])

    def test_one_that_leaves_while_it_is_written_to_disturbs_nobody(self) -> None:
        clients = [self.subscriber(announced=False) for _ in range(4)]
        outlet = clients[1].outlet
        outlet.write = lambda data: [clients[0].gone(), clients[1].gone(), clients[2].gone()]  # type: ignore[method-assign]
        clients[1].subscriptions["room"].write = outlet.write
        self.publish("a")
        self.turn()
        self.publish("b")
        self.turn()
        self.assertEqual(self.read(clients[3]), "a b")

    def test_publishing_while_a_batch_is_sent_is_for_the_next(self) -> None:
        ada, bo = self.subscriber(announced=False), self.subscriber(announced=False)
        written = []

        def write(data: bytes) -> None:
            written.append(data)
            if len(written) == 1:
                self.publish("again")

        ada.subscriptions["room"].write = write
        self.publish("a")
        self.clock.settle()
        self.assertEqual((written, self.read(bo)), ([b"a ", b"again "], "a again"))
