"""What an official SDK must be able to do here, whichever it is: the tests, without an SDK."""

import time
from typing import Any

import jwt
from twisted.trial.unittest import SynchronousTestCase

from tests.live.programs import Cable, Driven, Refused, Server

SECRET = "a-secret-of-thirty-two-bytes-or-more"
_KEYED = f'token_hmac_secret_key = "{SECRET}"\n'


class SDKCase(SynchronousTestCase):
    """A server in a process of its own, behind a cable that can be cut; clients are processes, too."""

    #: for a client in Python: the function that a forked process calls
    main = ""

    def client(self, port: int, asks_tokens: bool) -> list[str]:
        """The command of a client that connects to a port."""
        raise NotImplementedError

    def serve(self, settings: str = "") -> None:
        self.server = Server(settings)
        self.addCleanup(self.server.clean_up)
        self.cable = Cable(lambda: self.server.port)
        self.addCleanup(self.cable.stop)

    def make(self, tokens: Any = None) -> Driven:
        client = Driven(self.client(self.cable.port, tokens is not None), tokens, self.main)
        self.addCleanup(client.stop)
        return client

    def connect(self, tokens: Any = None) -> Any:
        client: Any = self.make(tokens)
        client.call("connect")
        client.id = client.event("connected")["client"]
        return client

    def enter(self, client: Any, channel: str = "news", **options: Any) -> Any:
        """Subscribe; the event."""
        client.call("subscribe", channel=channel, **options)
        return client.event("subscribed", channel=channel)

    def reads(self, client: Any, *values: Any) -> list[int]:
        """The client reads these and nothing else in between; their offsets."""
        came = [client.event("publication") for _ in values]
        self.assertEqual([each["data"] for each in came], list(values))
        return [each["offset"] for each in came]

    def token(self, user: str = "42", lasts: float | None = None, **claims: Any) -> str:
        if lasts is not None:
            claims["exp"] = int(time.time() + lasts)
        return jwt.encode({"sub": user, **claims}, SECRET, algorithm="HS256")


class SDKBehaviour(SDKCase):
    """Against one server."""

    # Together.

    def test_publications_presence_and_history(self) -> None:
        self.serve()
        ann, bob = self.connect(), self.connect()
        self.enter(ann)
        self.enter(bob)
        values = [{"a": [1, 2.5, None, True]}, "text", "é \u2028\n", 7, [], {"": {}}]
        for value in values:
            ann.call("publish", channel="news", data=value)
        self.assertEqual(self.reads(bob, *values), [1, 2, 3, 4, 5, 6])
        self.assertEqual(self.reads(ann, *values), [1, 2, 3, 4, 5, 6])
        self.assertEqual(bob.heard("publication")[0]["info"]["client"], ann.id)
        self.server.publish("news", "from outside")
        self.reads(bob, "from outside")
        self.assertEqual(set(ann.call("presence", channel="news")), {ann.id, bob.id})
        self.assertEqual(ann.call("presence_stats", channel="news"), {"num_clients": 2, "num_users": 1})
        self.assertEqual(ann.call("presence_stats", channel="empty"), {"num_clients": 0, "num_users": 0})
        history = ann.call("history", channel="news", limit=2)
        self.assertEqual([each["data"] for each in history["publications"]], values[:2])
        self.assertEqual(history["offset"], 7)
        since = {"offset": 5, "epoch": history["epoch"]}
        after = ann.call("history", channel="news", limit=10, since=since)
        self.assertEqual([each["offset"] for each in after["publications"]], [6, 7])
        newest = ann.call("history", channel="news", limit=1, reverse=True)
        self.assertEqual([each["data"] for each in newest["publications"]], ["from outside"])

    def test_comings_and_goings(self) -> None:
        self.serve()
        ann, bob = self.connect(), self.connect()
        self.enter(ann, join_leave=True)
        ann.event("join", client=ann.id)
        self.enter(bob)
        ann.event("join", client=bob.id)
        bob.call("unsubscribe", channel="news")
        bob.event("unsubscribed", channel="news")
        ann.event("leave", client=bob.id)
        self.enter(bob)
        ann.event("join", client=bob.id)
        bob.call("disconnect")
        bob.event("disconnected")
        ann.event("leave", client=bob.id)

    def test_refusals(self) -> None:
        self.serve("[namespaces.sealed]\nallow_publish_for_client = false\nallow_publish_for_subscriber = false\n")
        ann = self.connect()
        for code, call in (
            (103, lambda: ann.call("publish", channel="sealed:a", data=1)),
            (102, lambda: ann.call("history", channel="unknown:a", limit=1)),
            (108, lambda: ann.call("rpc", method="none", data=1)),
        ):
            with self.assertRaises(Refused) as caught:
                call()
            self.assertEqual(caught.exception.code, code)
        ann.call("subscribe", channel="unknown:a")
        self.assertEqual(ann.event("unsubscribed", channel="unknown:a")["code"], 102)

    # Tokens.

    def test_a_token_says_who_it_is_and_is_renewed_in_time(self) -> None:
        self.serve(_KEYED)
        asked: list[str] = []

        def tokens(channel: str) -> str:
            asked.append(channel)
            lasts = 3 if asked.count(channel) == 1 else 600
            claims = {"channel": channel} if channel else {"info": {"name": "Ann"}}
            return self.token(lasts=lasts, **claims)

        ann = self.connect(tokens)
        self.enter(ann, token=True)
        present = ann.call("presence", channel="news")[ann.id]
        self.assertEqual((present["user"], present["conn_info"]), ("42", {"name": "Ann"}))
        end = time.monotonic() + 20
        while (asked.count(""), asked.count("news")) != (2, 2):
            self.assertLess(time.monotonic(), end, asked)
            ann.call("presence_stats", channel="news")  # reads what it asks meanwhile
            time.sleep(0.05)
        self.server.api("publish", channel="news", data="still here")
        self.reads(ann, "still here")
        self.assertEqual((ann.heard("disconnected"), ann.heard("unsubscribed")), ([], []))
        self.assertEqual(len(ann.heard("connected")), 1)

    def test_an_expired_token_is_replaced_by_another(self) -> None:
        self.serve(_KEYED)
        asked: list[str] = []

        def tokens(channel: str) -> str:
            asked.append(channel)
            return self.token(lasts=-5 if len(asked) == 1 else 600)

        self.connect(tokens)
        self.assertEqual(asked, ["", ""])

    def test_a_bad_token_is_the_end(self) -> None:
        self.serve(_KEYED)
        ann = self.make(lambda channel: "no token")
        ann.call("connect")
        self.assertEqual(ann.event("disconnected")["code"], 3500)
        bob = self.connect(lambda channel: "no token" if channel else self.token())
        bob.call("subscribe", channel="news", token=True)
        self.assertEqual(bob.event("unsubscribed", channel="news")["code"], 103)
        self.assertEqual(bob.call("presence_stats", channel="news")["num_clients"], 0)
        eve = self.connect(lambda channel: self.token(channel="other") if channel else self.token())
        eve.call("subscribe", channel="news", token=True)
        self.assertEqual(eve.event("disconnected")["code"], 3500)

    def test_channels_of_the_server_s_choice(self) -> None:
        self.serve(_KEYED + "user_personal_channel = true\n")
        ann = self.connect(lambda channel: self.token(channels=["desk"]))
        found = {ann.event("subscribed")["channel"] for _ in range(2)}
        self.assertEqual(found, {"desk", "#42"})
        self.server.api("publish", channel="#42", data={"for": "you"})
        self.assertEqual(ann.event("publication", channel="#42")["data"], {"for": "you"})
        self.cable.cut()
        ann.event("connecting")
        self.server.api("publish", channel="desk", data="missed")
        self.cable.mend()
        self.assertEqual(ann.event("publication", channel="desk")["data"], "missed")

    # Ends, and after.

    def test_the_server_disconnects_it_for_good_or_for_now(self) -> None:
        self.serve(_KEYED)
        ann = self.connect(lambda channel: self.token())
        self.enter(ann)
        self.server.api("disconnect", user="42", disconnect={"code": 3000, "reason": "for now"})
        ann.event("connecting", code=3000)
        ann.event("connected")
        ann.event("subscribed", channel="news")
        self.server.api("unsubscribe", user="42", channel="news")
        ann.event("unsubscribed", channel="news")
        self.server.api("disconnect", user="42")
        self.assertEqual(ann.event("disconnected")["code"], 3503)

    def test_after_a_lost_connection_it_reads_exactly_what_it_missed(self) -> None:
        self.serve()
        ann, bob = self.connect(), self.connect()
        self.enter(ann)
        bob.call("publish", channel="news", data=0)
        self.reads(ann, 0)
        for turn in range(3):
            self.cable.cut()
            ann.event("connecting")
            missed = [10 * turn + each for each in range(5)]
            self.server.publish("news", *missed)
            self.cable.mend()
            came = ann.event("subscribed", channel="news")
            self.assertEqual((came["was_recovering"], came["recovered"]), (True, True))
            self.reads(ann, *missed)
            self.server.publish("news", "live")
            self.reads(ann, "live")
        offsets = [each["offset"] for each in ann.heard("publication")]
        self.assertEqual(offsets, list(range(1, len(offsets) + 1)))

    def test_after_it_slept_past_history_it_is_told(self) -> None:
        self.serve("history_size = 3\n")
        ann = self.connect()
        self.enter(ann)
        self.server.publish("news", "first")
        self.reads(ann, "first")
        self.cable.cut()
        ann.event("connecting")
        self.server.publish("news", *range(8))
        self.cable.mend()
        came = ann.event("subscribed", channel="news")
        self.assertEqual((came["was_recovering"], came["recovered"]), (True, False))
        self.server.publish("news", "live")
        self.assertEqual(self.reads(ann, "live"), [10])

    def test_after_a_restart_it_is_told_that_history_is_another(self) -> None:
        self.serve()
        ann = self.connect()
        before = self.enter(ann)
        self.server.publish("news", 1, 2)
        self.reads(ann, 1, 2)
        self.server.restart()
        came = ann.event("subscribed", channel="news")
        self.assertEqual((came["was_recovering"], came["recovered"]), (True, False))
        self.assertNotEqual(came["epoch"], before["epoch"])
        self.server.publish("news", "live")
        self.assertEqual(self.reads(ann, "live"), [1])
