"""The door: the only way to the channels. Here, and nowhere else, a caller's request is checked.

Each request is checked for the channel's name, then the size of its data, then the caller's right, then its rate. A
client is not refused over its rate: it waits, before anything else is looked at. A refused request has no other effect
than to count against the rate. Every answer comes by calling `done` once, with the result or a `CommandError`: within
the call with the embedded broker, turns later with one over a network.

A caller (`longconn.core.client.Caller`) is a client, a single request, the program that embeds the hub, or the server
API. The last two are trusted: their rights and rates are not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from longconn.core.asking import PAUSE, ask_to_publish, ask_to_subscribe, request_of, too_many, waits_for_too_much
from longconn.core.broker import Broker, Done
from longconn.core.channel import Channel
from longconn.core.client import Caller, Client, Format, Subscription
from longconn.core.counters import Counters
from longconn.core.disconnects import SUBSCRIPTION_EXPIRED
from longconn.core.errors import (
    ALREADY_SUBSCRIBED,
    LIMIT_EXCEEDED,
    NOT_AVAILABLE,
    PERMISSION_DENIED,
    SHUTTING_DOWN,
    TOO_LARGE,
    TOO_MANY_REQUESTS,
    CommandError,
)
from longconn.core.expiry import SubscriptionExpiry
from longconn.core.hooks import Hook, HookReply, Hooks
from longconn.core.identity import Granted
from longconn.core.long_poll import LongPoll
from longconn.core.names import check_channel
from longconn.core.namespaces import Action, ChannelOptions, Namespaces, allowed, may_recover
from longconn.core.publication import Announcement, Data, History, Info, Join, Leave, Position
from longconn.core.rates import Rates
from longconn.core.settings import Settings
from longconn.core.slices import MEMBERSHIP, Slices
from longconn.core.timers import Clock, Wheel, wall_time
from longconn.core.tokens import SubscriptionToken
from longconn.core.turn import Turn


class Door:
    """Checks requests, and passes them on to the channels and the broker.

    `clients` are the hub's, by id; `on_broken` is called with a client to which writing raised,
    `on_occupancy` with a channel and whether it has a subscriber now, when that changes.
    """

    def __init__(
        self,
        clock: Clock,
        settings: Settings,
        namespaces: Namespaces,
        broker: Broker,
        turn: Turn,
        wheel: Wheel,
        slices: Slices,
        rates: Rates,
        clients: Mapping[str, Client],
        on_broken: Callable[[Client], None],
        on_occupancy: Callable[[str, bool], None],
        counters: Counters,
    ) -> None:
        self._clock = clock
        self._wall_time = wall_time(clock)
        self._settings = settings
        self._namespaces = namespaces
        self._broker = broker
        self._turn = turn
        self._wheel = wheel
        self._slices = slices
        self._rates = rates
        self._clients = clients
        self._on_broken = on_broken
        self._on_occupancy = on_occupancy
        self._counters = counters
        #: the channels with subscribers or watchers on this hub, by name
        self.channels: dict[str, Channel] = {}
        #: the application's decisions
        self.hooks = Hooks()
        # Subscribes that it has not decided about yet.
        self._undecided: set[tuple[Client, str]] = set()
        #: whether publications are accepted; False once the service closes its clients
        self.accepting = True

    # Requests of callers.

    def publish(
        self,
        caller: Caller,
        channel: str,
        data: Data,
        done: Done[Position],
        info: Info | None = None,
        keep: bool = True,
        once: str = "",
    ) -> float:
        """Publish `data`, and return 0; or do nothing and return the seconds for which a caller that waits has to wait.

        `info` is the publisher as others see it, the caller itself without one. For `keep` and `once` see
        `Broker.publish`.
        A caller that does not wait gets TOO_MANY_REQUESTS over its rate, with the seconds as `retry_after`.
        """
        if caller.waits:
            # Over its rate it waits before anything is checked: a refused publication costs as much as another.
            wait = PAUSE if waits_for_too_much(caller) else self._rates.publish_wait(caller, data.size)
            if wait:
                return wait
        hook: Hook | None = None
        subscription = caller.subscriptions.get(channel)
        try:
            if not self.accepting:
                raise CommandError(SHUTTING_DOWN)
            if subscription is None:
                check_channel(channel)
            if caller.bounded and data.size > self._settings.max_message:
                raise CommandError(TOO_LARGE, limit=self._settings.max_message)
            if self.hooks.publish is not None and not caller.trusted:
                hook = self.hooks.publish if self._namespaces.options(channel).hook_publish else None
            if hook is not None:
                pass  # the application decides
            elif subscription is None:
                self._check_right(caller, Action.PUBLISH, channel)
            elif subscription.may_publish is None:
                self._check_right(caller, Action.PUBLISH, channel)
                subscription.may_publish = True
            if not (caller.waits or caller.trusted):
                wait = self._rates.publish_wait(caller, data.size)
                if wait:
                    raise CommandError(TOO_MANY_REQUESTS, retry_after=wait)
                if waits_for_too_much(caller):
                    raise too_many()
            if subscription is None:
                self._rates.admit_channel(channel, caller, len(self.channels))
        except CommandError as error:
            if not (caller.waits or caller.trusted):
                self._rates.publish_wait(caller, 0)  # a refusal counts as a publication, but never makes a debt
            done(error)
            return 0.0
        if hook is not None or caller.decisions:

            def publish(decided: Data, keep_it: bool) -> None:
                self._count_accepted(1, decided.size)
                self._broker.publish(channel, decided, info or caller.info_in(channel), done, keep and keep_it, once)

            ask_to_publish(hook, caller, channel, data, done, publish)
            return 0.0
        self._counters.publications += 1
        self._counters.publication_bytes += data.size
        self._broker.publish(channel, data, info or caller.info_in(channel), done, keep, once)
        return 0.0

    def publish_many(
        self, caller: Caller, channel: str, data: Sequence[Data], done: Callable[[int, Position | CommandError], None]
    ) -> int:
        """Publish as many of `data` as the caller's rate allows now, and return their number.

        `done` gets that number and the position of the last, or an error. With 0 it is not called, and the first is
        left to `publish`: the caller is over its rate, or each publication needs an answer of its own.
        """
        subscription = caller.subscriptions.get(channel)
        if not self.accepting or caller.decisions or not caller.waits:
            return 0
        if self.hooks.publish is not None and self._namespaces.options(channel).hook_publish:
            return 0
        if subscription is None:
            if not self.may(caller, Action.PUBLISH, channel) or not self._rates.knows(channel):
                return 0
        elif not subscription.may_publish:
            return 0
        count = self._rates.count_publications(caller, data)
        if count:
            self._count_accepted(count, sum(each.size for each in data[:count]))
            # A copy: the caller goes on with the others while the broker works.
            self._broker.publish_many(channel, data[:count], caller.info_in(channel), partial(done, count))
        return count

    def _count_accepted(self, count: int, size: int) -> None:
        self._counters.publications += count
        self._counters.publication_bytes += size

    def subscribe(
        self,
        client: Client,
        channel: str,
        format: Format,
        done: Done[History],
        since: Position | None = None,
        granted: Granted | SubscriptionToken | None = None,
    ) -> None:
        """Send `client` the publications of `channel`, written in `format`.

        `done` gets the publications after `since` (none without it), the position where the live ones start, and
        whether nothing is missing since. It is called before any live publication is sent. The join of an
        announced client is announced. `granted` is a token for the channel, or the server's decision: it lets the
        client in whatever the channel's options say. A client without the right to history gets no kept publication,
        but learns whether it missed one.
        """
        try:
            check_channel(channel)
            if channel in client.subscriptions or (client, channel) in self._undecided:
                raise CommandError(ALREADY_SUBSCRIBED, channel=channel)
            limit = self._settings.max_subscriptions
            if limit and len(client.subscriptions) >= limit and not client.trusted:
                raise CommandError(LIMIT_EXCEEDED, what="channels of one client")
            granted = granted or client.grants.get(channel)
            hook = self._subscribe_hook(client, channel) if granted is None else None
            if hook is None:
                self._check_right(client, Action.SUBSCRIBE, channel, granted is not None)
            elif waits_for_too_much(client):
                raise too_many()
            self._rates.admit_channel(channel, client, len(self.channels))
        except CommandError as error:
            done(error)
            return
        if hook is None:
            self._subscribe(client, channel, format, done, since, granted)
            return
        asked = (client, channel)
        self._undecided.add(asked)

        def decided(result: History | CommandError) -> None:
            if asked in self._undecided:
                self._undecided.discard(asked)
                done(result)

        def subscribe(reply: HookReply) -> None:
            if asked in self._undecided:
                self._undecided.discard(asked)
                grant = SubscriptionToken(channel, client.user, reply.expires_at, reply.info, reply.data)
                self._subscribe(client, channel, format, done, since, grant)

        ask_to_subscribe(hook, client, channel, decided, subscribe)

    def ask_to_renew(self, subscription: Subscription, decided: Callable[[HookReply | CommandError], None]) -> bool:
        """Ask the application whether an expired subscription goes on; False if it decides no more."""
        hook, channel = self.hooks.sub_refresh, subscription.channel
        if hook is None or not subscription.current or not self._namespaces.options(channel).hook_sub_refresh:
            return False

        def answered(reply: HookReply | CommandError) -> None:
            if subscription.current:
                if isinstance(reply, HookReply) and not reply.expired:
                    subscription.chan_info = reply.info or subscription.chan_info
                decided(reply)

        hook(request_of(subscription.client, channel), answered)
        return True

    def _end_when_expired(self, subscription: Subscription, at: float | None) -> None:
        """For a client without a session that sees to that."""
        if at is not None:
            SubscriptionExpiry(self._wheel, self._wall_time, subscription, at, self._renew)

    def _renew(self, subscription: Subscription) -> bool:
        def decided(reply: HookReply | CommandError) -> None:
            if isinstance(reply, CommandError) or reply.expired:
                subscription.client.close(SUBSCRIPTION_EXPIRED)
            else:
                self._end_when_expired(subscription, reply.expires_at)

        return self.ask_to_renew(subscription, decided)

    def _subscribe_hook(self, caller: Caller, channel: str) -> Hook | None:
        """Which hook decides whether `caller` may subscribe; None if the options of the channel do."""
        hook = self.hooks.subscribe
        if hook is None or caller.trusted or not self._namespaces.options(channel).hook_subscribe:
            return None
        return None if channel in caller.grants or caller.has_capability(Action.SUBSCRIBE, channel) else hook

    def _subscribe(
        self,
        client: Client,
        channel: str,
        format: Format,
        done: Done[History],
        since: Position | None,
        granted: Granted | SubscriptionToken | None,
    ) -> None:
        options = self._namespaces.options(channel)
        hidden = None
        if since is not None and not self.may_recover(client, channel, options):
            hidden, since = since, None

        def subscribed(result: History | CommandError) -> None:
            if not isinstance(result, CommandError):
                if hidden is not None:
                    top = result.position
                    result.recovered = hidden.offset == top.offset and hidden.epoch in ("", top.epoch)
                self._rates.charge_history(client, result)
                if not client.keeps_time:
                    self._end_when_expired(subscription, subscription.expires_at)
                if client.announced:
                    self.announce(client, channel, Join(subscription.info))
            done(result)

        chan_info, data = (granted.info, granted.data) if granted is not None else (b"", b"")
        expires_at = granted.expires_at if isinstance(granted, SubscriptionToken) else None
        subscription = Subscription(client, channel, format, since, subscribed, chan_info, data, expires_at)
        client.subscriptions[channel] = subscription
        if client.queue is not None:
            client.queue.count(MEMBERSHIP)
        self._channel(channel).add(subscription)

    def unsubscribe(self, client: Client, channel: str) -> bool:
        """Leave `channel`; False if the client is not in it. It still gets earlier publications."""
        subscription = client.subscriptions.pop(channel, None)
        if subscription is None:
            undecided = (client, channel) in self._undecided
            self._undecided.discard((client, channel))
            return undecided
        if client.queue is not None:
            client.queue.count(MEMBERSHIP)
        self._leave(subscription, finish=True)
        return True

    def leave_all(self, client: Client) -> None:
        """Leave every channel: the connection ended."""
        subscriptions = list(client.subscriptions.values())
        client.subscriptions.clear()
        if self._undecided:
            self._undecided = {each for each in self._undecided if each[0] is not client}
        for each in subscriptions:
            self._leave(each, finish=False)
        self._rates.forget(client)

    def presence(self, caller: Caller, channel: str, done: Done[list[Info]]) -> None:
        """The subscribers of a channel now, on all hubs. NOT_AVAILABLE if the channel's presence is off."""
        try:
            here = self.subscribers_here(caller, channel)
        except CommandError as error:
            done(error)
            return

        def known(result: list[Info] | CommandError) -> None:
            if not isinstance(result, CommandError):
                self._rates.charge(caller, len(result))
            done(result)

        if self._broker.presence is not None:
            self._broker.presence.get(channel, known)
        else:
            known(here)

    def subscribers_here(self, caller: Caller, channel: str) -> list[Info]:
        """The subscribers of a channel on this hub now. Raises CommandError as `presence` has it."""
        if not self._check(caller, Action.PRESENCE, channel).presence:
            raise CommandError(NOT_AVAILABLE, what="presence")
        found = self.channels.get(channel)
        return found.infos() if found is not None else []

    def history(
        self,
        caller: Caller,
        channel: str,
        done: Done[History],
        since: Position | None = None,
        limit: int = -1,
        reverse: bool = False,
        needs_history: bool = False,
    ) -> None:
        """A channel's history: see `Broker.history`.

        With `needs_history` a channel that keeps nothing is NOT_AVAILABLE; otherwise its history is empty.
        """
        try:
            options = self._check(caller, Action.HISTORY, channel)
            if needs_history and not options.keeps:
                raise CommandError(NOT_AVAILABLE, what="history")
            self._rates.admit_channel(channel, caller, len(self.channels))
        except CommandError as error:
            done(error)
            return
        self._broker.history(channel, since, limit, reverse, self._charging(caller, done))

    def wait_for_news(
        self, caller: Caller, channel: str, since: Position, timeout: float, done: Done[History]
    ) -> LongPoll | None:
        """Call `done` when something comes after `since`, or after `timeout` seconds. None if it was called already."""
        try:
            self._check(caller, Action.HISTORY, channel)
            self._rates.admit_channel(channel, caller, len(self.channels))
        except CommandError as error:
            done(error)
            return None
        charging = self._charging(caller, done)
        poll = LongPoll(self._channel(channel), self._broker, self._wheel, self._slices, caller.host, since, charging)
        poll.start(timeout)
        return None if poll.over else poll

    def remove_history(self, caller: Caller, channel: str, done: Done[None]) -> None:
        """Forget a channel's history, but not its position. Only for trusted callers."""
        try:
            options = self._namespaces.options(check_channel(channel))
            if not caller.trusted:
                raise CommandError(PERMISSION_DENIED, what="remove history of", channel=channel)
            if not options.keeps:
                raise CommandError(NOT_AVAILABLE, what="history")
        except CommandError as error:
            done(error)
            return
        self._broker.remove_history(channel, done)

    def check(self, caller: Caller, action: Action, channel: str, done: Done[ChannelOptions]) -> None:
        """The options of a channel, if the caller may do `action` there: for answers that are given before it acts."""
        try:
            if action is Action.SUBSCRIBE and self._subscribe_hook(caller, check_channel(channel)) is not None:
                options = self._namespaces.options(channel)  # the application is asked when the caller subscribes
            else:
                options = self._check(caller, action, channel)
        except CommandError as error:
            done(error)
            return
        done(options)

    @staticmethod
    def may_recover(client: Client, channel: str, options: ChannelOptions) -> bool:
        """Whether a subscriber gets missed publications."""
        return may_recover(channel, options, client.user) or client.has_capability(Action.HISTORY, channel)

    def may(self, caller: Caller, action: Action, channel: str) -> bool:
        """Whether the caller may do `action`."""
        try:
            self._check(caller, action, channel)
        except CommandError:
            return False
        return True

    # Joins, leaves and names.

    def announce(self, client: Client, channel: str, announcement: Announcement) -> None:
        """Tell subscribers of a client's join, leave or new name, where the channel's options want that.

        It counts as a further command of the client.
        """
        if self._namespaces.options(channel).join_leave:
            if client.queue is not None:
                client.queue.spend(1)
            self._broker.announce(channel, announcement)

    def update(self, client: Client) -> None:
        """Others see another name or user of a client from now on."""
        presence = self._broker.presence
        if presence is not None:
            for channel, subscription in client.subscriptions.items():
                if subscription.complete and self._namespaces.options(channel).presence:
                    presence.add(channel, subscription.info)

    def announce_client(self, client: Client) -> None:
        """Tell others of this client from now on, and of its join to the channels that it is in."""
        if not client.announced:
            client.announced = True
            for channel, subscription in client.subscriptions.items():
                if subscription.complete:
                    self.announce(client, channel, Join(subscription.info))

    def _leave(self, subscription: Subscription, finish: bool) -> None:
        completed = subscription.complete
        subscription.done = None
        channel = self.channels.get(subscription.channel)
        if channel is not None:
            channel.remove(subscription, finish=finish)
        client = subscription.client
        if completed and client.announced:
            self.announce(client, subscription.channel, Leave(subscription.info))

    # Channels.

    def _channel(self, name: str) -> Channel:
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(
                name,
                self._broker,
                self._turn,
                self._clock,
                self._clients,
                self._drop,
                self._on_broken,
                self._on_occupancy,
                self._counters,
                self._broker.presence if self._namespaces.options(name).presence else None,
            )
        return channel

    def _drop(self, channel: Channel) -> None:
        if self.channels.get(channel.name) is channel:
            del self.channels[channel.name]
            channel.stop()

    def stop(self) -> None:
        """Leave no delayed call behind."""
        for channel in list(self.channels.values()):
            self._drop(channel)

    # The checks.

    def _check(self, caller: Caller, action: Action, channel: str) -> ChannelOptions:
        """Check the name and the right. Raises CommandError: BAD_CHANNEL, UNKNOWN_CHANNEL, PERMISSION_DENIED."""
        return self._check_right(caller, action, check_channel(channel))

    def _check_right(self, caller: Caller, action: Action, channel: str, granted: bool = False) -> ChannelOptions:
        """The options of a channel. Raises CommandError: UNKNOWN_CHANNEL, PERMISSION_DENIED."""
        options = self._namespaces.options(channel)
        if not caller.trusted:
            granted = granted or channel in caller.grants
            subscribed = channel in caller.subscriptions
            may = allowed(action, channel, options, caller.user, subscribed, granted)
            if not may and not caller.has_capability(action, channel):
                raise CommandError(PERMISSION_DENIED, what=action.value, channel=channel)
        return options

    def _charging(self, caller: Caller, done: Done[History]) -> Done[History]:
        """Call `done` with a history after the caller was charged for it."""

        def known(result: History | CommandError) -> None:
            if not isinstance(result, CommandError):
                self._rates.charge_history(caller, result)
            done(result)

        return known
