"""One HTTP/2 connection that carries gRPC calls (RFC 9113): how it begins, what it reads, and how it ends.

The `h2` library has the states of streams, the settings and the compression of headers. `longconn.wire.http2` cuts
inbound bytes into frames, so that limits apply before the library parses anything, and writes frames that it has no
form for (a GOAWAY after which calls go on) and frames that it would be slow at (DATA).
"""

from __future__ import annotations

from typing import Any

from h2.exceptions import ProtocolError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from longconn.core.disconnects import Disconnect
from longconn.core.hub import Hub
from longconn.core.log import about, log
from longconn.protocols.connection.peer import certificate_user
from longconn.protocols.connection.set_up import log_given_way, set_up
from longconn.protocols.grpc.call import Services
from longconn.protocols.grpc.h2_adapter import describe_error, server_h2
from longconn.protocols.grpc.limits import FrameLimits
from longconn.protocols.grpc.receiving import ConnectionWindow, ReceiveBudget
from longconn.protocols.grpc.sending import Sender
from longconn.protocols.grpc.shutdown import PING as SHUTDOWN_PING
from longconn.protocols.grpc.shutdown import GracefulShutdown
from longconn.protocols.grpc.streams import GrpcStreams
from longconn.wire import http2
from longconn.wire.chat import safe
from longconn.wire.http2 import FRAME_HEADER_SIZE, ErrorCode, FrameReader, HTTP2Error

#: The work that frames of one connection may cause in one turn: some milliseconds. A frame costs 1; DATA, on which a
#: handler may act, costs more; a header block, which may begin a call, costs still more, and by its size.
_READ_COST = 512
_DATA_COST = 4
_HEADERS_COST = 16
_BYTES_PER_COST = 4
#: Microseconds that a frame of cost 1 takes, about: all connections share the slice of a turn.
_MICROSECONDS = 10
#: Seconds, and bytes, for which a peer that broke a rule is still read, so that it can read the GOAWAY that says why.
_READ_GOAWAY = 1.0
_DROPPED = 1024 * 1024
#: Characters of a reason, in the log and in a GOAWAY.
_MAX_REASON = 200
#: The payload of keepalive pings (RFC 9113, section 6.7).
_KEEPALIVE_PING = b"longconn"


class GrpcConnection(Protocol):
    """The server's side of one connection.

    `connections` has all connections of the factory while they last. Without a client of the hub among its calls, the
    connection is a guest in the hub's places.
    """

    #: the second at which its timer ends (`Timed` in core/timers.py)
    due = 0

    def __init__(
        self,
        hub: Hub,
        services: Services,
        budget: ReceiveBudget,
        max_message: int,
        connections: set[GrpcConnection],
    ) -> None:
        self._hub = hub
        self._services = services
        self._budget = budget
        self._max_message = max_message
        self._connections = connections
        self._clients = 0
        #: whether the connection has stopped reading, and the bytes that came since
        self.ended = False
        self._dropped = 0
        # Whether reading is paused until the next turn, because very much came at once.
        self._reading_paused = False
        # When something was received last; when the last call ended; when a ping was sent that is not answered.
        self._heard_at = self._unused_since = 0.0
        self._pinged_at: float | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        hub, settings = self._hub, self._hub.settings
        self._outlet, self._host, self._address = set_up(hub, transport, self._on_close)
        host = self._host
        hub.places.add(self, host)
        self._connections.add(self)
        self._heard_at = self._unused_since = hub.clock.seconds()
        self._frames = FrameReader(settings.max_head)
        self._limits = FrameLimits(hub.clock.seconds)
        self._h2, greeting = server_h2(settings.max_head, self._budget.first_window)
        self._sender = Sender(self._h2, self._outlet, hub.turn, self._on_overflow)
        self._streams = GrpcStreams(
            hub,
            (host, self._address, certificate_user(transport) if hub.gate.certificates else ""),
            self._services,
            self._sender,
            ConnectionWindow(self._sender, self._budget, host, self._max_message),
            self._limits,
            on_client=self._count_clients,
            on_empty=self._on_no_calls,
        )
        self._shutdown = GracefulShutdown(hub, self._sender, self._streams, self._close_if_unused)
        self._sender.append(greeting)
        self._sender.flush()
        hub.wheel.set(self, settings.handshake_timeout or 3600)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end()
        self._sender.stop()
        self._outlet.stop()
        self._connections.discard(self)
        self._hub.places.remove(self)

    def _count_clients(self, change: int) -> None:
        before, self._clients = self._clients, self._clients + change
        if not before:
            self._hub.places.remove(self)
        elif not self._clients:
            self._hub.places.add(self, self._host)
            self._hub.places.works(self)

    def _on_no_calls(self) -> None:
        self._unused_since = self._hub.clock.seconds()
        self._hub.places.waits(self)
        if self._streams.last_stream is not None or self._hub.places.is_crowded(self._host):
            self._hub.turn.soon(self._close_if_unused)

    # Reading.

    def dataReceived(self, data: bytes) -> None:
        if self.ended:
            self._dropped += len(data)
            if self._dropped > _DROPPED:
                self._outlet.abort()
            return
        self._heard_at = self._hub.clock.seconds()
        self._frames.feed(data)
        if not self._reading_paused:
            if self._hub.slices.full:
                self._pause_reading()
            else:
                self._read()

    def _read(self) -> None:
        """Act on the frames that came, up to the cost that one turn allows."""
        sender = self._sender
        sender.hold()
        sent, sender.sent_frames = sender.sent_frames, 0
        if sent:
            self._limits.allow_for(sent)
        cost = 0
        try:
            for kind, flags, stream, frame in self._frames:
                self._on_frame(kind, flags, stream, frame)
                if self.ended:
                    return
                if kind in (http2.HEADERS, http2.CONTINUATION):
                    cost += _HEADERS_COST + len(frame) // _BYTES_PER_COST
                else:
                    cost += _DATA_COST if kind == http2.DATA else 1
                if cost >= _READ_COST:
                    self._pause_reading()
                    break
        except HTTP2Error as error:
            self._fail(error.code, str(error))
        except ProtocolError as error:
            self._fail(*describe_error(error), "HTTP/2 does not allow that")
        except Exception:  # the library's, for input that its authors did not think of
            log.exception(
                "what came from %s could not be read as HTTP/2",
                self._address,
                extra=about("internal_error", address=self._address, protocol="grpc"),
            )
            self._fail(ErrorCode.INTERNAL_ERROR, "internal error")
        else:
            sender.flush()
        finally:
            self._hub.slices.count(cost * _MICROSECONDS)

    def _on_frame(self, kind: int, flags: int, stream: int, frame: bytes) -> None:
        if kind >= 0:  # not the preface
            was_settled = self._limits.settled
            self._limits.check(kind, flags, stream, frame, self._frames.in_block)
            if not was_settled:
                self._set_keepalive()
            if kind == http2.GOAWAY:
                # The peer opens no more streams. The library would end those that are open.
                return
            if kind in (http2.SETTINGS, http2.WINDOW_UPDATE):
                frame = http2.without_ignored(kind, frame)
        self._streams.receive(frame)
        if self._streams.calls and kind in (http2.HEADERS, http2.CONTINUATION, http2.DATA):
            self._hub.places.works(self)
        if kind == http2.PING and flags & http2.ACK and frame[FRAME_HEADER_SIZE:] == SHUTDOWN_PING:
            self._shutdown.on_pong()

    def _pause_reading(self) -> None:
        """Read no further until the other connections, and the other addresses, had their turn."""
        transport: Any = self.transport
        self._reading_paused = True
        transport.pauseProducing()
        self._hub.slices.wait(self._host, 0, self._resume_reading)

    def _resume_reading(self) -> None:
        self._reading_paused = False
        if not self.ended:
            self._read()
        if not self._reading_paused:
            transport: Any = self.transport
            transport.resumeProducing()

    # Time.

    def on_due(self, now: float) -> None:
        """The timer ended: the handshake, a ping's answer or the next ping is due."""
        settings = self._hub.settings
        if self.ended:
            self._outlet.finish(b"", self._outlet.lose)
        elif not self._limits.settled:
            if settings.handshake_timeout:
                self._fail(ErrorCode.PROTOCOL_ERROR, "no settings in time")
        elif (
            self._pinged_at is not None
            and settings.pong_timeout
            and self._heard_at < self._pinged_at
            and self._sender.room  # a peer that does not read cannot answer; `write_timeout` ends that
        ):
            log.info(
                "grpc connection from %s closed: no answer to a ping",
                self._address,
                extra=about("connection_closed", address=self._address, protocol="grpc"),
            )
            self._abort()
        elif not self._streams.calls and (
            (settings.idle_timeout and now - self._unused_since >= settings.idle_timeout)
            or self._hub.places.is_crowded(self._host)
        ):
            self._close_if_unused()
        else:
            self._set_keepalive()

    def _set_keepalive(self) -> None:
        """Ping the peer if nothing came from it for long, and be called when the answer or the next ping is due."""
        settings = self._hub.settings
        now = self._hub.clock.seconds()
        self._pinged_at = None
        delay = settings.ping_interval
        if delay and now - self._heard_at >= delay - 1 and self._sender.room:
            self._pinged_at = now
            self._sender.append(http2.ping(_KEEPALIVE_PING))
            delay = settings.pong_timeout or delay
        self._hub.wheel.set(self, delay or settings.idle_timeout or 3600)

    # The end.

    def drain(self, now: float) -> None:
        """The server shuts down. To be called until the connection is closed."""
        if not self.ended:
            self._shutdown.drain(now)

    def give_way(self) -> None:
        """For the hub's places: there is no client of the hub among the calls."""
        log_given_way(self._address)
        if self.ended:
            self._outlet.abort()
        elif self._streams.calls:
            self._abort()
        else:
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        """Close the connection if no call is under way."""
        if not self._streams.calls and not self.ended:
            if self._streams.last_stream is None:
                self._send_goaway(ErrorCode.NO_ERROR, "idle")
            self._sender.flush()
            self._end()
            self._outlet.finish(b"", self._outlet.lose)

    def _fail(self, code: int, text: str, public_text: str | None = None) -> None:
        """The peer broke a rule or a limit (RFC 9113, section 5.4.1): log `text`, and send it or `public_text`."""
        if self.ended:
            return
        # The text may contain bytes of the peer.
        log.info(
            "grpc connection from %s closed: %s",
            self._address,
            safe(text[:_MAX_REASON]),
            extra=about("connection_closed", address=self._address, protocol="grpc", code=code),
        )
        self._h2.clear_outbound_data_buffer()
        # The calls end before the GOAWAY is sent: the library lets them send nothing in this state.
        self._end()
        self._sender.forget_streams()
        self._send_goaway(ErrorCode(code), text if public_text is None else public_text)
        self._sender.flush()
        # Bytes that the peer still sends are read and dropped. A socket that is closed with unread bytes would send
        # RST, and the peer would not read the GOAWAY.
        self._hub.wheel.set(self, _READ_GOAWAY)
        self._outlet.finish(b"", self._outlet.end_writing)

    def _send_goaway(self, code: ErrorCode, text: str) -> None:
        self._sender.append(http2.goaway(self._h2.highest_inbound_stream_id, code, text[:_MAX_REASON]))

    def _on_close(self, disconnect: Disconnect) -> None:
        """The outlet ends the connection, most likely because it could send nothing for too long."""
        log.warning(
            "grpc connection from %s is disconnected (%d %s)",
            self._address,
            disconnect.code,
            disconnect.text,
            extra=about("connection_closed", address=self._address, protocol="grpc", code=disconnect.code),
        )
        self._abort()

    def _on_overflow(self) -> None:
        """The peer makes the server answer and does not read the answers."""
        if not self.ended:
            log.warning(
                "grpc connection from %s closed: it does not read what it asks for",
                self._address,
                extra=about("connection_closed", address=self._address, protocol="grpc"),
            )
            self._abort()

    def _abort(self) -> None:
        self._end()
        self._outlet.abort()

    def _end(self) -> None:
        """Read nothing any more, and end all calls."""
        self.ended = True
        self._hub.wheel.clear(self)
        self._streams.lose_all()
