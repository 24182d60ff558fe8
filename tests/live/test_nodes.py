"""Nodes in processes of their own on one Redis: official SDKs come back to another node, and a node that dies leaves no
ghosts."""

import contextlib
import time
from typing import Any

from tests.live.programs import Cable, Server
from tests.live.sdk import SDKCase
from tests.live.test_sdk_javascript import installed
from tests.redis.server import RedisServer


class NodesBehaviour(SDKCase):
    """Clients reach the nodes through a cable: `self.server` at first."""

    def serve(self, settings: str = "") -> None:
        self.redis = RedisServer("--save", "")
        self.addCleanup(self.redis.remove)
        self.servers = [Server(f'{settings}broker = ["{self.redis.url}"]\n') for _ in range(2)]
        for server in self.servers:
            self.addCleanup(server.clean_up)
            self.wait(lambda server=server: self.is_ready(server))
        self.server = self.servers[0]
        self.cable = Cable(lambda: self.server.port)
        self.addCleanup(self.cable.stop)

    def is_ready(self, server: Server) -> bool:
        try:
            server.api("publish", channel="ready", data=1)
        except AssertionError:
            return False
        return True

    def wait(self, true: Any, seconds: float = 20) -> None:
        until = time.monotonic() + seconds
        while not true():
            self.assertLess(time.monotonic(), until, "it never came")
            time.sleep(0.02)

    def test_it_comes_back_to_the_other_node_and_reads_exactly_what_it_missed(self) -> None:
        self.serve()
        ann = self.connect()
        self.enter(ann)
        self.servers[0].publish("news", 0)
        self.reads(ann, 0)
        for turn in range(4):
            self.cable.cut()
            ann.event("connecting")
            self.server = self.servers[(turn + 1) % 2]
            missed = [10 * turn + each for each in range(1, 6)]
            self.servers[turn % 2].publish("news", *missed)
            self.cable.mend()
            came = ann.event("subscribed", channel="news")
            self.assertEqual((came["was_recovering"], came["recovered"]), (True, True))
            self.reads(ann, *missed)
            self.servers[turn % 2].publish("news", "live")
            self.reads(ann, "live")
        offsets = [each["offset"] for each in ann.heard("publication")]
        self.assertEqual(offsets, list(range(1, len(offsets) + 1)))

    def test_a_node_that_dies_is_left_for_the_other(self) -> None:
        self.serve()
        ann = self.connect()
        self.enter(ann)
        self.servers[1].publish("news", 1)
        self.reads(ann, 1)
        self.server = self.servers[1]
        self.servers[0].kill()
        ann.event("connecting")
        self.servers[1].publish("news", 2)
        came = ann.event("subscribed", channel="news")
        self.assertEqual((came["was_recovering"], came["recovered"]), (True, True))
        self.reads(ann, 2)

    def test_a_new_epoch_is_told(self) -> None:
        self.serve()
        ann = self.connect()
        before = self.enter(ann)
        self.servers[1].publish("news", 1)
        self.reads(ann, 1)
        self.redis.end(9)
        self.redis.start()
        came = ann.event("subscribed", channel="news")
        self.assertEqual((came["was_recovering"], came["recovered"]), (True, False))
        self.assertNotEqual(came["epoch"], before["epoch"])


class PythonNodesTests(NodesBehaviour):
    main = "tests.live.sdk_python_client:run"

    def client(self, port: int, asks_tokens: bool) -> list[str]:
        address = f"ws://127.0.0.1:{port}/connection/websocket"
        return ["sdk_python_client", address, "none", "json"]

    def test_a_node_that_dies_leaves_no_ghosts(self) -> None:
        self.serve()
        ann = self.connect()
        self.enter(ann)
        self.server = self.servers[1]
        bob = self.connect()
        self.enter(bob)
        present = self.servers[1].api("presence", channel="news")["presence"]
        self.assertEqual(set(present), {ann.id, bob.id})
        node = self.own_id(self.servers[0])
        self.servers[0].kill()  # before the cut: a node that lives sees its member go
        self.cable.cut()
        left = int(self.redis.ask("PTTL", f"longconn:{{news}}:on:{node}")[1:])
        self.assertTrue(0 < left <= 30_000, left)
        self.redis.ask("PEXPIRE", f"longconn:{{news}}:on:{node}", "1")  # the time passes
        self.wait(lambda: self.servers[1].api("presence", channel="news")["presence"] == {})

    def own_id(self, server: Server) -> str:
        """The node of a server, which comes first in its answer. On a busy machine the other may be late."""
        found: list[str] = []

        def ask() -> bool:
            with contextlib.suppress(AssertionError):
                found.append(server.api("info")["nodes"][0]["uid"])
            return bool(found)

        self.wait(ask)
        return found[0]


class JavaScriptNodesTests(NodesBehaviour):
    transport = "websocket"

    def setUp(self) -> None:
        self.folder = installed()

    def client(self, port: int, asks_tokens: bool) -> list[str]:
        scheme = "ws" if self.transport == "websocket" else "http"
        base = f"127.0.0.1:{port}"
        endpoints = [f"{scheme}://{base}/connection/{self.transport}", f"http://{base}/emulation"]
        return ["node", str(self.folder / "client.js"), self.transport, *endpoints, "none", "json"]


class JavaScriptStreamNodesTests(JavaScriptNodesTests):
    transport = "http_stream"


del NodesBehaviour
