"""The broker in Redis, on one server or on several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

from twisted.internet.defer import Deferred, gatherResults

from longconn.core.broker import Done, Receiver
from longconn.core.counters import BrokerCounters
from longconn.core.ids import new_id
from longconn.core.publication import Announcement, Data, History, Info, Position
from longconn.core.settings import Settings
from longconn.core.timers import Clock
from longconn.redis.keys import RedisKeys
from longconn.redis.link import Link
from longconn.redis.members import Members
from longconn.redis.shard import Shard


class RedisBroker:
    """Keeps channels in Redis. Each of `links` has a part of the channels, chosen by name: each process must be given
    the same ones in the same order. `node` names this process in the servers.

    While a server is away, its channels take no publications and no new subscribers.
    """

    def __init__(self, clock: Clock, links: Sequence[tuple[Link, str]], settings: Settings) -> None:
        self._links = [link for link, _ in links]
        self.counters = BrokerCounters()
        # Requests are counted by name: under the name of a former process they would be taken for late ones.
        self.node = new_id()
        self._shards = [
            Shard(clock, link, RedisKeys(prefix), settings, self.node, self.counters, self._on_change)
            for link, prefix in links
        ]
        self._problem = ""
        self._receiver: Receiver
        self.presence = _ShardedPresence(self._shard)

    @property
    def kept_bytes(self) -> int:
        """None of the history is in this process."""
        return 0

    @property
    def problem(self) -> str:
        """Why publications are not taken; empty if they are."""
        return "; ".join(each.problem for each in self._shards if each.problem)

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._problem = self.problem

    def start(self) -> None:
        """Connect. Until there is a connection, each request is refused for now."""
        for each in self._shards:
            each.start(self._receiver)

    def stop(self) -> None:
        for each in self._shards:
            each.stop()

    def closed(self) -> Deferred[Any]:
        """Fires when there is no connection any more, after `stop`."""
        return gatherResults([each.closed() for each in self._links])

    def _shard(self, channel: str) -> Shard:
        shards = self._shards
        return shards[0] if len(shards) == 1 else shards[crc32(channel.encode()) % len(shards)]

    def subscribe(self, channel: str, done: Done[None]) -> None:
        self._shard(channel).subscribe(channel, done)

    def unsubscribe(self, channel: str) -> None:
        self._shard(channel).unsubscribe(channel)

    def publish(
        self, channel: str, data: Data, info: Info, done: Done[Position], keep: bool = True, once: str = ""
    ) -> None:
        self._shard(channel).publish(channel, (data,), info, done, keep, once)

    def publish_many(self, channel: str, data: Sequence[Data], info: Info, done: Done[Position]) -> None:
        self._shard(channel).publish(channel, data, info, done)

    def announce(self, channel: str, announcement: Announcement) -> None:
        self._shard(channel).announce(channel, announcement)

    def history(self, channel: str, since: Position | None, limit: int, reverse: bool, done: Done[History]) -> None:
        self._shard(channel).history(channel, since, limit, reverse, done)

    def remove_history(self, channel: str, done: Done[None]) -> None:
        self._shard(channel).remove_history(channel, done)

    def listen(self, topic: str, on_message: Callable[[bytes], None]) -> None:
        """Call `on_message` with each message that processes send each other on `topic`."""
        self._shards[0].listen(topic, on_message)

    def tell(self, topic: str, message: bytes, done: Callable[[int | None], None]) -> None:
        """Send a message to the processes that listen to `topic`. `done` gets their number, or None."""
        self._shards[0].tell(topic, message, done)

    def _on_change(self) -> None:
        problem = self.problem
        if problem != self._problem:
            self._problem = problem
            self._receiver.on_broker_change()


class _ShardedPresence:
    """The members of channels, each at its server."""

    def __init__(self, shard: Callable[[str], Shard]) -> None:
        self._shard = shard

    def _members(self, channel: str) -> Members:
        return self._shard(channel).members

    def add(self, channel: str, info: Info) -> None:
        self._members(channel).add(channel, info)

    def remove(self, channel: str, client: str) -> None:
        self._members(channel).remove(channel, client)

    def get(self, channel: str, done: Done[list[Info]]) -> None:
        self._members(channel).get(channel, done)
