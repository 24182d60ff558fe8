"""A batch of a channel on its way to the subscribers, over as many turns of the reactor as it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from longconn.core.client import Client, Format, Subscription
from longconn.core.counters import Counters
from longconn.core.publication import Event, Publication

#: Microseconds that a subscriber takes, and bytes that take one.
_SUBSCRIBER_COST = 5
_BYTES_PER_MICROSECOND = 300


class Override:
    """How one subscriber's view of a batch differs: it starts at `start`, and some events are replaced or hidden."""

    __slots__ = ("replaced", "start")

    def __init__(self) -> None:
        self.start = 0
        #: by index in the batch; None hides the event
        self.replaced: dict[int, Event | None] = {}

    def events(self, batch: list[Event]) -> list[Event]:
        """The events of `batch` that the subscriber gets."""
        seen = []
        for index in range(self.start, len(batch)):
            event = self.replaced.get(index, batch[index])
            if event is not None:
                seen.append(event)
        return seen


class Sending:
    """A batch on its way to the subscribers that there were when it was flushed, in the turn `number`."""

    __slots__ = (
        "_batch",
        "_counters",
        "_encoded",
        "_left",
        "_name",
        "_on_broken",
        "_overrides",
        "groups",
        "number",
        "publications",
    )

    def __init__(
        self,
        name: str,
        number: int,
        batch: list[Event],
        overrides: dict[Subscription, Override],
        groups: dict[Format, dict[Subscription, None]],
        on_broken: Callable[[Client], None],
        counters: Counters,
    ) -> None:
        self._name = name
        self.number = number
        self._batch = batch
        self._overrides = overrides
        self._on_broken = on_broken
        self._counters = counters
        #: the number of them in the batch
        self.publications = sum(isinstance(each, Publication) for each in batch)
        counters.batches.observe(len(batch))
        # Copies: a write may close a subscriber, which then leaves its group. The next subscriber is the last.
        self.groups = {format: list(reversed(group)) for format, group in groups.items()}
        self._encoded: dict[tuple[Any, ...], Any] = {}
        # Those that are left, while they are asked for.
        self._left: set[Subscription] | None = None

    def send(self, room: int, members: dict[Format, dict[Subscription, None]] | None) -> int:
        """Send for about `room` microseconds, to those that are still `members` (None: to all), and return the rest.

        `groups` has those to whom it was not sent for lack of room.
        """
        self._left = None
        for format, subscribers in tuple(self.groups.items()):
            if room < 0:
                break
            try:
                shared = self._encode(format)
            except Exception:  # a broken wire format must not keep the batch from the others
                del self.groups[format]
                for each in reversed(subscribers):
                    self._on_broken(each.client)
                continue
            cost = _SUBSCRIBER_COST + (len(shared) // _BYTES_PER_MICROSECOND if shared else 0)
            count = min(room // cost + 1, len(subscribers))
            some = subscribers[: -count - 1 : -1]
            del subscribers[-count:]
            if not subscribers:
                del self.groups[format]
            room -= count * cost
            if members is not None:
                group = members.get(format, {})
                some = [each for each in some if each in group]
            if shared:
                self._counters.deliveries += self.publications * len(some)
                self._counters.delivery_bytes += len(shared) * len(some)
            self._write(format, shared, some)
        return room

    def _write(self, format: Format, shared: Any, subscribers: list[Subscription]) -> None:
        overrides = self._overrides
        data = shared
        for subscription in subscribers:
            try:
                if overrides:
                    data = self._encode(format, overrides.get(subscription))
                if data:
                    subscription.write(data)
            except Exception:  # nor must a broken client
                self._on_broken(subscription.client)

    def send_now(self, subscription: Subscription) -> None:
        """Send to a subscriber now, if it is left. It is about to be no member any more."""
        if self._left is None:
            self._left = {each for subscribers in self.groups.values() for each in subscribers}
        if subscription in self._left:
            self._left.discard(subscription)
            data = self._encode(subscription.format, self._overrides.get(subscription))
            if data:
                subscription.write(data)

    def _encode(self, format: Format, override: Override | None = None) -> Any:
        """The batch in a wire format, as one subscriber sees it. All who joined in one second see the same."""
        key: tuple[Any, ...] = (format,)
        if override is not None:
            key = (format, override.start, *((index, id(event)) for index, event in override.replaced.items()))
        if key not in self._encoded:
            events = self._batch if override is None else override.events(self._batch)
            self._encoded[key] = format.encode(self._name, events) if events else b""
        return self._encoded[key]
