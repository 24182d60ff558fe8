"""Commands, replies, pushes and pings of the protocol."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn.clients import NotLongconn, Refused
from longconn.clients.centrifugo import PendingCommand, ReceivedPing, ReceivedPush, ReceivedReply, ReplyMatcher


class ReplyMatcherTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.matcher = ReplyMatcher()

    def add(self, method: str, **body: Any) -> tuple[PendingCommand, Any]:
        command = PendingCommand(method, body, lambda answer: None)
        return command, self.matcher.add(command)

    def test_commands_are_numbered_and_answered(self) -> None:
        connect, sent = self.add("connect")
        self.assertEqual(sent, {"id": 1, "connect": {}})
        publish, sent = self.add("publish", channel="c", data=1)
        self.assertEqual(sent, {"id": 2, "publish": {"channel": "c", "data": 1}})
        self.assertEqual(self.matcher.read({"id": 2, "publish": {}}), ReceivedReply(publish, {}))
        received = self.matcher.read({"id": 1, "error": {"code": 111, "message": "slowly", "temporary": True}})
        assert isinstance(received, ReceivedReply)
        refused = received.result
        assert isinstance(refused, Refused)
        self.assertEqual((received.command, refused.code, refused.temporary), (connect, 111, True))
        self.assertEqual(str(refused), "slowly (111)")
        self.assertIsNone(self.matcher.read({"id": 2, "publish": {}}))

    def test_pushes_and_pings(self) -> None:
        self.assertEqual(self.matcher.read({}), ReceivedPing())
        push = {"channel": "c", "pub": {"data": 1}}
        self.assertEqual(self.matcher.read({"push": push}), ReceivedPush("c", "pub", {"data": 1}))
        disconnect = {"push": {"disconnect": {"code": 1}}}
        self.assertEqual(self.matcher.read(disconnect), ReceivedPush("", "disconnect", {"code": 1}))
        self.assertIsNone(self.matcher.read({"push": {"channel": "c", "message": {}}}))

    def test_objects_of_another_protocol(self) -> None:
        self.add("connect")
        pushes: list[Any] = [1, {"channel": 1, "pub": {}}, {"pub": []}]
        for value in ({"a": 1}, {"id": 1, "connect": 2}, *({"push": each} for each in pushes)):
            with self.assertRaises(NotLongconn):
                self.matcher.read(value)
