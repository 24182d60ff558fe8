"""The server API for operators: clients and channels by some order, the last minutes, logins."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from longconn.auth.passwords import check_passwords
from longconn.config.file import load
from longconn.core.errors import ConfigError
from longconn.server_api.overview import INTERVAL, SAMPLES, Recent
from longconn.service.embedding import AdminResource, LiveSite
from tests.server_api.kit import BAD, KEY, Case, Program, error


class OverviewTests(Case):
    def names(self, **body: Any) -> tuple[int, list[str]]:
        found = self.call("clients", **body)["result"]
        return found["num_clients"], [each["name"] for each in found["clients"]]

    def test_a_client(self) -> None:
        ann = Program(self.server, "ann", ("c", "d"))
        self.server.advance(7.5)
        (found,) = self.call("clients", match="ANN")["result"]["clients"]
        address = found.pop("address")
        self.assertRegex(address, r"^127\.0\.0\.1:\d+$")
        self.assertEqual(
            found,
            {
                "client": ann.id,
                "name": "ann",
                "user": "ann",
                "protocol": "websocket",
                "age": 7,
                "queued": 0,
                "num_channels": 2,
                "channels": ["c", "d"],
            },
        )

    def test_orders_limits_and_searches(self) -> None:
        mia = self.server.line_client()
        mia.say("/nick mia")
        self.server.advance(1)
        bob = self.server.line_client()
        bob.say("/nick bob")
        bob.say("/join games")
        for order, expected in (("oldest", ["mia", "bob"]), ("newest", ["bob", "mia"])):
            self.assertEqual(self.names(order=order), (2, expected))
            self.assertEqual(self.names(order=order, limit=1), (2, expected[:1]))
        self.assertEqual(self.names(match="GAME"), (1, ["bob"]))
        self.assertEqual(self.names(match="tcp")[0], 2)
        self.assertEqual(self.names(match="nobody"), (0, []))
        for wrong in ({"order": "size"}, {"limit": 0}, {"limit": 1001}):
            self.assertEqual(self.call("clients", **wrong), BAD)
            self.assertEqual(self.call("channels", **wrong), BAD)

    def test_the_slowest_comes_first(self) -> None:
        quick, slow = self.server.line_client(), self.server.line_client()
        quick.say("/nick quick")
        slow.say("/nick slow")
        client = next(each for each in self.hub.clients.values() if each.name == "slow")
        slow.connection.stop_reading()
        for _ in range(100):
            quick.say("x" * 5000)
        self.server.advance(0.1)
        found = self.call("clients", order="queued")["result"]["clients"]
        self.assertEqual([each["name"] for each in found], ["slow", "quick"])
        self.assertEqual(found[0]["queued"], client.outlet.queued)
        self.assertGreater(found[0]["queued"], 0)

    def test_busy_channels(self) -> None:
        Program(self.server, "ann", ("a", "b"))
        Program(self.server, "bob", ("b",))
        for _ in range(3):
            self.call("publish", channel="a", data=1)
        a = {"name": "a", "num_clients": 1, "num_publications": 3}
        b = {"name": "b", "num_clients": 2, "num_publications": 0}
        for body, expected in (
            ({"limit": 5}, [b, a]),
            ({"order": "clients"}, [b, a]),
            ({"order": "publications", "limit": 1}, [a]),
            ({"pattern": "a*", "limit": 5}, [a]),
        ):
            found = self.call("channels", **body)["result"]
            self.assertEqual(found, {"num_channels": 1 if "pattern" in body else 2, "channels": expected})
        self.assertEqual(
            self.call("channels"), {"result": {"channels": {"a": {"num_clients": 1}, "b": {"num_clients": 2}}}}
        )

    def test_the_last_minutes(self) -> None:
        self.assertEqual(self.call("recent"), error(108, "not available"))  # a service keeps them
        recent = Recent(self.hub)
        Program(self.server, "ann", ("c",))
        for number in range(INTERVAL):
            self.call("publish", channel="c", data=number)
            recent.measured(0.5 if number == 2 else 0.0)
        expected = {"clients": [1], "publications": [1.0], "deliveries": [1.0], "queued": [0], "lag": [0.5]}
        columns = recent.columns()
        self.assertEqual({name: columns[name] for name in expected}, expected)
        self.assertEqual((columns["interval"], len(columns["time"])), (INTERVAL, 1))
        for _ in range((SAMPLES + 5) * INTERVAL):
            recent.measured(0.0)
        columns = recent.columns()
        self.assertEqual(len(columns["time"]), SAMPLES)
        self.assertEqual((columns["publications"][-1], columns["lag"][-1]), (0.0, 0.0))


class OperatorTests(Case):
    def setUp(self) -> None:
        self.serve(auth=("memory:ops:secret:bob:other",), admin_user=("ops",))
        self.hub.gate.passwords = check_passwords(self.hub.settings.auth)

    def status(self, authorization: str) -> int:
        headers = (("Authorization", authorization),) if authorization else (("X-Other", "1"),)
        response = self.post("/api/info", {}, *headers)
        if response.status == 401:  # a browser asks by itself where it reads `Basic`
            self.assertEqual(response.headers["www-authenticate"], 'apikey realm="api"')
        status: int = response.status
        return status

    def basic(self, user: str, password: str) -> str:
        return "Basic " + b64encode(f"{user}:{password}".encode()).decode()

    def test_an_operator_and_others(self) -> None:
        self.assertEqual(self.status(self.basic("ops", "secret")), 200)
        self.assertEqual(self.status(self.basic("bob", "other")), 401)  # a user, and no operator
        self.assertEqual(self.status(self.basic("ops", "wrong")), 401)
        self.assertEqual(self.status("Basic ?"), 401)
        self.assertEqual(self.status("Bearer ops"), 200)
        self.assertEqual(self.status("Bearer bob"), 401)
        self.assertEqual(self.status(""), 401)
        self.assertEqual(self.post("/api/info", {}, ("X-API-Key", KEY)).status, 200)

    def test_the_metrics_are_for_operators_too(self) -> None:
        client = self.server.http_client()
        for authorization, status in ((self.basic("ops", "secret"), 200), (self.basic("bob", "other"), 401)):
            response = client.get("/metrics", (("Authorization", authorization),))
            self.assertEqual(response.status, status)

    def test_without_a_key_no_empty_key_fits(self) -> None:
        self.serve(auth=("memory:ops:secret",), admin_user=("ops",), api_key="")
        self.assertEqual(self.post("/api/info", {}, ("X-API-Key", "")).status, 401)
        self.assertEqual(self.post("/api/info", {}, ("X-Other", "1")).status, 401)

    def test_guesses_are_slowed_down(self) -> None:
        statuses = [self.status(self.basic("ops", f"guess-{number}")) for number in range(8)]
        self.assertEqual((statuses[0], statuses[-1]), (401, 429))
        self.assertEqual(self.status(self.basic("ops", "secret")), 429)

    def test_an_operator_needs_a_way_to_be_known(self) -> None:
        with self.assertRaises(ConfigError) as caught:
            load({"admin_user": ["ops"]}, {}, None)
        self.assertIn("admin-user", str(caught.exception))


class PageTests(Case):
    def test_the_page_is_on_the_port_of_operators_alone(self) -> None:
        admin = LiveSite(self.hub, AdminResource(self.hub))
        self.addCleanup(admin.close_idle)
        client = self.server.http_client(admin)
        page = client.get("/")
        self.assertIn("operation", page.text)
        self.assertIn("default-src 'none'", page.headers["content-security-policy"])
        self.assertEqual(client.get("/page/admin.js").headers["content-type"], "text/javascript; charset=utf-8")
        self.assertEqual(client.get("/page/main.js").status, 404)
        self.assertEqual(client.get("/channels/lobby").status, 404)
        self.assertEqual(self.server.http_client().get("/page/admin.js").status, 404)
