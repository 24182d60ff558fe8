"""The service: a hub and the ports that it is reached on, from the start to the end."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks

from longconn.auth.jwt import JWTVerifier
from longconn.core.hub import Hub
from longconn.core.settings import Settings
from longconn.protocols.grpc.factory import GrpcFactory
from longconn.protocols.http.resource import LiveSite
from longconn.service import greeting, logs, open_files
from longconn.service.embedding import ChatFactory, SharedPortFactory
from longconn.service.logs import log
from longconn.service.ports import Ports
from longconn.service.shutdown import Drain, SecondSignal


class LongConnService(Service):
    """Serves one hub on `port` (everything), `tcp` (chat lines), `http` and `grpc` ports.

    Ports are listening strings: `9999`, `127.0.0.1:0`, `[::1]:9999`, or a Twisted endpoint
    description; there are none by default. The hub is made with `settings` unless one is
    given, which has settings of its own. Either way it is the service's from then on: at
    the end its clients are closed and it is stopped.

    The constructor raises ConfigError for a port or a key that cannot be; the start raises
    ListenError for one that is taken or not permitted, and then nothing is listened on.
    Starting raises the process's soft limit on open files to the hard one.
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
    ) -> None:
        if hub is not None and settings is not None:
            raise ValueError("a hub has settings already: give one or the other")
        self._reactor = reactor
        self._ports = Ports(reactor, {"port": port, "tcp": tcp, "http": http, "grpc": grpc})
        #: everything that is said and done here; programs may publish by it
        self.hub = hub if hub is not None else Hub(reactor, _with_room(settings or Settings()))
        if self.hub.verifier is None:
            self.hub.verifier = JWTVerifier(self.hub.settings)
        self._asked = (settings or self.hub.settings).max_connections
        self._site = LiveSite(self.hub)
        chat = ChatFactory(self.hub)
        self._grpc = GrpcFactory(self.hub)
        shared = SharedPortFactory(chat, self._site, self._grpc)
        self._factories = {"port": shared, "tcp": chat, "http": self._site, "grpc": self._grpc}
        self._room: int | None = None
        self._attached = False
        self._trigger: Any = None
        self._second_signal = SecondSignal(reactor, self._stop_now)
        self._stopping: Deferred[None] | None = None
        self._pausing: Deferred[None] | None = None
        self._drain: Drain | None = None
        self._at_once = False

    @property
    def addresses(self) -> list[tuple[str, Any]]:
        """What is listened on now, in the order given: pairs of `port`, `tcp`, `http` or `grpc` and an IAddress."""
        return [(each.kind, each.address) for each in self._ports.places]

    # The start.

    def privilegedStartService(self) -> None:
        """Listen, while the process still has the rights for it. Raises ListenError."""
        self._listen()
        super().privilegedStartService()  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Listen, unless that was done, and say where. Raises ListenError."""
        self._listen()
        super().startService()  # type: ignore[no-untyped-call]
        self._trigger = self._reactor.addSystemEventTrigger("before", "shutdown", self._on_reactor_stop)
        self.hub.ready = True
        self._greet()

    def _listen(self) -> None:
        if self._stopping is not None:
            raise RuntimeError("the service is still stopping")
        if self._ports.listening:
            return
        self._room = open_files.raise_limit(self.hub.settings.max_connections)
        self._ports.listen(self._factories)
        self._attached = True
        logs.attach()

    def _greet(self) -> None:
        places = self._ports.places
        warning = greeting.warning(places)
        if warning is not None:
            log.warn("{line}", line=warning)
        for line in greeting.lines(places, self.hub.settings.default_channel):
            log.info("{line}", line=line)
        if isinstance(self.hub.verifier, JWTVerifier):
            self.hub.verifier.warn()
        room = self._room
        if room is not None and (self._asked == 0 or self._asked > room):
            log.info(
                "at most {room} clients: the open-file limit leaves room for no more (max_connections is {asked})",
                room=room,
                asked=self._asked,
            )

    # The end.

    def stopService(self) -> Deferred[None]:
        """Not ready for `shutdown_delay`; then stop listening and close all clients within `shutdown_timeout`.

        Fires when no connection, socket or delayed call is left.
        """
        if self._stopping is None:
            delay = self.hub.settings.shutdown_delay if self.running else 0
            super().stopService()  # type: ignore[no-untyped-call]
            self.hub.ready = False
            stopping = self._stopping = self._stop(delay)
            stopping.addBoth(self._on_stopped)
        return _echo(self._stopping) if self._stopping is not None else stopping

    @inlineCallbacks
    def _stop(self, delay: float) -> Generator[Deferred[Any], Any, None]:
        if delay:
            log.info("not ready; serving for {delay} s more", delay=delay)
            yield self._pause(delay)
        yield self._ports.close()
        timeout = self.hub.settings.shutdown_timeout
        if self.hub.clients:
            count = len(self.hub.clients)
            log.info("closing {count} clients, at most {timeout} s", count=count, timeout=timeout)
        self._drain = Drain(self._reactor, self.hub, timeout, self._close_idle, self._ports.connections)
        drained = self._drain.run()
        if self._at_once:
            self._drain.finish()
        yield drained
        self._ports.forget()
        self.hub.stop()

    def _close_idle(self) -> None:
        """Close what has nothing under way, and tell peers that may begin more not to."""
        self._site.close_idle()
        self._grpc.drain()

    def _pause(self, seconds: float) -> Deferred[None]:
        """Fires in `seconds`, or when `_stop_now` says so."""
        self._pausing = pausing = Deferred[None]()
        call = self._reactor.callLater(seconds, pausing.callback, None)

        def over(_: object) -> None:
            self._pausing = None
            if call.active():
                call.cancel()

        return pausing.addCallback(over)

    def _stop_now(self) -> None:
        """Somebody has waited enough."""
        log.info("stopping at once")
        self._at_once = True
        if self._pausing is not None:
            self._pausing.callback(None)
        if self._drain is not None:
            self._drain.finish()

    def _on_reactor_stop(self) -> None:
        self._trigger = None
        self._second_signal.install()

    def _on_stopped(self, result: Any) -> Any:
        self._stopping = self._drain = None
        self._at_once = False
        self._second_signal.remove()
        if self._trigger is not None:
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._trigger = None
        if self._attached:
            self._attached = False
            logs.detach()
        return result


def _with_room(settings: Settings) -> Settings:
    """`settings` with no more clients than the hard limit on open files leaves room for."""
    room = open_files.room()
    most = settings.max_connections
    return settings if room is None or 0 < most <= room else replace(settings, max_connections=room)


def _echo(deferred: Deferred[None]) -> Deferred[None]:
    """Another Deferred that fires as `deferred` does, so that each caller has one of its own."""
    echo: Deferred[None] = Deferred()

    def pass_on(result: Any) -> Any:
        echo.callback(None)
        return result

    deferred.addBoth(pass_on)
    return echo
