"""The subscriptions of one session: under way, made by the server, expiring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from longconn.core import commands
from longconn.core.broker import Done
from longconn.core.client import Client, Format
from longconn.core.commands import SubscribeResult
from longconn.core.errors import INTERNAL, UNRECOVERABLE, CommandError
from longconn.core.hooks import HookReply
from longconn.core.hub import Hub
from longconn.core.identity import Granted
from longconn.core.log import about, log
from longconn.core.names import check_channel
from longconn.core.publication import History
from longconn.core.tokens import SubscriptionToken


class SessionSubscriptions:
    """Subscribes and unsubscribes one client.

    `make_format` gives the wire format, with or without joins and leaves. `on_expiry` is called when the time of the
    next expiry may have changed, `on_expired` with a channel that the application does not renew.
    """

    __slots__ = ("_client", "_early", "_hub", "_make_format", "_on_expired", "_on_expiry", "_pending", "expiries")

    def __init__(
        self,
        hub: Hub,
        client: Client,
        make_format: Callable[[bool], Format],
        on_expiry: Callable[[], None],
        on_expired: Callable[[str], None],
    ) -> None:
        self._hub = hub
        self._client = client
        self._make_format = make_format
        self._on_expiry = on_expiry
        self._on_expired = on_expired
        #: when subscriptions expire, in seconds since 1970, by channel; only those that do
        self.expiries: dict[str, float] = {}
        # What tells a subscribe under way from another, and its `done`, by channel.
        self._pending: dict[str, tuple[object, Done[History]]] = {}
        # Pushes of subscriptions that the server made, which must follow the reply to connect.
        self._early: list[bytes] = []

    def subscribe(
        self, command: commands.Subscribe, done: Done[SubscribeResult], granted: Granted | SubscriptionToken | None
    ) -> None:
        """Subscribe; `done` gets the result. It gets an error also if the subscribe is given up."""
        hub, client, channel = self._hub, self._client, command.channel
        try:
            options = hub.namespaces.options(check_channel(channel))
        except CommandError as error:
            done(error)
            return
        # Recoverable also without being asked: otherwise a client could not come back without a gap.
        recoverable = options.keeps and hub.door.may_recover(client, channel, options)
        by_hook = granted is None
        answered = False
        asked = object()  # a function that names itself would be a reference cycle

        def subscribed(result: History | CommandError) -> None:
            nonlocal answered
            answered = True
            if self._pending.get(channel, (None,))[0] is asked:
                del self._pending[channel]
            if isinstance(result, CommandError):
                done(result)
                return
            if not result.recovered and command.refuses_loss:
                hub.door.unsubscribe(client, channel)
                done(CommandError(UNRECOVERABLE))
                return
            subscription = client.subscriptions[channel]
            expires_at = subscription.expires_at
            if expires_at is not None:
                self.set_expiry(channel, expires_at)
            done(
                SubscribeResult(
                    channel=channel,
                    history=result,
                    since=command.since,
                    recoverable=recoverable,
                    positioned=recoverable or (options.keeps and options.force_positioning),
                    data=subscription.data,
                    # The application's hook renews it, and not the client.
                    ttl=None if by_hook else self.ttl(expires_at),
                )
            )

        format = self._make_format(options.join_leave and (command.join_leave or options.force_push_join_leave))
        hub.door.subscribe(client, channel, format, subscribed, command.since, granted)
        if not answered:
            self._pending[channel] = asked, subscribed

    def is_pending(self, channel: str) -> bool:
        """Whether a subscribe to `channel` is under way."""
        return channel in self._pending

    def unsubscribe(self, channel: str) -> bool:
        """Leave `channel`; False if the client is not in it. A subscribe under way is given up."""
        self.expiries.pop(channel, None)
        if not self._hub.door.unsubscribe(self._client, channel):
            return False
        pending = self._pending.get(channel)
        if pending is not None:
            pending[1](CommandError(INTERNAL))  # the broker's answer has no subscription any more
        return True

    def stop(self) -> None:
        """The client is gone: fail the subscribes under way, since a back end may wait for them."""
        for _, give_up in tuple(self._pending.values()):
            give_up(CommandError(INTERNAL))
        # They are the session's: a reference cycle would keep it in memory.
        self._on_expiry = self._on_expired = _ignore

    # Expiry.

    def set_expiry(self, channel: str, at: float | None) -> None:
        """Let a subscription expire at a time; None for never."""
        self.expiries.pop(channel, None)
        if at is not None:
            self.expiries[channel] = at
        self._on_expiry()

    def renew(self, channel: str) -> bool:
        """Ask the application whether an expired subscription goes on; False if it decides no more."""
        subscription = self._client.subscriptions.get(channel)

        def decided(reply: HookReply | CommandError) -> None:
            if isinstance(reply, CommandError) or reply.expired:
                self._on_expired(channel)
            else:
                self.set_expiry(channel, reply.expires_at)

        at = self.expiries.pop(channel)
        if subscription is not None and self._hub.door.ask_to_renew(subscription, decided):
            return True
        self.expiries[channel] = at
        return False

    def ttl(self, at: float | None) -> int | None:
        """Whole seconds until a time."""
        return None if at is None else max(1, round(at - self._hub.wall_time()))

    # Subscriptions that the server makes when the client connects.

    def subscribe_granted(
        self,
        granted: Mapping[str, Granted],
        asked: Mapping[str, commands.Subscribe],
        done: Callable[[list[SubscribeResult]], None],
    ) -> None:
        """Subscribe to the channels of `granted`; `asked` has the client's position in some of them.

        A channel that cannot be subscribed to is left out, and logged. Events of a channel before `done`
        wait until `release`, because a client expects the reply to connect first.
        """
        client = self._client
        missing = len(granted)
        results: list[SubscribeResult] = []

        def subscribed(channel: str, result: SubscribeResult | CommandError) -> None:
            nonlocal missing
            missing -= 1
            if isinstance(result, CommandError):
                log.warning(
                    "%s client from %s is not in %r: %s",
                    client.protocol,
                    client.address,
                    channel,
                    result,
                    extra=about("subscription_refused", client, channel=channel, code=result.reason.code),
                )
            else:
                results.append(result)
            if not missing and client.live:
                done(results)

        if not granted:
            done(results)
        for channel, grant in granted.items():
            command = asked.get(channel) or commands.Subscribe(0, channel)
            self.subscribe(command, partial(subscribed, channel), grant)
            subscription = client.subscriptions.get(channel)
            if subscription is not None:
                subscription.write = self._early.append

    def release(self) -> None:
        """The reply to connect is written: write the pushes that waited for it."""
        for subscription in self._client.subscriptions.values():
            subscription.write = self._client.outlet.write
        early, self._early = self._early, []
        for data in early:
            self._client.outlet.write(data)


def _ignore(*_: object) -> None:
    """The client is gone."""
