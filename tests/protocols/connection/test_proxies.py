"""Proxies in front: their headers and the PROXY protocol count from trusted addresses alone."""

from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from longconn import ChatFactory, Hub, LiveSite, Settings, SharedPortFactory
from longconn.core.errors import ConfigError
from longconn.core.proxies import Forwarded, TrustedProxies
from longconn.testing import FakeClock, HTTPClient, LineClient, MemoryServer, WebSocketClient

PROXY = "10.0.0.7"


class HeaderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.proxies = TrustedProxies(["10.0.0.0/8", "fd00::/8", "192.0.2.1"])

    def test_which_peers_are_proxies(self) -> None:
        for host, trusted in (
            ("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("fd00::1", True), ("192.0.2.1", True),
            ("192.0.2.2", False), ("11.0.0.1", False), ("", False), ("name", False),
        ):  # fmt: skip
            self.assertIs(self.proxies.trust(host), trusted, host)
        self.assertTrue(TrustedProxies(["unix"]).trust(""))
        self.assertFalse(TrustedProxies([]).trust(""))

    def test_which_client_they_name(self) -> None:
        for forwarded, x_for, proto, expected in (
            ([], ["203.0.113.5"], "", Forwarded("203.0.113.5", None)),
            ([], ["1.2.3.4, 203.0.113.5, 10.0.0.9"], "https", Forwarded("203.0.113.5", True)),
            ([], ["1.2.3.4", "203.0.113.5"], "http", Forwarded("203.0.113.5", False)),
            ([], ["203.0.113.5:4711"], "", Forwarded("203.0.113.5", None)),
            ([], ["2001:db8::5"], "", Forwarded("2001:db8::5", None)),
            ([], ["[2001:db8::5]:80"], "", Forwarded("2001:db8::5", None)),
            ([], ["10.0.0.8, 10.0.0.9"], "", Forwarded("10.0.0.8", None)),
            (['for="[2001:db8::5]:80";proto=https, for=10.0.0.9'], ["6.6.6.6"], "", Forwarded("2001:db8::5", True)),
            (["For=203.0.113.5;By=10.0.0.1"], [], "https", Forwarded("203.0.113.5", None)),
            (["for=_hidden"], [], "", None),
            ([], ["203.0.113.5, unknown"], "", None),
            ([], ["", ""], "", None),
            ([], [], "https", None),
        ):  # fmt: skip
            self.assertEqual(self.proxies.client(forwarded, x_for, proto), expected, (forwarded, x_for))

    def test_what_is_no_network(self) -> None:
        for network in ("x", "10.0.0.0/40", ""):
            self.assertIn("trusted_proxy", str(self.assertRaises(ConfigError, TrustedProxies, [network])))


class Case(SynchronousTestCase):
    def serve(self, **settings: Any) -> None:
        clock = FakeClock()
        settings.setdefault("trusted_proxy", ("10.0.0.0/8",))
        self.memory = MemoryServer(hub=Hub(clock, Settings(**settings)))
        self.addCleanup(self.memory.stop)
        self.shared = SharedPortFactory(ChatFactory(self.memory.hub), LiveSite(self.memory.hub))

    def connect(self, host: str = PROXY) -> Any:
        return self.memory.connect(self.shared, local=IPv4Address("TCP", host, 4000))

    def addresses(self) -> list[str]:
        self.memory.settle()
        return sorted(each.address for each in self.memory.hub.clients.values())


class ForwardedTests(Case):
    def test_every_kind_of_request(self) -> None:
        self.serve()
        headers = [("X-Forwarded-For", "203.0.113.5")]
        web = HTTPClient(self.connect(), self.memory.clock.settle)
        answer = web.get("/PrintHello", headers)
        self.memory.settle()
        self.assertIn("203.0.113.5:4000", answer.headers["x-connection"])
        WebSocketClient(self.connect(), "/ws", headers, self.memory.clock.settle)
        WebSocketClient(self.connect(), "/connection/websocket", headers, self.memory.clock.settle)
        HTTPClient(self.connect(), self.memory.clock.settle).get("/channels/lobby/events", headers)
        self.assertEqual(self.addresses(), ["203.0.113.5:4000"] * 3)
        self.assertEqual({each.host for each in self.memory.hub.clients.values()}, {"203.0.113.5"})

    def test_from_anybody_else_they_are_ignored(self) -> None:
        self.serve()
        HTTPClient(self.connect("192.0.2.9"), self.memory.clock.settle).get(
            "/channels/lobby/events", [("X-Forwarded-For", "203.0.113.5"), ("Forwarded", "for=203.0.113.5")]
        )
        self.assertEqual(self.addresses(), ["192.0.2.9:4000"])

    def test_the_log_says_once_that_they_are_ignored(self) -> None:
        self.serve()
        with self.assertLogs("longconn", "WARNING") as logged:
            for header in ("X-Forwarded-For", "Forwarded"):
                web = HTTPClient(self.connect("192.0.2.9"), self.memory.clock.settle)
                web.get("/PrintHello", [(header, "for=203.0.113.5")])
        self.assertEqual(len(logged.output), 1)
        self.assertIn("from 192.0.2.9 are ignored", logged.output[0])
        self.assertIn("--trusted-proxy", logged.output[0])

    def test_rates_and_guesses_are_those_of_the_clients(self) -> None:
        self.serve(publish_rate=0.1, publish_burst=1)
        web = HTTPClient(self.connect(), self.memory.clock.settle)

        def status(client: str) -> int:
            answer = web.post("/channels/lobby", "x", [("X-Forwarded-For", client)])
            self.memory.settle()
            return answer.status

        self.assertEqual([status("203.0.113.5"), status("203.0.113.5"), status("203.0.113.6")], [200, 429, 200])

    def test_a_limit_by_address_is_that_of_the_clients(self) -> None:
        self.serve(max_connections_per_ip=1)
        found = []
        for client in ("203.0.113.5", "203.0.113.6", "203.0.113.5"):
            web = HTTPClient(self.connect(), self.memory.clock.settle)
            found.append(web.get("/channels/lobby/stream", [("X-Forwarded-For", client)]))
        self.memory.settle()
        self.assertEqual([each.status for each in found], [200, 200, 503])

    def test_a_page_that_came_by_https(self) -> None:
        self.serve(hsts=60)
        web = HTTPClient(self.connect(), self.memory.clock.settle)
        answer = web.get("/PrintHello", [("X-Forwarded-For", "203.0.113.5"), ("X-Forwarded-Proto", "https")])
        self.memory.settle()
        self.assertEqual(answer.headers["strict-transport-security"], "max-age=60")

    def test_by_a_unix_socket(self) -> None:
        self.serve(trusted_proxy=("unix",))
        connection = self.memory.connect(self.shared, local=UNIXAddress(""))
        HTTPClient(connection, self.memory.clock.settle).get(
            "/channels/lobby/events", [("X-Forwarded-For", "203.0.113.5")]
        )
        self.assertEqual(self.addresses(), ["203.0.113.5:0"])


class ProxyProtocolTests(Case):
    """`send-proxy` of HAProxy on the shared port."""

    V1 = b"PROXY TCP4 203.0.113.5 10.0.0.1 4711 9999\r\n"
    V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([203, 0, 113, 5, 10, 0, 0, 1]) + b"\x12\x67\x27\x0f"

    def test_both_versions_before_every_protocol(self) -> None:
        for header in (self.V1, self.V2):
            self.serve()
            lines = LineClient(connection := self.connect(), self.memory.clock.settle)
            connection.send(header)
            lines.say("hello")
            self.assertEqual(self.addresses(), ["203.0.113.5:4711"])
            (connection := self.connect()).send(header)
            HTTPClient(connection, self.memory.clock.settle).get("/channels/lobby/events")
            self.assertEqual(self.addresses(), ["203.0.113.5:4711"] * 2)

    def test_a_header_in_pieces(self) -> None:
        self.serve()
        for header in (self.V1, self.V2):
            connection = self.connect()
            for each in header + b"hello\r\n":
                connection.send(bytes([each]))
                self.memory.settle()
        self.assertEqual(self.addresses(), ["203.0.113.5:4711"] * 2)

    def test_unknown_and_local_keep_the_proxy(self) -> None:
        self.serve()
        for header in (b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"):
            connection = self.connect()
            connection.send(header + b"hello\r\n")
        self.assertEqual(self.addresses(), [f"{PROXY}:4000"] * 2)

    def test_without_a_header_it_is_the_proxy_itself(self) -> None:
        self.serve()
        LineClient(self.connect(), self.memory.clock.settle).say("hello")
        self.assertEqual(self.addresses(), [f"{PROXY}:4000"])

    def test_from_anybody_else_it_is_refused(self) -> None:
        self.serve()
        for header in (self.V1, self.V2):
            with self.assertLogs("longconn", "INFO") as logged:
                connection = self.connect("192.0.2.9")
                connection.send(header + b"hello\r\n")
                self.memory.settle()
            self.assertTrue(connection.closed)
            self.assertIn("--trusted-proxy does not name it", " ".join(logged.output))
        self.assertEqual(self.addresses(), [])
