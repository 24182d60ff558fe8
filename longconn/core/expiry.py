"""The end of a client whose proof of identity, or whose subscription, has expired."""

from __future__ import annotations

from collections.abc import Callable

from longconn.core.client import Client, Subscription
from longconn.core.disconnects import EXPIRED, SUBSCRIPTION_EXPIRED
from longconn.core.timers import Wheel, until

#: Seconds beyond the expiry: clocks differ, and a client that can bring a newer token does so when it expires.
GRACE = 25.0


class Expiry:
    """Closes a client, unless it has another identity or is gone by then. `at` is in seconds since 1970.

    `renew` is called first: True if it sees to the client.
    """

    __slots__ = ("_at", "_client", "_identity", "_renew", "_wall_time", "_wheel", "due")

    def __init__(
        self, wheel: Wheel, wall_time: Callable[[], float], client: Client, at: float, renew: Callable[[Client], bool]
    ) -> None:
        self._wheel = wheel
        self._wall_time = wall_time
        self._client = client
        self._renew = renew
        self._identity = client.identity
        self._at = at if client.identity.by_hook else at + GRACE
        self.due = 0
        self._wait()

    def on_due(self, now: float) -> None:
        """The timer ended. The wall clock may have been set meanwhile."""
        client = self._client
        if not client.live or client.identity is not self._identity:
            return
        if self._wall_time() < self._at:
            self._wait()
        elif not self._renew(client):
            client.close(EXPIRED)

    def _wait(self) -> None:
        self._wheel.set(self, until(self._at, self._wall_time()))


class SubscriptionExpiry:
    """Closes a client whose subscription has expired, unless it has left the channel by then.

    The client can subscribe again, and is then decided about anew. `at` is in seconds since 1970. `renew` is called
    first: True if it sees to the subscription.
    """

    __slots__ = ("_at", "_renew", "_subscription", "_wall_time", "_wheel", "due")

    def __init__(
        self,
        wheel: Wheel,
        wall_time: Callable[[], float],
        subscription: Subscription,
        at: float,
        renew: Callable[[Subscription], bool],
    ) -> None:
        self._wheel = wheel
        self._wall_time = wall_time
        self._subscription = subscription
        self._renew = renew
        self._at = at
        self.due = 0
        self._wait()

    def on_due(self, now: float) -> None:
        """The timer ended. The wall clock may have been set meanwhile."""
        subscription = self._subscription
        if not subscription.client.live or not subscription.current:
            return
        if self._wall_time() < self._at:
            self._wait()
        elif not self._renew(subscription):
            subscription.client.close(SUBSCRIPTION_EXPIRED)

    def _wait(self) -> None:
        self._wheel.set(self, until(self._at, self._wall_time()))
