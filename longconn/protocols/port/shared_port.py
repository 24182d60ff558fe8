"""The shared port: every protocol on one listening socket, told apart by what the client sends first.

Design, section 4. Nothing but silence is decided by a timer: a client that says nothing for
`SILENCE` seconds listens to the chat, until its first bytes say that it is something else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from longconn.core.hub import Hub, log
from longconn.core.timers import Call
from longconn.protocols.connection.handover import HTTP1_ALPN, hand_over
from longconn.wire.chat import PING_PAUSE, PINGS
from longconn.wire.first_bytes import Kind, detect

#: Seconds without a byte after which a client is a listener.
SILENCE = 0.3


class ChatLines(Interface):
    """A protocol for chat lines that can give its connection back (`longconn.protocols.chat.tcp.ChatProtocol`)."""

    gate: Any
    transport: Any

    @property
    def untouched(self) -> bool: ...

    def detach(self) -> None: ...

    def refuse(self, why: str) -> None: ...

    def dataReceived(self, data: bytes) -> None: ...


class ChatBuilder(Interface):
    """What makes them (`longconn.protocols.chat.tcp.ChatFactory`)."""

    hub: Hub

    def build(self, gate: Callable[[Any, bytes], bool] | None, announce: bool) -> Any: ...

    def to_structured(self, transport: Any, data: bytes) -> None: ...


class SharedPortProtocol(Protocol):
    """A connection that has not yet said what it is."""

    factory: SharedPortFactory

    def __init__(self) -> None:
        self._data = bytearray()
        self._counted = False
        self._timer: Call | None = None

    def connectionMade(self) -> None:
        self.factory.hub.guests += 1
        self._counted = True
        self._wait(SILENCE, self._listen)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_waiting()
        self._leave()

    def _leave(self) -> None:
        """It is decided, or lost."""
        if self._counted:
            self._counted = False
            self.factory.hub.guests -= 1

    def _wait(self, delay: float, action: Callable[[], Any]) -> None:
        self._timer = self.factory.hub.clock.callLater(delay, self._on_timer, action)

    def _on_timer(self, action: Callable[[], Any]) -> None:
        self._timer = None
        action()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _listen(self) -> None:
        self._leave()
        self.factory.listen(self.transport, bytes(self._data))

    def _drop(self) -> None:
        transport: Any = self.transport
        log.info("connection from %s closed: it began a line and did not end it", transport.getPeer())
        transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        self._stop_waiting()
        before = len(self._data)
        self._data += data
        limit = self.factory.hub.settings.max_message
        # Two bytes tell TLS, a line that is whole or too long tells the rest; between them there is nothing to ask.
        if b"\n" in data or before < 2 or len(self._data) > limit:
            kind = detect(bytes(self._data), limit)
            if kind is not Kind.UNDECIDED:
                self._leave()
                self.factory.decide(kind, self.transport, bytes(self._data))
                return
        if PINGS.fullmatch(self._data):
            # The one thing that is said without a line end.
            self._wait(PING_PAUSE, self._listen)
        elif self.factory.hub.settings.idle_timeout:
            self._wait(self.factory.hub.settings.idle_timeout, self._drop)


if TYPE_CHECKING:
    _Factory = ServerFactory["SharedPortProtocol"]
else:  # Twisted before 26 has no type parameter at run time
    _Factory = ServerFactory


@implementer(IProtocolNegotiationFactory)
class SharedPortFactory(_Factory):
    """Passes each connection to `chat` (a `ChatFactory`), `site` (a twisted.web Site) or `grpc` (a `GrpcFactory`).

    Without `grpc` HTTP/2 is not served.
    """

    noisy = False

    def __init__(self, chat: ChatBuilder, site: Any, grpc: Any = None) -> None:
        self.hub = chat.hub
        self._chat = chat
        #: what builds a protocol for what comes; those that are served
        self._builders = {Kind.HTTP1: site} if grpc is None else {Kind.HTTP1: site, Kind.HTTP2: grpc}

    def doStart(self) -> None:
        super().doStart()  # type: ignore[no-untyped-call]
        for each in self._builders.values():
            each.doStart()

    def doStop(self) -> None:
        super().doStop()  # type: ignore[no-untyped-call]
        for each in self._builders.values():
            each.doStop()

    def buildProtocol(self, addr: IAddress | None) -> SharedPortProtocol | None:
        if self.hub.full:
            log.info("connection from %s closed: too many connections", addr)
            return None
        protocol = SharedPortProtocol()
        protocol.factory = self
        return protocol

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS with ALPN (RFC 7301)."""
        return HTTP1_ALPN

    def listen(self, transport: Any, data: bytes) -> None:
        """A client that said nothing but, perhaps, `ping` hears the chat.

        What it says first may still show that it is something else.
        """
        chat = self._chat.build(self._reconsider, announce=False)
        hand_over(transport, chat)
        if data:
            chat.answer_pings(data)

    def decide(self, kind: Kind, transport: Any, data: bytes) -> None:
        """The first bytes of a connection say what it speaks."""
        if kind in self._builders:
            self._pass_on(self._builders[kind], transport, data)
        elif kind is Kind.STRUCTURED:
            self._chat.to_structured(transport, data)
        elif kind is Kind.CHAT:
            chat = self._chat.build(None, announce=False)
            hand_over(transport, chat)
            chat.dataReceived(data)
        else:
            log.info("connection from %s closed: %s is not served here", transport.getPeer(), kind.value)
            transport.abortConnection()

    def _pass_on(self, builder: Any, transport: Any, data: bytes) -> None:
        protocol: Any = builder.buildProtocol(transport.getPeer())
        if protocol is None:
            transport.abortConnection()
        else:
            hand_over(transport, protocol)
            protocol.dataReceived(data)

    def _reconsider(self, chat: ChatLines, data: bytes) -> bool:
        """The gate of a chat client that has said no line yet. True: go on."""
        kind = detect(data, self.hub.settings.max_message)
        if kind is Kind.UNDECIDED:
            return True
        if kind is Kind.CHAT:
            chat.gate = None
            return True
        if kind is not Kind.STRUCTURED and kind not in self._builders:
            chat.refuse(f"{kind.value} is not served here")
        elif not chat.untouched:
            chat.refuse(f"{kind.value} on a connection that was written to")
        else:
            transport = chat.transport
            chat.detach()
            self.decide(kind, transport, data)
        return False
