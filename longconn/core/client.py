"""A client: one conversation, whatever it is connected with."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from longconn.core.broker import Done
from longconn.core.channel import Channel, Format, Subscription
from longconn.core.disconnects import Disconnect
from longconn.core.errors import (
    ALREADY_SUBSCRIBED,
    LIMIT_EXCEEDED,
    NOT_SUBSCRIBED,
    TOO_LARGE,
    CommandError,
)
from longconn.core.names import check_channel
from longconn.core.namespaces import Action, may_recover
from longconn.core.publication import Data, History, Info, Join, Leave, Position, Rename
from longconn.core.timers import Bucket

if TYPE_CHECKING:
    from longconn.core.hub import Hub


class Outlet(Protocol):
    """The writable end of one connection, as the core sees it."""

    def write(self, data: bytes) -> None:
        """Send, or let wait within the bound. Never raises for the connection's state."""

    def write_backlog(self, source: Iterator[bytes]) -> None:
        """Send what `source` yields, asking for more as the connection takes it."""

    def close(self, disconnect: Disconnect) -> None:
        """End the connection, telling the reason where the protocol can."""


class Client:
    """One conversation with the hub. Made by `Hub.connect`, ended by `gone`.

    `protocol` is what it is connected with (`tcp`, `websocket`, `sse`, `stream`),
    `address` is HOST:PORT, `announced` says whether others are told of its comings and
    goings. Commands that the client may not give raise `CommandError`; those that need the
    broker answer by `done`, with a result or a `CommandError`.
    """

    __slots__ = (
        "_info", "address", "announced", "chat", "conn_info", "host", "hub", "id", "live", "name",
        "outlet", "protocol", "publishing", "publishing_bytes", "session", "subscriptions", "user",
    )  # fmt: skip

    def __init__(self, hub: Hub, outlet: Outlet, protocol: str, host: str, address: str, name: str) -> None:
        self.hub = hub
        self.outlet = outlet
        self.protocol = protocol
        self.host = host
        self.address = address
        self.name = name
        self.user = ""
        #: what its token says of it, as JSON
        self.conn_info = b""
        self.id = secrets.token_urlsafe(15)
        self.announced = False
        #: whether it is somebody of the chat (see `Info`)
        self.chat = True
        self.live = True
        #: what the server can make it do: a program's session (`longconn.server_api.operations.Session`)
        self.session: Any = None
        self.subscriptions: dict[str, Subscription] = {}
        self._info: Info | None = None
        # Made by the first publication: most clients only listen.
        self.publishing: Bucket | None = None
        self.publishing_bytes: Bucket | None = None

    @property
    def info(self) -> Info:
        if self._info is None:
            self._info = Info(self.name, self.id, self.user, self.conn_info, chat=self.chat)
        return self._info

    def identify(self, user: str, conn_info: bytes) -> None:
        """Who it is, once that is known."""
        if self.live:
            self.hub.identify(self, user)
        self.user = user
        self.conn_info = conn_info
        self._info = None

    # Channels.

    def subscribe(
        self,
        channel: str,
        format: Format,
        done: Done[History],
        since: Position | None = None,
        granted: bool = False,
        chan_info: bytes = b"",
    ) -> None:
        """Get what is published in `channel`, written in `format`.

        `done` gets the publications after `since` (none without one), the position where
        the live ones start, and whether all since were there. It is called before any of
        those is sent. An announced client's join is told to the others. `granted`: a token for this
        channel, or the server itself, lets it in, whatever the channel's options say. Without the
        right to what is kept it gets none of it, and is told that it missed something if it did.
        `chan_info` is what they say of it there, as JSON, for others to see.
        """
        check_channel(channel)
        hub = self.hub
        if channel in self.subscriptions:
            raise CommandError(ALREADY_SUBSCRIBED, channel=channel)
        limit = hub.settings.max_subscriptions
        if limit and len(self.subscriptions) >= limit:
            raise CommandError(LIMIT_EXCEEDED, what="channels of one client")
        options = hub.check(Action.SUBSCRIBE, channel, self, granted)
        hub.visit(channel, self.host)
        hidden = None
        if since is not None and not may_recover(channel, options, self.user):
            hidden, since = since, None

        def subscribed(result: History | CommandError) -> None:
            if not isinstance(result, CommandError):
                if hidden is not None:
                    top = result.position
                    result.recovered = hidden.offset == top.offset and hidden.epoch in ("", top.epoch)
                if self.announced:
                    hub.announce(channel, Join(subscription.info))
            done(result)

        target = hub.channel(channel)
        subscription = Subscription(self, target, format, since, subscribed, chan_info)
        self.subscriptions[channel] = subscription
        target.add(subscription)

    def unsubscribe(self, channel: str) -> None:
        """Leave `channel`. What came back until now is still sent. Raises CommandError(NOT_SUBSCRIBED)."""
        subscription = self.subscriptions.pop(channel, None)
        if subscription is None:
            raise CommandError(NOT_SUBSCRIBED, channel=channel)
        self._leave(subscription, finish=True)

    def _leave(self, subscription: Subscription, finish: bool) -> None:
        completed = subscription.held is None
        subscription.done = None
        subscription.channel.remove(subscription, finish=finish)
        if completed and self.announced:
            self.hub.announce(subscription.channel.name, Leave(subscription.info))

    def forget(self, channel: Channel) -> None:
        """A subscribe failed: the channel takes it back."""
        self.subscriptions.pop(channel.name, None)

    def announce(self) -> None:
        """Tell others of this client from now on, its presence in its channels first."""
        if not self.announced:
            self.announced = True
            for name, subscription in self.subscriptions.items():
                if subscription.held is None:
                    self.hub.announce(name, Join(subscription.info))

    # Asking.

    def may(self, action: Action, channel: str) -> bool:
        """Whether it may do `action` in `channel`."""
        try:
            self.hub.check(action, channel, self)
        except CommandError:
            return False
        return True

    def presence(self, channel: str) -> list[Info]:
        """Who is subscribed to `channel` now. Raises CommandError for a bad or refused channel."""
        self.hub.check(Action.PRESENCE, check_channel(channel), self)
        return self.hub.presence(channel)

    def history(self, channel: str, done: Done[History], since: Position | None = None, limit: int = -1) -> None:
        """What is kept of `channel`: see `Broker.history`. Raises CommandError for a bad or refused channel."""
        self.hub.check(Action.HISTORY, check_channel(channel), self)
        self.hub.history(channel, done, since, limit, self.host)

    # Speaking.

    def allowance(self) -> float:
        """Seconds until the client may publish again; 0 if it may now."""
        settings = self.hub.settings
        now = self.hub.clock.seconds()
        if self.publishing is None or self.publishing_bytes is None:
            self.publishing = Bucket(settings.publish_rate, settings.publish_burst, now)
            self.publishing_bytes = Bucket(settings.publish_bytes, 2 * settings.publish_bytes, now)
        return max(self.publishing.wait(now), self.publishing_bytes.wait(now))

    def spend(self, size: int) -> None:
        """Count a message of `size` bytes against the client's rate."""
        if self.publishing is not None and self.publishing_bytes is not None:
            self.publishing.spend(1)
            self.publishing_bytes.spend(size)

    def publish(self, channel: str, data: Data, done: Done[Position]) -> None:
        """Publish in `channel`; `done` gets the position. Its rate is the caller's to ask by `allowance`."""
        self.spend(data.size)
        self.hub.check(Action.PUBLISH, check_channel(channel), self)
        subscription = self.subscriptions.get(channel)
        info = self.info if subscription is None else subscription.info
        self.hub.publish(channel, data, info, done, self.host)

    def rename(self, name: str) -> None:
        """Take another name; who has taken one is somebody of the chat.

        Raises CommandError(BAD_NAME) or (NAME_TAKEN).
        """
        old = self.name
        self.hub.claim(name, self)
        self.name = name
        self.chat = True
        self._info = None
        if self.announced and name != old:
            for channel, subscription in self.subscriptions.items():
                if subscription.held is None:
                    self.hub.announce(channel, Rename(old, subscription.info))

    # The end.

    def close(self, disconnect: Disconnect) -> None:
        """Close the connection for a numbered reason."""
        self.outlet.close(disconnect)

    def gone(self) -> None:
        """The connection ended: leave every channel. May be called twice."""
        if not self.live:
            return
        self.live = False
        subscriptions = list(self.subscriptions.values())
        self.subscriptions.clear()
        for each in subscriptions:
            self._leave(each, finish=False)
        self.hub.forget(self)


def check_size(size: int, limit: int) -> None:
    """Raises CommandError(TOO_LARGE) for a message over `limit` bytes."""
    if size > limit:
        raise CommandError(TOO_LARGE, limit=limit)
