"""The shared port: every protocol on one listening socket, told apart by the first bytes of the client.

No timer decides on a part of a line. Silence decides: a client that sends nothing for `SILENCE` seconds listens to
the chat, until its first bytes show that it is something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory
from zope.interface import implementer

from longconn.core.hub import Hub
from longconn.protocols.connection.handover import HTTP1_ALPN, hand_over
from longconn.protocols.connection.peer import is_proxy, log_closed
from longconn.protocols.connection.set_up import AnyServerFactory, is_full
from longconn.protocols.port.table import Builder, PortTable
from longconn.protocols.port.undecided import UndecidedProtocol
from longconn.wire.chat import PING_PAUSE, PINGS
from longconn.wire.first_bytes import PROXY_V2, Kind

#: Seconds without a byte after which a client is a listener.
SILENCE = 0.3

#: Makes the chat protocol of a listener, which asks the table when the first bytes come.
ListenerBuilder = Callable[[PortTable], Any]


class SharedPortProtocol(UndecidedProtocol):
    """A connection whose protocol is not known yet."""

    def __init__(self, table: PortTable, build_listener: ListenerBuilder) -> None:
        super().__init__(table.hub)
        self._table = table
        self._build_listener = build_listener
        self._data = bytearray()
        self._line_due = 0.0

    def connectionMade(self) -> None:
        super().connectionMade()
        self.start_timer(SILENCE, self._on_silence)

    def dataReceived(self, data: bytes) -> None:
        self.stop_timer()
        before = len(self._data)
        self._data += data
        if self._may_be_proxy():
            self.start_timer(SILENCE, self._decide)
            return
        if PROXY_V2.startswith(self._data[:before]):
            before = 0  # these bytes were not looked at
        kind = self._table.detect(self._data, before)
        if kind is Kind.EMPTY and self._hub.settings.empty_line == "ignore":
            self._data.clear()
            self.start_timer(SILENCE, self._on_silence)
        elif kind is not Kind.UNDECIDED:
            self._become(kind)
        elif PINGS.fullmatch(self._data):
            # Programs send `ping` without a line end, and wait for the answer.
            self.start_timer(PING_PAUSE, self._listen_in_time)
        else:
            self._wait_for_line(before)

    def _may_be_proxy(self) -> bool:
        """Whether what has come may be the beginning of version 2 of the PROXY protocol: it begins with empty lines."""
        transport: Any = self.transport
        return PROXY_V2.startswith(self._data) and is_proxy(self._hub.proxies, transport.getPeer())

    def _decide(self) -> None:
        """No more came of what may have been a header of a proxy."""
        self._become(self._table.detect(self._data, 0))

    def _become(self, kind: Kind) -> None:
        """Hand the connection to the protocol of this kind, when a turn has room for it. Until then it is not read."""
        transport: Any = self.transport
        paused = False

        def pass_on() -> None:
            self.leave()
            if paused:
                transport.resumeProducing()
            self._table.pass_on(kind, transport, bytes(self._data))

        self.when_room(pass_on)
        if self._timer is not None:
            paused = True
            transport.pauseProducing()

    def _wait_for_line(self, before: int) -> None:
        """Give the first line its time, which begins with its first byte: `before` is the number of earlier ones."""
        timeout = self._hub.settings.handshake_timeout or self._hub.settings.idle_timeout
        now = self._hub.clock.seconds()
        if not before:
            self._line_due = now + timeout
        if timeout:
            self.start_timer(max(0.0, self._line_due - now), self._drop)

    def _on_silence(self) -> None:
        """Nothing came, but the reactor may have been busy since then: listen after it has looked at the socket again.

        A reactor runs the calls that are due before it looks at sockets; under load a request would wait in the kernel.
        """
        self.start_timer(0, self._listen_in_time)

    def _listen_in_time(self) -> None:
        self.when_room(self._listen)

    def _listen(self) -> None:
        """The client sent nothing but, perhaps, `ping`: it hears the chat."""
        self.leave()
        chat = self._build_listener(self._table)
        hand_over(self.transport, chat)
        if self._data:
            chat.answer_pings(bytes(self._data))

    def _drop(self) -> None:
        transport: Any = self.transport
        log_closed(transport.getPeer(), "it began a line and did not end it")
        self.abort()


@implementer(IProtocolNegotiationFactory)
class SharedPort(AnyServerFactory):
    """Lets `builders` make the protocol of each connection, by its first bytes, and `build_listener` of silent ones.

    `factories` are those of the builders; they are started and stopped with the port.
    """

    noisy = False

    def __init__(
        self,
        hub: Hub,
        builders: Mapping[Kind, Builder],
        build_listener: ListenerBuilder,
        factories: Sequence[Any] = (),
    ) -> None:
        self.hub = hub
        self._table = PortTable(hub, builders, "is not served here")
        self._build_listener = build_listener
        self._factories = factories

    def doStart(self) -> None:
        super().doStart()  # type: ignore[no-untyped-call]
        for each in self._factories:
            each.doStart()

    def doStop(self) -> None:
        super().doStop()  # type: ignore[no-untyped-call]
        for each in self._factories:
            each.doStop()

    def buildProtocol(self, addr: IAddress | None) -> SharedPortProtocol | None:
        return None if is_full(self.hub, addr) else SharedPortProtocol(self._table, self._build_listener)

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS with ALPN (RFC 7301)."""
        return HTTP1_ALPN
