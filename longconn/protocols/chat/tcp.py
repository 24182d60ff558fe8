"""Chat lines over TCP, TLS or a UNIX socket (`docs/reference/chat.md`)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IProtocolNegotiationFactory
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from longconn.core.disconnects import CLOSED, IDLE, Disconnect
from longconn.core.errors import CommandError
from longconn.core.hub import Hub
from longconn.core.timers import Call
from longconn.protocols.chat.session import ChatSession
from longconn.protocols.connection.handover import HTTP1_ALPN
from longconn.protocols.connection.peer import certificate_user, log_refused
from longconn.protocols.connection.set_up import AnyServerFactory, PausableReading, is_full, set_up
from longconn.protocols.connection.socket_outlet import SocketOutlet
from longconn.protocols.port.table import Builder, PortTable
from longconn.wire.chat import PING_PAUSE, PINGS, ChatFormat, crlf, safe
from longconn.wire.chat_texts import CATALOGUES
from longconn.wire.first_bytes import Kind

#: Seconds for the rest of a listener's first line, which a person may type in a terminal that sends each key.
FIRST_LINE = 60.0
#: An object of its own, so that `is` tells whether a program has set another one, even an equal one.
_LF_OR_CRLF = bytes(bytearray(b"\r\n"))


@implementer(IHalfCloseableProtocol)
class ChatProtocol(PausableReading, LineReceiver):
    """One chat client, and a `twisted.protocols.basic.LineReceiver`.

    A program may set a subclass as `ChatFactory.protocol`. It may override `lineReceived`, and call the base
    class's for a line that the chat is to get; `lineLengthExceeded`, `rawDataReceived` and `connectionMade`, which
    calls the base class's first; and it may call `sendLine`, `setRawMode`, `setLineMode`, `clearLineBuffer`,
    `pauseProducing` and `resumeProducing`. `delimiter` and `MAX_LENGTH` may be set on the class or on the protocol.
    Unless `delimiter` is set, LF ends a line as well as CRLF; `sendLine` sends CRLF then. `MAX_LENGTH` is
    `Settings.max_message` unless it is set. Unless `lineLengthExceeded` is overridden, a line that is too long is
    refused, and the next one is read.
    """

    factory: ChatLinesFactory
    delimiter = _LF_OR_CRLF
    #: asked for the first bytes; None once the first line has come that is not empty
    table: PortTable | None = None
    #: whether the client is announced to others when it connects, and not when its first line comes
    announced_at_once = True
    _outlet: SocketOutlet
    _session: ChatSession | None = None
    _ping: Call | None = None
    #: the deadline of a first line that has begun
    _deadline: Call | None = None
    #: whether the rest of a line that is too long is still to come
    _skipping = False

    @cached_property
    def MAX_LENGTH(self) -> int:  # type: ignore[override]
        """Bytes of the longest line, its end not counted."""
        return self.factory.hub.settings.max_message

    # The connection.

    def connectionMade(self) -> None:
        hub = self.factory.hub
        self._partial = bytearray()
        self._outlet, host, address = set_up(hub, self.transport, self._on_close)
        try:
            client = hub.connect(self._outlet, "tcp", host, address)
            if hub.gate.certificates:
                client.certificate = certificate_user(self.transport)
            self._session = ChatSession(hub, client, self._outlet, self.factory.format, self)
            self._session.enter(hub.settings.default_channel, self.announced_at_once)
        except CommandError as error:
            if self._session is None:  # else the gate has logged it
                log_refused(address, error)
            text = crlf(["! " + safe(self.factory.format.texts.error(error))])
            self._outlet.finish(text, self._outlet.lose)

    def readConnectionLost(self) -> None:
        """The client will send no more, but may still read (`echo /who | nc -N …`)."""
        if self._session is not None:
            self._session.quit()

    def writeConnectionLost(self) -> None:
        """Never called: this side does not close half."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_ping()
        self._stop_deadline()
        self._outlet.stop()
        if self._session is not None:
            self._session.stop()
            self._session = None

    def _on_close(self, disconnect: Disconnect) -> None:
        farewell = b"" if disconnect is CLOSED else crlf(["! " + self.factory.format.texts.disconnect(disconnect)])
        self._outlet.finish(farewell, self._outlet.lose)

    # Reading.

    def pause_reading(self) -> None:
        self.pauseProducing()  # type: ignore[no-untyped-call]

    def resume_reading(self) -> None:
        self.resumeProducing()  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        """Take the lines of a segment together where no program wants them one by one.

        `LineReceiver.dataReceived` slices the rest of its buffer anew for every line.
        """
        self._stop_ping()
        if self._outlet.closing:
            return
        before = len(self._partial)
        self._partial += data
        if self._busyReceiving:  # a program calls it from within, by setLineMode
            return
        if self.table is not None and self.line_mode:
            kind = self.table.detect(self._partial, before)
            if kind is not Kind.UNDECIDED:
                self._stop_deadline()
            elif self._deadline is None:
                self._deadline = self.factory.hub.clock.callLater(FIRST_LINE, self._on_deadline)
            if kind is Kind.CHAT:
                self.table = None
            elif kind not in (Kind.EMPTY, Kind.UNDECIDED):
                self._hand_on(kind, self.table)
                return
        self._busyReceiving = True
        try:
            self._receive()
        finally:
            self._busyReceiving = False
        self._look_for_pings()

    def _receive(self) -> None:
        """Take lines from the buffer, until one has to wait."""
        transport: Any = self.transport
        while self._partial and not (self.paused or self._outlet.closing or transport.disconnecting):
            if not self.line_mode:
                self.rawDataReceived(self.clearLineBuffer())  # type: ignore[no-untyped-call]
                continue
            end_of_line = b"\n" if self.delimiter is _LF_OR_CRLF else self.delimiter
            if self._skipping:
                end = self._partial.find(end_of_line)
                if end < 0:
                    # The end may have come in part.
                    del self._partial[: max(0, len(self._partial) - len(end_of_line) + 1)]
                    return
                del self._partial[: end + len(end_of_line)]
                self._skipping = False
            elif self._is_own("lineReceived") and self._is_own("lineLengthExceeded"):
                end = self._partial.rfind(end_of_line)
                if end >= 0:
                    lines = bytes(self._partial[:end]).split(end_of_line)
                    del self._partial[: end + len(end_of_line)]
                    if end_of_line is not self.delimiter:
                        lines = [line[:-1] if line.endswith(b"\r") else line for line in lines]
                    self._feed(lines)
                if not self._is_too_long():
                    return
            elif not self._receive_line(end_of_line):
                return

    def _receive_line(self, end_of_line: bytes) -> bool:
        """Take one line; False if nothing can be taken."""
        end = self._partial.find(end_of_line)
        if end < 0:
            return self._is_too_long()
        line = bytes(self._partial[:end])
        if end_of_line is not self.delimiter and line.endswith(b"\r"):
            line = line[:-1]
        if len(line) > self.MAX_LENGTH and not self._is_own("lineLengthExceeded"):
            self.lineLengthExceeded(self.clearLineBuffer())
            return True
        del self._partial[: end + len(end_of_line)]
        if line:
            self.table = None
        if len(line) > self.MAX_LENGTH:
            self.lineLengthExceeded(line)
        else:
            self.lineReceived(line)
        return True

    def _is_too_long(self) -> bool:
        """Whether the start of a line is too long already. It is not kept."""
        if len(self._partial) < self.MAX_LENGTH + len(self.delimiter):
            return False
        if self._is_own("lineLengthExceeded"):
            self._skipping = True
            self.lineLengthExceeded(bytes(self._partial))
        else:
            self.lineLengthExceeded(self.clearLineBuffer())
        return True

    def _is_own(self, name: str) -> bool:
        """Whether a method is this class's: no program has overridden it."""
        return getattr(getattr(self, name), "__func__", None) is getattr(ChatProtocol, name)

    def _feed(self, lines: list[bytes]) -> None:
        if self.table is not None and any(lines):
            self.table = None
        if self._session is not None:
            self._session.max_line = self.MAX_LENGTH
            self._session.feed(lines)

    def lineReceived(self, line: bytes) -> None:
        """Execute a line, which came without its end."""
        self._feed([line])

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a line that is longer than `MAX_LENGTH`; this may be its start only."""
        self._feed([line])

    def clearLineBuffer(self) -> bytes:
        """Return the bytes that are no whole line yet, and forget them."""
        data = bytes(self._partial)
        self._partial.clear()
        return data

    # Writing.

    def sendLine(self, line: bytes) -> None:
        """Send a line to this client, and the delimiter after it."""
        self._outlet.write(line + self.delimiter)

    # `ping` without a line end: small programs send it, and wait for any answer before they go on.

    def _look_for_pings(self) -> None:
        if (
            PINGS.fullmatch(self._partial)
            and self.delimiter is _LF_OR_CRLF
            and not self.paused
            and self._is_own("lineReceived")
        ):
            self._ping = self.factory.hub.clock.callLater(PING_PAUSE, self._on_ping_pause)

    def _on_ping_pause(self) -> None:
        self._ping = None
        self._stop_deadline()
        self.answer_pings(self.clearLineBuffer())

    def answer_pings(self, pings: bytes) -> None:
        """Answer each `ping` of some that came without a line end. They do not announce the client."""
        if self._session is not None:
            self._session.feed([b"ping"] * pings.count(b"ping"), announce=False)

    def _stop_ping(self) -> None:
        if self._ping is not None:
            self._ping.cancel()
            self._ping = None

    # The first line.

    def _on_deadline(self) -> None:
        self._deadline = None
        self._outlet.close(IDLE)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # Another protocol after all.

    def _hand_on(self, kind: Kind, table: PortTable) -> None:
        """The first bytes show that this is no chat client: another protocol takes the connection, or it is closed."""
        written, data = bool(self._outlet.sent_at), self.clearLineBuffer()
        self._outlet.detach()
        if self._session is not None:
            self._session.stop()
            self._session = None
        table.pass_on(kind, self.transport, data, written)


@implementer(IProtocolNegotiationFactory)
class ChatLinesFactory(AnyServerFactory):
    """Chat lines for `hub`'s clients.

    `centrifugo` makes the protocol of a connection whose first line asks for Centrifugo's; without it such a
    connection is closed.
    """

    protocol: Any = ChatProtocol
    noisy = False

    def __init__(self, hub: Hub, centrifugo: Builder | None = None) -> None:
        self.hub = hub
        self.format = ChatFormat(CATALOGUES[hub.settings.locale], crlf)
        #: the protocols that a connection may become by its first bytes
        self.builders: dict[Kind, Builder] = {} if centrifugo is None else {Kind.CENTRIFUGO: centrifugo}
        self._table = PortTable(hub, self.builders, "on a port for chat lines")

    def buildProtocol(self, addr: IAddress | None) -> ChatProtocol | None:
        """For a port of chat lines alone: the client is announced when it connects."""
        return None if is_full(self.hub, addr) else self._build(self._table, announced_at_once=True)

    def build_decided(self, addr: IAddress | None) -> ChatProtocol:
        """For a connection whose first line has come, and is chat."""
        return self._build(None, announced_at_once=False)

    def build_listener(self, table: PortTable) -> ChatProtocol:
        """For a connection that hears the chat, and is asked of `table` when its first bytes come."""
        return self._build(table, announced_at_once=False)

    def _build(self, table: PortTable | None, announced_at_once: bool) -> ChatProtocol:
        protocol: ChatProtocol = self.protocol()
        protocol.factory = self
        protocol.table = table
        protocol.announced_at_once = announced_at_once
        return protocol

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS with ALPN (RFC 7301): there is no name for chat lines, and without one the handshake fails."""
        return HTTP1_ALPN
