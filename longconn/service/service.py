"""The service: a hub and the ports that reach it, from start to shutdown."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from prometheus_client import CollectorRegistry
from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred

from longconn.auth.fetch import fetcher
from longconn.auth.http_hooks import EVENTS, http_hooks
from longconn.auth.jwks import JWKS
from longconn.auth.jwt import JWTVerifier
from longconn.auth.passwords import check_passwords
from longconn.core.errors import LongConnError
from longconn.core.hooks import Hooks
from longconn.core.hub import Hub
from longconn.core.log import about, log
from longconn.core.settings import Settings
from longconn.protocols.grpc.call import Handler
from longconn.protocols.grpc.factory import GrpcFactory
from longconn.redis.broker import RedisBroker
from longconn.redis.server import redis_broker
from longconn.server_api.metrics import HubCollector, registry_of
from longconn.server_api.operations import ServerAPI
from longconn.server_api.overview import Recent
from longconn.service import greeting, logs, open_files
from longconn.service.embedding import AdminResource, ChatFactory, LiveResource, LiveSite, SharedPortFactory
from longconn.service.lag import ReactorLag
from longconn.service.ports import Ports
from longconn.service.shared_tls import SharedTLS
from longconn.service.shutdown import Drain, SecondSignal
from longconn.service.webhooks import HTTPPost, Webhooks


class LongConnService(Service):
    """Serves one hub on `port` (everything), `tcp` (chat lines), `http` and `grpc` ports.

    Ports are listening strings: `9999`, `127.0.0.1:0`, `[::1]:9999`, or a Twisted endpoint description. By default
    there are none. Give either `settings`, for a new hub, or `hub`, which has settings of its own. The service owns the
    hub: when it stops, it closes the hub's clients and stops the hub.

    `grpc_services` and `grpc_files` are services of the program over gRPC (see `GrpcFactory`). `hooks` decide in place
    of those of the settings (see `program_hooks`). `registry` is the program's own, for the metrics of the hub; without
    one the metrics are those of the hub and the process. One registry is for one hub.

    The constructor raises ConfigError for a bad port or key. The start raises ListenError if a port is taken or not
    permitted, and then no port is open. The start raises the process's soft limit on open files to the hard limit.
    """

    name = "longconn"

    def __init__(
        self,
        reactor: Any,
        settings: Settings | None = None,
        port: Sequence[str] = (),
        tcp: Sequence[str] = (),
        http: Sequence[str] = (),
        hub: Hub | None = None,
        grpc: Sequence[str] = (),
        grpc_services: Mapping[str, Handler] | None = None,
        grpc_files: Sequence[FileDescriptor] = (),
        hooks: Hooks | None = None,
        admin: Sequence[str] = (),
        registry: CollectorRegistry | None = None,
    ) -> None:
        if hub is not None and settings is not None:
            raise ValueError("a hub has settings already: give one or the other")
        self._reactor = reactor
        self._ports = Ports(reactor, {"port": port, "tcp": tcp, "http": http, "grpc": grpc, "admin": admin})
        #: the channels and clients; an embedding program may publish through it
        self.hub = hub if hub is not None else _make_hub(reactor, _within_open_files(settings or Settings()))
        self._redis = self.hub.broker if isinstance(self.hub.broker, RedisBroker) else None
        gate = self.hub.gate
        if gate.verifier is None:
            verifier = JWTVerifier(self.hub.settings, self._make_jwks)
            gate.verifier = verifier if verifier.algorithms else None
        if gate.passwords is None and self.hub.settings.auth:
            gate.passwords = check_passwords(self.hub.settings.auth)
        if hooks is not None:
            self.hub.hooks = hooks
        elif any(getattr(self.hub.settings, f"hook_{event}") for event in EVENTS):
            self.hub.hooks = http_hooks(self.hub.settings, reactor, self.hub.counters)
        self._webhooks: Webhooks | None = None
        if self.hub.settings.webhook:
            self._post = HTTPPost(reactor)
            hub = self.hub
            lost = hub.counters.webhook_lost
            self._webhooks = Webhooks(hub.settings, hub.node, reactor, hub.wall_time, self._post, lost)
        self._configured_limit = (settings or self.hub.settings).max_connections
        if registry is None:
            registry = registry_of(self.hub, of_process=True)
        else:
            registry.register(HubCollector(self.hub))
        self._recent = Recent(self.hub)
        self._lag = ReactorLag(reactor, self._measured)
        api = ServerAPI(self.hub, self._recent)
        self._site = LiveSite(self.hub, LiveResource(self.hub, for_operators=not admin, registry=registry, api=api))
        chat = ChatFactory(self.hub)
        self._grpc = GrpcFactory(self.hub, grpc_services, grpc_files)
        shared: Any = SharedPortFactory(chat, self._site, self._grpc)
        self._tls: SharedTLS | None = None
        if self.hub.settings.tls_cert:
            self._tls = SharedTLS(self.hub, shared)
            shared = self._tls.factory
            if not self.hub.settings.tls_only:
                shared = SharedPortFactory(chat, self._site, self._grpc, self._tls.build)
        gate.certificates = bool(self.hub.settings.tls_client_ca)
        self._factories = {"port": shared, "tcp": chat, "http": self._site, "grpc": self._grpc}
        self._admin_site = LiveSite(self.hub, AdminResource(self.hub, registry, api))
        self._factories["admin"] = self._admin_site
        self._open_files_limit: int | None = None
        self._attached = False
        self._trigger: Any = None
        self._second_signal = SecondSignal(reactor, self._stop_now)
        self._stopping: Deferred[None] | None = None
        self._pausing: Deferred[None] | None = None
        self._drain: Drain | None = None
        self._skip_waiting = False

    @property
    def addresses(self) -> list[tuple[str, Any]]:
        """The open ports in the order given, as pairs of an option (`port`, `tcp`, `http`, `grpc`) and an IAddress."""
        return [(each.option, each.address) for each in self._ports.open_ports]

    # The start.

    def privilegedStartService(self) -> None:
        """Listen while the process still has its privileges. Raises ListenError."""
        self._listen()
        super().privilegedStartService()  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Listen, unless `privilegedStartService` did, and log where. Raises ListenError."""
        self._listen()
        super().startService()  # type: ignore[no-untyped-call]
        self._trigger = self._reactor.addSystemEventTrigger("before", "shutdown", self._on_reactor_stop)
        self.hub.door.accepting = self.hub.ready = True
        if self._redis is not None:
            self._redis.start()
        if isinstance(self.hub.gate.verifier, JWTVerifier):
            self.hub.gate.verifier.load()
        if self._tls is not None:
            self._tls.start()
        self._lag.start()
        if self._webhooks is not None:
            self.hub.observer = self._webhooks
        self._greet()

    def reload_certificates(self) -> bool:
        """Read the files of certificates anew; False if there are none."""
        if self._tls is None:
            return False
        self._tls.reload()
        return True

    def _measured(self, lag: float) -> None:
        self.hub.counters.lag.observe(lag)
        self._recent.measured(lag)

    def _make_jwks(self, where: str) -> JWKS:
        return JWKS(where, self._reactor, fetcher(self._reactor))

    def _listen(self) -> None:
        if self._stopping is not None:
            raise RuntimeError("the service is still stopping")
        if self._ports.listening:
            return
        self._open_files_limit = open_files.raise_limit(self.hub.settings.max_connections)
        logs.attach(self.hub.settings.log_level)
        try:
            self._ports.listen(self._factories)
        except LongConnError:
            logs.detach()
            raise
        self._attached = True
        # Behind a proxy that names its clients, they come from elsewhere, too.
        reachable = [each for each in self._ports.open_ports if each.is_public or each.kind == "haproxy"]
        if any(each.option != "admin" for each in reachable):
            self.hub.names.is_public = True

    def _greet(self) -> None:
        ports = self._ports.open_ports
        if self.hub.settings.tls_only:
            ports = [replace(each, kind="ssl") if each.option == "port" else each for each in ports]
        for warning in (greeting.warning(ports, self.hub), greeting.pages_warning(self.hub)):
            if warning is not None:
                log.warning("%s", warning, extra=about("open_to_all"))
        log.info("%s", greeting.access(self.hub), extra=about("rights"))
        log.info("%s", greeting.history(self.hub), extra=about("history"))
        for line in greeting.lines(ports, self.hub.settings.default_channel):
            log.info("%s", line, extra=about("listening"))
        if isinstance(self.hub.gate.verifier, JWTVerifier):
            self.hub.gate.verifier.warn()
        limit = self._open_files_limit
        if limit is not None and (self._configured_limit == 0 or self._configured_limit > limit):
            log.info(
                "at most %d clients: the open-file limit leaves room for no more (max_connections is %d)",
                limit,
                self._configured_limit,
                extra=about("limits"),
            )

    # The end.

    def stopService(self) -> Deferred[None]:
        """Be not ready for `shutdown_delay` seconds, then stop listening and close all clients within
        `shutdown_timeout`.

        The Deferred fires when no connection, socket or delayed call is left.
        """
        if self._stopping is None:
            delay = self.hub.settings.shutdown_delay if self.running else 0
            super().stopService()  # type: ignore[no-untyped-call]
            self.hub.ready = False
            stopping = self._stopping = self._stop(delay)
            stopping.addBoth(self._on_stopped)
        return _follow(self._stopping) if self._stopping is not None else stopping

    @inlineCallbacks
    def _stop(self, delay: float) -> Generator[Deferred[Any], Any, None]:
        if delay:
            log.info("not ready; serving for %s s more", delay, extra=about("stopping"))
            yield self._pause(delay)
        yield self._ports.close()
        self.hub.door.accepting = False
        if self.hub.clients and not self._skip_waiting:
            # Publications that were acknowledged in this turn are delivered at its end.
            turn_ended = Deferred[None]()
            self.hub.turn.soon(lambda: turn_ended.callback(None))
            yield turn_ended
            self.hub.turn.finish()
        timeout = self.hub.settings.shutdown_timeout
        if self.hub.clients:
            count = len(self.hub.clients)
            log.info("closing %s clients, at most %s s", count, timeout, extra=about("stopping"))
        self._drain = Drain(self._reactor, self.hub, timeout, self._close_idle, self._ports.connections)
        drained = self._drain.run()
        if self._skip_waiting:
            self._drain.finish()
        yield drained
        if self._webhooks is not None:
            self.hub.observer = None
            told = self._webhooks.stop()
            if self._skip_waiting:
                self._webhooks.finish()
            yield told
            yield maybeDeferred(self._post.close)
        self._lag.stop()
        self._ports.forget()
        yield maybeDeferred(self.hub.hooks.stop)
        if self._tls is not None:
            self._tls.stop()
        self.hub.stop()
        if self._redis is not None:
            yield self._redis.closed()

    def _close_idle(self) -> None:
        """Close connections without a request or call, and send GOAWAY on the others that speak gRPC."""
        self._site.close_idle()
        self._admin_site.close_idle()
        self._grpc.drain()

    def _pause(self, seconds: float) -> Deferred[None]:
        """Wait `seconds`, or until `_stop_now`."""
        self._pausing = pausing = Deferred[None]()
        call = self._reactor.callLater(seconds, pausing.callback, None)

        def over(_: object) -> None:
            self._pausing = None
            if call.active():
                call.cancel()

        return pausing.addCallback(over)

    def _stop_now(self) -> None:
        """End the shutdown at once, after a second signal."""
        log.info("stopping at once", extra=about("stopping"))
        self._skip_waiting = True
        if self._pausing is not None:
            self._pausing.callback(None)
        if self._drain is not None:
            self._drain.finish()
        if self._webhooks is not None:
            self._webhooks.finish()

    def _on_reactor_stop(self) -> None:
        self._trigger = None
        self._second_signal.install()

    def _on_stopped(self, result: Any) -> Any:
        self._stopping = self._drain = None
        self._skip_waiting = False
        self._second_signal.remove()
        if self._trigger is not None:
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._trigger = None
        if self._attached:
            self._attached = False
            logs.detach()
        return result


def _make_hub(reactor: Any, settings: Settings) -> Hub:
    if not settings.broker:
        return Hub(reactor, settings)
    broker = redis_broker(reactor, settings)
    return Hub(reactor, settings, broker, broker.node)


def _within_open_files(settings: Settings) -> Settings:
    """`settings` with `max_connections` lowered to what the hard limit on open files allows."""
    limit = open_files.client_limit()
    configured = settings.max_connections
    return settings if limit is None or 0 < configured <= limit else replace(settings, max_connections=limit)


def _follow(deferred: Deferred[None]) -> Deferred[None]:
    """A new Deferred that fires when `deferred` fires: each caller of `stopService` gets its own."""
    follower: Deferred[None] = Deferred()

    def pass_on(result: Any) -> Any:
        follower.callback(None)
        return result

    deferred.addBoth(pass_on)
    return follower
