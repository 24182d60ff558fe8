"""What every protocol must do, whatever it is: the tests, without a protocol.

A concrete case has one of the `…Behaviour` mixins, a `member` class, and perhaps `Late`, which puts a
broker underneath that answers two turns later and sometimes refuses for now.
"""

import logging
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn import ChatFactory, Hub, Settings, SharedPortFactory, WebSocketFactory
from longconn.core.disconnects import SHUTDOWN, SLOW, WRITE_TIMEOUT
from longconn.core.publication import Data, Info, Position
from longconn.service.embedding import LiveSite
from longconn.testing import FakeClock, MemoryServer
from tests.behaviour.broker import LateBroker
from tests.behaviour.members import Member, TCPMember

POSTER = Info("poster")


class Case(SynchronousTestCase):
    """A server, members of the kind under test, and witnesses of another."""

    member: type[Member]
    #: whether the broker refuses a command now and then, which may be given again
    may_refuse = False

    def setUp(self) -> None:
        # Slow clients are warned of by the hundred here: not on the screen, where nobody asked for them.
        logger, handler = logging.getLogger("longconn"), logging.NullHandler()
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        self.serve()

    def serve(self, **settings: Any) -> None:
        """Serve with these settings, in place of what was served before."""
        clock = FakeClock()
        made = Settings(**settings)
        self.server = MemoryServer(hub=Hub(clock, made, self.broker(clock, made)))
        self.addCleanup(self.server.stop)
        hub = self.server.hub
        site = LiveSite(hub)
        chat = ChatFactory(hub)
        self.factories = {"chat": chat, "shared": SharedPortFactory(chat, site), "websocket": WebSocketFactory(hub)}

    def broker(self, clock: FakeClock, settings: Settings) -> Any:
        return None

    def join(self, channel: str = "lobby", kind: type[Member] | None = None, **options: Any) -> Any:
        """A member that is in the channel and has heard what there was to hear (but for a backlog)."""
        member = (kind or self.member)(self.server, self.factories, channel, **options)
        for _ in range(100):
            self.server.settle()
            if member.inside:
                break
            member.again()  # type: ignore[attr-defined]
        self.assertTrue(member.inside, "could not come in")
        if member.since is None or "since" not in options:
            member.hear()
        return member

    def witness(self, channel: str = "lobby") -> Any:
        """A member that speaks, over TCP."""
        return self.join(channel, TCPMember)

    def post(self, text: str, channel: str = "lobby") -> Position:
        """Publish until the broker takes it, and let it be sent."""
        answers: list[Any] = []
        for _ in range(100):
            self.server.hub.publish(channel, Data.of_text(text), POSTER, answers.append)
            self.server.settle()
            if isinstance(answers[-1], Position):
                return answers[-1]
        raise AssertionError("never accepted")

    def say(self, member: Any, text: str) -> None:
        """Say it again until no error comes."""
        member.hear()
        for _ in range(100):
            member.say(text)
            heard = member.hear()
            if not any(each[0] == "error" for each in heard):
                return
        raise AssertionError("never accepted")

    def clear(self, *members: Any) -> None:
        for each in members:
            each.hear()

    def lost_for(self, member: Any) -> None:
        """The member's connection breaks."""
        member.connection.reset()
        self.server.settle()


class Late:
    """Over a broker as one over a network is."""

    _served = 0
    may_refuse = True

    def broker(self, clock: FakeClock, settings: Settings) -> LateBroker:
        self._served += 1
        return LateBroker(clock, settings, seed=self._served)


class ReadingBehaviour(Case):
    """For all that read."""

    def test_it_reads_what_is_said_after_it_came_and_nothing_from_before(self) -> None:
        self.post("before")
        member = self.join()
        self.assertEqual([each for each in member.history if each[0] == "said"], [])
        self.post("after")
        self.assertEqual(member.hears(), [("said", "poster", "after")])

    def test_it_reads_every_publication_once_and_in_order(self) -> None:
        members = [self.join(), self.join(), self.witness()]
        texts = [f"text {number}" for number in range(60)]
        for number, text in enumerate(texts):
            answers: list[Any] = []
            while not answers or not isinstance(answers[-1], Position):
                self.server.hub.publish("lobby", Data.of_text(text), POSTER, answers.append)
                if number % 3 or answers == []:
                    self.server.clock.turn()
                self.server.clock.turn()
                self.server.clock.turn()
        for each in members:
            self.assertEqual(each.says(), texts)

    def test_writers_that_talk_at_once_are_read_by_all_in_one_order(self) -> None:
        members = [self.join(), self.join(), self.witness(), self.witness()]
        for number in range(30):
            for writer in members[2:]:
                writer.client.say(f"{number}")
            self.server.hub.publish("lobby", Data.of_text(str(number)), POSTER, lambda result: None)
            if number % 4 == 0:
                self.server.clock.turn()
        orders = [each.hears() for each in members]
        self.assertEqual(orders.count(orders[0]), 4)
        self.assertGreater(len(orders[0]), 40)
        for name in (members[2].name, members[3].name, "poster"):
            numbers = [int(text) for _, who, text in orders[0] if who == name]
            self.assertEqual(numbers, sorted(set(numbers)))

    def test_channels_are_apart(self) -> None:
        here, there = self.join("one"), self.join("two/2:ü")
        self.post("a", "one")
        self.post("b", "two/2:ü")
        self.post("c", "three")
        self.assertEqual((here.says(), there.says()), (["a"], ["b"]))

    def test_what_is_no_text_is_read_too(self) -> None:
        member = self.join()
        answers: list[Any] = []
        while not answers or not isinstance(answers[-1], Position):
            self.server.hub.publish("lobby", Data.of_json(b'{"a": [1]}'), POSTER, answers.append)
            self.server.settle()
        self.assertIn(member.says(), (['{"a":[1]}'], [{"a": [1]}]))

    def test_one_that_breaks_off_disturbs_nobody_and_leaves_nothing(self) -> None:
        witness = self.witness()
        member, other = self.join(), self.join()
        self.clear(witness)
        self.lost_for(member)
        self.post("a")
        self.assertEqual((witness.says(), other.says()), (["a"], ["a"]))
        self.lost_for(other)
        self.lost_for(witness)
        self.assertEqual((self.server.hub.clients, self.server.hub.channels), ({}, {}))

    def test_one_that_breaks_off_while_it_comes_leaves_nothing(self) -> None:
        clock = self.server.clock
        for turns in range(8):
            # One turn where there would be as many as it takes.
            clock.settle = clock.turn  # type: ignore[method-assign,assignment]
            try:
                member = self.member(self.server, self.factories)
                for _ in range(turns):
                    clock.turn()
                member.connection.reset()
            finally:
                del clock.settle
            clock.settle()
            self.assertEqual((self.server.hub.clients, self.server.hub.channels), ({}, {}))

    def test_it_is_told_and_let_go_when_there_is_no_room(self) -> None:
        self.serve(max_connections=2)
        self.witness()
        self.witness()
        member = self.member(self.server, self.factories)
        self.server.advance(1)
        self.assertFalse(member.inside)
        self.assertTrue(self.refused(member), vars(member.client))

    def refused(self, member: Any) -> bool:
        """Whether it was told that there is no room."""
        raise NotImplementedError


class StayingBehaviour(ReadingBehaviour):
    """For all that stay connected, and are clients of the hub."""

    def test_a_slow_one_is_disconnected_and_named_and_the_others_read_on(self) -> None:
        self.serve(send_queue=100_000, history_bytes=0)
        witness, slow, other = self.witness(), self.join(), self.join()
        slow.connection.stop_reading()
        with self.assertLogs("longconn", logging.WARNING) as logs:
            texts = [f"{number:03}" + "x" * 5_000 for number in range(60)]
            for text in texts:
                self.post(text)
        self.assertEqual(witness.says(), texts)
        self.assertEqual(other.says(), texts)
        self.assertEqual(len(logs.output), 1)
        self.assertIn(f"{slow.protocol} client {slow.name} from {slow.name} is disconnected", logs.output[0])
        self.assertIn(f"({SLOW.code} ", logs.output[0])
        self.assertEqual(len(self.server.hub.clients), 2)
        self.server.advance(6)
        slow.connection.start_reading()
        self.server.settle()
        self.assertTrue(slow.connection.aborted)

    def test_a_slow_one_that_reads_again_is_told_why(self) -> None:
        self.serve(send_queue=100_000, history_bytes=0)
        slow = self.join()
        slow.connection.stop_reading()
        for number in range(60):
            self.post(f"{number:03}" + "x" * 5_000)
        slow.connection.start_reading()
        self.server.settle()
        self.server.advance(1)
        said = slow.says()
        self.assertEqual([text[:3] for text in said], [f"{number:03}" for number in range(len(said))])
        self.assertLess(len(said), 60)
        self.assertTrue(slow.closed)
        self.assertTrue(self.was_told(slow, SLOW))

    def test_what_waits_is_bounded(self) -> None:
        self.serve(send_queue=100_000, history_bytes=0)
        slow = self.join()
        slow.connection.stop_reading()
        most = 0
        for number in range(60):
            self.post(f"{number:03}" + "x" * 5_000)
            most = max(most, self.server.hub._queued)
        self.assertTrue(50_000 < most <= 106_000, most)
        self.assertEqual(self.server.hub._queued, 0)

    def test_in_all_the_largest_queue_goes_first(self) -> None:
        self.serve(send_queue_total=200_000, history_bytes=0)
        early, late = self.join(), self.join()
        early.connection.stop_reading()
        for _ in range(40):
            self.post("x" * 5_000)
        late.connection.stop_reading()
        for _ in range(35):
            self.post("x" * 5_000)
        ids = {client.address for client in self.server.hub.clients.values()}
        self.assertEqual(ids, {late.name})

    def test_one_that_takes_nothing_for_long_is_disconnected(self) -> None:
        self.serve(write_timeout=30, idle_timeout=0, ping_interval=0)
        slow, other = self.join(), self.join()
        slow.connection.stop_reading()
        for _ in range(40):
            self.post("x" * 5_000)
        self.server.advance(28)
        self.assertEqual(len(self.server.hub.clients), 2)
        with self.assertLogs("longconn", logging.WARNING) as logs:
            self.server.advance(4)
        self.assertIn(f"{slow.name} is disconnected ({WRITE_TIMEOUT.code} ", logs.output[0])
        self.post("still here")
        self.assertEqual(other.says()[-1], "still here")

    def test_one_that_reads_slowly_but_reads_stays(self) -> None:
        self.serve(write_timeout=30, idle_timeout=0, ping_interval=0)
        slow = self.join()
        slow.connection.stop_reading()
        texts = [f"{number:03}" + "x" * 5_000 for number in range(60)]
        for text in texts:
            self.post(text)
        for _ in range(10):
            self.server.advance(20)
            slow.connection.start_reading()
            self.server.clock.turn()
            slow.connection.stop_reading()
        slow.connection.start_reading()
        self.assertEqual(slow.says(), texts)

    def test_at_a_shutdown_it_reads_what_was_said_and_is_told(self) -> None:
        member = self.join()
        self.post("last words")
        for client in list(self.server.hub.clients.values()):
            client.close(SHUTDOWN)
        self.server.settle()
        self.server.advance(1)
        self.assertEqual(member.says(), ["last words"])
        self.assertTrue(self.was_told(member, SHUTDOWN))
        self.assertTrue(member.closed)
        self.assertEqual(self.server.hub.clients, {})

    def was_told(self, member: Any, disconnect: Any) -> bool:
        """Whether the member heard of that reason."""
        raise NotImplementedError

    def test_presence_names_it_while_it_is_there(self) -> None:
        witness = self.witness()
        member = self.join()
        names = {each.name for each in self.server.hub.presence("lobby")}
        self.assertEqual(names, {witness.name, member.name})
        self.lost_for(member)
        self.assertEqual([each.name for each in self.server.hub.presence("lobby")], [witness.name])

    def test_a_write_that_raises_is_that_clients_end_alone(self) -> None:
        broken, other = self.join(), self.join()
        client = next(each for each in self.server.hub.clients.values() if each.address == broken.name)

        def fail(data: bytes) -> None:
            raise ValueError("broken")

        client.subscriptions["lobby"].write = fail
        with self.assertLogs("longconn", logging.ERROR):
            self.post("a")
        self.post("b")
        self.assertEqual(other.says(), ["a", "b"])
        self.assertEqual(len(self.server.hub.clients), 1)


class ResumingBehaviour(ReadingBehaviour):
    """For those that come back with a position."""

    def test_it_resumes_without_a_gap_or_a_double(self) -> None:
        member = self.join()
        self.post("1")
        self.assertEqual(member.says(), ["1"])
        self.lost_for(member)
        for text in "234":
            self.post(text)
        again = self.join(since=member.since)
        self.post("5")
        self.assertEqual(again.says(), list("2345"))

    def test_it_resumes_from_where_it_came_before_anything_was_said(self) -> None:
        member = self.join()
        self.assertIsNotNone(member.since)
        self.lost_for(member)
        self.post("1")
        self.assertEqual(self.join(since=member.since).says(), ["1"])

    def test_what_is_said_while_it_comes_back_is_read_once(self) -> None:
        first = self.post("0")
        since = f"{first.epoch}:{first.offset}"
        for delay in range(8):
            with self.subTest(delay=delay):
                self.serve()
                first = self.post("0")
                since = f"{first.epoch}:{first.offset}"
                texts = []
                hub = self.server.hub

                def said(result: Any, text: str, texts: list[str] = texts) -> None:
                    if isinstance(result, Position):
                        texts.append(text)

                def speak(number: int, hub: Hub = hub, said: Any = said) -> None:
                    hub.publish("lobby", Data.of_text(str(number)), POSTER, lambda result: said(result, str(number)))

                for number in range(1, 12):
                    hub.clock.callLater(0, self.in_turns, number, lambda number=number, speak=speak: speak(number))
                hub.clock.callLater(0, self.in_turns, delay, lambda: None)
                member = self.join(since=since)
                self.assertEqual(member.says(), texts)

    def in_turns(self, turns: int, action: Any) -> None:
        if turns:
            self.server.clock.callLater(0, self.in_turns, turns - 1, action)
        else:
            action()

    def test_a_position_that_is_lost_is_said_to_be(self) -> None:
        self.serve(history_size=3)
        for text in "12345":
            last = self.post(text)
        for since in (f"{last.epoch}:1", "other:4", f"{last.epoch}:99"):
            with self.subTest(since=since):
                member = self.join(since=since)
                heard = member.hear()
                self.assertEqual(heard[0], ("lost",))
                self.assertEqual([each[2] for each in heard[1:]], list("345"))
                self.post("6")
                self.assertEqual(member.says(), ["6"])
                self.lost_for(member)
                self.serve(history_size=3)
                for text in "12345":
                    last = self.post(text)

    def test_the_oldest_position_that_can_be_recovered_is(self) -> None:
        self.serve(history_size=3)
        for text in "12345":
            last = self.post(text)
        self.assertEqual(self.join(since=f"{last.epoch}:2").hear(), [("said", "poster", each) for each in "345"])

    def test_a_long_backlog_is_no_reason_to_call_it_slow(self) -> None:
        self.serve(history_size=1_000, history_bytes=10_000_000, send_queue=50_000)
        first = self.post("0")
        texts = [f"{number:03}" + "x" * 5_000 for number in range(200)]
        for text in texts:
            self.post(text)
        self.assertEqual(self.join(since=f"{first.epoch}:{first.offset}").says(), texts)

    def test_what_is_said_while_a_backlog_is_read_follows_it(self) -> None:
        self.serve(history_size=1_000, history_bytes=10_000_000)
        first = self.post("0")
        texts = [f"{number:03}" + "x" * 5_000 for number in range(100)]
        for text in texts:
            self.post(text)
        member = self.join(since=f"{first.epoch}:{first.offset}", window=10_000)
        self.post("live")
        self.assertEqual(member.says(), [*texts, "live"])


class RatedBehaviour(StayingBehaviour):
    """For members that publish over their connection."""

    def test_over_its_rate_it_is_slowed_and_nothing_is_lost(self) -> None:
        self.serve(publish_rate=10, publish_burst=5)
        witness, member = self.witness(), self.join()
        texts = [str(number) for number in range(35)]
        member.say(*texts)
        first = len(witness.says())
        self.assertTrue(first <= 5, first)
        self.server.advance(1)
        second = len(witness.says())
        self.assertTrue(5 <= second <= 11, second)
        self.server.advance(10)
        self.clear(witness)
        refused = len(member.hears("error"))
        heard = [each[2] for each in witness.history if each[0] == "said"]
        self.assertEqual(heard, sorted(set(heard), key=int))
        self.assertEqual(len(heard) + refused, 35)
        self.assertFalse(member.closed)


class SpeakingBehaviour(RatedBehaviour):
    """For chat clients: TCP lines and /ws."""

    def was_told(self, member: Any, disconnect: Any) -> bool:
        raise NotImplementedError

    def test_all_read_what_it_says_itself_included(self) -> None:
        member, witness = self.join(), self.witness()
        self.clear(member, witness)
        self.say(member, "hello")
        self.assertEqual(witness.hears(), [("said", member.name, "hello")])
        self.assertIn(("said", member.name, "hello"), member.history)

    def test_others_are_told_that_it_came_and_went_and_it_is_not(self) -> None:
        witness = self.witness()
        member = self.join()
        self.say(member, "hello")
        self.lost_for(member)
        heard = [each for each in witness.hear() if each[0] in ("joined", "left", "said")]
        self.assertEqual(heard, [("joined", member.name), ("said", member.name, "hello"), ("left", member.name)])
        self.assertNotIn(("joined", member.name), member.history)

    def test_it_takes_a_name_that_is_free(self) -> None:
        witness, member = self.witness(), self.join()
        self.say(member, "hello")
        self.clear(member, witness)
        member.say("/nick ada")
        self.assertIn(("renamed", member.name, "ada"), member.hear())
        self.assertEqual(witness.hear(), [("renamed", member.name, "ada")])
        self.say(member, "hi")
        self.assertEqual(witness.hears(), [("said", "ada", "hi")])
        witness.say("/nick ADA")
        self.assertEqual(witness.hear(), [("error", "the name ADA is taken")])

    def test_a_bad_name_is_refused_and_changes_nothing(self) -> None:
        member = self.join()
        for name in ("127.0.0.1", "a b", "x" * 33, "a\x1b"):
            member.say(f"/nick {name}")
            self.assertEqual(member.hears("error")[-1][1], "a name is 1 to 32 letters, digits, _ - . and no address")
        member.say("/nick")
        self.assertEqual(member.hears("error")[-1][1], "usage: /nick NAME")

    def test_it_changes_channels(self) -> None:
        here, there, member = self.witness(), self.witness("den"), self.join()
        self.say(member, "hello")
        self.clear(here, there, member)
        self.say(member, "/join den")
        self.say(member, "new here")
        self.post("for the lobby")
        self.assertEqual(here.hear(), [("left", member.name), ("said", "poster", "for the lobby")])
        self.assertEqual(there.hear(), [("joined", member.name), ("said", member.name, "new here")])
        self.assertEqual([each for each in member.history if "lobby" in str(each)], [])
        member.say("/join a b")
        self.assertEqual(member.hears("error")[-1][1][:17], "a channel is 1 to")
        self.say(member, "still there")
        self.assertEqual(there.says(), ["still there"])

    def test_what_it_says_right_after_a_join_goes_to_the_new_channel(self) -> None:
        for number in range(5):
            self.serve()
            here, there, member = self.witness(), self.witness("den"), self.join()
            member.say("/join den", "who is here?", f"I am {number}")
            heard = member.hear()
            if not any(each[0] == "error" for each in heard):
                self.assertEqual(there.says(), ["who is here?", f"I am {number}"])
                self.assertEqual(here.says(), [])
                return
        raise AssertionError("refused too often to tell")

    def test_an_over_long_message_is_answered_and_never_published(self) -> None:
        self.serve(max_message=1_000)
        witness, member = self.witness(), self.join()
        self.say(member, "x" * 1_000)
        self.assertEqual(len(witness.says()), 1)
        member.say("y" * 1_001)
        self.server.advance(1)
        self.assertTrue(self.too_large(member))
        self.assertEqual(witness.says(), [])

    def too_large(self, member: Any) -> bool:
        """Whether it was told that a message was too large."""
        raise NotImplementedError

    def test_what_is_not_utf8_is_answered_and_never_published(self) -> None:
        witness, member = self.witness(), self.join()
        member.say_raw(b"a\xffb")
        self.server.advance(1)
        self.assertTrue(self.not_utf8(member))
        self.assertEqual(witness.says(), [])

    def not_utf8(self, member: Any) -> bool:
        raise NotImplementedError

    def test_while_it_is_slowed_nothing_more_is_read_from_it(self) -> None:
        self.serve(publish_rate=10, publish_burst=5)
        member = self.join()
        member.say(*map(str, range(20)))
        member.say("later")
        self.assertFalse(member.connection.transport._reading)
        self.assertTrue(member.connection.transport._incoming)
        self.server.advance(10)
        self.assertTrue(member.connection.transport._reading)

    def test_bytes_have_a_rate_too(self) -> None:
        self.serve(publish_bytes=10_000)
        witness, member = self.witness(), self.join()
        member.say(*["x" * 5_000] * 12)
        self.assertLessEqual(len(witness.says()), 4)
        self.server.advance(10)
        self.clear(witness)
        said = [each for each in witness.history if each[0] == "said"]
        self.assertEqual(len(said) + len(member.hears("error")), 12)

    def test_commands_have_a_rate_of_their_own(self) -> None:
        self.serve(publish_rate=10, publish_burst=5)
        member = self.join()
        self.server.advance(2)
        member.say(*["/who"] * 20)
        self.assertLessEqual(len(member.hears("info")), 6)
        self.server.advance(5)
        self.assertGreater(len(member.hears("info")), 10)

    def test_an_empty_line_leaves(self) -> None:
        witness, member = self.witness(), self.join()
        self.say(member, "hello")
        self.clear(witness)
        member.say("")
        self.server.advance(1)
        self.assertEqual(witness.hear(), [("left", member.name)])
        self.assertTrue(member.closed)

    def test_or_does_not(self) -> None:
        self.serve(empty_line="ignore")
        member = self.join()
        member.say("", "", "ping")
        self.assertEqual(member.hears("info"), [("info", "pong")])
        self.assertFalse(member.closed)

    def test_commands_are_answered_to_it_alone(self) -> None:
        witness, member = self.witness(), self.join()
        self.say(member, "hello")
        self.clear(witness, member)
        member.say("ping", "/who", "/channels", "/help", "/foo", "/history x", "/nick", "/json {")
        heard = [each[1] for each in member.hear()]
        self.assertEqual(heard[0], "pong")
        self.assertRegex(heard[1], "^2 in lobby: ")
        self.assertEqual(set(heard[1].removeprefix("2 in lobby: ").split(", ")), {witness.name, member.name})
        self.assertEqual(heard[2], "channels: lobby (2)")
        self.assertEqual(len(heard), 10)
        self.assertEqual(heard[6], "unknown command /foo; /help lists them")
        self.assertEqual(heard[7:], ["usage: /history [N]", "usage: /nick NAME", "not valid: JSON"])
        self.assertEqual(witness.hear(), [])

    def test_history_is_told_on_demand(self) -> None:
        member = self.join()
        while member.hears("info") != [("info", "nothing was said in lobby lately")]:
            member.say("/history")
        for number in range(30):
            self.post(str(number))
        self.clear(member)
        for command, wanted in (
            ("/history", range(10, 30)),
            ("/history 3", range(27, 30)),
            ("/history 999", range(30)),
        ):
            heard: list[Any] = []
            while not heard:
                member.say(command)
                heard = member.says()
            self.assertEqual(heard, [str(each) for each in wanted])

    def test_json_and_text_that_starts_with_a_slash(self) -> None:
        witness, member = self.witness(), self.join()
        self.say(member, '/json {"a": [1, "b c"]}')
        self.say(member, "//who")
        self.assertEqual(witness.says(), ['{"a":[1,"b c"]}', "/who"])

    def test_controls_do_not_reach_others_and_no_line_can_pass_for_anothers(self) -> None:
        witness, member = self.witness(), self.join()
        self.say(member, '/json "one\\nposter: two\\u001b[2J"')
        self.assertEqual(witness.hears(), [("said", member.name, "one"), ("said", member.name, "poster: two\ufffd[2J")])

    def test_after_its_time_an_idle_one_is_let_go(self) -> None:
        self.serve(idle_timeout=100, ping_interval=0)
        idle, talker = self.join(), self.join()
        for _ in range(5):
            self.server.advance(30)
            talker.say("ping")
        self.assertEqual(len(self.server.hub.clients), 1)
        self.server.advance(6)
        self.assertTrue(idle.closed)
        self.assertFalse(talker.closed)
