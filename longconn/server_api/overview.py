"""What an operator looks at: clients and channels in some order, and the numbers of the last minutes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from longconn.core.channel import Channel
from longconn.core.client import Client
from longconn.core.errors import BAD_REQUEST, CommandError
from longconn.core.hub import Hub

#: Seconds between two samples, and how many are kept: a quarter of an hour.
INTERVAL = 5
SAMPLES = 180
#: Clients or channels that one answer has at most, and the names of channels that a client is listed with.
MOST = 1_000
_NAMES = 20

#: The orders of clients and of channels: each is a number, and the largest come first.
CLIENT_ORDERS: Mapping[str, Callable[[Client], float]] = {
    "queued": lambda client: client.outlet.queued,
    "channels": lambda client: len(client.subscriptions),
    "oldest": lambda client: -client.connected_at,
    "newest": lambda client: client.connected_at,
}
CHANNEL_ORDERS: Mapping[str, Callable[[Channel], float]] = {
    "clients": len,
    "publications": lambda channel: channel.publications,
}


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """A client as an operator sees it: `age` in seconds, `queued` in bytes, some of its `channels`."""

    client: str
    name: str
    user: str
    address: str
    protocol: str
    age: int
    queued: int
    num_channels: int
    channels: list[str]

    @classmethod
    def of(cls, client: Client, now: float) -> ClientInfo:
        """The client as it is at the time `now` of the hub's clock."""
        names = list(client.subscriptions)[:_NAMES]
        age, queued = int(now - client.connected_at), client.outlet.queued
        return cls(
            client.id, client.name, client.user, client.address, client.protocol, age, queued,
            len(client.subscriptions), names,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChannelInfo:
    """A channel: its subscribers, and the publications that it sent to them since it had the first one."""

    name: str
    num_clients: int
    num_publications: int


def rank_of(orders: Mapping[str, Callable[[Any], float]], name: str) -> Callable[[Any], float]:
    """The order called `name`. Raises CommandError(BAD_REQUEST) if there is none."""
    found = orders.get(name)
    if found is None:
        raise CommandError(BAD_REQUEST, what=f"an order is {', '.join(orders)}")
    return found


def check_limit(limit: int) -> None:
    """Raises CommandError(BAD_REQUEST) for a limit that no answer has."""
    if not 0 < limit <= MOST:
        raise CommandError(BAD_REQUEST, what=f"a limit is 1 to {MOST}")


def is_meant(client: Client, text: str) -> bool:
    """Whether a client's id, name, user, address, protocol or a channel has `text` in it, in any case."""
    found = (client.id, client.name, client.user, client.address, client.protocol, *client.subscriptions)
    wanted = text.casefold()
    return any(wanted in each.casefold() for each in found)


class Recent:
    """Numbers of a hub in the last quarter of an hour, a sample every five seconds.

    `measured` is to be called once a second with the seconds by which the reactor is late.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._ticks = 0
        self._lag = 0.0
        self._before = (0, 0)
        self._samples: deque[tuple[float, ...]] = deque(maxlen=SAMPLES)

    def measured(self, lag: float) -> None:
        """A second is over, and the reactor was late by `lag` seconds."""
        self._lag = max(self._lag, lag)
        self._ticks += 1
        if self._ticks % INTERVAL:
            return
        hub, counters = self._hub, self._hub.counters
        publications, deliveries = counters.publications, counters.deliveries
        self._samples.append(
            (
                hub.wall_time(),
                len(hub.clients),
                (publications - self._before[0]) / INTERVAL,
                (deliveries - self._before[1]) / INTERVAL,
                hub.queued,
                self._lag,
            )
        )
        self._before = (publications, deliveries)
        self._lag = 0.0

    def columns(self) -> dict[str, Any]:
        """The samples by column, the oldest first: `time` in seconds since 1970, `clients`, `publications` and
        `deliveries` a second, `queued` in bytes, `lag` in seconds: the largest of the interval."""
        names = ("time", "clients", "publications", "deliveries", "queued", "lag")
        columns = zip(*self._samples, strict=True) if self._samples else ((),) * len(names)
        return {"interval": INTERVAL, **{name: list(each) for name, each in zip(names, columns, strict=True)}}
