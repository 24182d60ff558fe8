"""POST /api/revoke."""

from typing import Any

from longconn.core.disconnects import INVALID_TOKEN
from longconn.core.errors import LIMIT_EXCEEDED, CommandError
from longconn.core.identity import Identity
from longconn.core.revocations import MOST, Revocation, Revocations
from tests.server_api.kit import Case, Users


class Tokens(Users):
    """A token is `USER` or `USER/ID/ISSUED`."""

    def connection(self, token: str, now: float) -> Identity:
        user, id, issued = [*token.split("/"), "", ""][:3]
        return Identity(user, token_id=id, issued_at=float(issued) if issued else None)


class RevokeTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.hub.gate.verifier = Tokens()

    def come(self, *tokens: str) -> list[Any]:
        found = []
        for token in tokens:
            client = self.server.line_client()
            client.say(f"/login token {token}")
            client.read()
            found.append(client)
        return found

    def refused(self, token: str) -> bool:
        (client,) = self.come(token)
        return "! unauthorized" in client.lines

    def test_by_token(self) -> None:
        one, two = self.come("ann/1/5", "ann/2/5")
        self.assertEqual(self.call("revoke", token_id="1"), {"result": {"num_clients": 1}})
        self.server.settle()
        self.assertEqual((one.closed, two.closed), (True, False))
        self.assertIn(f"! disconnected: {INVALID_TOKEN.text}", one.lines)
        self.assertEqual([self.refused(each) for each in ("ann/1/5", "ann/2/5", "bo/1/9")], [True, False, True])

    def test_by_user_and_time(self) -> None:
        clients = self.come("ann/1/5", "ann/2/15", "bo/3/5", "ann")
        self.assertEqual(self.call("revoke", user="ann", issued_before=10), {"result": {"num_clients": 2}})
        self.server.settle()
        self.assertEqual([each.closed for each in clients], [True, False, False, True])
        self.assertEqual(
            [self.refused(each) for each in ("ann/8/9", "ann/9/10", "ann", "bo")], [True, False, True, False]
        )
        self.call("revoke", issued_before=12)
        self.assertEqual([self.refused(each) for each in ("bo/8/11", "bo/9/12")], [True, False])

    def test_the_anonymous_stay(self) -> None:
        client = self.server.line_client()
        self.call("revoke", issued_before=2_000_000_000)
        self.server.settle()
        self.assertFalse(client.closed)

    def test_it_ends_when_such_tokens_have_expired(self) -> None:
        now = int(self.hub.wall_time())
        self.call("revoke", user="ann", expire_at=now + 100)
        (node,) = self.call("info")["result"]["nodes"]
        self.assertEqual(node["revocations"], [{"until": float(now + 100), "user": "ann"}])
        self.assertEqual(node["metrics"]["items"]["revocations"], 1)
        self.assertTrue(self.refused("ann"))
        self.server.advance(101)
        self.assertFalse(self.refused("ann"))
        self.assertEqual(self.call("info")["result"]["nodes"][0].get("revocations"), None)

    def test_what_is_refused(self) -> None:
        for parameters in ({}, {"user": ""}, {"token_id": "1", "user": "ann"}):
            self.assertEqual(self.call("revoke", **parameters)["error"]["code"], 107, parameters)

    def test_they_are_bounded(self) -> None:
        revocations = Revocations()
        for number in range(MOST):
            revocations.add(Revocation(10.0, token_id=str(number)), 0)
        error = self.assertRaises(CommandError, revocations.add, Revocation(20.0, "ann"), 0)
        self.assertIs(error.reason, LIMIT_EXCEEDED)
        revocations.add(Revocation(20.0, "ann"), 10.0)
        self.assertEqual(len(revocations), 1)
