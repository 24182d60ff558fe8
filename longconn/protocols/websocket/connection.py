"""WebSocket (RFC 6455): chat lines as text frames on `/ws`, and `/echo`.

Autobahn has the handshake, control frames, fragments and everything unusual. Whole masked text
frames, which is nearly all that comes, are taken by `longconn.wire.websocket` before it, and what
is sent goes through a `SocketOutlet`.
"""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.interfaces import IProtocolNegotiationFactory, ISSLTransport, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from longconn.core.disconnects import CONNECTION_LIMIT, IDLE, NO_PONG, Disconnect
from longconn.core.errors import NAME_TAKEN, PERMISSION_DENIED, UNKNOWN_CHANNEL, CommandError
from longconn.core.hub import Hub
from longconn.core.names import check_channel
from longconn.core.namespaces import Action
from longconn.protocols.centrifugo.session import Session
from longconn.protocols.chat.session import ChatSession
from longconn.protocols.connection.handover import HTTP1_ALPN, hand_over
from longconn.protocols.connection.peer import is_local, peer_of
from longconn.protocols.connection.socket_outlet import SocketOutlet
from longconn.protocols.websocket.spoken import Chat, Echo, Structured
from longconn.wire.centrifugo import Frame, text_frame
from longconn.wire.chat import ChatFormat, safe
from longconn.wire.chat_texts import CATALOGUES
from longconn.wire.origin import Caller, Rules
from longconn.wire.websocket import PING, close_code, take_texts, text_frames

#: The statuses of handshakes that are refused; 400 where none stands here.
_STATUSES = {NAME_TAKEN: 409, PERMISSION_DENIED: 403, UNKNOWN_CHANNEL: 404}
_HEAD_TOO_LARGE = 431  # RFC 6585, section 5
#: Characters of the reason for which a handshake is refused.
_LONGEST_REASON = 200
#: What Autobahn keeps of the handshake, KiBs that nobody reads once the connection is open.
_HANDSHAKE_ONLY = (
    "http_request_data", "http_status_line", "http_headers", "http_request_uri", "http_request_path",
    "http_request_params", "http_request_host", "websocket_extensions", "_transport_details",
)  # fmt: skip


class LiveWebSocket(WebSocketServerProtocol):
    """One WebSocket connection, for chat or for echo."""

    factory: WebSocketFactory
    outlet: SocketOutlet | None = None
    session: Chat | Echo | Structured | None = None
    #: for the structured protocol
    frame: Frame = staticmethod(text_frame)
    protocol = "websocket"
    #: how to begin when the handshake is done
    mode = "chat"
    channel: str | None = None
    name: str | None = None
    #: whether the resource that handed the connection over has checked the request
    admitted = False
    #: the wheel's; and the last byte that came in
    due = 0
    heard = 0.0
    _pinged = False

    # The handshake.

    def connectionMade(self) -> None:
        super().connectionMade()
        hub = self.factory.hub
        if not self.admitted and hub.settings.handshake_timeout:
            # Autobahn's own timer is the global reactor's, whatever clock the hub has.
            hub.wheel.set(self, hub.settings.handshake_timeout)

    def onConnect(self, request: ConnectionRequest) -> None:
        if not self.admitted:
            self.factory.admit(self, request)

    def _head_too_large(self, data: bytes) -> bool:
        """Whether the handshake is over its limit with `data`, Autobahn has none; it is refused then."""
        limit = self.factory.hub.settings.max_head
        if self.admitted or len(self.data) + len(data) <= limit:
            return False
        if 0 <= (self.data + data[:limit]).find(b"\r\n\r\n") <= limit - 4:
            return False
        self.failHandshake(f"the head is larger than {limit} bytes", _HEAD_TOO_LARGE)
        return True

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        # What the peer sent may be in it, and it goes to the log.
        super().failHandshake(safe(reason)[:_LONGEST_REASON], code, responseHeaders)

    def onOpen(self) -> None:
        hub = self.factory.hub
        for each in _HANDSHAKE_ONLY:
            if hasattr(self, each):
                setattr(self, each, None)
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpKeepAlive(True)
        self.heard = hub.clock.seconds()
        self.outlet = SocketOutlet(hub, transport, self._on_close)
        host, address = peer_of(transport, hub.numbers)
        try:
            if self.mode == "echo":
                client = hub.connect(self.outlet, "echo", host, address)
                self.outlet.client = client
                self.session = Echo(client, self.outlet, self)
            elif self.mode == "structured":
                # A command is refused by its own reply; so there must be room for what is around the data.
                self.maxFramePayloadSize = self.maxMessagePayloadSize = 2 * hub.settings.max_message
                self.session = Structured(Session(hub, self.outlet, self, host, address), self)
            else:
                client = hub.connect(self.outlet, "websocket", host, address, self.name)
                conversation = ChatSession(hub, client, self.outlet, self.factory.format, self)
                self.session = Chat(conversation, self)
                conversation.enter(self.channel or hub.settings.default_channel, announce=True)
        except CommandError as error:
            self.sendCloseFrame(CONNECTION_LIMIT.code, str(error).encode()[:123])
        if self.mode != "structured":  # it has pings of its own
            self._look_later()

    # Reading.

    def pause_reading(self) -> None:
        transport: Any = self.transport
        transport.pauseProducing()

    def resume_reading(self) -> None:
        transport: Any = self.transport
        transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        if self.state == self.STATE_CONNECTING and self._head_too_large(data):
            return
        # Autobahn's parser is between two messages, and has nothing left over.
        if self.state == self.STATE_OPEN and not self.data and self.current_frame is None and not self.inside_message:
            self.heard = self.factory.hub.wheel.now
            self._pinged = False
            texts, end = take_texts(data, self.maxMessagePayloadSize)
            if texts:
                try:
                    for text in texts:
                        text.decode()
                except UnicodeDecodeError:
                    self._invalid_payload("text that is not UTF-8")
                    return
                if self.session is not None:
                    self.session.receive(texts)
                if end == len(data):
                    return
                data = data[end:]
        self._dataReceived(data)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.heard = self.factory.hub.wheel.now
        self._pinged = False
        if self.session is not None and self.state == self.STATE_OPEN:
            self.session.receive([payload], isBinary)

    def onPong(self, payload: bytes) -> None:
        self._pinged = False

    # Writing, all by the outlet, so that nothing lands in the middle of what waits there.

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        if self.outlet is None:
            transport: Any = self.transport
            transport.write(data)
        elif self.outlet.closing:
            self.outlet.finish(data)
        else:
            self.outlet.write(data)

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        if self.outlet is not None:
            # The last frame: it goes after what waits, and then the peer has some seconds to answer.
            self.outlet.closing = True
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def _on_close(self, disconnect: Disconnect) -> None:
        """The hub's side closes."""
        code = disconnect.code if self.mode == "structured" else close_code(disconnect)
        self.sendCloseFrame(code, disconnect.text.encode())

    def unregisterProducer(self) -> None:
        """Autobahn would, before it drops the connection: the outlet does when all is out."""
        if self.outlet is None:
            super().unregisterProducer()

    def _closeConnection(self, abort: bool = False) -> None:
        if self.outlet is None:
            super()._closeConnection(abort)
        else:
            self.outlet.finish(b"", self.outlet.lose)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.hub.wheel.clear(self)
        if self.outlet is not None:
            self.outlet.stop()
        if self.session is not None:
            self.session.stop()
            self.session = None
        super().connectionLost(reason)

    # Pings.

    def on_due(self, now: float) -> None:
        if self.outlet is None:
            # The handshake took too long.
            transport: Any = self.transport
            transport.abortConnection()
            return
        settings = self.factory.hub.settings
        if self.outlet.closing or self.session is None:
            return
        patient = self.session.held_back or self.outlet.queued
        if self._pinged and not patient and settings.pong_timeout:
            self.outlet.close(NO_PONG)
            return
        if self.mode == "echo" and settings.idle_timeout and now - self.heard >= settings.idle_timeout:
            self.outlet.close(IDLE)
            return
        if not patient and settings.ping_interval:
            self._pinged = True
            self.outlet.write(PING)
        self._look_later()

    def _look_later(self) -> None:
        """Be due when the next ping is, or the answer to the last, or when echo was idle for too long."""
        hub = self.factory.hub
        settings = hub.settings
        delay = settings.pong_timeout if self._pinged else 0.0
        delay = delay or settings.ping_interval
        if self.mode == "echo" and not delay:
            delay = settings.idle_timeout
        if delay:
            hub.wheel.set(self, delay)
        else:
            hub.wheel.clear(self)


@implementer(IProtocolNegotiationFactory)
class WebSocketFactory(WebSocketServerFactory):
    """Chat lines and echo over WebSocket for `hub`'s clients.

    Listen with it on an endpoint of its own: a path that ends in `/echo` or `/websocket` echoes, any
    other is chat, `?channel=` and `?name=` as on `/ws`. A `LiveResource` hands it connections of a site.
    """

    protocol: Any = LiveWebSocket
    noisy = False

    def __init__(self, hub: Hub) -> None:
        super().__init__(reactor=hub.clock, server="longconn")  # type: ignore[no-untyped-call]
        self.hub = hub
        self.format = ChatFormat(CATALOGUES[hub.settings.locale], text_frames)
        self._rules = Rules(hub.settings)
        limit = hub.settings.max_message
        self.setProtocolOptions(  # type: ignore[no-untyped-call]
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

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS with ALPN (RFC 7301)."""
        return HTTP1_ALPN

    def admit(self, protocol: LiveWebSocket, request: ConnectionRequest) -> None:
        """Check a handshake that came to the factory's own port. Raises ConnectionDeny."""
        transport: Any = protocol.transport
        headers = request.headers
        caller = Caller(
            hosts=[headers["host"]],
            origins=[headers["origin"]] if "origin" in headers else [],
            fetch_site=headers.get("sec-fetch-site", ""),
            fetch_mode=headers.get("sec-fetch-mode", ""),
            local=is_local(transport),
            secure=ISSLTransport.providedBy(transport),
        )
        refusal = self._rules.check(caller)
        if refusal is not None:
            raise ConnectionDeny(refusal.status, refusal.message)
        protocol.mode = "echo" if request.path.rpartition("/")[2] in ("echo", "websocket") else "chat"
        protocol.channel = request.params.get("channel", [None])[0]
        protocol.name = request.params.get("name", [None])[0]
        try:
            if protocol.channel is not None:
                check_channel(protocol.channel)
            if protocol.mode == "chat":
                self.hub.check(Action.SUBSCRIBE, protocol.channel or self.hub.settings.default_channel)
            if protocol.name is not None:
                self.hub.claim(protocol.name)
        except CommandError as error:
            raise ConnectionDeny(_STATUSES.get(error.reason, 400), str(error)) from None

    def take_over(self, request: Any, mode: str, channel: str | None, name: str | None) -> None:
        """Go on with the connection of a twisted.web request that was checked and asks for WebSocket."""
        http: Any = request.channel
        transport = http.transport
        http.setTimeout(None)
        leave = getattr(http, "leave", None)  # a LiveSite counts its connections
        if leave is not None:
            leave()
        transport.unregisterProducer()
        protocol: LiveWebSocket = self.protocol()
        protocol.factory = self
        protocol.mode, protocol.channel, protocol.name = mode, channel, name
        protocol.admitted = True
        early = b"".join(getattr(http, "_dataBuffer", ()))
        # What twisted.web still holds of this read comes by here.
        http.rawDataReceived = http.dataReceived = protocol.dataReceived
        hand_over(transport, protocol)
        transport.resumeProducing()
        protocol.dataReceived(_head(request) + early)


def _head(request: Any) -> bytes:
    """A request's head as bytes again (RFC 9112, section 3): Autobahn reads the handshake for itself."""
    lines = [request.method + b" " + request.uri + b" HTTP/1.1"]
    lines += [name + b": " + b", ".join(values) for name, values in request.requestHeaders.getAllRawHeaders()]
    return b"\r\n".join(lines) + b"\r\n\r\n"
