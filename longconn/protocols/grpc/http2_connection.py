"""How long a connection of gRPC lasts: its start, its pings, and the ways in which it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from longconn.core.disconnects import SHUTDOWN, Disconnect
from longconn.core.hub import Hub, log
from longconn.protocols.connection.peer import peer_of
from longconn.protocols.connection.socket_outlet import SocketOutlet
from longconn.protocols.grpc.call import Call
from longconn.protocols.grpc.h2_adapter import server_side
from longconn.protocols.grpc.limits import Limits
from longconn.protocols.grpc.receiving import Credit
from longconn.protocols.grpc.sending import Sender
from longconn.wire import http2
from longconn.wire.chat import safe
from longconn.wire.grpc import closing
from longconn.wire.http2 import ErrorCode

if TYPE_CHECKING:
    from longconn.protocols.grpc.factory import GrpcFactory

#: Seconds in which a peer that broke a rule may read why.
_READ_WHY = 1.0
#: Seconds after the first GOAWAY at most until no further calls are taken; about a round trip.
_ROUND_TRIP = 0.5
#: Seconds at a shutdown for calls that are no clients, once all clients are gone.
_GRACE = 0.5
#: Characters of a reason, for the log and for the peer.
_LONGEST = 200
#: What pings say (RFC 9113, section 6.7).
_DRAINING, _ALIVE = b"draining", b"longconn"


class HTTP2Connection(Protocol):
    """What a connection is and has, but for what it reads. `calls` are those under way, by stream."""

    factory: GrpcFactory
    hub: Hub
    host: str
    address: str
    outlet: SocketOutlet
    sender: Sender
    max_receive: int
    #: the wheel's
    due = 0

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}
        self._clients = 0
        # Bytes of the heads of calls under way, and of what they keep of messages.
        self._heads = self._kept = 0
        #: whether the peer's settings came, and whether nothing is read any more
        self._settled = False
        self._over = False
        #: whether what came waits, because very much came at once
        self._resting = False
        #: when something came last; when the last call ended; since when a ping waits for its answer
        self._heard = self._idle_since = 0.0
        self._pinged: float | None = None
        # At a shutdown: when the first GOAWAY was sent, the last stream that is served, when all clients were gone.
        self._draining: float | None = None
        self._last: int | None = None
        self._alone: float | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self.hub = hub = self.factory.hub
        self.max_receive = self.factory.max_receive
        self.host, self.address = peer_of(transport, hub.numbers)
        hub.guests += 1
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        self.factory.connections.add(self)
        self._heard = self._idle_since = hub.clock.seconds()
        self._frames = http2.Frames(hub.settings.max_head)
        self._limits = Limits(hub.clock.seconds)
        self._library, greeting = server_side(hub.settings.max_head)
        self._credit = Credit(self._library, self._pass_on)
        self.outlet = SocketOutlet(hub, transport, self._on_close)
        self.sender = Sender(self._library, self.outlet, self.factory.turns, self._on_overflow)
        self.sender.append(greeting)
        self.sender.flush()
        hub.wheel.set(self, hub.settings.handshake_timeout or 3600)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop()
        self.sender.stop()
        self.outlet.stop()
        self.factory.connections.discard(self)
        if not self._clients:
            self.hub.guests -= 1

    def _stop(self) -> None:
        """Nothing is read any more, and no call goes on."""
        self._over = True
        self.hub.wheel.clear(self)
        calls = list(self.calls.values())
        self.calls.clear()
        for call in calls:
            call.lost()

    def _pass_on(self) -> None:
        """What the library wants to be sent."""
        frames = self._library.data_to_send()
        if frames:
            self.sender.append(frames)

    def _is_settled(self) -> None:
        """The peer's settings have come."""
        self._settled = True
        self._look_later()

    def _on_pong(self, event: Any) -> None:
        if event.ping_data == _DRAINING:
            self._take_no_more()

    def on_client(self, more: int) -> None:
        """A call has become a client of the hub, or is none any more; without any the connection is a guest."""
        before, self._clients = self._clients, self._clients + more
        self.hub.guests += (not self._clients) - (not before)

    def _forget(self, call: Call) -> None:
        """A call is over, and all is sent."""
        if self.calls.pop(call.stream_id, None) is not None:
            self._heads -= call.head_size
        if not self.calls:
            self._idle_since = self.hub.clock.seconds()
            if self._last is not None:
                self.factory.turns.soon(self._leave)

    # Time.

    def on_due(self, now: float) -> None:
        """The wheel's."""
        settings = self.hub.settings
        if self._over:
            self.outlet.finish(b"", self.outlet.lose)
        elif not self._settled:
            if settings.handshake_timeout:
                self._fail(ErrorCode.PROTOCOL_ERROR, "no settings in time")
        elif self._pinged is not None and settings.pong_timeout and self._heard < self._pinged and self.sender.room:
            # While it does not read, it cannot answer; that has a time-out of its own.
            log.info("grpc connection from %s closed: no answer to a ping", self.address)
            self._stop()
            self.outlet.abort()
        elif not self.calls and settings.idle_timeout and now - self._idle_since >= settings.idle_timeout:
            self._leave()
        else:
            self._look_later()

    def _look_later(self) -> None:
        """Ping, if nothing was heard for long; be due when the answer must be there, or the next ping is."""
        settings = self.hub.settings
        now = self.hub.clock.seconds()
        self._pinged = None
        delay = settings.ping_interval
        if delay and now - self._heard >= delay - 1 and self.sender.room:
            self._pinged = now
            self.sender.append(http2.ping(_ALIVE))
            delay = settings.pong_timeout or delay
        self.hub.wheel.set(self, delay or settings.idle_timeout or 3600)

    # The end.

    def drain(self, now: float) -> None:
        """The server shuts down; called again and again. "GOAWAY Frame": RFC 9113, section 6.8, in two steps."""
        if self._over:
            return
        if self._draining is None:
            self._draining = now
            self.sender.append(http2.goaway(http2.HIGHEST, ErrorCode.NO_ERROR, "shutdown") + http2.ping(_DRAINING))
        elif now - self._draining >= _ROUND_TRIP:
            self._take_no_more()
        if not self.hub.clients:
            self._alone = now if self._alone is None else self._alone
            if now - self._alone >= _GRACE:
                for call in list(self.calls.values()):
                    call.cancel(closing(SHUTDOWN))

    def _take_no_more(self) -> None:
        """The peer knows, and what it had sent before is here: no further calls."""
        if self._last is None and self._draining is not None:
            self._last = self._library.highest_inbound_stream_id
            self.sender.append(http2.goaway(self._last, ErrorCode.NO_ERROR, "shutdown"))
            if not self.calls:
                self._leave()

    def _leave(self) -> None:
        """Nothing is under way: close."""
        if not self.calls and not self._over:
            if self._last is None:
                self._say_why(ErrorCode.NO_ERROR, "idle")
            self.sender.flush()
            self._stop()
            self.outlet.finish(b"", self.outlet.lose)

    def _fail(self, code: int, text: str, why: str | None = None) -> None:
        """The peer broke a rule, or a limit (RFC 9113, section 5.4.1); it is told `why`, or else the text."""
        if self._over:
            return
        # The text may be made of what the peer sent.
        log.info("grpc connection from %s closed: %s", self.address, safe(text[:_LONGEST]))
        self._library.clear_outbound_data_buffer()
        # Before anything more is sent: the library lets no call send now, and nobody expects it to.
        self._stop()
        self.sender.drop()
        self._say_why(ErrorCode(code), text if why is None else why)
        self.sender.flush()
        # What it has sent meanwhile is read and dropped: a socket that is closed before would break the
        # connection off, and nobody would read why.
        self.hub.wheel.set(self, _READ_WHY)
        self.outlet.finish(b"")

    def _say_why(self, code: ErrorCode, text: str) -> None:
        self.sender.append(http2.goaway(self._library.highest_inbound_stream_id, code, text[:_LONGEST]))

    def _on_close(self, disconnect: Disconnect) -> None:
        """The outlet's: nothing of what waits was taken for too long."""
        log.warning("grpc connection from %s is disconnected (%d %s)", self.address, disconnect.code, disconnect.text)
        self._stop()
        self.outlet.abort()

    def _on_overflow(self) -> None:
        """The peer makes us answer, and does not read the answers."""
        if not self._over:
            log.warning("grpc connection from %s closed: it does not read what it asks for", self.address)
            self._stop()
            self.outlet.abort()
