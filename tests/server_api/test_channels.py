"""The server API: presence, history, channels, info."""

from __future__ import annotations

from typing import Any

from longconn import __version__
from longconn.core.namespaces import ChannelOptions, Namespaces
from tests.server_api.kit import BAD, NOTHING, Case, Program, error


class ChannelTests(Case):
    def test_presence(self) -> None:
        ann, ann2, nobody = (
            Program(self.server, "ann", ("c",)),
            Program(self.server, "ann", ("c",)),
            Program(self.server),
        )
        nobody.ask("subscribe", {"channel": "c"})
        presence = self.call("presence", channel="c")["result"]["presence"]
        self.assertEqual(set(presence), {ann.id, ann2.id, nobody.id})
        self.assertEqual(
            presence[ann.id],
            {"user": "ann", "client": ann.id, "conn_info": {"name": "ann", "role": "x"}, "chat": False},
        )
        stats = self.call("presence_stats", channel="c")
        self.assertEqual(stats, {"result": {"num_clients": 3, "num_users": 2}})
        self.assertEqual(self.call("presence", channel="empty"), {"result": {"presence": {}}})
        empty = self.call("presence_stats", channel="empty")
        self.assertEqual(empty, {"result": {"num_clients": 0, "num_users": 0}})

    def test_presence_that_is_off(self) -> None:
        self.serve(namespaces=Namespaces(plain=ChannelOptions(presence=False)))
        for method in ("presence", "presence_stats"):
            self.assertEqual(self.call(method, channel="c"), error(108, "not available"))
            self.assertEqual(self.call(method), BAD)

    def test_history_in_parts(self) -> None:
        first = self.call("publish", channel="c", data=1)["result"]
        for data in (2, 3, 4):
            self.call("publish", channel="c", data=data)
        epoch = first["epoch"]

        def page(**body: Any) -> list[Any]:
            result = self.call("history", channel="c", **body)["result"]
            self.assertEqual((result["epoch"], result["offset"]), (epoch, 4))
            return [each["data"] for each in result["publications"]]

        self.assertEqual(page(), [])
        self.assertEqual(page(limit=-1), [1, 2, 3, 4])
        self.assertEqual(page(limit=2), [1, 2])
        self.assertEqual(page(limit=2, reverse=True), [4, 3])
        self.assertEqual(page(limit=2, since={"offset": 1, "epoch": epoch}), [2, 3])
        self.assertEqual(page(limit=-1, since={"offset": 3}, reverse=True), [2, 1])
        lost = self.call("history", channel="c", limit=1, since={"offset": 1, "epoch": "other"})
        self.assertEqual(lost, error(112, "unrecoverable position"))
        self.assertEqual(self.call("history", channel="c", limit=1, since={"offset": 0}, reverse=True), BAD)

    def test_history_says_who_published(self) -> None:
        ann = Program(self.server, "ann")
        ann.ask("publish", {"channel": "c", "data": {"x": 1}})
        self.call("publish", channel="c", data=2)
        theirs, ours = self.call("history", channel="c", limit=-1)["result"]["publications"]
        info = {"user": "ann", "client": ann.id, "conn_info": {"name": "ann", "role": "x"}}
        self.assertEqual(theirs, {"data": {"x": 1}, "info": info, "offset": 1, "time": 1_700_000_000_000})
        self.assertEqual(ours, {"data": 2, "offset": 2, "time": 1_700_000_000_000})

    def test_history_that_is_off(self) -> None:
        self.serve(namespaces=Namespaces(plain=ChannelOptions(history_size=0)))
        for method in ("history", "history_remove"):
            self.assertEqual(self.call(method, channel="c"), error(108, "not available"))
            self.assertEqual(self.call(method), BAD)

    def test_removing_history_leaves_the_position(self) -> None:
        for data in (1, 2):
            before = self.call("publish", channel="c", data=data)["result"]
        self.assertEqual(self.call("history_remove", channel="c"), NOTHING)
        empty = {"publications": [], "epoch": before["epoch"], "offset": 2}
        self.assertEqual(self.call("history", channel="c", limit=-1), {"result": empty})
        program = Program(self.server)
        for offset, recovered in ((2, True), (1, False)):
            body = {"channel": "c", "recover": True, "epoch": before["epoch"], "offset": offset}
            self.assertEqual(program.ask("subscribe", body)["subscribe"].get("recovered", False), recovered)
            program.ask("unsubscribe", {"channel": "c"})
        after = self.call("publish", channel="c", data=3)["result"]
        self.assertEqual(after, {"epoch": before["epoch"], "offset": 3})
        self.assertEqual(self.kept(), [3])
        self.assertEqual(self.call("history_remove", channel="never met"), BAD)
        self.assertEqual(self.call("history_remove", channel="never-met"), NOTHING)
        self.server.advance(43_300)
        self.assertEqual(self.kept(), [])

    def test_channels_by_pattern(self) -> None:
        Program(self.server, channels=("a", "b:1", "b:2"))
        Program(self.server, channels=("b:2",))
        self.call("publish", channel="nobody-there", data=1)
        for pattern, names in (
            ("", ["a", "b:1", "b:2"]), ("*", ["a", "b:1", "b:2"]), ("b:*", ["b:1", "b:2"]), ("b", []),
            ("?", ["a"]), ("b:[!1]", ["b:2"]),
        ):  # fmt: skip
            found = self.call("channels", pattern=pattern)["result"]["channels"]
            self.assertEqual(sorted(found), names, pattern)
        self.assertEqual(self.call("channels")["result"]["channels"]["b:2"], {"num_clients": 2})
        self.assertEqual(self.call("channels", pattern="{a,b}"), error(108, "not available"))

    def test_info_counts(self) -> None:
        Program(self.server, "ann", ("c", "d"))
        Program(self.server, "ann", ("c",))
        gone = Program(self.server, "bo")
        self.server.line_client()
        gone.socket.connection.reset()
        self.server.advance(90)
        self.call("publish", channel="c", data=1)
        self.call("publish", channel="", data=1)
        (node,) = self.call("info")["result"]["nodes"]
        self.assertEqual((node["uid"], node["version"]), (self.hub.node, __version__))
        self.assertGreaterEqual(node["uptime"], 90)
        counts = {name: node[f"num_{name}"] for name in ("clients", "users", "channels", "subs")}
        self.assertEqual(counts, {"clients": 3, "users": 2, "channels": 3, "subs": 4})
        items = node["metrics"]["items"]
        expected = {
            "connections": 4, "publications": 1, "api_calls": 3, "api_refused": 1, "api_calls_publish": 2,
            "api_calls_info": 1, "indirect_sends": self.hub.counters.indirect_sends, "revocations": 0,
        }  # fmt: skip
        self.assertEqual(items, expected)
