"""What clients of Centrifugo's client protocol get over every carrier, beside what all protocols give."""

import json
import logging
from typing import Any

from longconn.core.disconnects import BAD_REQUEST, NO_PONG
from longconn.core.errors import INTERNAL, PERMISSION_DENIED, CommandError
from longconn.core.publication import Data, Publication
from tests.behaviour.members import TCPMember
from tests.behaviour.suite import POSTER, RatedBehaviour, ResumingBehaviour


class StructuredBehaviour(RatedBehaviour, ResumingBehaviour):
    """For programs."""

    def setUp(self) -> None:
        super().setUp()
        self.records: list[logging.LogRecord] = []
        handler = logging.Handler()
        handler.emit = self.records.append  # type: ignore[method-assign]
        logger = logging.getLogger("longconn")
        level = logger.level
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        self.addCleanup(logger.setLevel, level)
        self.addCleanup(logger.removeHandler, handler)

    def was_told(self, member: Any, disconnect: Any) -> bool:
        return bool(member.farewell == disconnect.code)

    def assert_quiet(self, lines: int | None = None) -> None:
        """Nothing is in the log but who came and left, and at most so many lines."""
        self.assertEqual([each.getMessage() for each in self.records if each.levelno > logging.INFO], [])
        said = [each.getMessage() for each in self.records]
        other = [each for each in said if not each.endswith((" came", " left"))]
        if lines is not None:
            self.assertEqual(len(other), lines, other)
        for each in said:
            self.assertNotIn("\n", each)
            self.assertLess(len(each), 400)

    def test_a_position_that_is_lost_is_said_to_be(self) -> None:
        """And a part of what was missed never passes for all of it."""
        for text_offset in ("1", "99", "other"):
            self.serve(history_size=3)
            for text in "12345":
                last = self.post(text)
            since = "other:4" if text_offset == "other" else f"{last.epoch}:{text_offset}"
            with self.subTest(since=since):
                member = self.join(since=since)
                self.assertEqual([each for each in member.hear() if each[0] != "error"], [("lost",)])
                self.assertEqual(member.since, f"{last.epoch}:{last.offset}")
                self.post("6")
                self.assertEqual(member.says(), ["6"])

    def test_what_is_kept_from_the_first_on_can_be_had_without_an_epoch(self) -> None:
        """A client that never knew the epoch asks for offset 0 of an empty one (centrifuge's `isStreamRecovered`)."""
        for text in "123":
            self.post(text)
        self.assertEqual(self.join(since=":0").says(), list("123"))
        self.assertEqual(self.join(since=":2").says(), ["3"])

    def test_one_that_would_rather_be_refused_than_miss_something_is(self) -> None:
        self.serve(history_size=3)
        for text in "12345":
            last = self.post(text)
        member = self.join(joins=True, asks={"flag": 3}, since=f"{last.epoch}:3")
        self.assertEqual(member.says(), ["4", "5"])
        other = self.join("elsewhere")
        body = {"channel": "lobby", "recover": True, "epoch": last.epoch, "offset": 1, "flag": 2}
        self.assertEqual(other.refusal("subscribe", **body), 112)
        self.assertEqual(other.result("subscribe", **body | {"offset": 2})["recovered"], True)

    def test_a_recovered_answer_names_the_position_that_was_asked_for(self) -> None:
        """A client that keeps this position before it handles the publications misses none (centrifuge `client.go`)."""
        for text in "123":
            last = self.post(text)
        member = self.join("elsewhere")
        found = member.result("subscribe", channel="lobby", recover=True, epoch=last.epoch, offset=1)
        self.assertEqual((found["recovered"], found["offset"]), (True, 1))
        self.assertEqual([each["offset"] for each in found["publications"]], [2, 3])

    # Order.

    def check_refused_for_now(self, member: Any) -> None:
        """The reason why a member is not subscribed: a late broker refused that, and nothing else did."""
        self.assertTrue(self.may_refuse)
        codes = [each["error"]["code"] for each in member.replies.values() if "error" in each]
        self.assertEqual(set(codes), {INTERNAL.code})

    def test_a_reply_goes_before_its_pushes_and_publications_follow_its_position(self) -> None:
        pushed = 0
        for turns in range(6):
            member = self.member(self.server, self.factories, joins=False)
            member.hear()
            for number in range(12):
                self.server.hub.publish("lobby", Data.of_text(str(number)), POSTER, lambda result: None)
                if number == turns:
                    member.joins = True
                    member.send(member._subscribe())  # type: ignore[attr-defined]
                self.server.clock.turn()
            member.hear()
            offsets = [each["pub"]["offset"] for each in member.pushes if "pub" in each]
            if member.subscribed:
                start = int(str(member.start).rpartition(":")[2])
                self.assertEqual(offsets, list(range(start + 1, start + 1 + len(offsets))))
                pushed += len(offsets)
            else:
                self.check_refused_for_now(member)
                self.assertEqual(offsets, [])
            self.lost_for(member)
        self.assertGreater(pushed, 6)

    def test_publishing_in_the_frame_that_subscribes(self) -> None:
        """The reply to the subscribe comes before the publication, or its position is after it."""
        for attempt in range(20):
            channel = f"den-{attempt}"
            member = self.member(self.server, self.factories, channel, joins=False)
            member.hear()
            member.joins = True
            subscribe = member._subscribe()  # type: ignore[attr-defined]
            member.send(subscribe, {"id": 9001, "publish": {"channel": channel, "data": "x"}})
            member.hear()
            replies = [member.replies[each] for each in (subscribe["id"], 9001)]
            if not any("error" in each for each in replies):
                break
            self.check_refused_for_now(member)
            self.lost_for(member)
        else:
            self.fail("refused too often to tell")
        order = [next(iter(set(each) - {"id"})) for frame in member.frames for each in frame]
        position = replies[0]["subscribe"].get("offset", 0)
        self.assertEqual((order.count("push"), position), (0, 1) if self.may_refuse and position else (1, 0))
        if not position:
            self.assertLess(order.index("subscribe"), order.index("push"))

    # Commands.

    def test_what_it_publishes_all_read_as_it_was_written(self) -> None:
        member, other, witness = self.join(), self.join(), self.witness()
        for data in ("1.50", '{"a": [1, 2.0], "b": "é\\n"}', "null", '"text"', "12345678901234567890", "[]"):
            self.clear(member, other, witness)
            number = 5_000 + len(member.replies)
            reply: Any = {"error": {"code": 100}}
            while reply.get("error", {}).get("code") == 100:
                number += 1
                member.send_raw(f'{{"id":{number},"publish":{{"channel":"lobby","data":{data}}}}}')
                member.hear()
                reply = member.replies[number]
            self.assertEqual(reply, {"id": number, "publish": {}})
            self.assertIn(f'"data":{compact(data)},', other.bodies()[-1] if other.hear() else "")
            self.assertEqual(witness.says(), ["text"] if data == '"text"' else [compact(data)])

    def test_it_need_not_be_in_a_channel_to_publish_there(self) -> None:
        member, witness = self.join(), self.witness("den")
        self.assertEqual(member.result("publish", channel="den", data="hi"), {})
        self.assertEqual(witness.says(), ["hi"])
        self.assertEqual(member.says(), [])

    def test_presence_is_who_is_there(self) -> None:
        witness, member, other = self.witness(), self.join(), self.join("den")
        found = other.result("presence", channel="lobby")["presence"]
        name = self.server.hub.clients[member.id].name
        self.assertEqual(found.pop(member.id)["conn_info"], {"name": name})
        self.assertEqual([each["conn_info"]["name"] for each in found.values()], [witness.name])
        self.assertEqual(other.result("presence_stats", channel="lobby"), {"num_clients": 2, "num_users": 1})
        self.lost_for(member)
        self.lost_for(witness)
        self.assertEqual(other.result("presence", channel="lobby"), {"presence": {}})
        self.assertEqual(other.result("presence_stats", channel="lobby"), {"num_clients": 0, "num_users": 0})

    def test_history_by_limit_since_and_in_reverse(self) -> None:
        for text in "12345":
            last = self.post(text)
        member = self.join("den")

        def asked(**body: Any) -> list[str]:
            result = member.result("history", channel="lobby", **body)
            self.assertEqual((result["epoch"], result["offset"]), (last.epoch, 5))
            return [each["data"] for each in result.get("publications", [])]

        def since(offset: int) -> dict[str, Any]:
            return {"offset": offset, "epoch": last.epoch}

        self.assertEqual(asked(), [])
        self.assertEqual(asked(limit=-1), list("12345"))
        self.assertEqual(asked(limit=2), list("12"))
        self.assertEqual(asked(limit=2, reverse=True), list("54"))
        self.assertEqual(asked(limit=-1, since=since(2)), list("345"))
        self.assertEqual(asked(limit=2, since=since(2)), list("34"))
        self.assertEqual(asked(limit=2, since=since(4), reverse=True), list("32"))
        self.assertEqual(asked(limit=-1, since=since(5)), [])
        self.assertEqual(asked(limit=99, since=since(0)), list("12345"))
        self.assertEqual(member.refusal("history", channel="lobby", limit=1, since={"offset": 1, "epoch": "x"}), 112)

    def test_comings_and_goings_are_told_to_those_who_ask(self) -> None:
        deaf = self.join()
        member = self.join(asks={"join_leave": True})
        self.clear(deaf, member)
        other, witness = self.join(), self.witness()
        self.say(witness, "/nick ada")
        self.assertEqual(other.result("unsubscribe", channel="lobby"), {})
        self.lost_for(witness)
        heard = [each for each in member.hear() if each[0] in ("joined", "left")]
        name = witness.name
        others = self.server.hub.clients[other.id].name
        told = [("joined", others), ("joined", name), ("left", name), ("joined", "ada")]
        self.assertEqual(heard, [*told, ("left", others), ("left", "ada")])
        self.assertEqual([each for each in deaf.hear() if each[0] != "said"], [])

    def test_readers_of_chat_are_told_of_people_only(self) -> None:
        witness, member = self.witness(), self.join()
        self.lost_for(member)
        self.assertEqual(witness.hear(), [])

    def test_after_an_unsubscribe_nothing_comes_until_it_subscribes_again(self) -> None:
        member = self.join()
        self.post("1")
        self.assertEqual(member.says(), ["1"])
        self.assertEqual(member.result("unsubscribe", channel="lobby"), {})
        self.assertEqual(member.result("unsubscribe", channel="lobby"), {})
        self.post("2")
        self.assertEqual(member.hear(), [])
        self.assertEqual(self.server.hub.presence("lobby"), [])
        epoch, _, offset = str(member.since).rpartition(":")
        result = member.result("subscribe", channel="lobby", recover=True, epoch=epoch, offset=int(offset))
        self.assertEqual([each["data"] for each in result["publications"]], ["2"])
        self.assertTrue(result["recovered"])
        self.post("3")
        self.assertEqual(member.says(), ["3"])

    def test_an_unsubscribe_right_after_a_subscribe_is_answered_after_it(self) -> None:
        member = self.member(self.server, self.factories, joins=False)
        member.hear()
        count = len(member.replies)
        pairs = [
            {"id": 100 + 2 * each + last, "unsubscribe" if last else "subscribe": {"channel": "lobby"}}
            for each in range(10)
            for last in (0, 1)
        ]
        member.send(*pairs)
        member.hear()
        self.assertEqual(list(member.replies)[count:], list(range(100, 120)))
        self.assertEqual([member.replies[each]["unsubscribe"] for each in range(101, 120, 2)], [{}] * 10)
        self.assertEqual(self.server.hub.presence("lobby"), [])
        self.assertIn("epoch", member.result("subscribe", channel="lobby"))

    def test_one_that_the_server_unsubscribes_while_it_subscribes_is_answered(self) -> None:
        for turns in range(6):
            member = self.member(self.server, self.factories, joins=False)
            member.hear()
            number = member.ask("subscribe", channel="lobby")
            for _ in range(turns):
                self.server.clock.turn()
            session = next(iter(self.server.hub.sessions.values()))
            session.unsubscribe("lobby", 2000, "server unsubscribe")
            member.hear()
            self.assertIn(number, member.replies)
            self.assertEqual(self.server.hub.presence("lobby"), [])
            for _ in range(10):  # more than may be under way
                member.result("history", channel="lobby", limit=1)
            self.lost_for(member)

    def test_it_is_in_many_channels_at_once(self) -> None:
        member = self.join("one")
        self.assertIn("epoch", member.result("subscribe", channel="two"))
        self.post("a", "one")
        self.post("b", "two")
        self.post("c", "three")
        member.hear()
        came = [(each["channel"], each["pub"]["data"]) for each in member.pushes]
        self.assertEqual(came, [("one", "a"), ("two", "b")])

    def test_what_cannot_be_is_refused_by_number(self) -> None:
        self.serve(max_subscriptions=2)
        member = self.join()
        for code, method, body in (
            (105, "subscribe", {"channel": "lobby"}),
            (107, "publish", {"channel": "lobby"}),
            (107, "subscribe", {"channel": 1}),
            (107, "subscribe", {"channel": "den", "recover": True, "offset": "1"}),
            (107, "subscribe", {"channel": "den", "recover": True, "offset": -1}),
            (107, "subscribe", {"channel": "den", "recover": "no"}),
            (107, "subscribe", {"channel": "den", "join_leave": 1}),
            (107, "subscribe", {"channel": "den", "token": {}}),
            (107, "unsubscribe", {"channel": []}),
            (107, "unsubscribe", {"channel": {}}),
            (107, "history", {"channel": "lobby", "since": "x"}),
            (107, "history", {"channel": "lobby", "since": [1]}),
            (107, "history", {"channel": "lobby", "since": {"offset": "1"}}),
            (107, "history", {"channel": "lobby", "reverse": "no"}),
            (107, "history", {"channel": "lobby", "limit": -2}),
            (107, "history", {"channel": "lobby", "limit": 1.5}),
            (107, "history", {"channel": "lobby", "limit": 2**63}),
            (108, "subscribe", {"channel": "den", "tf": {"op": "", "key": "a", "cmp": "eq", "val": "b"}}),
            (108, "subscribe", {"channel": "den", "type": 1}),
            (108, "publish", {"channel": "den", "key": "a", "data": 1}),
            (108, "sub_refresh", {"channel": "lobby", "type": 1}),
            (108, "refresh", {"token": "x"}),
            (108, "sub_refresh", {"channel": "lobby", "token": "x"}),
            (108, "sub_refresh", {"channel": "nowhere", "token": "x"}),
            (108, "subscribe", {"channel": "den", "token": "x"}),
            (108, "rpc", {"method": "x"}),
            (151, "subscribe", {}),
            (151, "subscribe", {"channel": ""}),
            (151, "subscribe", {"channel": "a b"}),
            (151, "subscribe", {"channel": "x" * 256}),
            (151, "subscribe", {"channel": "\ud800"}),
            (151, "publish", {"channel": "a\nb", "data": 1}),
            (151, "presence", {"channel": "\ud800"}),
            (151, "presence_stats", {}),
            (151, "history", {"channel": " ", "limit": 1}),
        ):
            with self.subTest(method=method, body=body):
                self.assertEqual(member.refusal(method, **body), code)
        absent = dict.fromkeys(("token", "recover", "epoch", "offset", "join_leave", "flag", "delta", "tf", "type"))
        self.assertIn("epoch", member.result("subscribe", channel="den", **absent))
        self.assertEqual(member.refusal("subscribe", channel="attic"), 106)
        self.assertEqual(member.result("unsubscribe", channel="\ud800"), {})
        self.post("still in")
        self.assertEqual(member.says(), ["still in"])
        self.assert_quiet(0)

    def test_calls_reach_the_program_that_embeds(self) -> None:
        member = self.join()
        heard: list[Any] = []
        hub = self.server.hub

        def later(client: Any, data: Any, done: Any) -> None:
            hub.clock.callLater(3, done, {"for": client.id})

        def refuse(client: Any, data: Any, done: Any) -> None:
            done(CommandError(PERMISSION_DENIED, what="ask", channel="x"))

        def huge(client: Any, data: Any, done: Any) -> None:
            done(float("inf"))

        hub.rpc |= {"double": lambda client, data, done: done(data * 2), "later": later, "refuse": refuse, "huge": huge}
        hub.on_send = lambda client, data: heard.append((client.id, data))
        self.assertEqual(member.result("rpc", method="double", data=[1]), {"data": [1, 1]})
        self.assertEqual(member.refusal("rpc", method="refuse"), 103)
        self.assertEqual(member.refusal("rpc", method="huge"), 155)
        self.assertEqual(member.refusal("rpc", method="dance"), 104)
        number = member.ask("rpc", method="later")
        member.hear()
        self.assertNotIn(number, member.replies)
        self.server.advance(3)
        member.hear()
        self.assertEqual(member.replies[number]["rpc"], {"data": {"for": member.id}})
        member.send_raw('{"send":{"data":%s}}' % ("9" * 5_000))
        self.server.settle()
        self.assertEqual(heard.pop(), (member.id, float("inf")))
        member.send({"send": {"data": {"a": 1.5}}})
        self.server.settle()
        self.assertEqual(heard, [(member.id, {"a": 1.5})])

    def test_a_call_that_raises_is_an_internal_error_of_that_call_alone(self) -> None:
        member = self.join()
        hub = self.server.hub

        def fail(*arguments: Any) -> None:
            raise ValueError("broken")

        hub.rpc["fail"] = fail
        hub.on_send = fail
        with self.assertLogs("longconn", logging.ERROR):
            self.assertEqual(member.call("rpc", method="fail")["error"]["code"], 100)
        with self.assertLogs("longconn", logging.ERROR):
            member.send({"send": {"data": 1}})
            self.server.settle()
        self.assertEqual(member.result("ping"), {})

    def test_an_answer_to_somebody_who_left_is_dropped(self) -> None:
        member = self.join()
        answers: list[Any] = []
        self.server.hub.rpc["late"] = lambda client, data, done: answers.append(done)
        member.ask("rpc", method="late")
        self.server.settle()
        self.lost_for(member)
        answers[0]("too late")
        self.server.settle()
        self.assert_quiet(0)

    # Chat and programs in one channel.

    def test_people_and_programs_share_a_channel(self) -> None:
        person, program = self.witness(), self.join()
        self.say(person, "/nick ada")
        self.clear(person, program)
        self.say(person, "hello")
        pushed = program.pushes[-1]["pub"] if program.hear() else {}
        self.assertEqual(pushed["data"], "hello")
        self.assertEqual(pushed["info"]["conn_info"], {"name": "ada"})
        self.assertEqual(program.result("publish", channel="lobby", data={"a": [1, None], "b": "é"}), {})
        self.assertEqual(person.hears()[-1], ("said", program.name, '{"a":[1,null],"b":"é"}'))
        self.assertEqual(program.result("publish", channel="lobby", data="two\nlines"), {})
        self.assertEqual(person.says(), ["two", "lines"])

    # Rates and limits.

    def test_commands_have_a_rate_of_their_own(self) -> None:
        self.serve(publish_rate=10, publish_burst=5)
        member = self.join()
        self.server.advance(2)
        member.send(*({"id": 1000 + each, "ping": {}} for each in range(20)))
        member.hear()
        self.assertEqual(sum(each >= 1000 for each in member.replies), 5)
        self.server.advance(5)
        member.hear()
        self.assertEqual(sum(each >= 1000 for each in member.replies), 20)

    def test_ten_thousand_commands_in_one_frame_are_answered_in_their_time(self) -> None:
        self.serve(max_message=1 << 20)
        member, other = self.join(), self.join()
        texts = "\n".join(f'{{"id":{10_000 + each},"ping":{{}}}}' for each in range(10_000))
        member.send_raw(texts)
        self.server.settle()
        self.post("the others go on")
        self.assertEqual(other.says(), ["the others go on"])
        member.hear()
        self.assertLess(len(member.replies), 1_010)
        self.server.advance(100)
        member.hear()
        self.assertEqual(sum(each >= 10_000 for each in member.replies), 10_000)
        self.assertEqual(member.says(), [])
        self.assertFalse(member.closed)
        self.assert_quiet(0)

    def test_a_publication_that_is_too_large_is_refused(self) -> None:
        self.serve(max_message=1_000)
        member, witness = self.join(), self.witness()
        self.assertEqual(member.result("publish", channel="lobby", data="x" * 900), {})
        self.assertEqual(member.refusal("publish", channel="lobby", data="y" * 1_001), 154)
        self.assertEqual(member.refusal("publish", channel="lobby", data="中" * 400), 154)  # of three bytes each
        self.server.advance(1)
        self.assertEqual([len(each) for each in witness.says()], [900])
        self.assert_quiet()

    def test_one_that_asks_much_and_reads_nothing_is_held_back(self) -> None:
        """What waits for it stays bounded, whatever it asks for; and it gets all of it when it reads on."""
        self.serve(history_size=100, publish_bytes=0, write_timeout=0, ping_interval=0)
        for number in range(100):
            self.post(f"{number:03}" + "x" * 3_000)
        member = self.join("den")
        member.connection.stop_reading()
        numbers = [member.ask("history", channel="lobby", limit=-1) for _ in range(40)]
        most = 0
        for _ in range(50):
            self.server.clock.turn()
            most = max(most, self.kept_for(member))
        self.assertLess(most, self.most_for_one)
        self.assertEqual(len(self.server.hub.clients), 1)
        member.connection.start_reading()
        for _ in range(60):
            self.server.advance(1)
        member.hear()
        self.assertEqual([each for each in numbers if each not in member.replies], [])

    #: one answer, and the frame that it goes in
    most_for_one = 1_000_000

    def kept_for(self, member: Any) -> int:
        """Bytes that the server keeps to write to the member."""
        session = next(iter(self.server.hub.sessions.values()))
        queue = session.outlet._queue
        waiting = 0 if queue is None else queue.queued + len(queue._begun)
        return sum(map(len, session._replies._messages)) + waiting

    def test_many_backlogs_at_once_are_no_reason_to_call_it_slow(self) -> None:
        self.serve(history_size=100, send_queue=200_000, publish_bytes=0)
        starts = {}
        for channel in ("a", "b", "c", "d", "e", "f"):
            first = self.post("0", channel)
            starts[channel] = {"channel": channel, "recover": True, "epoch": first.epoch, "offset": 1}
            for number in range(60):
                self.post(f"{number:03}" + "x" * 5_000, channel)
        member = self.join()
        for _ in range(30):
            missing = [body for channel, body in starts.items() if channel not in member.backlogs]
            if not missing:
                break
            for body in missing:
                member.ask("subscribe", **body)
            member.hear()
        self.assertEqual({channel: len(each) for channel, each in member.backlogs.items()}, dict.fromkeys(starts, 60))
        self.assertFalse(member.closed)

    # Time.

    def test_who_does_not_answer_pings_is_let_go(self) -> None:
        deaf, member = self.join(), self.join()
        deaf.answers_pings = False
        self.assertEqual((deaf.connected["ping"], deaf.connected["pong"]), (25, True))
        self.server.advance(30)
        self.assertEqual(len(self.server.hub.clients), 2)
        self.server.advance(10)
        self.assertTrue(self.was_told(deaf, NO_PONG))
        self.server.advance(200)
        self.assertEqual([each.address for each in self.server.hub.clients.values()], [member.name])
        self.assertFalse(member.closed)
        member.hear()
        self.assertEqual(member.frames.count([{}]), 9)  # of 240 seconds

    # Bad input.

    def test_what_is_no_command_ends_the_connection_and_is_a_line_in_the_log(self) -> None:
        witness = self.join()
        for bad in (
            "hello",
            "[]",
            "1",
            '{"id":1',
            '{"id":-1,"ping":{}}',
            '{"id":"1","ping":{}}',
            '{"ping":{}}',
            '{"id":5}',
            '{"id":5,"dance":{}}',
            '{"id":5,"publish":[]}',
            '{"id":5,"connect":{}}',
            '{"id":5,"publish":{"data":' + "[" * 5_000 + "]" * 5_000 + "}}",
        ):
            with self.subTest(bad=bad[:40]):
                member = self.join()
                self.records.clear()
                member.send_raw(bad)
                self.server.advance(1)
                self.assertTrue(self.was_told(member, BAD_REQUEST), member.farewell)
                self.assertEqual(len(self.server.hub.clients), 1)
                self.assert_quiet(1)
        self.post("still here")
        self.assertEqual(witness.says(), ["still here"])

    def test_what_was_asked_before_a_bad_command_is_answered(self) -> None:
        member = self.join()
        member.send_raw('{"id":7000,"ping":{}}\nbad')
        self.server.advance(1)
        member.hear()
        self.assertEqual(member.replies[7000], {"id": 7000, "ping": {}})
        self.assertTrue(self.was_told(member, BAD_REQUEST))

    def test_numbers_that_no_type_of_python_holds_do_not_come_back_from_a_program(self) -> None:
        self.server.hub.rpc["echo"] = lambda client, data, done: done(data)
        self.records.clear()
        for number in ("7" * 5000, "1e999"):
            member = self.join()
            member.send_raw(f'{{"id":8,"rpc":{{"method":"echo","data":{number}}}}}')
            member.send_raw('{"id":9,"rpc":{"method":"echo","data":[1.5]}}')
            self.server.advance(1)
            member.hear()
            self.assertEqual(member.replies[8]["error"]["code"], 155)
            self.assertEqual(member.replies[9]["rpc"]["data"], [1.5])
        self.assert_quiet()

    def test_a_mebibyte_of_nested_arrays_harms_nobody(self) -> None:
        for limit in (64 * 1024, 4 << 20):
            self.serve(max_message=limit)
            witness, member = self.join(), self.join()
            self.records.clear()
            half = 1 << 19
            member.send_raw('{"id":5,"publish":{"channel":"lobby","data":' + "[" * half + "]" * half + "}}")
            self.server.advance(1)
            member.hear()
            self.post("still here")
            self.assertEqual(witness.says(), ["still here"])
            self.assert_quiet()

    def test_however_deep_data_is_it_is_published_or_refused(self) -> None:
        member, witness = self.join(), self.join()
        self.server.hub.rpc["echo"] = lambda client, data, done: done(data)
        self.records.clear()
        for depth in (10, 500, *range(860, 1_000, 3)):
            for method in ("publish", "rpc"):
                nested = "[" * depth + "]" * depth
                number = 30_000 + 2 * depth + (method == "rpc")
                body = f'{{"channel":"lobby","method":"echo","data":{nested}}}'
                member.send_raw(f'{{"id":{number},"{method}":{body}}}')
                self.server.advance(1)
                if self.gone(member):
                    member = self.join()
        self.post("still here")
        witness.server.settle()
        self.assertIn("still here", witness.bodies()[-1])
        self.assertEqual([each.getMessage() for each in self.records if each.levelno > logging.INFO], [])

    def gone(self, member: Any) -> bool:
        return bool(member.closed)

    def test_unknown_ids_and_pongs_nobody_asked_for_do_nothing(self) -> None:
        member = self.join()
        member.send_raw("{}\n{}\n\n{}")
        member.send({"id": 4_294_967_295, "ping": {}})
        member.hear()
        self.assertEqual(member.replies[4_294_967_295]["ping"], {})
        self.assertFalse(member.closed)

    def test_people_hear_nothing_of_a_program_that_breaks_off(self) -> None:
        witness = self.join(kind=TCPMember)
        member = self.join()
        member.send_raw('{"id":1,"publish":{"channel":"lobby","data":')
        self.lost_for(member)
        self.assertEqual(witness.hear(), [])


class OwnEndpointBehaviour(StructuredBehaviour):
    """For carriers on which nothing but this protocol is spoken. On a port for chat lines anything else is chat."""

    def test_a_command_before_connect_ends_the_connection(self) -> None:
        for first in ({"id": 1, "subscribe": {"channel": "lobby"}}, {"id": 1, "ping": {}}, {"send": {"data": 1}}):
            self.records.clear()
            member = self.begin_with(json.dumps(first))
            self.server.advance(1)
            self.assertTrue(self.was_told(member, BAD_REQUEST))
            self.assert_quiet(1)

    def begin_with(self, frame: str) -> Any:
        """A member whose first frame this is."""
        member = self.silent()
        member.send_raw(frame)
        return member

    def silent(self) -> Any:
        """A member that sends nothing by itself."""

        class Silent(self.member):  # type: ignore[misc,name-defined]
            def open(self, commands: list[Any]) -> None:
                super().open([])

        return Silent(self.server, self.factories)


class FramedBehaviour(StructuredBehaviour):
    """For carriers whose frames a client sees. On the others each line is by itself."""

    def test_the_replies_of_a_turn_are_one_frame_and_so_is_a_batch(self) -> None:
        member = self.join()
        count = len(member.frames)
        member.send(*({"id": 1000 + each, "ping": {}} for each in range(5)))
        member.hear()
        self.assertEqual([[list(each) for each in frame] for frame in member.frames[count:]], [[["id", "ping"]] * 5])
        texts = [str(each) for each in range(10)]
        for text in texts:
            self.server.hub.on_publication(self.publication(member, text))
        self.assertEqual([each[2] for each in member.hears()], texts)
        self.assertEqual(len(member.frames), count + 2)

    def publication(self, member: Any, text: str) -> Any:
        epoch, _, offset = str(member.since).rpartition(":")
        self._given = getattr(self, "_given", int(offset)) + 1
        return Publication("lobby", epoch, self._given, Data.of_text(text), POSTER, 0.0)


def compact(data: str) -> str:
    """JSON without white space between its tokens, numbers as they are written."""
    return data.replace(": ", ":").replace(", ", ",")
