"""What happens to clients and channels, for one who wants to know."""

from __future__ import annotations

from typing import Protocol

from longconn.core.client import Client


class Observer(Protocol):
    """Is told by a hub (`Hub.observer`) in the turn in which it happens. It must not raise, and must not wait."""

    def client_connected(self, client: Client) -> None:
        """A client was let in. Its user is known."""

    def client_disconnected(self, client: Client) -> None:
        """A client that was let in is gone; `Client.closed_for` says why, if the server closed it."""

    def channel_occupied(self, channel: str) -> None:
        """A channel has its first subscriber on this hub."""

    def channel_vacated(self, channel: str) -> None:
        """A channel has no subscriber on this hub any more."""
