"""Chat lines over TCP, TLS or a UNIX socket (design, section 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocolNegotiationFactory,
    ITCPTransport,
)
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from longconn.core.disconnects import CLOSED, Disconnect
from longconn.core.errors import CommandError
from longconn.core.hub import Hub, log
from longconn.core.timers import Call
from longconn.protocols.chat.session import ChatSession
from longconn.protocols.connection.handover import HTTP1_ALPN, hand_over
from longconn.protocols.connection.peer import peer_of
from longconn.protocols.connection.socket_outlet import SocketOutlet
from longconn.wire.chat import PING_PAUSE, PINGS, ChatFormat, crlf, safe
from longconn.wire.chat_texts import CATALOGUES
from longconn.wire.first_bytes import Kind, detect


@implementer(IHalfCloseableProtocol)
class ChatProtocol(LineReceiver):
    """One chat client. `gate`, if there is one, sees the first bytes before they count as a line."""

    factory: ChatFactory
    delimiter = b"\n"
    _outlet: SocketOutlet
    _conversation: ChatSession | None = None
    _ping: Call | None = None
    _skipping = False

    def __init__(self, gate: Callable[[ChatProtocol, bytes], bool] | None = None, announce: bool = True) -> None:
        self.gate = gate
        self._announce = announce
        self._partial = bytearray()

    def connectionMade(self) -> None:
        transport: Any = self.transport
        hub = self.factory.hub
        host, address = peer_of(transport, hub.numbers)
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            # Keep-alive finds the peers that went without a word (a device without power).
            transport.setTcpKeepAlive(True)
        self._outlet = outlet = SocketOutlet(hub, transport, self._on_close)
        try:
            client = hub.connect(outlet, "tcp", host, address)
            self._conversation = ChatSession(hub, client, outlet, self.factory.format, self)
            self._conversation.enter(hub.settings.default_channel, self._announce)
        except CommandError as error:
            log.info("connection from %s refused: %s", address, error)
            outlet.finish(self._error(error), outlet.lose)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_ping()
        self._outlet.stop()
        if self._conversation is not None:
            self._conversation.stop()
            self._conversation = None

    def _error(self, error: CommandError) -> bytes:
        return crlf(["! " + safe(self.factory.format.texts.error(error))])

    def _on_close(self, disconnect: Disconnect) -> None:
        farewell = b"" if disconnect is CLOSED else crlf(["! " + self.factory.format.texts.disconnect(disconnect)])
        self._outlet.finish(farewell, self._outlet.lose)

    # Reading.

    def pause_reading(self) -> None:
        transport: Any = self.transport
        transport.pauseProducing()

    def resume_reading(self) -> None:
        transport: Any = self.transport
        transport.resumeProducing()
        self._look_for_pings()

    def dataReceived(self, data: bytes) -> None:
        """Split what came at once: LineReceiver slices the rest of its buffer anew for every line."""
        self._stop_ping()
        if self._outlet.closing:
            return
        end = data.rfind(b"\n")
        if self.gate is not None:
            # Two bytes tell TLS, a line that is whole or too long tells the rest; between them there is nothing to ask.
            before = len(self._partial)
            asks = end >= 0 or before < 2 or before + len(data) > self.factory.hub.settings.max_message
            if asks and not self.gate(self, bytes(self._partial) + data):
                return
        if end < 0:
            self._hold(data)
        else:
            lines = (bytes(self._partial) + data[:end] if self._partial else data[:end]).split(b"\n")
            self._partial.clear()
            if self._skipping:
                self._skipping = False
                del lines[0]
            if lines:
                self._feed(lines)
            self._hold(data[end + 1 :])
        self._look_for_pings()

    def _feed(self, lines: list[bytes]) -> None:
        if self._conversation is not None:
            self._conversation.feed([line[:-1] if line.endswith(b"\r") else line for line in lines])

    def _hold(self, data: bytes) -> None:
        """Keep the start of a line; of one that is too long only that it is."""
        if self._skipping:
            return
        self._partial += data
        # One more for a CR before the end that is yet to come.
        if len(self._partial) > self.factory.hub.settings.max_message + 1:
            self._skipping = True
            self._feed([bytes(self._partial)])
            self._partial.clear()

    def readConnectionLost(self) -> None:
        """The client will say no more, but may still read (`echo /who | nc -N …`)."""
        if self._conversation is not None:
            self._conversation.quit()

    def writeConnectionLost(self) -> None:
        """Never: this side does not close half."""

    # `ping` without a line end, from the smallest of programs.

    def _look_for_pings(self) -> None:
        conversation = self._conversation
        if conversation is not None and not conversation.held_back and PINGS.fullmatch(self._partial):
            self._stop_ping()
            self._ping = self.factory.hub.clock.callLater(PING_PAUSE, self._on_ping_pause)

    def _on_ping_pause(self) -> None:
        self._ping = None
        pings = bytes(self._partial)
        self._partial.clear()
        self.answer_pings(pings)

    def answer_pings(self, pings: bytes) -> None:
        """Answer each `ping` of some that came without a line end; they announce nobody."""
        if self._conversation is not None:
            self._conversation.feed([b"ping"] * (len(pings) // 4), announce=False)

    def _stop_ping(self) -> None:
        if self._ping is not None:
            self._ping.cancel()
            self._ping = None

    # Another protocol after all: what the shared port does with a silent listener.

    @property
    def untouched(self) -> bool:
        """Whether nothing was written to the connection yet."""
        return not self._outlet.sent_at

    def refuse(self, why: str) -> None:
        """Close the connection at once; the log says why."""
        transport: Any = self.transport
        log.info("connection from %s closed: %s", transport.getPeer(), why)
        transport.abortConnection()

    def detach(self) -> None:
        """Let go of the connection, for another protocol to take."""
        self._stop_ping()
        self._outlet.detach()
        if self._conversation is not None:
            self._conversation.stop()
            self._conversation = None


if TYPE_CHECKING:
    _Factory = ServerFactory["ChatProtocol"]
else:  # Twisted before 26 has no type parameter at run time
    _Factory = ServerFactory


@implementer(IProtocolNegotiationFactory)
class ChatFactory(_Factory):
    """Chat lines for `hub`'s clients; a client is announced when it connects.

    Embed it by listening with it on any stream endpoint. A connection whose first line is an HTTP
    request, TLS or HTTP/2 is closed and logged: a browser made to POST here publishes nothing.
    """

    noisy = False

    def __init__(self, hub: Hub, structured: Callable[[Hub], Any] | None = None) -> None:
        self.hub = hub
        self._structured = structured
        self.format = ChatFormat(CATALOGUES[hub.settings.locale], crlf)

    def buildProtocol(self, addr: IAddress | None) -> ChatProtocol | None:
        if self.hub.full:
            log.info("connection from %s closed: too many connections", addr)
            return None
        return self.build(_allow_lines_only, announce=True)

    def to_structured(self, transport: Any, data: bytes) -> None:
        """Let the structured protocol have a connection that asked for it by its first line."""
        if self._structured is None:
            # Only here, and only by name: a protocol does not know another.
            from longconn.protocols.compose import structured_lines

            self._structured = structured_lines
        protocol = self._structured(self.hub)
        hand_over(transport, protocol)
        protocol.dataReceived(data)

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS with ALPN (RFC 7301): there is no name for chat lines, and without one the handshake fails."""
        return HTTP1_ALPN

    def build(self, gate: Callable[[ChatProtocol, bytes], bool] | None, announce: bool) -> ChatProtocol:
        """A protocol for one connection: `announce` tells others of it at once, not by its first line."""
        protocol = ChatProtocol(gate, announce)
        protocol.factory = self
        return protocol


def _allow_lines_only(protocol: ChatProtocol, data: bytes) -> bool:
    """The gate of a port for chat lines alone."""
    kind = detect(data, protocol.factory.hub.settings.max_message)
    if kind is Kind.CHAT:
        protocol.gate = None
    elif kind is Kind.STRUCTURED:
        transport = protocol.transport
        if protocol.untouched:
            protocol.detach()
            protocol.factory.to_structured(transport, data)
        else:
            protocol.refuse(f"{kind.value} on a connection that was written to")
        return False
    elif kind is not Kind.UNDECIDED:
        protocol.refuse(f"{kind.value} on a port for chat lines")
        return False
    return True
