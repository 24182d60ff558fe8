"""Chat, streams, polls and posts do what a namespace's options allow, and nothing else."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn import Settings
from longconn.core.identity import Identity
from longconn.core.namespaces import ChannelOptions, Namespaces
from longconn.core.publication import Data, Info
from longconn.testing import LineClient, MemoryServer

SHUT = ChannelOptions(allow_subscribe_for_client=False)
NAMED = {
    "shut": SHUT,
    "users": ChannelOptions(allow_subscribe_for_anonymous=False, allow_publish_for_anonymous=False),
    "news": ChannelOptions(allow_publish_for_client=False, allow_publish_for_subscriber=False),
    "talk": ChannelOptions(allow_publish_for_client=False),
    "blind": ChannelOptions(allow_presence_for_anonymous=False, allow_history_for_anonymous=False),
    "still": ChannelOptions(presence=False, join_leave=False, history_size=0),
    "mine": ChannelOptions(allow_user_limited_channels=True),
}


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.serve()

    def serve(self, **settings: Any) -> None:
        settings.setdefault("namespaces", Namespaces(named=NAMED))
        self.server = MemoryServer(Settings(**settings))
        self.addCleanup(self.server.stop)

    def publish(self, channel: str, text: str) -> None:
        """By the program itself, which may do all."""
        self.server.hub.publish(channel, Data.of_text(text), Info("program"), lambda position: None)
        self.server.settle()

    def in_channel(self, channel: str) -> LineClient:
        client = self.server.line_client()
        client.say(f"/join {channel}")
        self.server.settle()
        return client


class ChatTests(Case):
    def said(self, client: LineClient, line: str) -> list[str]:
        client.read()
        client.say(line)
        return client.read()

    def test_joining(self) -> None:
        client = self.server.line_client()
        for channel in ("shut:a", "users:a", "mine:a#42"):
            self.assertEqual(self.said(client, f"/join {channel}"), [f"! permission denied: subscribe to {channel}"])
        self.assertEqual(self.said(client, "/join other:a"), ["! unknown channel other:a"])
        # It is still where it was.
        self.assertEqual(self.said(client, "hello"), [f"{client.address}: hello"])

    def test_in_chinese(self) -> None:
        self.serve(locale="zh")
        client = self.server.line_client()
        self.assertEqual(self.said(client, "/join shut:a"), ["! 没有权限:进入 shut:a"])
        self.assertEqual(self.said(client, "/join other:a"), ["! 未知频道other:a"])

    def test_speaking(self) -> None:
        client, other = self.in_channel("news:a"), self.in_channel("news:a")
        other.read()
        self.assertEqual(self.said(client, "hello"), ["! permission denied: publish in news:a"])
        self.assertEqual(self.said(client, "/json 1"), ["! permission denied: publish in news:a"])
        self.assertEqual(other.read(), [])
        self.publish("news:a", "extra")
        self.assertEqual(other.read(), ["program: extra"])
        talker = self.in_channel("talk:a")
        self.assertEqual(self.said(talker, "hello"), [f"{talker.address}: hello"])

    def test_asking(self) -> None:
        client = self.in_channel("blind:a")
        self.publish("blind:a", "secret")
        self.assertEqual(self.said(client, "/who"), ["! permission denied: presence of blind:a"])
        self.assertEqual(self.said(client, "/history"), ["! permission denied: history of blind:a"])

    def test_a_channel_without_presence_joins_or_history(self) -> None:
        client = self.in_channel("still:a")
        other = self.in_channel("still:a")
        self.assertEqual(self.said(other, "hello"), [f"{other.address}: hello"])
        other.say("/nick bo")
        other.say("")
        self.assertEqual(client.read(), [f"{other.address}: hello"])
        self.assertEqual(self.said(client, "/who"), ["! not available: presence"])
        self.assertEqual(self.said(client, "/history"), ["* nothing was said in still:a lately"])

    def test_channels_lists_those_that_the_asker_may_join(self) -> None:
        self.in_channel("news:a")
        user = self.in_channel("news:b")
        hub = self.server.hub
        hub.identify(next(each for each in hub.clients.values() if each.address == user.address), Identity("42"))
        user.say("/join mine:a#42")
        self.assertEqual(self.said(user, "/channels"), ["* channels: mine:a#42 (1), news:a (1)"])
        client = self.server.line_client()
        self.assertEqual(self.said(client, "/channels"), ["* channels: lobby (1), news:a (1)"])

    def test_a_default_channel_that_is_closed_closes_the_connection(self) -> None:
        self.serve(default_channel="shut:a")
        client = self.server.line_client()
        self.assertEqual(client.read(), ["! permission denied: subscribe to shut:a"])
        self.assertTrue(client.closed)
        self.assertEqual(self.server.hub.clients, {})
        self.assertEqual(self.server.websocket_client().status, 403)


class HTTPTests(Case):
    def ask(self, method: str, path: str, body: bytes = b"", status: int = 200, **options: Any) -> Any:
        response = self.server.http_client().request(method, path, body or None, **options)
        self.assertEqual(response.status, status, f"{method} {path}: {response.text}")
        return response.json() if response.text else None

    def refused(self, method: str, path: str, status: int, code: int, body: bytes = b"", **options: Any) -> None:
        self.assertEqual(self.ask(method, path, body, status, **options)["error"]["code"], code)

    def test_posts_are_of_the_anonymous(self) -> None:
        for channel in ("users:a", "news:a", "talk:a", "mine:a%2342"):
            self.refused("POST", f"/channels/{channel}", 403, 103, b"hello")
            lines = {"headers": [("Content-Type", "application/x-ndjson")]}
            self.refused("POST", f"/channels/{channel}", 403, 103, b"1\n2\n", **lines)
        self.refused("POST", "/channels/other:a", 404, 102, b"hello")
        # Publishing is a right of its own.
        self.assertEqual(self.ask("POST", "/channels/shut:a", b"hello")["offset"], 1)
        self.assertEqual(self.ask("POST", "/channels/blind:a", b"hello")["offset"], 1)

    def test_streams(self) -> None:
        for kind in ("events", "stream"):
            for channel in ("shut:a", "users:a", "mine:a%2342"):
                self.refused("GET", f"/channels/{channel}/{kind}", 403, 103)
                self.ask("HEAD", f"/channels/{channel}/{kind}", status=403)
            self.refused("GET", f"/channels/other:a/{kind}", 404, 102)
            self.ask("HEAD", f"/channels/other:a/{kind}", status=404)
        self.assertEqual((self.server.hub.clients, self.server.hub.channels), ({}, {}))

    def test_history_and_polls(self) -> None:
        for channel in ("shut:a", "users:a", "blind:a", "mine:a%2342"):
            self.publish(channel.replace("%23", "#"), "secret")
            for query in ("", "?since=x:0", "?since=x:0&wait=5"):
                self.refused("GET", f"/channels/{channel}{query}", 403, 103)
        self.refused("GET", "/channels/other:a?since=x:0&wait=5", 404, 102)
        self.assertEqual(self.server.hub.channels, {})

    def test_a_stream_gives_nothing_of_what_is_kept_to_who_may_not_read_it(self) -> None:
        self.publish("blind:a", "secret")
        epoch = self.server.hub.broker._streams["blind:a"].epoch  # type: ignore[attr-defined]
        for since in (f"{epoch}:0", "other:0"):
            stream = self.server.http_client().get(f"/channels/blind:a/events?since={since}")
            self.publish("blind:a", "live")
            first, second = stream.read()
            self.assertEqual((first.event, second.json()["data"]), ("unrecovered", "live"))
            self.assertNotIn("secret", stream.text)

    def test_websockets_are_refused_in_the_handshake(self) -> None:
        upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
                   ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]  # fmt: skip
        for channel, status, code in (("shut:a", 403, 103), ("other:a", 404, 102)):
            self.refused("GET", f"/ws?channel={channel}", status, code, headers=upgrade)
            self.assertEqual(self.server.websocket_client(f"/ws?channel={channel}").status, status)
        self.assertEqual(self.server.websocket_client("/ws?channel=news:a").status, 101)
        self.assertEqual(len(self.server.hub.clients), 1)
