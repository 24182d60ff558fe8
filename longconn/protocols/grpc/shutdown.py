"""The graceful end of one connection at a shutdown of the server (GOAWAY: RFC 9113, section 6.8)."""

from __future__ import annotations

from collections.abc import Callable

from longconn.core.disconnects import SHUTDOWN
from longconn.core.hub import Hub
from longconn.protocols.grpc.sending import Sender
from longconn.protocols.grpc.streams import GrpcStreams
from longconn.wire import http2
from longconn.wire.grpc_status import status_of_disconnect
from longconn.wire.http2 import ErrorCode

#: The payload of the ping that follows the first GOAWAY.
PING = b"draining"
#: Seconds after which the second GOAWAY is sent even if the ping was not answered.
_ROUND_TRIP = 0.5
#: Seconds that calls which are not clients have, after the last client of the hub has gone.
_GRACE = 0.5


class GracefulShutdown:
    """Ends a connection without losing a call.

    1. A GOAWAY that names the highest possible stream, and a ping. Calls that the client begins until 2 are served.
    2. When the ping is answered, a GOAWAY that names the last stream. Later ones are refused.
    3. When no client of the hub is left, calls that are not clients have a moment to end, and are cancelled.

    `close_if_unused` closes the connection if no call is under way.
    """

    def __init__(self, hub: Hub, sender: Sender, streams: GrpcStreams, close_if_unused: Callable[[], None]) -> None:
        self._hub = hub
        self._sender = sender
        self._streams = streams
        self._close_if_unused = close_if_unused
        # When the first GOAWAY was sent, and when the last client of the hub was gone.
        self._started: float | None = None
        self._no_clients_since: float | None = None

    def drain(self, now: float) -> None:
        """Take the next step, if it is time. To be called until the connection is closed."""
        if self._started is None:
            self._started = now
            goaway = http2.goaway(http2.MAX_STREAM_ID, ErrorCode.NO_ERROR, "shutdown")
            self._sender.append(goaway + http2.ping(PING))
        elif now - self._started >= _ROUND_TRIP:
            self._refuse_new_streams()
        if not self._hub.clients:
            if self._no_clients_since is None:
                self._no_clients_since = now
            if now - self._no_clients_since >= _GRACE:
                for call in list(self._streams.calls.values()):
                    call.cancel(status_of_disconnect(SHUTDOWN))

    def on_pong(self) -> None:
        """The peer has answered the ping: all that it sent before the GOAWAY reached it has come."""
        if self._started is not None:
            self._refuse_new_streams()

    def _refuse_new_streams(self) -> None:
        if self._streams.last_stream is None:
            self._sender.append(http2.goaway(self._streams.refuse_new(), ErrorCode.NO_ERROR, "shutdown"))
            self._close_if_unused()
