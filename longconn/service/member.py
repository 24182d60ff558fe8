"""A member of channels inside the process: the program that embeds the hub reads and publishes like any client.

Its outlet takes events instead of bytes. The channel makes the batch of events once for all local members, as it
encodes it once for each wire format. Nothing of the program runs while a channel sends: callbacks and readers are
called when the turn of the reactor ends, after every channel was flushed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar, overload

from twisted.internet.defer import Deferred

from longconn.core.broker import Done
from longconn.core.client import Client, TrustedClient
from longconn.core.disconnects import CLOSED, SHUTDOWN, SLOW, Disconnect
from longconn.core.errors import NOT_SUBSCRIBED, CommandError, LongConnError
from longconn.core.hub import Hub
from longconn.core.log import about, log
from longconn.core.publication import Data, Event, History, Info, Position, Publication
from longconn.service.awaitable import AwaitableDeferred

_T = TypeVar("_T")
_E = TypeVar("_E")

#: Bytes that an unread event counts against `Settings.send_queue`, beside its data.
_EVENT_BYTES = 40


@dataclass(frozen=True, slots=True)
class Lost:
    """The publications after `position` cannot be recovered; those after `resumed` follow."""

    channel: str
    position: Position
    resumed: Position


class MemberClosed(LongConnError):
    """The server closed the member, for the reason `disconnect`; or the member was closed before it was asked."""

    def __init__(self, name: str, disconnect: Disconnect) -> None:
        super().__init__(f"member {name} is closed: {disconnect.text} ({disconnect.code})")
        self.disconnect = disconnect


@dataclass(frozen=True, slots=True)
class _MemberFormat:
    """A wire format without encoding: a channel's name and its events. Only publications without `join_leave`."""

    tells_own_join: ClassVar[bool] = False
    join_leave: bool

    def encode(self, channel: str, events: Sequence[Event]) -> tuple[str, Sequence[Event]] | None:
        found = events if self.join_leave else [each for each in events if isinstance(each, Publication)]
        return (channel, found) if found else None


# Deferreds that have not fired; dicts keep order.
_Waiting = dict[Deferred[_T], None]


def _wait(waiting: _Waiting[_T]) -> AwaitableDeferred[_T]:
    """A Deferred that `_fire` fires. It is forgotten when it is cancelled."""
    answer: AwaitableDeferred[_T] = AwaitableDeferred(lambda each: waiting.pop(each, None))
    waiting[answer] = None
    return answer


def _fire(waiting: _Waiting[_T], result: _T) -> None:
    """Fire those that wait now. One of them may cancel another, or wait again."""
    for each in tuple(waiting):
        if each in waiting:
            del waiting[each]
            each.callback(result)


class MemberSubscription(Generic[_E]):
    """A member's subscription to `channel`: an asynchronous iterator of its events.

    The events are publications. With `since`, a `Lost` comes first if not all since then can be recovered. With
    `join_leave`, `Join`, `Leave`, `Rename` and `Counts` of `longconn.core.publication` come, but not the member's own
    join.

    The iteration ends after the member left the channel or was closed by the program, and unread events are dropped.
    It ends when the service shuts down or the hub stops, after the unread events. It raises CommandError if the
    channel refuses the member, and MemberClosed if the member is closed for any other reason: after the unread
    events, but at once if it was slow. A loop that breaks does not leave: another loop goes on.
    """

    def __init__(
        self, outlet: _MemberOutlet, channel: str, callback: Callable[[Any], object] | None, since: Position | None
    ) -> None:
        self.channel = channel
        #: the position after the last event that was given out; None before the first one and the subscribe
        self.position = since
        self._outlet = outlet
        self._callback = callback
        self._since = since
        self._complete = False
        # Events, and the bytes that each counts: 0 in a backlog and for a callback.
        self._unread: deque[tuple[Any, int]] = deque()
        self._waiting: _Waiting[None] = {}
        # Makes the exception that ends the iteration; None until the end. An exception that is kept and raised is
        # part of a reference cycle, by its traceback.
        self._make_end: Callable[[], Exception] | None = None

    # For programs.

    def __aiter__(self) -> MemberSubscription[_E]:
        return self

    async def __anext__(self) -> _E:
        if self._callback is not None:
            raise TypeError("this subscription has a callback")
        while not self._unread:
            if self._make_end is not None:
                raise self._make_end()
            await _wait(self._waiting)
        event: _E = self._take()
        return event

    async def aclose(self) -> None:
        """Leave the channel. `contextlib.aclosing` calls it."""
        self._outlet.leave(self)

    async def subscribed(self) -> None:
        """Wait until the subscribe is complete. Raises CommandError if it is refused or left, or MemberClosed."""
        while not self._complete and self._make_end is None:
            await _wait(self._waiting)
        if not self._complete and self._make_end is not None:
            if self._make_end is StopAsyncIteration:
                raise CommandError(NOT_SUBSCRIBED, channel=self.channel)
            raise self._make_end()

    def _take(self) -> Any:
        event, size = self._unread.popleft()
        if size:
            self._outlet.count(-size)
        if isinstance(event, Lost):
            self.position = event.resumed
        elif isinstance(event, Publication) and event.offset:
            self.position = Position(event.epoch, event.offset)
        return event

    # For the outlet.

    def on_subscribed(self, result: History | CommandError) -> None:
        """The answer to the subscribe."""
        if isinstance(result, CommandError):
            if self._callback is not None:
                log.error(
                    "a local member could not subscribe to %s: %s",
                    self.channel,
                    result,
                    extra=about("internal_error", protocol="local", channel=self.channel),
                )
            self._outlet.forget(self)
            self.end(partial(CommandError, result.reason, **result.values))
            return
        self._complete = True
        found: list[Any] = list(result.publications)
        if self._since is not None and not result.recovered:
            resumed = Position(found[0].epoch, found[0].offset - 1) if found else result.position
            found.insert(0, Lost(self.channel, self._since, resumed))
        if not found:
            self.position = result.position
        self._unread.extend((each, 0) for each in found)
        self._outlet.tell(self)

    def put(self, events: Iterable[Event]) -> None:
        """Live events came."""
        self._outlet.tell(self)
        for event in events:
            size = 0
            if self._callback is None:
                size = _EVENT_BYTES + (event.data.size if isinstance(event, Publication) else 0)
            self._unread.append((event, size))
            if size:
                self._outlet.count(size)
            if self._make_end is not None:
                return  # it was one too many

    def end(self, make_end: Callable[[], Exception], drop: bool = False) -> None:
        """No event follows. With `drop`, unread ones are forgotten."""
        self._make_end = make_end
        if drop:
            unread = sum(size for _, size in self._unread)
            self._unread.clear()
            if unread:
                self._outlet.count(-unread)
        self._outlet.tell(self)

    def deliver(self) -> None:
        """The turn ends: wake the readers, or call the callback."""
        _fire(self._waiting, None)
        while self._callback is not None and self._unread:
            try:
                self._callback(self._take())
            except Exception:
                # To go on without this event would be a silent loss. Other channels have callbacks of their own.
                log.exception(
                    "a local member leaves %s: its callback raised",
                    self.channel,
                    extra=about("internal_error", protocol="local", channel=self.channel),
                )
                self._outlet.leave(self)


class _MemberOutlet:
    """The outlet of a local member (see `longconn.core.client.Outlet`): sorts events by subscription."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        #: None before the member is connected, and after it is closed
        self.client: Client | None = None
        #: bytes of unread events
        self.queued = 0
        self.subscriptions: dict[str, MemberSubscription[Any]] = {}
        #: why the member was closed
        self.disconnect: Disconnect | None = None
        self.waiting_for_close: _Waiting[Disconnect] = {}
        # Subscriptions to deliver to when the turn ends; and whether the turn knows.
        self._news: dict[MemberSubscription[Any], None] = {}
        self._scheduled = False

    def write(self, data: Any) -> None:
        """Take the events of a batch, as `_MemberFormat` made them."""
        channel, events = data
        subscription = self.subscriptions.get(channel)
        if subscription is not None:
            subscription.put(events)

    def write_backlog(self, source: Iterator[Any]) -> None:
        for each in source:
            self.write(each)

    def count(self, amount: int) -> None:
        """`amount` bytes more, or fewer, are unread. The member is closed if that is too much."""
        if self.disconnect is not None:
            return
        self.queued += amount
        if self.queued:
            self._hub.waiting.add(self)
        else:
            self._hub.waiting.discard(self)
        self._hub.on_queued(self, amount)
        if self.queued > self._hub.settings.send_queue:
            self.close(SLOW)

    def tell(self, subscription: MemberSubscription[Any]) -> None:
        """Deliver to `subscription` when the turn ends."""
        self._news[subscription] = None
        self._deliver_later()

    def _deliver_later(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._hub.turn.soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        news, self._news = self._news, {}
        for each in news:
            each.deliver()
        if self.disconnect is not None:
            self._hub.stop_watchers.discard(self.on_stop)
            _fire(self.waiting_for_close, self.disconnect)

    def forget(self, subscription: MemberSubscription[Any]) -> bool:
        """Forget a subscription; False if it was not known."""
        known = self.subscriptions.get(subscription.channel) is subscription
        if known:
            del self.subscriptions[subscription.channel]
        return known

    def leave(self, subscription: MemberSubscription[Any]) -> None:
        """Leave the channel of `subscription`, if it is not left yet."""
        if self.forget(subscription):
            subscription.end(StopAsyncIteration, drop=True)
            if self.client is not None:
                self._hub.door.unsubscribe(self.client, subscription.channel)

    def close(self, disconnect: Disconnect) -> None:
        """End the member for a numbered reason. A second call has no effect."""
        client = self.client
        if client is None:
            return
        slow = disconnect == SLOW
        if slow:
            log.warning(
                "%s client %s from %s is disconnected (%d %s) with %d bytes waiting",
                client.protocol, client.name, client.address, disconnect.code, disconnect.text, self.queued,
                extra=about("client_slow", client, code=disconnect.code),
            )  # fmt: skip
        client.closing(disconnect)
        self.count(-self.queued)
        self.disconnect = disconnect
        self.client = None
        ends = disconnect in (CLOSED, SHUTDOWN)
        make_end = StopAsyncIteration if ends else partial(MemberClosed, client.name, disconnect)
        subscriptions = list(self.subscriptions.values())
        self.subscriptions.clear()
        for each in subscriptions:
            each.end(make_end, drop=slow or disconnect == CLOSED)
        client.gone()
        self._deliver_later()

    def on_stop(self) -> None:
        """The hub stops: this is the last turn."""
        self.close(SHUTDOWN)
        self._deliver()


class LocalMember:
    """A client of `hub` that is part of the program: other clients see `name` join, speak and leave.

    It counts as a client, has an `id`, is in the presence of its channels, and is closed as clients are: by the server
    API, at shutdown, and when it does not read (`Settings.send_queue`). It may do everything, and no rate applies.
    Raises CommandError: BAD_NAME, NAME_TAKEN, LIMIT_EXCEEDED where there are too many clients.

    Returned objects can be awaited by coroutines of Twisted and, on the asyncio reactor, of asyncio. Requests fail with
    CommandError, and with MemberClosed after the end.
    """

    def __init__(self, hub: Hub, name: str) -> None:
        self._hub = hub
        outlet = self._outlet = _MemberOutlet(hub)
        client = outlet.client = hub.connect(outlet, "local", "", "this process", name, TrustedClient)
        client.announced = True
        hub.stop_watchers.add(outlet.on_stop)
        self.name = name
        self.id = client.id

    @property
    def disconnect(self) -> Disconnect | None:
        """Why the member was closed; None while it is not."""
        return self._outlet.disconnect

    @overload
    def subscribe(
        self, channel: str, callback: Callable[[Publication], object] | None = None
    ) -> MemberSubscription[Publication]: ...

    @overload
    def subscribe(
        self,
        channel: str,
        callback: Callable[[Event | Lost], object] | None = None,
        *,
        since: Position | None = None,
        join_leave: bool = False,
    ) -> MemberSubscription[Event | Lost]: ...

    def subscribe(
        self,
        channel: str,
        callback: Callable[[Any], object] | None = None,
        *,
        since: Position | None = None,
        join_leave: bool = False,
    ) -> MemberSubscription[Any]:
        """Subscribe now, and give the channel's events to `callback`, or to those who iterate over the subscription.

        `since`: first the publications after that position. `join_leave`: joins, leaves and new names, too. The
        member's own publications come back as everyone's; `publication.info.client` is its `id` then.

        Unread events are bounded by `Settings.send_queue`, the backlog excepted; beyond, the member is closed with 3008
        (slow). An exception of `callback` is logged, and the member leaves the channel.
        """
        outlet = self._outlet
        subscription: MemberSubscription[Any] = MemberSubscription(outlet, channel, callback, since)
        if outlet.client is None:
            subscription.end(partial(MemberClosed, self.name, outlet.disconnect or CLOSED))
        else:
            # The door refuses a second subscription, and the first one stays.
            outlet.subscriptions.setdefault(channel, subscription)
            format = _MemberFormat(join_leave)
            self._hub.door.subscribe(outlet.client, channel, format, subscription.on_subscribed, since)
        return subscription

    def leave(self, channel: str) -> bool:
        """Leave a channel: its subscription gives nothing more. False if the member is not in it."""
        subscription = self._outlet.subscriptions.get(channel)
        if subscription is not None:
            self._outlet.leave(subscription)
        return subscription is not None

    def publish(self, channel: str, data: Data | str) -> AwaitableDeferred[Position]:
        """Publish text, or `Data`: `Data.of_value` makes it from a Python value. Fires with the position."""

        def publish(client: Client, done: Done[Position]) -> None:
            self._hub.door.publish(client, channel, Data.of_text(data) if isinstance(data, str) else data, done)

        return self._ask(publish)

    def presence(self, channel: str) -> AwaitableDeferred[list[Info]]:
        """The subscribers of a channel on this hub now."""
        return self._ask(lambda client, done: self._hub.door.presence(client, channel, done))

    def history(self, channel: str, since: Position | None = None, limit: int = -1) -> AwaitableDeferred[History]:
        """At most `limit` publications after `since`. 0: only the position; -1: all that are kept."""
        return self._ask(lambda client, done: self._hub.door.history(client, channel, done, since, limit))

    def _ask(self, ask: Callable[[Client, Done[_T]], object]) -> AwaitableDeferred[_T]:
        answer: AwaitableDeferred[_T] = AwaitableDeferred()

        def done(result: _T | CommandError) -> None:
            if isinstance(result, CommandError):
                answer.errback(result)
            else:
                answer.callback(result)

        client = self._outlet.client
        if client is None:
            answer.errback(MemberClosed(self.name, self._outlet.disconnect or CLOSED))
        else:
            try:
                ask(client, done)
            except CommandError as error:
                answer.errback(error)
        return answer

    def close(self) -> None:
        """Leave every channel and the hub. The name is free again."""
        self._outlet.close(CLOSED)

    def closed(self) -> AwaitableDeferred[Disconnect]:
        """Fires with the reason when the member is closed."""
        answer = _wait(self._outlet.waiting_for_close)
        if self._outlet.disconnect is not None:
            _fire(self._outlet.waiting_for_close, self._outlet.disconnect)
        return answer
