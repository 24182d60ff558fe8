"""What a client makes of a server's answers that the real one gives rarely, or never."""

import json
from collections.abc import Callable
from typing import Any

import jwt
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from longconn import Settings
from longconn.auth.jwt import JWTVerifier
from longconn.clients import (
    ClientError,
    ConnectionFailed,
    ConnectionState,
    Disconnected,
    Lost,
    NotLongconn,
    OutcomeUnknown,
    Position,
    Refused,
)
from tests.clients.network import Case

SECRET = "a secret of the tests, of 32 bytes"


class Script(Protocol):
    """A server of lines that answers as it is told: `connect` by itself, unless `connects` says otherwise."""

    def __init__(self, case: "ScriptedCase") -> None:
        self._case = case
        self._buffer = b""
        self.commands: list[Any] = []
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            command = json.loads(line)
            if "connect" in command and self._case.connects is not None:
                self.commands.append(command)
                self.say({"id": command["id"]} | self._case.connects)
            else:
                self.commands.append(command)

    def say(self, *objects: Any) -> None:
        assert self.transport is not None
        self.transport.write(b"".join([json.dumps(each).encode() + b"\n" for each in objects]))

    def answer(self, method: str, **members: Any) -> Any:
        """Answer the last command, which is of this kind; what it asked."""
        self._case.network.settle()
        command = self.commands.pop()
        self._case.assertIn(method, command)
        self.say({"id": command["id"]} | (members if "error" in members else {method: members}))
        self._case.network.settle()
        return command[method]

    def refuse(self, method: str, code: int, temporary: bool = False) -> Any:
        return self.answer(method, error={"code": code, "message": "no", "temporary": temporary})

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class ScriptedCase(Case):
    """A client over TCP, and a server that is told what to say."""

    def setUp(self) -> None:
        super().setUp()
        self.connects: dict[str, Any] | None = {"connect": {"client": "me"}}
        self.scripts: list[Script] = []
        self.network.server = Factory.forProtocol(self._build)

    def _build(self) -> Script:
        self.scripts.append(Script(self))
        return self.scripts[-1]

    @property
    def script(self) -> Script:
        """The server's end of the newest connection."""
        self.network.settle()
        return self.scripts[-1]

    def subscribing(self, client: Any, **options: Any) -> "Deferred[Any]":
        self.get(client.connected())
        coming: Deferred[Any] = client.subscribe("c", **options)
        return coming

    def live(self, client: Any, **options: Any) -> Any:
        coming = self.subscribing(client, **options)
        self.script.answer("subscribe", recoverable=True, epoch="e", offset=3)
        return self.get(coming)


class SubscribeTests(ScriptedCase):
    def test_temporary_refusals_are_tried_again(self) -> None:
        coming = self.subscribing(self.client())
        for wait in (1.0, 1.5):
            self.script.refuse("subscribe", 100, temporary=True)
            self.assertEqual(self.script.commands[1:], [])
            self.network.advance(wait)
        self.script.answer("subscribe")
        self.get(coming)

    def test_a_refusal(self) -> None:
        ann = self.client()
        coming = self.subscribing(ann)
        self.script.refuse("subscribe", 103)
        self.assertEqual(self.fails(Refused, coming).code, 103)
        self.subscribing(ann).addErrback(lambda _: None)  # nothing of it is left

    def test_a_refusal_on_coming_back_ends_the_iteration(self) -> None:
        subscription = self.live(self.client())
        self.break_off()
        self.network.advance(1)
        self.script.refuse("subscribe", 103)
        self.assertEqual(self.fails(Refused, subscription.__anext__()).code, 103)

    def test_an_unrecoverable_position_is_told(self) -> None:
        coming = self.subscribing(self.client(), since=Position("old", 7))
        asked = self.script.refuse("subscribe", 112)
        self.assertEqual((asked["epoch"], asked["offset"], asked["recover"]), ("old", 7, True))
        self.assertNotIn("recover", self.script.answer("subscribe", recoverable=True, epoch="e", offset=3))
        subscription = self.get(coming)
        self.assertEqual(self.next(subscription), Lost("c", Position("old", 7), Position("e", 3)))
        self.assertEqual(subscription.position, Position("e", 3))

    def test_the_server_ends_it(self) -> None:
        subscription = self.live(self.client())
        self.script.say({"push": {"channel": "c", "unsubscribe": {"code": 2501, "reason": "again"}}})
        told = {"recoverable": True, "epoch": "e", "offset": 3, "was_recovering": True, "recovered": True}
        asked = self.script.answer("subscribe", **told)
        self.assertEqual(asked["offset"], 3)
        self.script.say({"push": {"channel": "c", "unsubscribe": {"code": 2000, "reason": "over"}}})
        self.assertEqual(self.fails(Refused, subscription.__anext__()).code, 2000)

    def test_a_gap_is_healed_by_a_new_connection(self) -> None:
        subscription = self.live(self.client())
        self.script.say({"push": {"channel": "c", "pub": {"data": 5, "offset": 5}}})
        self.network.settle()
        self.assertIn("publications of c are missing", self.states[-1].reason)
        self.network.advance(1)
        missed = [{"data": 4, "offset": 4}, {"data": 5, "offset": 5}]
        told = {"recoverable": True, "epoch": "e", "offset": 5, "was_recovering": True, "recovered": True}
        self.assertEqual(self.script.answer("subscribe", publications=missed, **told)["offset"], 3)
        self.assertEqual([self.next(subscription).data for _ in range(2)], [4, 5])

    def test_what_is_said_while_a_connection_ends_goes_by_the_next(self) -> None:
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
        coming = self.subscribing(self.client())
        self.network.settle()
        self.break_off()
        self.network.advance(1)
        self.assertEqual([list(each)[1] for each in self.script.commands], ["connect", "subscribe"])
        self.script.answer("subscribe")
        self.get(coming)

    def test_one_that_is_given_up_is_left(self) -> None:
        for end in (lambda coming: coming.cancel(), lambda coming: self.network.advance(10)):
            ann = self.client(timeout=10)
            coming = self.subscribing(ann)
            self.network.settle()
            end(coming)
            self.fails(ClientError, coming)
            self.network.settle()
            ends = [each for each in self.script.commands if "unsubscribe" in each]
            self.assertEqual([each["unsubscribe"] for each in ends], [{"channel": "c"}])


class CommandTests(ScriptedCase):
    def asked(self, what: str) -> "Deferred[Any]":
        ann = self.client()
        self.get(ann.connected())
        waiting: Deferred[Any] = ann.publish("c", 1) if what == "publish" else ann.presence("c")
        return waiting

    def test_what_is_tried_again(self) -> None:
        for what, code in (("publish", 111), ("presence", 111), ("presence", 100)):
            waiting = self.asked(what)
            self.script.refuse(what, code, temporary=True)
            self.network.advance(1)
            self.script.answer(what)
            self.get(waiting)

    def test_what_is_not(self) -> None:
        for what, code, temporary in (("publish", 100, True), ("publish", 103, False), ("presence", 103, False)):
            waiting = self.asked(what)
            self.script.refuse(what, code, temporary)
            self.assertEqual(self.fails(Refused, waiting).code, code)

    def test_no_answer(self) -> None:
        """Silence is counted from the last answer on, so that a long queue is no reason to give up."""
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

    def test_what_is_no_json_is_not_sent(self) -> None:
        ann = self.client()
        self.get(ann.connected())
        self.fails(ClientError, ann.publish("c", object()))
        self.assertEqual(len(self.script.commands), 1)

    def test_answers_that_make_no_sense(self) -> None:
        ann = self.client(reconnect=False)
        self.get(ann.connected())
        asked = ann.history("c")
        self.script.answer("history", publications=5)
        self.fails(NotLongconn, asked)
        self.script.say({"what": 1})
        self.network.settle()
        self.assertIsInstance(ann.state.error, NotLongconn)

    def test_what_echoes_is_no_server(self) -> None:
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

    def test_the_name_may_be_taken_by_our_last_connection(self) -> None:
        ann = self.client(name="ann")
        self.get(ann.connected())
        self.connects = {"error": {"code": 153, "message": "taken"}}
        self.break_off()
        self.network.advance(5)
        self.connects = {"connect": {"client": "me"}}
        self.get(ann.connected(), 10)
        self.assertEqual(self.script.commands[0]["connect"], {"data": {"chat": {"name": "ann"}}})

    def test_a_new_name_stays(self) -> None:
        ann = self.client(name="ann")
        self.get(ann.connected())
        renamed = ann.rename("eve")
        asked = self.script.answer("rpc", data={})
        self.assertEqual(asked, {"method": "chat.rename", "data": {"name": "eve"}})
        self.get(renamed)
        self.break_off()
        self.network.advance(1)
        self.assertEqual(self.script.commands[0]["connect"], {"data": {"chat": {"name": "eve"}}})

    def test_pings_are_answered_where_that_is_wanted(self) -> None:
        for pong, expected in ((True, [{}]), (False, [])):
            self.connects = {"connect": {"client": "me", "ping": 25, "pong": pong}}
            self.get(self.client().connected())
            self.script.say({})
            self.network.settle()
            self.assertEqual(self.script.commands[1:], expected)

    def test_a_program_that_fails_in_on_state(self) -> None:
        def broken(state: Any) -> None:
            raise ZeroDivisionError

        ann = self.client(on_state=broken)
        self.get(ann.connected())
        self.get(ann.close())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)


class TokenTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.asked: list[str] = []

    def serve_tokens(self) -> None:
        self.serve().verifier = JWTVerifier(Settings(token_hmac_secret_key=SECRET))

    def token(self, seconds: float, **claims: Any) -> Callable[[], "Deferred[str]"]:
        def make() -> "Deferred[str]":
            self.asked.append(str(claims))
            exp = int(self.network.seconds() + seconds)
            return succeed(jwt.encode({"sub": "ann", "exp": exp} | claims, SECRET, "HS256"))

        return make

    def test_tokens_are_renewed_before_they_expire(self) -> None:
        self.serve_tokens()
        ann = self.client(token=self.token(60))
        subscription = self.subscribed(ann, token=self.token(100, channel="news"))
        self.network.advance(300)
        self.assertEqual(len(self.states), 1)
        self.get(ann.publish("news", 1))
        self.assertEqual(self.next(subscription).data, 1)
        self.assertEqual(len([each for each in self.asked if "channel" in each]), 4)
        self.assertEqual(len([each for each in self.asked if "channel" not in each]), 7)

    def test_an_expired_token_is_asked_for_anew(self) -> None:
        self.serve_tokens()
        seconds = iter((-5, 60))
        ann = self.client(token=lambda: self.token(next(seconds))())
        self.get(ann.connected(), 2)
        self.assertEqual(self.states[0].code, 109)
        text = self.get(self.token(-5)())
        self.assertEqual(self.fails(Refused, self.client(token=text).connected()).code, 109)
        self.assertEqual(self.fails(Disconnected, self.client(token="no token").connected()).code, 3500)

    def test_no_token(self) -> None:
        self.serve_tokens()
        failures = [ZeroDivisionError("no"), None, Refused(7, "not you"), Refused(8, "no")]
        failing = (self.token(60)() if each is None else fail(each) for each in failures)
        ann = self.client(token=lambda: next(failing))
        self.network.settle()
        self.assertEqual(ann.state.reason, "no token: ZeroDivisionError: no")
        self.get(ann.connected(), 2)
        self.assertEqual(self.fails(Refused, ann.subscribe("news", token=lambda: next(failing))).code, 7)
        self.assertEqual(self.fails(Refused, self.client(token=lambda: next(failing)).connected()).code, 8)

    def test_a_token_that_never_comes(self) -> None:
        self.serve_tokens()
        never: Deferred[str] = Deferred()
        ann = self.client(token=lambda: never, timeout=3)
        self.fails(ConnectionFailed, ann.publish("news", 1), 4)
        self.get(ann.close())
        self.assertTrue(never.called)
