"""GET /metrics: the hub's numbers in the text format of Prometheus, by prometheus_client.

Labels have few values, and none that a peer chooses: a protocol, the number of a disconnect, the key of a refusal, a
method, an event. Nothing is done for it until it is asked for.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

import twisted
from longconn import __version__
from longconn.core import disconnects
from longconn.core.counters import BrokerCounters, Histogram
from longconn.core.hub import Hub
from longconn.protocols.http.exchange import HTTPExchange
from longconn.protocols.http.routes import Access, Route
from longconn.server_api.keys import APIKeys

#: The numbers of longconn's own disconnects, and 0 for those of clients.
_NUMBERS = {0, *(each.code for each in vars(disconnects).values() if isinstance(each, disconnects.Disconnect))}


class HubCollector:
    """Collects the metrics of one hub, for a registry of prometheus_client."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        hub, counters = self._hub, self._hub.counters
        clients = Counter(each.protocol for each in hub.clients.values())
        yield GaugeMetricFamily("longconn_ready", "1 if new clients are welcome.", hub.ready)
        yield _gauge("longconn_clients", "Clients now.", "protocol", {**dict.fromkeys(counters.clients, 0), **clients})
        yield _counter("longconn_clients_connected", "Clients that came.", "protocol", counters.clients)
        yield _counter(
            "longconn_disconnects",
            "Clients that ended; code 0: the connection just ended.",
            "code",
            _codes(counters.disconnects),
        )
        yield CounterMetricFamily(
            "longconn_slow_disconnects",
            "Clients that were closed because they did not read.",
            counters.disconnects[disconnects.SLOW.code] + counters.disconnects[disconnects.WRITE_TIMEOUT.code],
        )
        yield _counter("longconn_refusals", "Refused requests and commands.", "reason", counters.refusals)
        yield GaugeMetricFamily("longconn_channels", "Channels with subscribers.", len(hub.channels))
        yield GaugeMetricFamily("longconn_subscriptions", "Subscriptions now.", sum(map(len, hub.channels.values())))
        yield CounterMetricFamily("longconn_publications", "Publications taken in.", counters.publications)
        yield CounterMetricFamily("longconn_publication_bytes", "Bytes of their data.", counters.publication_bytes)
        yield CounterMetricFamily("longconn_deliveries", "Publications sent to subscribers.", counters.deliveries)
        yield CounterMetricFamily(
            "longconn_delivery_bytes",
            "Bytes sent to subscribers, with joins and leaves.",
            counters.delivery_bytes,
        )
        yield CounterMetricFamily(
            "longconn_indirect_sends", "Sends that the kernel did not take at once.", counters.indirect_sends
        )
        yield GaugeMetricFamily("longconn_queue_bytes", "Bytes that wait to be sent.", hub.queued)
        yield GaugeMetricFamily(
            "longconn_queue_bytes_largest",
            "Bytes that wait for one client at most.",
            max((each.queued for each in hub.waiting), default=0),
        )
        yield GaugeMetricFamily("longconn_history_bytes", "Bytes of history that is kept.", hub.broker.kept_bytes)
        yield _histogram("longconn_batch_events", "Events of a channel that were sent together.", counters.batches)
        yield _histogram("longconn_fan_out_seconds", "Seconds of a turn in which channels sent.", counters.fan_out)
        yield _histogram("longconn_reactor_lag_seconds", "Seconds by which the reactor was late.", counters.lag)
        yield _counter("longconn_hook_failures", "Hooks that gave no decision.", "event", counters.hook_failures)
        yield _counter("longconn_webhook_lost", "Events that were not told.", "reason", counters.webhook_lost)
        hooks = HistogramMetricFamily("longconn_hook_seconds", "Seconds until a hook answered.", labels=["event"])
        for event, histogram in counters.hooks.items():
            hooks.add_metric([event], _buckets(histogram), histogram.sum)
        yield hooks
        if hub.broker.counters is not None:
            yield from _broker(hub.broker.counters, hub.broker.problem)
        build = GaugeMetricFamily("longconn_build_info", "What runs.", labels=["version", "twisted", "python"])
        build.add_metric([__version__, twisted.__version__, platform.python_version()], 1)
        yield build


def _broker(counters: BrokerCounters, problem: str) -> Iterator[Metric]:
    yield GaugeMetricFamily("longconn_broker_up", "1 if the broker takes publications.", not problem)
    yield _histogram("longconn_broker_seconds", "Seconds until the broker answered.", counters.seconds)
    yield _counter("longconn_broker_failures", "Publications that were not taken.", "reason", counters.failures)
    yield CounterMetricFamily("longconn_channels_lost", "Times that a channel lost publications.", counters.lost)


def registry_of(hub: Hub, of_process: bool = False) -> CollectorRegistry:
    """A new registry with the metrics of `hub`, and those of its process: memory, open files, collections."""
    registry = CollectorRegistry()
    registry.register(HubCollector(hub))
    if of_process:
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
    return registry


class MetricsRoutes:
    """The path of the metrics for a resource: none where a key is wanted and there is none.

    `keys` are the server API's, of which a request brings one. None is for a port of operators: no key is wanted.
    """

    def __init__(self, registry: CollectorRegistry, keys: APIKeys | None) -> None:
        self._registry = registry
        self._keys = keys

    def routes(self) -> dict[str, Route]:
        """The routes for a resource, by path."""
        if self._keys is not None and not self._keys:
            return {}
        return {"/metrics": Route(self._answer, free=True, access=Access.PUBLIC)}

    def _answer(self, exchange: HTTPExchange) -> None:
        if self._keys is not None:
            self._keys.admit(exchange, self._write)
        else:
            self._write(exchange)

    def _write(self, exchange: HTTPExchange) -> None:
        encode, content_type = choose_encoder(exchange.header("accept"))
        exchange.answer(200, encode(self._registry), content_type)


def _counter(name: str, text: str, label: str, values: Mapping[str, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _codes(ended: Mapping[int, int]) -> dict[str, int]:
    """By number; those of an application are one, since it may give a thousand."""
    found: Counter[str] = Counter()
    for code, count in ended.items():
        found[str(code) if code in _NUMBERS else "application"] += count
    return found


def _histogram(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, text, buckets=_buckets(histogram), sum_value=histogram.sum)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative, with the bounds as text."""
    total, found = 0, []
    for bound, count in zip((*map(str, map(float, histogram.bounds)), "+Inf"), histogram.counts, strict=True):
        total += count
        found.append((bound, float(total)))
    return found
