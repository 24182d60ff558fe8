"""The ports of one service: opened together or not at all, closed together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet import tcp
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IReactorFDSet
from twisted.python.failure import Failure

from longconn.config.endpoints import ListenError, ServerEndpoint, failure, server_endpoint
from longconn.core.log import about, log
from longconn.protocols.port.proxy_header import ProxyHeaderFactory
from longconn.protocols.port.tls_handshake import HandshakeFactory
from longconn.service.greeting import OpenPort

#: Connections that one port accepts in a turn of the reactor: others are served in between.
ACCEPTS = 32


class Ports:
    """Opens and closes ports. `wanted` has the listening strings of each option: port, tcp, http, grpc.

    Raises ConfigError, of one line, for a string that is not valid.
    """

    def __init__(self, reactor: Any, wanted: Mapping[str, Sequence[str]]) -> None:
        self._reactor = reactor
        self._endpoints = [
            (option, server_endpoint(reactor, text)) for option, texts in wanted.items() for text in texts
        ]
        self._listening_ports: list[Any] = []
        # Every port that was ever open: connections outlive the port that accepted them.
        self._accepted_by: list[Any] = []
        self._closing: list[Deferred[Any]] = []
        #: the ports that are open now, in the order of `wanted`
        self.open_ports: list[OpenPort] = []
        self.listening = False

    def listen(self, factories: Mapping[str, Any]) -> None:
        """Open all ports, with the factory of each option. Raises ListenError, and then no port is open."""
        self.listening = True
        for option, parsed in self._endpoints:
            failures: list[Failure] = []
            factory = factories[option]
            if parsed.kind == "ssl":
                factory = HandshakeFactory(factory.hub, factory)
            elif parsed.kind == "haproxy":
                factory = ProxyHeaderFactory(factory.hub, factory)
            listened = maybeDeferred(parsed.endpoint.listen, factory)
            listened.addCallback(self._opened, option, parsed.kind)
            listened.addErrback(failures.append)
            if failures:
                self._stop()
                raise ListenError(_line(option, parsed, failures[0]))
            if not listened.called:
                # An endpoint of another package: Twisted's own have fired by now.
                listened.addCallback(_log_late_failure, option, parsed, failures)

    def _opened(self, port: Any, option: str, kind: str) -> None:
        if not self.listening:  # the service has stopped
            self._closing.append(maybeDeferred(port.stopListening))
            return
        _pace(port)
        self._listening_ports.append(port)
        self._accepted_by.append(port)
        self.open_ports.append(OpenPort(option, kind, port.getHost()))

    def _stop(self) -> None:
        self.listening = False
        self._closing += [maybeDeferred(each.stopListening) for each in self._listening_ports]
        self._listening_ports.clear()
        self.open_ports.clear()

    def close(self) -> Deferred[Any]:
        """Stop listening; connections stay. Fires when all listening sockets are closed, never with an error."""
        self._stop()
        closing, self._closing = self._closing, []
        return DeferredList(closing, consumeErrors=True)

    def connections(self) -> list[Any]:
        """The transports of accepted connections that the reactor reads or writes now.

        The reactor is asked at the end of a service only, so that an open connection costs nothing here.
        """
        if not IReactorFDSet.providedBy(self._reactor):
            return []
        found = {}
        for each in (*self._reactor.getReaders(), *self._reactor.getWriters()):
            port = getattr(each, "server", None)
            if any(port is ours for ours in self._accepted_by):
                found[id(each)] = each
        return list(found.values())

    def forget(self) -> None:
        """Forget closed ports, once their last connection is gone."""
        self._accepted_by.clear()


def _pace(port: Any) -> None:
    """Let a port accept `ACCEPTS` connections in a turn of the reactor, and never more.

    Twisted accepts twenty more in each turn in which more were waiting (`Port.doRead` of twisted/internet/tcp.py).
    """
    if not isinstance(port, tcp.Port):
        return
    accept: Callable[[], None] = port.doRead

    def accept_some() -> None:
        port.numberAccepts = min(port.numberAccepts, ACCEPTS)
        accept()

    port.doRead = accept_some  # type: ignore[method-assign]


def _line(option: str, parsed: ServerEndpoint, failed: Failure) -> str:
    error = failed.value
    assert error is not None
    return failure(f"{parsed.text} (--{option})", error)


def _log_late_failure(_: object, option: str, parsed: ServerEndpoint, failures: list[Failure]) -> None:
    for each in failures:
        log.critical("%s", _line(option, parsed, each), extra=about("port_failed"))
