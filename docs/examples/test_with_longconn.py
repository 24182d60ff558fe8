"""A test of a program that embeds longconn: real clients and a real hub, in memory, on a fake clock."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from longconn import Settings
from longconn.testing import MemoryServer


class FeedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = MemoryServer(Settings(names="guest", history_ttl=60))
        self.addCleanup(self.server.stop)

    def test_all_clients_read_a_post(self) -> None:
        ann = self.server.line_client()
        mia = self.server.websocket_client("/ws?name=mia")
        self.assertEqual(ann.read(), ["* mia joined"])
        answer = self.server.http_client().post("/channels/lobby?name=cron", b"disk full")
        self.assertEqual(answer.status, 200)
        self.assertEqual(ann.read(), ["cron: disk full"])
        self.assertEqual(mia.read(), ["cron: disk full"])

    def test_history_ends_after_a_minute(self) -> None:
        ann = self.server.line_client()
        ann.say("hello")
        self.assertEqual(ann.read(), ["guest-1: hello"])
        self.server.advance(61)  # takes no time
        ann.say("/history")
        self.assertEqual(ann.read(), ["* nothing was said in lobby lately"])
