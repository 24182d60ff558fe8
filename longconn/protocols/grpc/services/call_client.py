"""A call that is a client of the hub, for as long as its token says."""

from __future__ import annotations

from collections.abc import Iterator

from longconn.core.disconnects import EXPIRED
from longconn.core.tokens import ConnectionToken
from longconn.protocols.grpc.call import GrpcCall


class CallClient:
    """What the calls of Subscribe and Connect have in common.

    It is also the client's `session`, by which a server can end its subscriptions
    (`longconn.server_api.operations.Session`).
    """

    #: no back end can name it: a client is named by its id
    id = ""
    connected = True

    def __init__(self, call: GrpcCall, claims: ConnectionToken, name: str) -> None:
        """Raises CommandError: LIMIT_EXCEEDED where there are too many clients, BAD_NAME, NAME_TAKEN."""
        self.call = call
        self.hub = call.hub
        self.claims = claims
        self.client = self.hub.connect(call.outlet, "grpc", call.host, call.address, name or None)
        call.outlet.client = self.client
        # Who has taken a name is somebody of the chat.
        self.client.chat = bool(name)
        self.client.session = self
        self.client.identify(claims.user, claims.info)
        self.expires_at = claims.expires_at
        #: the wheel's
        self.due = 0
        call.on_end(self._stop)

    def _stop(self) -> None:
        self.hub.wheel.clear(self)
        self.client.gone()
        self.client.session = None  # a cycle would keep both in memory for a while

    # Time.

    def times(self) -> Iterator[float | None]:
        """When something is to be done, in seconds since 1970; None for never."""
        yield self.expires_at

    def wait(self) -> None:
        """Be called when the next of `times` has come."""
        times = [each for each in self.times() if each is not None]
        if times and self.client.live:
            self.hub.wheel.set(self, max(0.0, min(times) - self.hub.clock.seconds()))
        else:
            self.hub.wheel.clear(self)

    def on_due(self, now: float) -> None:
        """Something may have expired."""
        if self.expires_at is not None and now >= self.expires_at:
            self.client.close(EXPIRED)
        self.wait()

    def refresh_for_server(self, expires_at: float | None) -> None:
        """Expire at another time."""
        self.expires_at = expires_at
        self.wait()
