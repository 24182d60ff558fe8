"""Commands and connections with answers that the real server rarely gives, or never."""

import json
from typing import Any

from twisted.internet.defer import Deferred

from longconn.clients import (
    ClientError,
    ConnectionFailed,
    ConnectionState,
    NotLongconn,
    OutcomeUnknown,
    Refused,
)
from tests.clients.scripted_server import ScriptedCase


class CommandTests(ScriptedCase):
    def asked(self, what: str) -> "Deferred[Any]":
        ann = self.client()
        self.get(ann.connected())
        waiting: Deferred[Any] = ann.publish("c", 1) if what == "publish" else ann.presence("c")
        return waiting

    def test_refusals_after_which_a_command_is_sent_again(self) -> None:
        for what, code in (("publish", 111), ("presence", 111), ("presence", 100)):
            waiting = self.asked(what)
            self.script.refuse(what, code, temporary=True)
            self.network.advance(1)
            self.script.answer(what)
            self.get(waiting)

    def test_refusals_that_fail_the_command(self) -> None:
        for what, code, temporary in (("publish", 100, True), ("publish", 103, False), ("presence", 103, False)):
            waiting = self.asked(what)
            self.script.refuse(what, code, temporary)
            self.assertEqual(self.fails(Refused, waiting).code, code)

    def test_no_answer(self) -> None:
        """The time-out counts from the last answer: a long queue is no reason to give up."""
        ann = self.client(timeout=5)
        self.get(ann.connected())
        first, second, third = (ann.presence(each) for each in "abc")
        self.network.advance(4)
        commands = self.script.commands[-3:]
        self.script.say({"id": commands[0]["id"], "presence": {"presence": {}}})
        self.get(first)
        self.network.advance(4.9)
        self.script.say({"id": commands[1]["id"], "presence": {"presence": {}}})
        self.get(second)
        self.assertIn("no answer within 5 s", str(self.fails(ConnectionFailed, third, 5.1)))
        self.assertIs(ann.state.state, ConnectionState.CONNECTED)

    def test_data_without_a_json_form_is_not_sent(self) -> None:
        ann = self.client()
        self.get(ann.connected())
        self.fails(ClientError, ann.publish("c", object()))
        self.assertEqual(len(self.script.commands), 1)

    def test_malformed_answers(self) -> None:
        ann = self.client(reconnect=False)
        self.get(ann.connected())
        asked = ann.history("c")
        self.script.answer("history", publications=5)
        self.fails(NotLongconn, asked)
        self.script.say({"what": 1})
        self.network.settle()
        self.assertIsInstance(ann.state.error, NotLongconn)

    def test_a_server_that_echoes(self) -> None:
        for connects in ({"connect": {}}, {"connect": {"client": ""}}):
            self.connects = connects
            self.assertIn("names no client", str(self.fails(NotLongconn, self.client().connected())))
        self.connects = {"connect": {"client": "me"}}
        ann = self.client(reconnect=False)
        self.get(ann.connected())
        published = ann.publish("c", 1)
        self.network.settle()
        self.script.say(self.script.commands[-1])
        self.assertIn("it sends back what it gets", str(self.fails(OutcomeUnknown, published)))
        self.assertIsInstance(ann.state.error, NotLongconn)


class EndTests(ScriptedCase):
    def test_which_disconnects_are_final(self) -> None:
        for code, more, final in ((3000, {}, False), (3500, {}, True), (3999, {}, True), (4000, {}, False),
                                  (4500, {}, True), (5000, {}, False), (3500, {"reconnect": True}, False)):  # fmt: skip
            ann = self.client()
            self.get(ann.connected())
            self.script.say({"push": {"disconnect": {"code": code, "reason": "why"} | more}})
            self.network.settle()
            state = ConnectionState.CLOSED if final else ConnectionState.RECONNECTING
            self.assertEqual((ann.state.state, ann.state.code), (state, code))
            self.assertIn("why", ann.state.reason)
            self.get(ann.close())

    def test_answers_to_connect(self) -> None:
        for error, again in (
            ({"code": 101, "message": "who?"}, False),
            ({"code": 100, "message": "later", "temporary": True}, True),
            ({"code": 109, "message": "expired"}, False),
            ({"code": 153, "message": "taken"}, False),
        ):
            self.connects = {"error": error}
            ann = self.client(name="ann")
            self.network.settle()
            self.assertEqual(ann.state.state, ConnectionState.RECONNECTING if again else ConnectionState.CLOSED)
            self.assertEqual(ann.state.code, error["code"])
            self.get(ann.close())

    def test_a_name_that_our_last_connection_still_has(self) -> None:
        ann = self.client(name="ann")
        self.get(ann.connected())
        asked = self.script.commands[0]["connect"]["data"]["chat"]
        self.assertRegex(asked["resume"], "^[A-Za-z0-9_-]{22}$")  # by it the server gives the name back
        self.connects = {"error": {"code": 153, "message": "taken"}}
        self.break_off()
        self.network.advance(5)
        self.connects = {"connect": {"client": "me"}}
        self.get(ann.connected(), 10)
        self.assertEqual(self.script.commands[0]["connect"]["data"]["chat"], asked)

    def test_a_new_name_is_kept_on_the_next_connection(self) -> None:
        ann = self.client(name="ann")
        self.get(ann.connected())
        renamed = ann.rename("eve")
        asked = self.script.answer("rpc", data={})
        self.assertEqual(asked, {"method": "chat.rename", "data": {"name": "eve"}})
        self.get(renamed)
        self.break_off()
        self.network.advance(1)
        self.assertEqual(self.script.commands[0]["connect"]["data"]["chat"]["name"], "eve")

    def test_very_many_pings_are_answered_twice_a_second(self) -> None:
        """A server that does not read could make the answers fill the memory."""
        self.connects = {"connect": {"client": "me", "ping": 1, "pong": True}}
        self.get(self.client().connected())
        script = self.scripts[-1]
        script.commands.clear()
        for _ in range(100):
            script.say(*[{}] * 100)
            self.network.advance(0.1)
        self.assertLess(len(script.commands), 25)
        self.assertEqual({json.dumps(each) for each in script.commands}, {"{}"})

    def test_pings_are_answered_if_the_server_asks_for_pongs(self) -> None:
        for pong, expected in ((True, [{}]), (False, [])):
            self.connects = {"connect": {"client": "me", "ping": 25, "pong": pong}}
            self.get(self.client().connected())
            self.script.say({})
            self.network.settle()
            self.assertEqual(self.script.commands[1:], expected)

    def test_an_exception_in_on_state_is_logged(self) -> None:
        def broken(state: Any) -> None:
            raise ZeroDivisionError

        ann = self.client(on_state=broken)
        self.get(ann.connected())
        self.get(ann.close())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
