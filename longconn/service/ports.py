"""The ports of one service: opened together or not at all, closed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IReactorFDSet
from twisted.python.failure import Failure

from longconn.config import endpoints as listening
from longconn.protocols.port.tls_handshake import HandshakeFactory
from longconn.service.greeting import Place
from longconn.service.logs import log


class Ports:
    """What is listened on. `wanted` has listening strings for each kind: port, tcp, http, grpc.

    Raises ConfigError, of one line, for a string of which nothing can be made.
    """

    def __init__(self, reactor: Any, wanted: Mapping[str, Sequence[str]]) -> None:
        self._reactor = reactor
        self._endpoints = [
            (kind, text, listening.endpoint(reactor, text)) for kind, texts in wanted.items() for text in texts
        ]
        self._open: list[Any] = []
        # Whose connections are ours: those of closed ports too.
        self._accepted_by: list[Any] = []
        self._closing: list[Deferred[Any]] = []
        #: where it is listened now, in the order given
        self.places: list[Place] = []
        self.listening = False

    def listen(self, factories: Mapping[str, Any]) -> None:
        """Listen on all, with the factory of each kind. Raises ListenError, and then on none."""
        self.listening = True
        for kind, text, endpoint in self._endpoints:
            failures: list[Failure] = []
            factory = factories[kind]
            if listening.kind(listening.description(text)) == "ssl":
                factory = HandshakeFactory(factory.hub, factory)
            listened = maybeDeferred(endpoint.listen, factory)
            listened.addCallback(self._listened, kind, text)
            listened.addErrback(failures.append)
            if failures:
                self._stop()
                raise listening.ListenError(_line(kind, text, failures[0]))
            if not listened.called:
                # No endpoint of Twisted itself: theirs have fired by now.
                listened.addCallback(_log_late, kind, text, failures)

    def _listened(self, port: Any, kind: str, text: str) -> None:
        if not self.listening:  # it took until after the end
            self._closing.append(maybeDeferred(port.stopListening))
            return
        self._open.append(port)
        self._accepted_by.append(port)
        self.places.append(Place(kind, listening.kind(listening.description(text)), port.getHost()))

    def _stop(self) -> None:
        self.listening = False
        self._closing += [maybeDeferred(each.stopListening) for each in self._open]
        self._open.clear()
        self.places.clear()

    def close(self) -> Deferred[Any]:
        """Listen no more; connections stay. Fires when all sockets are closed, never with an error."""
        self._stop()
        closing, self._closing = self._closing, []
        return DeferredList(closing, consumeErrors=True)

    def connections(self) -> list[Any]:
        """The transports of connections that these ports accepted and that wait for bytes or for room.

        Asked of the reactor, at the end of a service only, so that a connection costs
        nothing here while it lasts. Not among them is one that is neither read nor written.
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
        """The last connection is gone."""
        self._accepted_by.clear()


def _line(kind: str, text: str, failure: Failure) -> str:
    error = failure.value
    assert error is not None
    return listening.failure(f"{text} (--{kind})", error)


def _log_late(_: object, kind: str, text: str, failures: list[Failure]) -> None:
    for failure in failures:
        log.critical("{line}", line=_line(kind, text, failure))
