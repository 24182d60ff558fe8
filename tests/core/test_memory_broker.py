"""The embedded broker: offsets, bounds, positions."""

from typing import Any

from longconn.core.memory_broker import POSITION_TTL, MemoryBroker
from longconn.core.publication import Announcement, Data, History, Join, Position, Publication
from longconn.core.settings import Settings
from longconn.testing import FakeClock
from tests.core.common import ADA, Case


class Receiver:
    def __init__(self) -> None:
        self.publications: list[Publication] = []
        self.announcements: list[tuple[str, Announcement]] = []

    def on_publication(self, publication: Publication) -> None:
        self.publications.append(publication)

    def on_announcement(self, channel: str, announcement: Announcement) -> None:
        self.announcements.append((channel, announcement))


class BrokerCase(Case):
    def make(self, broker: Any = None, **settings: Any) -> None:
        self.clock = FakeClock()
        self.broker = MemoryBroker(self.clock, Settings(**settings))
        self.receiver = Receiver()
        self.broker.attach(self.receiver)
        self.addCleanup(self.broker.stop)

    def ask(self, method: str, *arguments: Any) -> Any:
        """The answer, which has to be given once and at once."""
        answers: list[Any] = []
        getattr(self.broker, method)(*arguments, answers.append)
        self.assertEqual(len(answers), 1)
        return answers[0]

    def say(self, text: str, channel: str = "room") -> Position:
        answer: Position = self.ask("publish", channel, Data.of_text(text), ADA)
        return answer

    def history(
        self, since: Position | None = None, limit: int = -1, reverse: bool = False, channel: str = "room"
    ) -> History:
        answer: History = self.ask("history", channel, since, limit, reverse)
        return answer

    def texts(self, *arguments: Any, **options: Any) -> list[str | None]:
        return [each.data.text for each in self.history(*arguments, **options).publications]


class WallClockTests(BrokerCase):
    """The wall clock is set: people see it, and nothing is kept longer or shorter for it."""

    def test_publications_have_its_time(self) -> None:
        self.make()
        self.clock.wall_ahead = 3_600
        self.say("a")
        self.assertEqual(self.history().publications[0].time, self.clock.seconds() + 3_600)

    def test_history_is_kept_for_its_time(self) -> None:
        for jump in (3_600, -3_600):
            self.make(history_ttl=10)
            self.say("before")
            self.clock.advance(5)
            self.clock.wall_ahead = jump
            self.say("after")
            self.assertEqual(self.texts(), ["before", "after"])
            self.clock.advance(6)
            self.assertEqual(self.texts(), ["after"])
            self.clock.advance(6)
            self.assertEqual(self.texts(), [])


class OrderTests(BrokerCase):
    def test_offsets_count_from_one_within_an_epoch(self) -> None:
        positions = [self.say(text) for text in "abc"]
        self.assertEqual([each.offset for each in positions], [1, 2, 3])
        self.assertEqual(len({each.epoch for each in positions}), 1)
        self.assertEqual(self.history().position, positions[-1])

    def test_channels_and_brokers_have_epochs_of_their_own(self) -> None:
        epochs = {self.say("a").epoch, self.say("a", "other").epoch}
        self.make()
        epochs.add(self.say("a").epoch)
        self.assertEqual(len(epochs), 3)

    def test_an_epoch_has_no_hyphen_so_that_a_command_line_does_not_take_it_for_an_option(self) -> None:
        for _ in range(300):
            self.make()
            self.assertNotIn("-", self.say("a").epoch)

    def test_a_publication_comes_back_before_its_publish_is_answered(self) -> None:
        self.say("before")
        self.assertIsNone(self.ask("subscribe", "room"))
        answers: list[Any] = []
        self.broker.publish(
            "room", Data.of_text("a"), ADA, lambda result: answers.append((result, len(self.receiver.publications)))
        )
        ((position, came),) = answers
        self.assertEqual((position.offset, came), (2, 1))
        got = self.receiver.publications[0]
        self.assertEqual(
            (got.channel, got.epoch, got.offset, got.data.text, got.info, got.time),
            ("room", position.epoch, 2, "a", ADA, self.clock.seconds()),
        )

    def test_nothing_comes_back_from_other_channels_or_after_unsubscribing(self) -> None:
        self.ask("subscribe", "room")
        self.say("x", "other")
        self.broker.announce("other", Join(ADA))
        self.broker.announce("room", Join(ADA))
        self.broker.unsubscribe("room")
        self.say("y")
        self.broker.announce("room", Join(ADA))
        self.assertEqual((self.receiver.publications, self.receiver.announcements), ([], [("room", Join(ADA))]))

    def test_announcements_have_no_offset_and_are_not_kept(self) -> None:
        self.ask("subscribe", "room")
        self.broker.announce("room", Join(ADA))
        self.assertEqual(self.history(), History([], self.history().position, True))
        self.assertEqual(self.history().position.offset, 0)


class HistoryTests(BrokerCase):
    def test_the_oldest_in_order_or_the_newest_first(self) -> None:
        for text in "abcde":
            self.say(text)
        self.assertEqual(self.texts(), list("abcde"))
        self.assertEqual(self.texts(limit=2), list("ab"))
        self.assertEqual(self.texts(limit=9), list("abcde"))
        self.assertEqual(self.texts(limit=0), [])
        self.assertEqual(self.texts(reverse=True), list("edcba"))
        self.assertEqual(self.texts(limit=2, reverse=True), list("ed"))

    def test_after_a_position_in_order_or_before_it_the_newest_first(self) -> None:
        positions = [self.say(text) for text in "abcde"]
        self.assertEqual(self.texts(positions[1]), list("cde"))
        self.assertEqual(self.texts(positions[1], 2), list("cd"))
        self.assertEqual(self.texts(positions[3], -1, True), list("cba"))
        self.assertEqual(self.texts(positions[3], 2, True), list("cb"))
        self.assertEqual(self.texts(positions[0], 2, True), [])
        self.assertEqual(self.texts(positions[4]), [])
        self.assertEqual(self.texts(Position(positions[0].epoch, 0)), list("abcde"))
        for since in positions:
            self.assertTrue(self.history(since).recovered)

    def test_a_position_of_another_epoch_or_of_the_future_is_unrecovered_with_what_is_kept(self) -> None:
        for text in "abc":
            here = self.say(text)
        for since in (Position("other", 1), Position(here.epoch, 4), Position(here.epoch, 10**17)):
            answer = self.history(since)
            self.assertEqual((answer.recovered, len(answer.publications), answer.position), (False, 3, here))

    def test_a_position_before_the_oldest_kept_is_unrecovered(self) -> None:
        self.make(history_size=3)
        positions = [self.say(text) for text in "abcde"]
        self.assertTrue(self.history(positions[1]).recovered)  # b: c d e are there
        gone = self.history(positions[0])
        self.assertEqual((gone.recovered, [each.data.text for each in gone.publications]), (False, list("cde")))

    def test_recovered_is_answered_without_publications_too(self) -> None:
        self.make(history_size=1)
        here = self.say("a")
        self.say("b")
        self.assertTrue(self.history(here, 0).recovered)
        self.say("c")
        self.assertFalse(self.history(here, 0).recovered)

    def test_an_empty_channel_has_a_position(self) -> None:
        answer = self.history()
        self.assertEqual((answer.publications, answer.position.offset, answer.recovered), ([], 0, True))
        self.assertTrue(self.history(answer.position).recovered)


class BoundTests(BrokerCase):
    def test_by_count(self) -> None:
        self.make(history_size=3)
        for text in "abcde":
            self.say(text)
        self.assertEqual(self.texts(), list("cde"))

    def test_by_age(self) -> None:
        self.make(history_ttl=10)
        self.say("a")
        self.clock.advance(6)
        self.say("b")
        self.clock.advance(5)
        self.assertEqual(self.texts(), ["b"])
        self.clock.advance(5)
        self.assertEqual(self.texts(), [])
        self.assertEqual(self.history().position.offset, 2)

    def test_by_bytes(self) -> None:
        self.make(history_bytes=10_000)
        for text in "abcdefgh":
            self.say(text * 2_000)
        kept = self.texts()
        self.assertEqual([each[0] for each in kept if each], list("efgh"))
        self.say("x" * 20_000)
        self.assertEqual(self.texts(), [])

    def test_small_publications_cost_more_than_their_text(self) -> None:
        self.make(history_size=1_000_000, history_bytes=30_000)
        for _ in range(1_000):
            self.say("a")
        self.assertLess(len(self.texts()), 200)

    def test_over_the_total_the_oldest_of_all_channels_is_dropped(self) -> None:
        self.make(history_total=5_000)
        positions = {}
        for channel in "abcdefgh":
            positions[channel] = self.say(channel * 1_000, channel)
            self.clock.advance(1)
        kept = [channel for channel in "abcdefgh" if self.texts(channel=channel)]
        self.assertEqual(kept, list("fgh"))
        before = Position(positions["a"].epoch, 0)
        self.assertFalse(self.history(before, channel="a").recovered)
        self.assertTrue(self.history(positions["a"], channel="a").recovered)

    def test_the_oldest_is_dropped_first_also_after_newer_publications_in_its_channel(self) -> None:
        self.make(history_total=5_000)
        for channel in "abab":
            self.say(channel * 1_000, channel)
            self.clock.advance(1)
        self.say("c" * 1_000, "c")
        self.assertEqual([len(self.texts(channel=each)) for each in "abc"], [1, 1, 1])

    def test_any_bound_of_zero_keeps_nothing_and_still_counts(self) -> None:
        for bound in ("history_size", "history_ttl", "history_bytes", "history_total"):
            with self.subTest(bound=bound):
                self.make(**{bound: 0})
                first = self.say("a")
                second = self.say("b")
                self.assertEqual((self.texts(), second.offset), ([], 2))
                self.assertFalse(self.history(first).recovered)
                self.assertTrue(self.history(second).recovered)
                self.broker.stop()
                self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_expired_publications_are_dropped_without_a_request(self) -> None:
        self.make(history_ttl=10)
        for number in range(50):
            self.say("a", f"room-{number}")
        self.clock.advance(POSITION_TTL + 100)
        left = [each for each in self.broker._oldest.values() if each]
        self.assertEqual((self.broker._streams, left, self.broker._size), ({}, [], 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PositionTests(BrokerCase):
    """A channel's epoch and offset outlive its subscribers and its history by an hour."""

    def test_within_an_hour_the_position_is_known(self) -> None:
        self.make(history_ttl=10)
        here = self.say("a")
        self.clock.advance(POSITION_TTL - 100)
        self.assertEqual(self.history().position, here)
        self.assertTrue(self.history(here).recovered)

    def test_after_an_hour_it_is_a_new_epoch(self) -> None:
        self.make(history_ttl=10)
        here = self.say("a")
        self.clock.advance(POSITION_TTL + 100)
        self.assertNotEqual(self.history().position.epoch, here.epoch)
        self.assertFalse(self.history(here).recovered)

    def test_history_and_publish_keep_the_position(self) -> None:
        self.make(history_ttl=10)
        here = self.say("a")
        for _ in range(3):
            self.clock.advance(POSITION_TTL - 100)
            self.assertEqual(self.history().position.epoch, here.epoch)

    def test_a_subscriber_keeps_the_position_without_a_limit(self) -> None:
        self.make(history_ttl=10)
        self.ask("subscribe", "room")
        here = self.say("a")
        self.clock.advance(5 * POSITION_TTL)
        self.assertEqual(self.history().position, here)
        self.broker.unsubscribe("room")
        self.clock.advance(POSITION_TTL + 100)
        self.assertNotEqual(self.history().position.epoch, here.epoch)

    def test_at_the_limit_the_least_recently_used_is_forgotten(self) -> None:
        self.make(max_channels=3, history_ttl=0)
        positions = {channel: self.say("x", channel) for channel in "abc"}
        self.history(channel="a")
        self.say("x", "d")  # b was idle longest
        self.assertEqual(self.history(channel="a").position.epoch, positions["a"].epoch)
        self.assertEqual(self.history(channel="c").position.epoch, positions["c"].epoch)
        self.assertNotEqual(self.history(channel="b").position.epoch, positions["b"].epoch)

    def test_at_the_limit_history_that_nobody_reads_makes_room(self) -> None:
        self.make(max_channels=3, history_ttl=1000)
        self.ask("subscribe", "read")
        kept = {channel: self.say("x", channel) for channel in ("read", "old", "new")}
        self.history(channel="old")  # looked at, and so used later than `new`
        for number in range(50):
            self.say("x", f"c{number}")
            self.assertEqual(len(self.broker._streams), 3)
        self.assertEqual(self.history(channel="read").position, kept["read"])
        self.assertEqual(self.texts(channel="read"), ["x"])
        self.assertLessEqual(sum(map(len, self.broker._oldest.values())), 8)
        size = self.broker.kept_bytes
        self.clock.advance(1100)
        self.assertEqual((self.broker.kept_bytes, size > 0), (0, True))
        self.assertEqual(sum(map(len, self.broker._oldest.values())), 0)

    def test_at_the_limit_a_channel_without_history_goes_first(self) -> None:
        self.make(max_channels=2)
        kept = self.say("x", "kept")
        self.ask("history", "empty", None, -1, False)
        self.say("x", "more")
        self.assertEqual(self.history(channel="kept").position, kept)

    def test_at_the_limit_with_all_in_use_a_new_channel_is_refused(self) -> None:
        self.make(max_channels=2)
        self.ask("subscribe", "a")
        self.ask("subscribe", "b")
        for method, *arguments in (
            ("subscribe", "c"),
            ("publish", "c", Data.of_text("x"), ADA),
            ("history", "c", None, -1, False),
        ):
            self.assertEqual(self.ask(str(method), *arguments).reason.key, "limit_exceeded")
        self.assertEqual(self.say("x", "a").offset, 1)
