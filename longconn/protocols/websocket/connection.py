"""WebSocket (RFC 6455). What is spoken over it is given to the factory.

Autobahn has the handshake, control frames, fragments and everything unusual. Whole masked text
frames, which is nearly all that comes, are taken by `longconn.wire.websocket` before it, and what
is sent goes through a `SocketOutlet`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.types import ConnectionRequest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from longconn.core.command_queue import InputMeter
from longconn.core.disconnects import CONNECTION_LIMIT, NO_PONG, Disconnect
from longconn.core.errors import BROKER_UNAVAILABLE, INTERNAL, CommandError
from longconn.core.hooks import APPLICATION
from longconn.core.hub import Hub
from longconn.core.identity import AdmissionError, Identity, disconnect_of
from longconn.core.names import NameRequest
from longconn.core.slices import FRAME_STEP, LEAVING
from longconn.protocols.connection.handover import HTTP1_ALPN, hand_over
from longconn.protocols.connection.peer import counted_host, forwarded_peer, own_names
from longconn.protocols.connection.set_up import PausableReading, is_full, log_given_way, set_up
from longconn.protocols.connection.socket_outlet import SocketOutlet
from longconn.protocols.websocket.admission import admit
from longconn.wire.centrifugo import JSON_SUBPROTOCOL, PROTOBUF_SUBPROTOCOL
from longconn.wire.chat import safe
from longconn.wire.origin import OriginRules
from longconn.wire.websocket import PING, handshake_answer, take_texts

#: The close code for messages of a kind that is not understood (RFC 6455, section 7.4.1).
UNSUPPORTED_DATA = 1003
#: The status of a handshake whose head is too large.
_HEAD_TOO_LARGE = 431  # RFC 6585, section 5
#: Frames of version 8 are the same.
_VERSION = 13
#: Characters of the reason for which a handshake is refused.
_LONGEST_REASON = 200
#: By mode, the subprotocol of the answer if the client offers it (RFC 6455, section 1.9). A browser that offers some
#: closes the connection if the answer names none.
_SUBPROTOCOLS = {"centrifugo": JSON_SUBPROTOCOL, "centrifugo-protobuf": PROTOBUF_SUBPROTOCOL}
#: The parameter of Centrifugo with which tools ask for pings of WebSocket, which they answer by themselves.
_WANTS_PINGS = b"cf_ws_frame_ping_pong"
#: What Autobahn keeps of the handshake: KiBs that nothing reads once the connection is open.
_HANDSHAKE_ONLY = (
    "http_request_data", "http_status_line", "http_headers", "http_request_uri", "http_request_path",
    "http_request_params", "http_request_host", "websocket_extensions", "_transport_details",
)  # fmt: skip


class Spoken(Protocol):
    """What is spoken over one open WebSocket: echo, chat lines, Centrifugo's protocol."""

    #: whether the client is sent pings of WebSocket, and closed if it does not answer
    pinged: bool

    @property
    def held_back(self) -> bool:
        """Whether nothing is read, because messages wait for the client's rate."""

    def receive(self, payloads: list[bytes], binary: bool) -> None:
        """Messages that came in; text is valid UTF-8."""

    def close_code(self, disconnect: Disconnect) -> int:
        """The close code for a reason."""

    def stop(self) -> None:
        """The connection is lost."""


class WebSocketConnection(PausableReading, WebSocketServerProtocol):  # type: ignore[misc]
    """One WebSocket connection.

    `hub` is there from the start; `outlet`, `host` and `address` once the handshake is done.
    """

    #: Autobahn copies the factory's options one by one, and formats them all for a debug line: a third of an opening.
    #: Here the factory hands them over (`WebSocketServer.prepare`).
    CONFIG_ATTRS: list[str] = []

    factory: WebSocketServer
    hub: Hub
    outlet: SocketOutlet
    host = ""
    address: str
    #: what the client asked for in the handshake
    mode = "chat"
    channel: str | None = None
    name: NameRequest | None = None
    #: who it is, if its handshake has proved that
    identity: Identity | None = None
    #: the host and the address that a proxy names
    forwarded: tuple[str, str] | None = None
    #: the headers of its handshake that hooks get
    headers: Mapping[str, str] = MappingProxyType({})
    #: whether the resource that handed the connection over has checked the request
    admitted = False
    #: whether the transport was of no other connection of ours before
    is_new = True
    #: whether it asked for pings of WebSocket in place of those of what is spoken
    wants_pings = False
    #: when something last came in
    heard = 0.0
    #: the second at which its timer ends (`Timed` in core/timers.py)
    due = 0
    _spoken: Spoken | None = None
    #: counts the frames that Autobahn reads; the first of them makes it
    _meter: InputMeter | None = None
    #: whether further frames wait in `data` until `_meter` is free
    _frames_wait = False
    _is_open = False
    #: whether a ping was sent and nothing has come since
    _pinged = False

    # The handshake.

    def connectionMade(self) -> None:
        self.hub = hub = self.factory.hub
        if self.admitted:
            # What Autobahn does beyond this prepares its own handshake, and debug lines.
            WebSocketProtocol._connectionMade(self)
            self.factory.countConnections += 1
            return
        super().connectionMade()
        hub.places.add(self, counted_host(hub.proxies, self.transport.getPeer()))
        if hub.settings.handshake_timeout:
            # Autobahn's own timer is the global reactor's, whatever clock the hub has.
            hub.wheel.set(self, hub.settings.handshake_timeout)

    def open(self, key: bytes, offered: list[str]) -> None:
        """Answer a handshake that was checked. `offered` are the client's subprotocols."""
        spoken = _SUBPROTOCOLS.get(self.mode)
        self.transport.write(handshake_answer(key, spoken if spoken in offered else None))
        self.websocket_version = _VERSION
        self.state = self.STATE_OPEN
        self.inside_message = False
        vars(self)["current_frame"] = None  # as Autobahn sets it, against its own type
        self.onOpen()

    def onConnect(self, request: ConnectionRequest) -> Any:
        return self.factory.admit(self, request)

    def _head_too_large(self, data: bytes) -> bool:
        """Whether `data` brings the handshake over the limit, which Autobahn does not have. It is refused then."""
        limit = self.hub.settings.max_head
        if self.admitted or len(self.data) + len(data) <= limit:
            return False
        if 0 <= (self.data + data[:limit]).find(b"\r\n\r\n") <= limit - 4:
            return False
        self.failHandshake(f"the head is larger than {limit} bytes", _HEAD_TOO_LARGE)
        return True

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        # The reason goes to the log, and may contain what the peer sent.
        super().failHandshake(safe(reason)[:_LONGEST_REASON], code, responseHeaders)

    def onOpen(self) -> None:
        hub = self.hub
        for each in _HANDSHAKE_ONLY:
            if hasattr(self, each):
                setattr(self, each, None)
        self.heard = hub.clock.seconds()
        self.outlet, self.host, self.address = set_up(hub, self.transport, self._on_close, self.is_new)
        if self.forwarded is not None:
            self.host, self.address = self.forwarded
        self._is_open = True
        self._leave()
        hub.wheel.clear(self)
        try:
            self._spoken = self.factory.spoken[self.mode](self)
        except CommandError as error:
            self.sendCloseFrame(_disconnect_of(error).code, str(error).encode()[:123])
        else:
            if self._spoken.pinged:
                self._wait_to_ping()

    def limit_messages(self, size: int) -> None:
        """Let messages have `size` bytes, in place of the factory's limit."""
        self.maxFramePayloadSize = self.maxMessagePayloadSize = size

    # Reading.

    @property
    def input_waits(self) -> bool:
        """Whether frames wait."""
        return self._frames_wait

    def resume_reading(self) -> None:
        # What the peer has sent meanwhile, also a pong, is read only now.
        self.heard = self.hub.wheel.now
        self._pinged = False
        super().resume_reading()

    def dataReceived(self, data: bytes) -> None:
        if self._frames_wait:
            self.data += data
            self.transport.pauseProducing()  # the connection may have been resumed for another reason
            return
        if self.state == self.STATE_CONNECTING and self._head_too_large(data):
            return
        # Autobahn's parser is between two messages, and has nothing left over.
        if self.state == self.STATE_OPEN and not self.data and self.current_frame is None and not self.inside_message:
            self.heard = self.hub.wheel.now
            self._pinged = False
            texts, end = take_texts(data, self.maxMessagePayloadSize)
            if texts:
                try:
                    for text in texts:
                        text.decode()
                except UnicodeDecodeError:
                    self._invalid_payload("text that is not UTF-8")
                    return
                if self._spoken is not None:
                    self._spoken.receive(texts, False)
                if end == len(data):
                    return
                data = data[end:]
        self._dataReceived(data)

    def consumeData(self) -> None:
        """Read frames, for Autobahn. Those beyond the connection's share wait."""
        if self.state != self.STATE_OPEN:
            super().consumeData()
            return
        meter = self._meter
        if meter is None:
            hub = self.hub
            meter = self._meter = InputMeter(hub.clock, hub.command_rates, hub.slices, self.host, self, self._go_on)
        while self.processData() and self.state != self.STATE_CLOSED:
            if not meter.count(FRAME_STEP):
                self._frames_wait = True
                return

    def _go_on(self) -> None:
        """For the meter: the frames that wait may be read."""
        self._frames_wait = False
        if self._spoken is not None:
            self._spoken.receive([], False)  # the client was heard, though only frames without a message may follow
        self.consumeData()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.heard = self.hub.wheel.now
        self._pinged = False
        if self._spoken is not None and self.state == self.STATE_OPEN:
            self._spoken.receive([payload], isBinary)

    def onPong(self, payload: bytes) -> None:
        self._pinged = False

    # Writing: everything goes through the outlet, so that nothing lands in the middle of what waits there.

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        if not self._is_open:
            self.transport.write(data)
        elif self.outlet.closing:
            self.outlet.finish(data)
        else:
            self.outlet.write(data)

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        if self._is_open:
            # The last frame: it goes after what waits, and then the peer has some seconds to answer.
            self.outlet.closing = True
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def _on_close(self, disconnect: Disconnect) -> None:
        """For the outlet: the server closes the connection."""
        code = disconnect.code if self._spoken is None else self._spoken.close_code(disconnect)
        self.sendCloseFrame(code, disconnect.text.encode())

    def unregisterProducer(self) -> None:
        """Autobahn calls this before it drops the connection. The outlet does it when all is out."""
        if not self._is_open:
            super().unregisterProducer()

    def _closeConnection(self, abort: bool = False) -> None:
        if not self._is_open:
            super()._closeConnection(abort)
        else:
            self.outlet.finish(b"", self.outlet.lose)

    def _leave(self) -> None:
        """The handshake is over, or the connection is lost."""
        self.hub.places.remove(self)

    def give_way(self) -> None:
        """For the hub's places: the handshake is under way."""
        log_given_way(self.transport.getPeer())
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._leave()
        self.hub.wheel.clear(self)
        if self._is_open:
            self.outlet.stop()
        if self._meter is not None:
            self._meter.stop()
        self.hub.slices.do(self.host, LEAVING, partial(self._forget, reason))

    def _forget(self, reason: Failure) -> None:
        if self._spoken is not None:
            self._spoken.stop()
            self._spoken = None
        super().connectionLost(reason)
        self.is_open = self.is_closed = None  # the result of the first is this object

    # Pings.

    def on_due(self, now: float) -> None:
        """The timer ended: the handshake took too long, or a ping or the answer to one is due."""
        if not self._is_open:
            self.transport.abortConnection()
            return
        if self.outlet.closing or self._spoken is None:
            return
        settings = self.hub.settings
        patient = self._spoken.held_back or self.outlet.queued
        if self._pinged and not patient and settings.pong_timeout:
            self.outlet.close(NO_PONG)
            return
        if not patient and settings.ping_interval:
            self._pinged = True
            self.outlet.write(PING)
        self._wait_to_ping()

    def _wait_to_ping(self) -> None:
        settings = self.hub.settings
        delay = (settings.pong_timeout if self._pinged else 0) or settings.ping_interval
        if delay:
            self.hub.wheel.set(self, delay)


def _disconnect_of(error: CommandError) -> Disconnect:
    """Why a connection is closed on which nothing could begin."""
    if isinstance(error, AdmissionError) or error.reason in (INTERNAL, BROKER_UNAVAILABLE):
        return disconnect_of(error)
    return disconnect_of(error) if error.reason.key == APPLICATION else CONNECTION_LIMIT


@implementer(IProtocolNegotiationFactory)
class WebSocketServer(WebSocketServerFactory):
    """WebSocket for `hub`'s clients.

    `spoken` has for each mode what begins it on an open WebSocket; that may raise CommandError, and the client is
    closed then. On an endpoint of its own, a path that ends in `/echo` or `/websocket` has the mode `echo`,
    any other `chat`. `take_over` gives the mode for connections of a site.
    """

    protocol: Any = WebSocketConnection
    noisy = False

    def __init__(self, hub: Hub, spoken: Mapping[str, Callable[[WebSocketConnection], Spoken]]) -> None:
        super().__init__(reactor=hub.clock, server="longconn")  # type: ignore[no-untyped-call]
        self.hub = hub
        self.spoken = spoken
        self._rules = OriginRules(hub.settings, own_names())
        limit = hub.settings.max_message
        self.setProtocolOptions(
            versions=[13, 8],
            webStatus=False,
            maxFramePayloadSize=limit,
            maxMessagePayloadSize=limit,
            # A close frame says why; a dropped connection would look like a network failure (1006).
            failByDrop=False,
            openHandshakeTimeout=0,
            # The outlet has a deadline of its own.
            closeHandshakeTimeout=0,
            autoPingInterval=0,
            # `longconn.wire.origin` decides.
            allowedOrigins=["*"],
            allowNullOrigin=True,
        )

    def setProtocolOptions(self, *arguments: Any, **options: Any) -> None:
        """Change Autobahn's options, for connections from now on."""
        super().setProtocolOptions(*arguments, **options)  # type: ignore[no-untyped-call]
        self._options = {name: getattr(self, name) for name in WebSocketServerProtocol.CONFIG_ATTRS}

    def prepare(self, protocol: WebSocketConnection) -> None:
        """Give a new connection its factory and options."""
        protocol.factory = self
        protocol.__dict__.update(self._options)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """For an endpoint of its own."""
        if is_full(self.hub, addr):
            return None
        protocol = self.protocol()
        self.prepare(protocol)
        return protocol

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS with ALPN (RFC 7301)."""
        return HTTP1_ALPN

    def admit(self, protocol: WebSocketConnection, request: ConnectionRequest) -> Deferred[None]:
        """Check a handshake that came to the factory's own port. Raises ConnectionDeny, or fails with it."""
        return admit(self.hub, self._rules, protocol, request)

    def take_over(
        self,
        request: Any,
        mode: str,
        channel: str | None,
        name: NameRequest | None,
        identity: Identity | None = None,
    ) -> None:
        """Go on with the connection of a twisted.web request that was checked and asks for WebSocket."""
        http: Any = request.channel
        transport = http.transport
        http.setTimeout(None)
        leave = getattr(http, "leave", None)  # a LiveSite counts its connections
        if leave is not None:
            leave()
        transport.unregisterProducer()
        protocol: WebSocketConnection = self.protocol()
        self.prepare(protocol)
        protocol.mode, protocol.channel, protocol.name = mode, channel, name
        protocol.identity = identity
        protocol.admitted = True
        protocol.is_new = leave is None
        protocol.wants_pings = request.args.get(_WANTS_PINGS) == [b"true"]
        early = b"".join(getattr(http, "_dataBuffer", ()))
        # What twisted.web still holds of this read comes by here.
        http.rawDataReceived = http.dataReceived = protocol.dataReceived
        self.hub.turn.soon(http.requests.clear)  # a reference cycle, which would keep KiBs until it is collected
        hand_over(transport, protocol)
        transport.resumeProducing()
        if self.hub.hooks.header_names:
            protocol.headers = self.hub.hooks.select(lambda name: request.getHeader(name) or "")
        headers = request.requestHeaders
        found = forwarded_peer(self.hub.proxies, transport.getPeer(), headers) if self.hub.proxies else None
        if found is not None:
            protocol.forwarded = found[:2]
        offered = b",".join(headers.getRawHeaders(b"sec-websocket-protocol") or ()).decode("latin-1")
        protocol.open(headers.getRawHeaders(b"sec-websocket-key")[0], [each.strip() for each in offered.split(",")])
        if early:
            protocol.dataReceived(early)
