"""Which sites' pages may use the server: the rules without HTTP."""

from __future__ import annotations

import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from longconn.config.file import load
from longconn.core.settings import Settings
from longconn.wire.origin import OriginRefusal, OriginRules, RequestOrigin, is_loopback


def check(
    host: str = "chat.example.org",
    origin: str | None = None,
    origins: tuple[str, ...] = (),
    hosts: tuple[str, ...] = ("a.org", "chat.example.org"),
    harmless: bool = False,
    **caller: Any,
) -> OriginRefusal | None:
    rules = OriginRules(
        Settings(allowed_origin=origins, allowed_host=hosts), own_names=("Web1", "web1.local", "web1.example.net")
    )
    return rules.check(RequestOrigin(hosts=(host,), origins=() if origin is None else (origin,), **caller), harmless)


class OriginTests(SynchronousTestCase):
    def passes(self, **caller: Any) -> None:
        self.assertIsNone(check(**caller), caller)

    def fails(self, **caller: Any) -> str:
        refusal = check(**caller)
        assert refusal is not None, caller
        self.assertEqual(refusal.status, 403)
        return refusal.message

    def test_requests_of_other_programs_pass(self) -> None:
        self.passes()
        self.passes(local=True, host="localhost:9999")

    def test_same_origin(self) -> None:
        self.passes(host="a.org:9999", origin="http://a.org:9999")
        self.passes(host="A.org:9999", origin="http://a.ORG:9999")
        self.passes(host="a.org", origin="http://a.org")
        self.passes(host="a.org:80", origin="http://a.org")
        self.passes(host="a.org:443", origin="https://a.org", secure=True)
        self.passes(host="[2001:db8::1]:9999", origin="http://[2001:db8::1]:9999")
        # A proxy ends TLS before us.
        self.passes(host="a.org", origin="https://a.org")

    def test_other_origin(self) -> None:
        for host, origin in (
            ("a.org:9999", "http://a.org"),
            ("a.org:9999", "http://a.org:9998"),
            ("a.org", "http://b.org"),
            ("a.org", "http://a.org.evil.example"),
            ("a.org", "http://evil.example/a.org"),
            ("a.org", "http://evil.example#a.org"),
            ("a.org", "http://u@a.org"),
            ("a.org", "ftp://a.org"),
            ("a.org", "a.org"),
            ("a.org", ""),
            ("", "http://"),
            ("a.org", "http://localhost"),
            ("a.org:443", "http://a.org:443x"),
        ):
            self.fails(host=host, origin=origin)
        self.fails(host="a.org", origin="http://a.org", secure=True)

    def test_message_says_what_to_do(self) -> None:
        self.assertIn("--allowed-origin=https://evil.example ", self.fails(origin="https://evil.example"))
        self.assertIn("--allowed-origin=null ", self.fails(origin="null"))
        self.assertLess(len(self.fails(origin="http://" + "x" * 9999)), 600)

    def test_advice_names_a_value_that_works(self) -> None:
        for origin in (
            "https://evil.example",
            "null",
            "file://",
            "capacitor://localhost",
            "HTTP://a.org:80",
            "app://-",
        ):
            message = self.fails(origin=origin)
            advised = re.findall("--allowed-origin=(\\S+)", message)
            self.passes(origin=origin, origins=load({"allowed_origin": advised}, {}).settings.allowed_origin)
        for origin in ("nonsense", "http://", "http://" + "x" * 300, "http://a b", "*"):
            self.assertNotIn("--", self.fails(origin=origin))
        refusal = check(host="evil.example:1", local=True)
        assert refusal is not None
        (advised,) = re.findall("--allowed-host=(\\S+)", refusal.message)
        self.assertIsNone(check(host="evil.example:1", local=True, hosts=(advised,)))
        for host in ("", "a(b)", "a,b", "*", "x" * 300):
            refusal = check(host=host, local=True)
            assert refusal is not None
            self.assertIn("--allowed-host=HOST ", refusal.message)

    def test_named_origins(self) -> None:
        rules = OriginRules(Settings(allowed_origin=("https://a.org", "null", "*", "file://")))
        named = ["https://a.org", "https://A.org:443", "file://", "null", "*", "https://b.org", "http://localhost"]
        self.assertEqual([each for each in named if rules.names(each)], named[:3])

    def test_allowed(self) -> None:
        for origin in ("https://b.org", "https://B.org:443", "HTTPS://b.org"):
            self.passes(origin=origin, origins=("https://b.org",))
        self.passes(origin="https://b.org", origins=("https://B.org:443",))
        self.passes(origin="null", origins=("null",))
        self.passes(origin="moz-extension://abc", origins=("moz-extension://abc",))
        self.fails(origin="https://b.org:8443", origins=("https://b.org",))
        self.fails(origin="http://b.org", origins=("https://b.org",))
        for origin in ("null", "http://x.org", "nonsense"):
            self.passes(origin=origin, origins=("*",))

    def test_localhost_origin(self) -> None:
        for origin in (
            "http://localhost", "http://localhost:3000", "https://localhost:3000", "http://app.localhost:1",
            "http://127.0.0.1:8000", "http://127.9.9.9", "http://[::1]:8000", "tauri://localhost",
        ):  # fmt: skip
            self.passes(host="localhost:9999", origin=origin, local=True)
            self.fails(host="a.org", origin=origin)
        for origin in ("http://localhost.evil.example", "http://xlocalhost", "http://128.0.0.1", "null"):
            self.fails(host="localhost:9999", origin=origin, local=True)

    def test_fetch_metadata(self) -> None:
        self.fails(fetch_site="cross-site")
        self.fails(fetch_site="cross-site", fetch_mode="no-cors", harmless=True)
        self.fails(fetch_site="cross-site", fetch_mode="navigate")
        self.passes(fetch_site="cross-site", fetch_mode="navigate", harmless=True)
        for site in ("same-origin", "same-site", "none", ""):
            self.passes(fetch_site=site)
        self.passes(fetch_site="cross-site", origin="https://b.org", origins=("https://b.org",))
        self.passes(fetch_site="cross-site", host="localhost", origin="http://127.0.0.1:8000", local=True)
        self.passes(fetch_site="cross-site", origins=("*",))
        self.fails(fetch_site="same-origin", origin="https://b.org")

    def test_two_origins(self) -> None:
        refusal = OriginRules(Settings()).check(RequestOrigin(hosts=("a",), origins=("http://a", "http://b")))
        assert refusal is not None
        self.assertEqual(refusal.status, 400)


class HostTests(SynchronousTestCase):
    def test_on_loopback(self) -> None:
        for host in (
            "localhost", "localhost:9999", "LOCALHOST.", "a.localhost:1", "127.0.0.1:9999", "[::1]:9999", "192.0.2.1",
        ):  # fmt: skip
            self.assertIsNone(check(host=host, local=True), host)
        for host in ("evil.example", "evil.example:9999", "localhost.evil.example", "", "127.0.0.1.evil.example"):
            refusal = check(host=host, local=True)
            assert refusal is not None, host
            self.assertEqual(refusal.status, 403)
            self.assertIn("--allowed-host", refusal.message)

    def test_elsewhere_names_that_no_foreign_site_can_have(self) -> None:
        for host in (
            "192.0.2.1:9999", "[2001:db8::1]", "localhost", "longconn:9999", "printer.local", "nas.home.arpa",
            "feed.prod.internal", "Printer.LOCAL.", "",
        ):  # fmt: skip
            self.assertIsNone(check(host=host), host)
        for host in (
            "evil.example", "evil.example.:9999", "local.evil.example", "xlocal.example", "evil.localdomain.example",
            "192.0.2.1.evil.example", "192.0.2.1.nip.io", "3221225985.example",
        ):  # fmt: skip
            refusal = check(host=host)
            assert refusal is not None, host
            self.assertEqual(refusal.status, 403)
            self.assertIn("--allowed-host", refusal.message)

    def test_the_names_of_the_machine_itself(self) -> None:
        for host in ("web1", "WEB1:9999", "web1.local", "web1.example.net"):
            for local in (True, False):
                self.assertIsNone(check(host=host, local=local), host)
        for host in ("web2", "web2.local", "longconn", "feed.prod.internal"):
            self.assertIsNotNone(check(host=host, local=True), host)

    def test_a_browser_checks_the_name_over_tls(self) -> None:
        for local in (True, False):
            self.assertIsNone(check(host="any.example", secure=True, local=local))

    def test_allowed_hosts(self) -> None:
        self.assertIsNone(check(host="Chat.example:9999", local=True, hosts=("chat.example",)))
        self.assertIsNone(check(host="chat.example", local=True, origins=("https://chat.example:8443",)))
        self.assertIsNone(check(host="chat.example", local=True, origins=("*",)))
        for local in (True, False):
            self.assertIsNotNone(check(host="other.example", local=local, hosts=("chat.example",)))
            self.assertIsNone(check(host="other.example", local=local, hosts=("*",)))
        # Any host, but not any origin.
        self.assertIsNotNone(check(host="other.example", origin="http://evil.example", hosts=("*",)))

    def test_a_rebound_page(self) -> None:
        # Its origin is its host: only the host gives it away.
        refusal = check(host="evil.example:9999", origin="http://evil.example:9999", local=True)
        assert refusal is not None
        self.assertEqual(refusal.status, 403)

    def test_number_of_hosts(self) -> None:
        rules = OriginRules(Settings())
        for hosts, must, passes in (
            ((), True, False), ((), False, True), (("a",), True, True),
            (("a", "a"), True, False), (("a", "b"), False, False),
        ):  # fmt: skip
            refusal = rules.check(RequestOrigin(hosts=hosts, must_name_host=must))
            self.assertEqual(refusal is None, passes, (hosts, must))
            self.assertTrue(refusal is None or refusal.status == 400)

    def test_malformed(self) -> None:
        for host in ("a b", "a/b", "a@b", "[::1", "a:b", "a:99999", "a,b:1:2", "a\x00"):
            refusal = check(host=host)
            assert refusal is not None, host
            self.assertEqual(refusal.status, 400)

    def test_loopback_addresses(self) -> None:
        for address in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"):
            self.assertTrue(is_loopback(address), address)
        for address in ("128.0.0.1", "::2", "::ffff:10.0.0.1", "localhost", "", "0.0.0.0"):
            self.assertFalse(is_loopback(address), address)
