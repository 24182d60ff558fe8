"""/metrics: what is counted, who may read it, and that all that names a metric names one that there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from longconn import LongConnService
from longconn.core.counters import Counters
from longconn.core.disconnects import FORCE_DISCONNECT, SLOW
from longconn.core.hub import Hub
from longconn.core.settings import Settings
from longconn.redis.server import redis_broker
from longconn.server_api.metrics import HubCollector, registry_of
from longconn.service.embedding import AdminResource, LiveSite, WebSocketFactory
from longconn.service.lag import ReactorLag
from longconn.testing import FakeClock, MemoryServer

ROOT = Path(__file__).resolve().parents[2]
KEY = "key"


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.serve()

    def serve(self, **settings: object) -> None:
        self.server = MemoryServer(Settings(**settings))  # type: ignore[arg-type]
        self.addCleanup(self.server.stop)
        self.hub = self.server.hub
        self.registry = registry_of(self.hub)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


class CountTests(Case):
    def test_clients_and_how_they_ended(self) -> None:
        lines, other, websocket = (
            self.server.line_client(),
            self.server.line_client(),
            self.server.websocket_client("/ws", WebSocketFactory(self.hub)),
        )
        self.assertEqual((self.value("longconn_clients", protocol="tcp"), lines.closed), (2, False))
        self.assertEqual(self.value("longconn_clients", protocol="websocket"), 1)
        self.assertEqual(self.value("longconn_subscriptions"), 3)
        self.assertEqual(self.value("longconn_channels"), 1)
        tcp, _, web = self.hub.clients.values()
        other.connection.reset()
        tcp.outlet.close(SLOW)
        web.close(FORCE_DISCONNECT)
        self.server.advance(10)
        self.assertEqual(self.value("longconn_clients", protocol="tcp"), 0)
        self.assertEqual(self.value("longconn_clients_connected_total", protocol="tcp"), 2)
        self.assertEqual(self.value("longconn_disconnects_total", code="0"), 1)
        self.assertEqual(self.value("longconn_disconnects_total", code="3008"), 1)
        self.assertEqual(self.value("longconn_disconnects_total", code="3503"), 1)
        self.assertEqual(self.value("longconn_slow_disconnects_total"), 1)
        self.assertTrue(websocket.closed)

    def test_a_number_of_the_application_is_no_label_of_its_own(self) -> None:
        self.hub.counters.disconnects.update({4321: 2, 3999: 1, 0: 1})
        self.assertEqual(self.value("longconn_disconnects_total", code="application"), 3)

    def test_publications_and_deliveries(self) -> None:
        members = [self.server.line_client() for _ in range(3)]
        self.server.settle()
        sent = self.value("longconn_delivery_bytes_total") or 0
        for text in ("one", "two"):
            members[0].say(text)
        self.server.settle()
        self.assertEqual(self.value("longconn_publications_total"), 2)
        self.assertEqual(self.value("longconn_publication_bytes_total"), len("onetwo"))
        self.assertEqual(self.value("longconn_deliveries_total"), 6)
        self.assertGreater((self.value("longconn_delivery_bytes_total") or 0) - sent, 6 * len("one"))
        self.assertGreater(self.value("longconn_history_bytes") or 0, len('"one""two"'))
        self.assertGreater(self.value("longconn_batch_events_count") or 0, 0)
        self.assertGreater(self.value("longconn_fan_out_seconds_count") or 0, 0)

    def test_refusals(self) -> None:
        self.server.line_client().say("/join a b", "/join " + "x" * 300)
        http = self.server.http_client()
        for path in ("/nothing", "/channels/a%20b"):
            http.get(path)
        self.server.settle()
        self.assertEqual(self.value("longconn_refusals_total", reason="http_404"), 1)
        self.assertGreaterEqual(self.value("longconn_refusals_total", reason="bad_channel") or 0, 2)

    def test_how_late_the_reactor_is(self) -> None:
        clock, counters = Clock(), Counters()
        lag = ReactorLag(clock, counters.lag.observe)
        lag.start()
        clock.advance(1)
        clock.advance(1.25)
        self.assertEqual((sum(counters.lag.counts), counters.lag.sum), (2, 0.25))
        lag.stop()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_hooks(self) -> None:
        self.hub.counters.hook("publish", 0.02, failed=False)
        self.hub.counters.hook("publish", 9, failed=True)
        self.assertEqual(self.value("longconn_hook_seconds_count", event="publish"), 2)
        self.assertEqual(self.value("longconn_hook_seconds_bucket", event="publish", le="0.03"), 1)
        self.assertEqual(self.value("longconn_hook_failures_total", event="publish"), 1)


class AccessTests(Case):
    def get(self, site: LiveSite, *headers: tuple[str, str]) -> tuple[int, str]:
        answer = self.server.http_client(site).get("/metrics", headers=headers)
        return answer.status, answer.body.decode()

    def test_the_shared_port_wants_the_key_of_the_api(self) -> None:
        self.serve(api_key=KEY)
        site = LiveSite(self.hub)
        self.assertEqual(self.get(site)[0], 401)
        self.assertEqual(self.get(site, ("X-API-Key", "other"))[0], 401)
        for header in (("X-API-Key", KEY), ("Authorization", f"apikey {KEY}")):
            status, text = self.get(site, header)
            self.assertEqual((status, "longconn_ready 1.0\n" in text), (200, True))

    def test_without_a_key_there_are_none(self) -> None:
        self.assertEqual(self.get(LiveSite(self.hub))[0], 404)

    def test_the_port_of_operators_wants_none(self) -> None:
        for key in ("", KEY):
            self.serve(api_key=key)
            self.assertEqual(self.get(LiveSite(self.hub, AdminResource(self.hub)))[0], 200)

    def test_both_formats(self) -> None:
        site = LiveSite(self.hub, AdminResource(self.hub))
        status, text = self.get(site, ("Accept", "application/openmetrics-text; version=1.0.0"))
        self.assertEqual((status, text.endswith("# EOF\n")), (200, True))
        names = {each.name for each in text_string_to_metric_families(self.get(site)[1])}
        self.assertIn("longconn_clients", names)

    def test_nothing_that_a_peer_chooses_is_in_it(self) -> None:
        client = self.server.line_client()
        client.say("/nick secretname", "/join secretchannel", "secrettext", "/secretcommand", "/join secret channel")
        self.server.http_client().get("/secretpath")
        self.server.settle()
        text = self.get(LiveSite(self.hub, AdminResource(self.hub)))[1]
        self.assertNotIn("secret", text)
        self.assertNotIn("127.0.0.1", text)


def _hub() -> Hub:
    """A hub whose broker has metrics of its own."""
    settings = Settings(broker=("redis://",))
    return Hub(FakeClock(), settings, redis_broker(FakeClock(), settings))


class RegistryTests(SynchronousTestCase):
    def names(self) -> set[str]:
        """The names of all families and samples."""
        hub = _hub()
        hub.counters.hook("publish", 1, failed=True)
        hub.counters.refusals["bad_channel"] += 1
        hub.counters.disconnects[0] += 1
        hub.counters.clients["tcp"] += 1
        families = list(registry_of(hub, of_process=True).collect())
        return {each.name for each in families} | {sample.name for each in families for sample in each.samples}

    def test_a_service_adds_those_of_the_process_or_takes_a_registry(self) -> None:
        own = CollectorRegistry()
        LongConnService(MemoryReactorClock(), registry=own)
        self.assertEqual(own.get_sample_value("longconn_ready"), 1)
        self.assertNotIn("process_open_fds", {each.name for each in own.collect()})
        self.assertIn("process_open_fds", self.names())

    def test_what_names_a_metric_names_one_that_there_is(self) -> None:
        names = self.names()
        for path in ("examples/grafana.json", "examples/alerts.yml", "reference/metrics.md"):
            text = (ROOT / "docs" / path).read_text()
            named = set(re.findall(r"\b(?:longconn|process|python)_[a-z_]+[a-z]\b", text))
            self.assertGreater(len(named), 4, path)
            self.assertEqual(named - names - {"longconn_v1"}, set(), path)
        panels = json.loads((ROOT / "docs/examples/grafana.json").read_text())["panels"]
        self.assertTrue(all(target["expr"] for panel in panels for target in panel["targets"]))

    def test_the_page_has_every_metric(self) -> None:
        page = (ROOT / "docs/reference/metrics.md").read_text()
        for family in HubCollector(_hub()).collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            self.assertIn(f"`{name}`", page)
