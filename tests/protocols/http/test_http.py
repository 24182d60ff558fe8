"""The site and the resource: paths, methods, origins, upgrades, and sites of other programs."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.address import UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.guard import BasicCredentialFactory, HTTPAuthSessionWrapper
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site
from zope.interface import implementer

import longconn
from longconn.auth.passwords import check_passwords
from longconn.core import errors
from longconn.core.disconnects import SHUTDOWN
from longconn.core.hub import Hub
from longconn.core.settings import Settings
from longconn.protocols.http.errors import STATUSES
from longconn.protocols.http.resource import HTTPResource
from longconn.protocols.http.routes import Route
from longconn.protocols.http.site import HTTPSite
from longconn.service.embedding import LiveResource, LiveSite
from tests.protocols.http.kit import LOOPBACK, Connection, HTTPTestCase

UPGRADE = (
    "Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip
ALL = "GET, HEAD, OPTIONS"
_WEB = Path(longconn.__file__).parent / "web"


class PathTests(HTTPTestCase):
    def test_health(self) -> None:
        self.assertEqual(self.request("GET /health/live").status, 200)
        self.assertEqual(self.request("GET /health/ready").status, 200)
        self.hub.ready = False
        self.assertEqual(self.request("GET /health/live").status, 200)
        self.assertEqual(self.request("GET /health/ready").status, 503)

    def test_nothing_there(self) -> None:
        for path in (
            "/nothing", "/channels", "/channels/", "//", "/channels/a/b", "/page.html", "/page/",
            "/page/index.html", "/page/..%2Fconfig.py", "/page/%2Fetc%2Fpasswd", "/health", "/../etc",
        ):  # fmt: skip
            answer = self.request(f"GET {path}")
            self.assertIn(answer.status, (400, 404), path)
            self.assertEqual(set(answer.json["error"]), {"code", "message"})
            self.assertEqual(answer.headers["cache-control"], "no-store")
            self.assertEqual(answer.headers["content-type"], "application/json")

    def test_methods(self) -> None:
        for path, allowed in (
            ("/", ALL), ("/PrintHello", ALL), ("/ws", ALL), ("/channels/lobby", ALL + ", POST"),
            ("/channels/lobby/events", ALL), ("/health/live", ALL),
        ):  # fmt: skip
            for method in ("PUT", "DELETE", "PATCH", "TRACE", "BREW", "get") + (() if "POST" in allowed else ("POST",)):
                answer = self.request(f"{method} {path}")
                self.assertEqual((answer.status, answer.headers["allow"]), (405, allowed), (method, path))
            answer = self.request(f"OPTIONS {path}")
            self.assertEqual((answer.status, answer.headers["allow"], answer.rest), (204, allowed, b""))

    def test_head(self) -> None:
        for path in ("/", "/page/main.js", "/PrintHello", "/health/ready", "/channels/lobby", "/nothing"):
            connection = self.connect()
            full = connection.request(f"GET {path}")
            head = connection.request(f"HEAD {path}")
            self.assertEqual((head.status, head.rest), (full.status, b""))
            self.assertEqual(head.headers["content-length"], full.headers["content-length"])
            self.assertEqual(head.headers["content-type"], full.headers["content-type"])

    def test_every_reason_has_a_status(self) -> None:
        reasons = {each for each in vars(errors).values() if isinstance(each, errors.Reason)}
        self.assertEqual(set(STATUSES), reasons)

    def test_an_unexpected_exception_is_500(self) -> None:
        self.patch(self.hub.rates, "admit_channel", lambda *args: 1 / 0)
        with self.assertLogs("longconn", "ERROR"):
            answer = self.request("POST /channels/lobby", body=b"x")
        self.assertEqual((answer.status, answer.error), (500, "internal error"))

    def test_requests_are_logged_at_debug(self) -> None:
        with self.assertLogs("longconn", "DEBUG") as logged:
            self.request("GET /PrintHello?\x1b[1m")
            self.request("GET /PrintHello")
        self.assertFalse(any("\x1b" in each for each in logged.output))
        self.assertIn("/PrintHello", logged.output[-1])


class GivenRoutesTests(HTTPTestCase):
    def test_a_resource_serves_its_own_paths_and_the_given_routes(self) -> None:
        missing: list[list[str]] = []
        routes = {"/given/{name}": Route(lambda exchange, name: exchange.text(200, name))}
        self.site = HTTPSite(self.hub, HTTPResource(self.hub, routes, lambda exchange, path: missing.append(path)))
        self.assertEqual(self.request("GET /given/a%2Fb").body, b"a/b")
        self.assertEqual(self.request("POST /given/x").status, 405)
        self.assertEqual(self.request("GET /PrintHello").status, 200)
        for path in ("/connection/sse", "/emulation", "/api/info", "/ws"):
            self.assertEqual(self.request(f"GET {path}").status, 404, path)
        self.assertEqual(missing, [["connection", "sse"], ["emulation"], ["api", "info"], ["ws"]])
        described = self.request("GET /openapi.json").json["paths"]
        self.assertIn("/channels/{channel}/events", described)
        self.assertNotIn("/connection/sse", described)


class PageTests(HTTPTestCase):
    def parts(self) -> dict[str, Any]:
        """The page and all files that it and its modules refer to, by path; each must be served."""
        found: dict[str, Any] = {}
        waiting = ["/"]
        while waiting:
            path = waiting.pop()
            answer = found[path] = self.request(f"GET {path}")
            self.assertEqual(answer.status, 200, path)
            text = answer.body.decode()
            names = re.findall(r' (?:src|href)="([^"]*)"', text) if path == "/" else []
            names += [f"page/{name}" for name in re.findall(r'from "\./([^"]*)"', text)]
            waiting += {f"/{name}" for name in names} - set(found) - set(waiting)
        return found

    def test_all_files_of_the_page_are_served_and_used(self) -> None:
        found = self.parts()
        files = {f"/page/{each.name}" for each in _WEB.iterdir() if each.is_file() and each.name != "index.html"}
        self.assertEqual(set(found), files | {"/"})
        kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", "": "text/html"}
        for path, answer in found.items():
            self.assertTrue(answer.headers["content-type"].startswith(kinds[Path(path).suffix]), path)
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
            self.assertEqual(answer.headers["referrer-policy"], "no-referrer")
            policy = answer.headers["content-security-policy"]
            self.assertIn("default-src 'none'", policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertNotRegex(policy, r"unsafe|\*|https?:|data:")

    def test_no_version_of_the_server_is_told(self) -> None:
        for line in ("GET /", "GET /nothing", "POST /channels/lobby", "OPTIONS *"):
            self.assertEqual(self.request(line).headers["server"], "longconn", line)

    def test_no_file_is_read_for_a_request(self) -> None:
        """At the time of its first request a server may be in a chroot."""
        self.patch(Path, "read_bytes", lambda path: self.fail(f"{path} is read"))
        for path in ("/", "/page/main.js", "/openapi.json"):
            self.assertEqual(self.request(f"GET {path}").status, 200, path)

    def test_all_links_are_relative_and_nothing_is_inline(self) -> None:
        text = self.request("GET /").body.decode()
        self.assertNotRegex(text, r' style=| on\w+=|<style|(?:src|href)="(?:/|\w+:)')
        self.assertEqual(re.findall(r"<script[^>]*>(.*?)</script>", text), [""])

    def test_names_the_default_channel(self) -> None:
        self.start(default_channel='a"<b>/c')
        text = self.request("GET /").body.decode()
        self.assertIn('data-channel="a&quot;&lt;b&gt;/c"', text)
        self.assertIn("/channels/a%22%3Cb%3E%2Fc/events", text)

    def test_browsers_validate_files_each_time(self) -> None:
        for path, answer in self.parts().items():
            self.assertEqual(answer.headers["cache-control"], "no-cache", path)
            tag = answer.headers["etag"]
            for known in (tag, f"W/{tag}", f'"other", {tag}'):
                again = self.request(f"GET {path}", f"If-None-Match: {known}")
                self.assertEqual((again.status, again.rest, again.body), (304, b"", b""), path)
                self.assertEqual((again.headers["etag"], again.headers["cache-control"]), (tag, "no-cache"))
            self.assertEqual(self.request(f"GET {path}", 'If-None-Match: "other"').status, 200)
        tag = self.request("GET /").headers["etag"]
        self.start(default_channel="elsewhere")
        self.assertEqual(self.request("GET /", f"If-None-Match: {tag}").status, 200)

    def test_scripts_write_text_only(self) -> None:
        for file in _WEB.glob("*.js"):
            script = file.read_text()
            for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
                self.assertNotIn(word, script, file.name)
            self.assertNotRegex(script, r"https?://", file.name)


class OriginTests(HTTPTestCase):
    REQUESTS = (
        ("POST /channels/lobby", ()), ("GET /channels/lobby", ()), ("GET /channels/lobby/events", ()),
        ("GET /channels/lobby/stream", ()), ("GET /ws", UPGRADE), ("GET /echo", UPGRADE),
        ("OPTIONS /channels/lobby", ("Access-Control-Request-Method: POST",)), ("HEAD /channels/lobby", ()),
    )  # fmt: skip

    def test_pages_of_other_sites_are_refused(self) -> None:
        before = self.position()
        for line, headers in self.REQUESTS:
            for header in ("Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"):
                body = b"x" if line.startswith("POST") else b""
                answer = self.request(line, header, *headers, body=body)
                self.assertEqual(answer.status, 403, (line, header))
                self.assertNotIn("access-control-allow-origin", answer.headers)
                if not line.startswith("HEAD"):
                    self.assertIn("--allowed-origin=", answer.error)
        self.assertEqual((self.position(), self.hub.clients), (before, {}))

    def test_links_from_other_sites(self) -> None:
        headers = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate")
        for path in ("/", "/PrintHello", "/health/live"):
            self.assertEqual(self.request(f"GET {path}", *headers).status, 200)
            self.assertEqual(self.request(f"GET {path}", headers[0]).status, 403)
        self.assertEqual(self.request("GET /channels/lobby", *headers).status, 403)

    def test_allowed(self) -> None:
        self.start(allowed_origin=("https://app.example", "null"))
        for origin in ("https://app.example", "null", "http://server"):
            answer = self.request("POST /channels/lobby", f"Origin: {origin}", "Sec-Fetch-Site: cross-site", body=b"x")
            self.assertEqual((answer.status, answer.headers["access-control-allow-origin"]), (200, origin))
            self.assertEqual(answer.headers["vary"], "Origin")
        connection = self.connect()
        connection.ask("GET /channels/lobby/events", "Origin: https://app.example")
        self.assertEqual(connection.answer().headers["access-control-allow-origin"], "https://app.example")
        answer = self.request("POST /channels/%20", "Origin: null", body=b"x")
        self.assertEqual((answer.status, answer.headers["access-control-allow-origin"]), (400, "null"))

    def test_preflight(self) -> None:
        self.start(allowed_origin=("*",))
        answer = self.request(
            "OPTIONS /channels/lobby", "Origin: https://app.example", "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: content-type",
        )  # fmt: skip
        self.assertEqual(answer.status, 204)
        self.assertEqual(answer.headers["access-control-allow-origin"], "https://app.example")
        self.assertIn("POST", answer.headers["access-control-allow-methods"])
        self.assertIn("Content-Type", answer.headers["access-control-allow-headers"])

    def test_preflights_of_polyfills_and_of_pages_outside(self) -> None:
        self.start(allowed_origin=("https://app.example", "file://"))
        for origin in ("https://app.example", "file://"):
            answer = self.request(
                "OPTIONS /channels/lobby/events", f"Origin: {origin}", "Access-Control-Request-Method: GET",
                "Access-Control-Request-Headers: cache-control,last-event-id,pragma,x-requested-with",
                "Access-Control-Request-Private-Network: true",
            )  # fmt: skip
            self.assertEqual((answer.status, answer.headers["access-control-allow-origin"]), (204, origin))
            allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
            self.assertLessEqual({"cache-control", "last-event-id", "pragma", "x-requested-with"}, set(allowed))
            self.assertEqual(answer.headers["access-control-allow-private-network"], "true")
        answer = self.request(
            "OPTIONS /channels/lobby/events", "Origin: https://evil.example", "Access-Control-Request-Method: GET",
            "Access-Control-Request-Private-Network: true",
        )  # fmt: skip
        self.assertEqual(answer.status, 403)
        self.assertNotIn("access-control-allow-private-network", answer.headers)

    def test_credentials_are_for_origins_that_are_named(self) -> None:
        self.start(allowed_origin=("https://app.example", "*"))
        for line in ("GET /channels/lobby", "OPTIONS /channels/lobby", "GET /channels/lobby/nothing"):
            answer = self.request(line, "Origin: https://app.example")
            self.assertEqual(answer.headers["access-control-allow-credentials"], "true", line)
            answer = self.request(line, "Origin: https://other.example")
            self.assertNotIn("access-control-allow-credentials", answer.headers, line)

    def test_loopback(self) -> None:
        for host in (LOOPBACK, UNIXAddress(b"/run/longconn.sock")):
            connection = self.connect(host=host)
            answer = connection.request("GET /channels/lobby", host="evil.example:9999")
            self.assertEqual(answer.status, 403)
            self.assertIn("--allowed-host=evil.example ", answer.error)
            for name in ("localhost:9999", "127.0.0.1:9999", "[::1]"):
                answer = connection.request("GET /channels/lobby", "Origin: https://localhost:3000", host=name)
                self.assertEqual(answer.status, 200)

    def test_a_rebound_host(self) -> None:
        connection = self.connect(host=LOOPBACK)
        origin = "Origin: http://evil.example"
        for line, headers in self.REQUESTS:
            answer = connection.request(line, origin, *headers, host="evil.example")
            self.assertEqual(answer.status, 403, line)
        self.assertEqual(connection.request("GET /", host="evil.example").status, 403)


class UpgradeTests(HTTPTestCase):
    def start(self, **settings: Any) -> None:
        super().start(**settings)
        self.taken: list[tuple[Any, ...]] = []
        self.site = LiveSite(self.hub, LiveResource(self.hub, lambda request, *args: self.taken.append(args[:-1])))

    def upgrade(self, path: str, *headers: str, version: str = "1.1") -> int:
        connection = self.connect()
        connection.ask(f"GET {path}", *(headers or UPGRADE), version=version)
        data = connection.transport.value()
        return connection.answer().status if data else 0

    def test_taken_over(self) -> None:
        for path in ("/ws", "/ws?channel=a%2Fb&name=ann", "/echo", "/websocket"):
            self.assertEqual(self.upgrade(path), 0)
        self.assertEqual(
            self.taken,
            [("chat", None, None), ("chat", "a/b", ("ann", "")), ("echo", None, None), ("echo", None, None)],
        )

    def test_refused(self) -> None:
        self.start(max_connections=1)
        for path, status in (
            ("/ws?channel=a+b", 400), ("/ws?channel=", 400), ("/ws?name=1.2.3.4", 400), ("/ws?name=%FF", 400),
        ):  # fmt: skip
            self.assertEqual(self.upgrade(path), status, path)
        stream = self.connect()
        stream.ask("GET /channels/lobby/events?name=ann")
        self.assertEqual(self.upgrade("/ws?name=Ann"), 503)
        self.assertEqual(self.upgrade("/ws"), 503)
        self.assertEqual(self.taken, [])

    def test_no_upgrade(self) -> None:
        for headers in (("X: y",), UPGRADE[:1], UPGRADE[1:], ("Upgrade: h2c", *UPGRADE[1:]), UPGRADE[:2]):
            connection = self.connect()
            answer = connection.request("GET /ws", *headers)
            self.assertEqual(answer.status, 426, headers)
            self.assertEqual((answer.headers["upgrade"], answer.headers["connection"]), ("websocket", "Upgrade"))
            self.assertEqual(connection.request("GET /PrintHello").status, 200)
        self.assertEqual(self.upgrade("/ws", version="1.0"), 426)
        self.assertEqual(self.upgrade("/ws", *UPGRADE[:2], "Sec-WebSocket-Version: 7"), 426)
        self.assertEqual(self.request("POST /ws", *UPGRADE, body=b"x").status, 405)
        self.assertEqual(self.request("GET /ws", *UPGRADE, body=b"x").status, 400)
        self.assertEqual(self.taken, [])

    def test_further_input_goes_to_the_new_protocol(self) -> None:
        received: list[bytes] = []

        def take(request: Any, *args: Any) -> None:
            request.channel.dataReceived = received.append

        self.site = LiveSite(self.hub, LiveResource(self.hub, take))
        connection = self.connect()
        connection.request("GET /PrintHello")
        lines = ["GET /ws HTTP/1.1", "Host: a", *UPGRADE, "", ""]
        connection.send("\r\n".join(lines).encode() + b"\x81\x80abcd")
        connection.send(b"more")
        self.assertEqual(received, [b"\x81\x80abcd", b"more"])
        self.assertEqual(self.site.state.idle, set())
        self.clock.pump([1] * 200)
        self.assertFalse(connection.closing)


class WebSocketTests(HTTPTestCase):
    """With the default factory."""

    def test_as_a_later_request_of_any_site(self) -> None:
        for site in (self.site, Site(LiveResource(self.hub), reactor=self.clock)):
            connection = Connection(site)
            self.assertEqual(connection.request("GET /PrintHello").body, b"hello word")
            lines = ["GET /echo HTTP/1.1", "Host: server", *UPGRADE, "", ""]
            connection.send("\r\n".join(lines).encode() + b"\x81\x82abcd\x09\x0b")
            head, _, frames = connection.take().partition(b"\r\n\r\n")
            self.assertTrue(head.startswith(b"HTTP/1.1 101 "), head)
            self.assertEqual(frames, b"\x81\x02hi")
            connection.lose()
            self.assertEqual(self.hub.clients, {})


@implementer(IRealm)
class _Realm:
    def __init__(self, resource: Any) -> None:
        self.resource = resource

    def requestAvatar(self, avatar_id: Any, mind: Any, *interfaces: Any) -> Any:
        return IResource, self.resource, lambda: None


class ForeignSiteTests(HTTPTestCase):
    """The resource below a plain twisted.web site, behind a password."""

    def setUp(self) -> None:
        super().setUp()
        root, self.deep = Resource(), Resource()
        root.putChild(b"deep", self.deep)
        self.let_in(LiveResource(self.hub))
        self.foreign = Site(root, reactor=self.clock)
        self.word = "Authorization: Basic " + base64.b64encode(b"ann:secret").decode()

    def let_in(self, resource: LiveResource) -> None:
        """Serve `resource` behind the password."""
        users = InMemoryUsernamePasswordDatabaseDontUse(ann=b"secret")
        portal = Portal(_Realm(resource), [users])
        self.deep.putChild(b"live", HTTPAuthSessionWrapper(portal, [BasicCredentialFactory(b"live")]))

    def ask(self, line: str, *headers: str, **more: Any) -> Any:
        connection = Connection(self.foreign)
        self.connections.append(connection)
        return connection.request(line, self.word, *headers, **more)

    def tearDown(self) -> None:
        super().tearDown()
        self.foreign.stopFactory()

    def test_needs_the_password(self) -> None:
        connection = Connection(self.foreign)
        self.assertEqual(connection.request("GET /deep/live/PrintHello").status, 401)
        connection.lose()

    def test_paths(self) -> None:
        self.assertEqual(self.ask("GET /deep/live/PrintHello").body, b"hello word")
        self.assertIn(b"longconn", self.ask("GET /deep/live/").body)
        answer = self.ask("GET /deep/live?x=1")
        self.assertEqual((answer.status, answer.headers["location"]), (308, "./live/?x=1"))
        self.assertEqual(self.ask("HEAD /deep/live/channels/lobby").status, 200)
        self.assertEqual(self.ask("GET /deep/live/nothing").status, 404)

    def test_the_sites_login_is_the_speaker(self) -> None:
        self.let_in(LiveResource(self.hub, identify=lambda request: request.getUser().decode()))
        stream = Connection(self.foreign)
        stream.ask("GET /deep/live/channels/lobby/stream", self.word)
        self.assertEqual([each.user for each in self.hub.clients.values()], ["ann"])
        self.assertEqual(self.ask("POST /deep/live/channels/lobby", body=b"hello").status, 200)
        self.turns()
        self.assertIn(b'"data":"hello","name":"ann"', stream.take())
        stream.lose()
        upgraded: list[Any] = []
        self.let_in(
            LiveResource(self.hub, lambda request, *args: upgraded.append(args), identify=lambda request: "ann")
        )
        for path in ("ws", "connection/websocket"):
            connection = Connection(self.foreign)
            connection.ask(f"GET /deep/live/{path}", self.word, *UPGRADE)
            self.assertEqual(upgraded.pop()[3].user, "ann", path)
            connection.lose()

    def test_a_user_whom_the_site_does_not_know_proves_who_it_is(self) -> None:
        self.hub.gate.passwords = check_passwords(["memory:bob:secret"])
        for known in ("", None):
            self.let_in(LiveResource(self.hub, identify=lambda request, known=known: known))
            self.assertEqual(self.ask("POST /deep/live/channels/lobby", body=b"hello").status, 401)
        self.let_in(LiveResource(self.hub, identify=lambda request: "ann"))
        self.assertEqual(self.ask("POST /deep/live/channels/lobby", body=b"hello").status, 200)

    def test_a_page_elsewhere_does_not_speak_by_the_sites_login(self) -> None:
        hub = Hub(self.clock, Settings(allowed_origin=("*",), anonymous="no"))
        self.addCleanup(hub.stop)
        self.let_in(LiveResource(hub, identify=lambda request: "ann"))
        elsewhere = "Origin: https://elsewhere.example"
        self.assertEqual(self.ask("POST /deep/live/channels/lobby", elsewhere, body=b"hello").status, 401)
        self.assertEqual(self.ask("POST /deep/live/channels/lobby", body=b"hello").status, 200)

    def test_counts_requests(self) -> None:
        connection = Connection(self.foreign)
        for number in (1, 2):
            answer = connection.request("GET /deep/live/PrintHello", self.word)
            self.assertTrue(answer.headers["x-connection"].endswith(f"; request={number}"))
        connection.lose()

    def test_publishes_a_form_as_it_is(self) -> None:
        form = "Content-Type: application/x-www-form-urlencoded"
        stream = Connection(self.foreign)
        stream.ask("GET /deep/live/channels/a%2Fb/stream", self.word)
        stream.take()
        self.assertEqual(self.ask("POST /deep/live/channels/a%2Fb", form, body=b"name=1.2&x=%41").status, 200)
        self.turns()
        self.assertIn(b'"data":"name=1.2&x=%41"', stream.take())
        stream.lose()

    def test_limits_on_sizes(self) -> None:
        self.assertEqual(self.ask("POST /deep/live/channels/a", body=b"x" * 65537).status, 413)
        answer = self.ask("POST /deep/live/channels/a", body=b"x" * (1024 * 1024 + 1))
        self.assertEqual((answer.status, "1048576" in answer.error), (413, True))

    def test_events(self) -> None:
        connection = Connection(self.foreign)
        connection.ask("GET /deep/live/channels/lobby/events", self.word)
        self.assertIn(b":ok", connection.take())
        self.publish("x")
        self.assertIn(b'"data":"x"', connection.take())
        (client,) = self.hub.clients.values()
        client.close(SHUTDOWN)
        self.assertTrue(connection.take().endswith(b"0\r\n\r\n"))
        self.assertTrue(connection.closing)
        connection.lose()

    def test_origin(self) -> None:
        self.assertEqual(self.ask("GET /deep/live/channels/a", "Origin: http://evil.example").status, 403)


class FactoryTests(SynchronousTestCase):
    def test_a_site_leaves_no_delayed_call(self) -> None:
        clock = Clock()
        site = LiveSite(Hub(clock))
        site.doStart()
        self.assertEqual(clock.getDelayedCalls(), [])
        site.doStop()
        self.assertEqual(site.acceptableProtocols(), [b"http/1.1"])
