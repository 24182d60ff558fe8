"""Tokens are asked for, and renewed before they expire."""

from collections.abc import Callable
from typing import Any

import jwt
from twisted.internet.defer import Deferred, fail, succeed

from longconn import Settings
from longconn.auth.jwt import JWTVerifier
from longconn.clients import (
    ConnectionFailed,
    Disconnected,
    Refused,
)
from tests.clients.network import Case

SECRET = "a secret of the tests, of 32 bytes"


class TokenTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.asked: list[str] = []

    def serve_tokens(self) -> None:
        self.serve(anonymous="yes").gate.verifier = JWTVerifier(Settings(token_hmac_secret_key=SECRET))

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

    def test_an_expired_token_is_asked_for_again(self) -> None:
        self.serve_tokens()
        seconds = iter((-5, 60))
        ann = self.client(token=lambda: self.token(next(seconds))())
        self.get(ann.connected(), 2)
        self.assertEqual(self.states[0].code, 109)
        text = self.get(self.token(-5)())
        self.assertEqual(self.fails(Refused, self.client(token=text).connected()).code, 109)
        self.assertEqual(self.fails(Disconnected, self.client(token="no token").connected()).code, 3500)

    def test_callables_that_fail(self) -> None:
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
