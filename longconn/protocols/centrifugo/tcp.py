"""Centrifugo's protocol over TCP: a line is an object, either way."""

from __future__ import annotations

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from longconn.core.disconnects import BAD_REQUEST, CLOSED, Disconnect
from longconn.core.errors import CommandError
from longconn.core.hub import Hub
from longconn.core.session import Session
from longconn.protocols.connection.peer import certificate_user, log_refused
from longconn.protocols.connection.set_up import PausableReading, set_up
from longconn.protocols.connection.socket_outlet import SocketOutlet
from longconn.wire.centrifugo import CentrifugoJSON, disconnect_push, error_reply, lines


@implementer(IHalfCloseableProtocol)
class CentrifugoTCP(PausableReading, Protocol):
    """One client. The chat protocol hands its connection over when the first line asks for this one."""

    _outlet: SocketOutlet
    _session: Session | None = None

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._partial = bytearray()
        self._input_ended = False

    def connectionMade(self) -> None:
        self._outlet, host, address = set_up(self._hub, self.transport, self._on_close)
        try:
            codec = CentrifugoJSON(lines, self._hub.settings.max_message)
            self._session = Session(
                self._hub, self._outlet, codec, self, "tcp", host, address, on_answered=self._quit_if_answered
            )
            if self._hub.gate.certificates:
                self._session.client.certificate = certificate_user(self.transport)
        except CommandError as error:
            log_refused(address, error)
            self._outlet.finish(lines((error_reply(0, error),)), self._outlet.lose)

    def readConnectionLost(self) -> None:
        """The client sends no more, but may still read the answers to its commands (`nc -N`)."""
        self._input_ended = True
        self._quit_if_answered()

    def writeConnectionLost(self) -> None:
        """Never called: this side does not close half."""

    def resume_reading(self) -> None:
        super().resume_reading()
        self._quit_if_answered()

    def _quit_if_answered(self) -> None:
        """After the end of the input: close once every command is answered, after this turn's publications."""
        if self._input_ended and self._session is not None and self._session.answered:
            self._hub.turn.soon(self._quit)

    def _quit(self) -> None:
        if self._session is not None:
            self._session.close(CLOSED)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._outlet.stop()
        if self._session is not None:
            self._session.stop()
            self._session = None

    def _on_close(self, disconnect: Disconnect) -> None:
        farewell = b"" if disconnect is CLOSED and self._input_ended else lines((disconnect_push(disconnect),))
        self._outlet.finish(farewell, self._outlet.lose)

    def dataReceived(self, data: bytes) -> None:
        if self._outlet.closing or self._session is None:
            return
        self._partial += data
        if b"\n" in data:
            found = bytes(self._partial).split(b"\n")
            self._partial[:] = found.pop()
            self._session.receive([each.strip() for each in found])
        # A line may be as long as a message, and what is around it.
        if len(self._partial) > 2 * self._hub.settings.max_message and not self._outlet.closing:
            self._session.close(BAD_REQUEST, "a line without an end")
