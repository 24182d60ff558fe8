"""The channels on one Redis server: what a process asks for, and what comes back.

A channel that has subscribers here is followed: its messages come by Pub/Sub, and the shard knows the position that it
has passed on. After each loss of the connection, and now and then without one, it asks for what came after that
position. What is missing is passed on from the stream. If that is not possible, the receiver is told that the channel
lost publications.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from longconn.core.broker import Done, Receiver
from longconn.core.counters import BrokerCounters
from longconn.core.errors import BROKER_UNAVAILABLE, INTERNAL, CommandError
from longconn.core.ids import new_id
from longconn.core.log import about, log
from longconn.core.namespaces import Namespaces
from longconn.core.publication import Announcement, Data, History, Info, Position, Publication
from longconn.core.settings import Settings
from longconn.core.timers import Call, Clock, wall_time
from longconn.redis.connection import text
from longconn.redis.errors import BadRecordError, LinkLostError, RedisError, RefusedError
from longconn.redis.keys import RedisKeys
from longconn.redis.link import Link
from longconn.redis.members import Members
from longconn.redis.publishing import POSITION_TTL, Publishing
from longconn.redis.records import (
    read_announcement,
    read_publication,
    read_publications,
    read_unkept,
    write_announcement,
    write_publication,
    write_unkept,
)
from longconn.redis.scripts import READ, REMOVE

#: Seconds in which the position of each channel with subscribers is compared with the server's.
CHECK_INTERVAL = 30
#: Channels that are asked for in one turn.
_MOST = 500


class _Followed:
    """A channel that has subscribers here, and the position up to which its publications were passed on."""

    __slots__ = ("asked", "asking", "epoch", "name", "offset")

    def __init__(self, name: str, done: Done[None]) -> None:
        self.name = name
        #: called when the publications come; empty afterwards
        self.asked: list[Done[None]] = [done]
        #: whether an answer about the position is outstanding
        self.asking = False
        self.epoch = ""
        self.offset = 0


class Shard:
    """The channels on the server of `link`. `node` names this process: a name never used before.

    `on_change` is called when `problem` may be another.
    """

    def __init__(
        self,
        clock: Clock,
        link: Link,
        keys: RedisKeys,
        settings: Settings,
        node: str,
        counters: BrokerCounters,
        on_change: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._wall_time = wall_time(clock)
        self._link = link
        self._keys = keys
        self._namespaces: Namespaces = settings.effective_namespaces()
        self._keeps = bool(settings.history_bytes)
        self._on_change = on_change
        self._receiver: Receiver
        self._generation = ""
        self._followed: dict[str, _Followed] = {}
        # Channels whose position is to be compared, in order.
        self._unchecked: deque[_Followed] = deque()
        self._resuming: deque[_Followed] = deque()
        self._resume: Call | None = None
        self._second: Call | None = None
        self._counters = counters
        self._publishing = Publishing(
            clock, link, keys, node, counters, lambda: self._generation, settings.history_bytes
        )
        #: the members of channels
        self.members = Members(clock, link, keys, node)
        #: other subscriptions of Pub/Sub, by name
        self._topics: dict[bytes, Callable[[bytes], None]] = {}

    @property
    def problem(self) -> str:
        """Why publications are not taken; empty if they are."""
        return self._link.problem

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._second = self._clock.callLater(1, self._on_second)
        self._link.start(self)

    def stop(self) -> None:
        """Leave nothing behind."""
        for call in (self._second, self._resume):
            if call is not None:
                call.cancel()
        self._second = self._resume = None
        self.members.stop()
        self._publishing.stop()
        self._followed.clear()
        self._link.stop()

    # Requests.

    def subscribe(self, channel: str, done: Done[None]) -> None:
        """See `Broker.subscribe`."""
        if not self._link.up:
            done(CommandError(BROKER_UNAVAILABLE))
            return
        followed = self._followed.get(channel)
        if followed is None:
            followed = self._followed[channel] = _Followed(channel, done)
            self._follow(followed)
        elif followed.asked:
            followed.asked.append(done)
        else:
            done(None)

    def unsubscribe(self, channel: str) -> None:
        """See `Broker.unsubscribe`."""
        followed = self._followed.pop(channel, None)
        if followed is not None:
            self._link.command("UNSUBSCRIBE", self._keys.messages(channel))

    def publish(
        self, channel: str, data: Sequence[Data], info: Info, done: Done[Position], keep: bool = True, once: str = ""
    ) -> None:
        """See `Broker.publish`, `Broker.publish_many`."""
        records = [write_publication(each, info) for each in data]
        if not keep:
            records = [write_unkept(self._wall_time(), each) for each in records]
        options = self._namespaces.options(channel)
        ttl = math.ceil((options.history_ttl or 0) * 1000)
        kept = ((options.history_size or 0) if ttl and self._keeps else 0, max(1, ttl))
        self._publishing.publish(channel, records, kept if keep else None, done, once)

    def announce(self, channel: str, announcement: Announcement) -> None:
        """See `Broker.announce`."""
        self._link.command("PUBLISH", self._keys.messages(channel), write_announcement(announcement), done=_ignore)

    def history(self, channel: str, since: Position | None, limit: int, reverse: bool, done: Done[History]) -> None:
        """See `Broker.history`."""

        def answered(reply: Any) -> None:
            if isinstance(reply, RedisError):
                done(self._error(channel, reply))
                return
            try:
                found = _history(channel, reply)
            except BadRecordError as error:
                done(self._error(channel, error))
                return
            if since is not None:
                top = found.position
                recovered = since.epoch in ("", top.epoch) and int(reply[2]) - 1 <= since.offset <= top.offset
                found.recovered = recovered and (reverse or limit >= 0 or _follows(since.offset, found))
            done(found)

        self._read(channel, since, limit, reverse, answered)

    def remove_history(self, channel: str, done: Done[None]) -> None:
        """See `Broker.remove_history`."""

        def answered(reply: Any) -> None:
            done(self._error(channel, reply) if isinstance(reply, RedisError) else None)

        base = self._keys.base(channel)
        self._link.call(REMOVE, (base + "meta", base + "stream"), (), answered)

    def listen(self, topic: str, on_message: Callable[[bytes], None]) -> None:
        """Call `on_message` with each message of Pub/Sub on `topic`, from now on."""
        name = self._keys.topic(topic)
        self._topics[name.encode()] = on_message
        if self._link.up:
            self._link.command("SUBSCRIBE", name)

    def tell(self, topic: str, message: bytes, done: Callable[[int | None], None]) -> None:
        """Send a message of Pub/Sub. `done` gets the number of processes that got it, or None."""

        def answered(reply: Any) -> None:
            done(None if isinstance(reply, RedisError) else reply)

        self._link.command("PUBLISH", self._keys.topic(topic), message, done=answered)

    def _read(
        self, channel: str, since: Position | None, limit: int, reverse: bool, answered: Callable[[Any], None]
    ) -> None:
        base = self._keys.base(channel)
        ttl = self._namespaces.options(channel).history_ttl or 0
        epoch, offset = ("", -1) if since is None else (since.epoch, since.offset)
        arguments = (
            self._generation, new_id(), POSITION_TTL + math.ceil(ttl), max(1, math.ceil(ttl * 1000)), epoch, offset,
            limit, int(reverse),
        )  # fmt: skip
        self._link.call(READ, (base + "meta", base + "stream"), arguments, answered)

    def _error(self, channel: str, error: RedisError) -> CommandError:
        refused = isinstance(error, RefusedError) and error.code in ("WRONGTYPE", "ERR")
        if refused or isinstance(error, BadRecordError):
            log.error("a channel in Redis cannot be read: %s", error, extra=about("broker_refuses", channel=channel))
            return CommandError(INTERNAL)
        return CommandError(BROKER_UNAVAILABLE)

    # Channels that are followed.

    def _follow(self, followed: _Followed) -> None:
        """Ask for messages, and for what came since the position that is known."""
        self._link.command("SUBSCRIBE", self._keys.messages(followed.name))
        self._compare(followed)

    def _compare(self, followed: _Followed) -> None:
        followed.asking = True
        since = Position(followed.epoch, followed.offset) if followed.epoch else None

        def answered(reply: Any) -> None:
            if self._followed.get(followed.name) is followed:
                self._compared(followed, reply)

        self._read(followed.name, since, -1 if since is not None else 0, False, answered)

    def _compared(self, followed: _Followed, reply: Any) -> None:
        channel = followed.name
        if isinstance(reply, LinkLostError):
            if followed.asked:  # its first answer; later ones are asked for again
                self._give_up(followed, CommandError(BROKER_UNAVAILABLE))
            return
        try:
            if isinstance(reply, RedisError):
                raise reply
            found = _history(channel, reply)
        except RedisError as error:
            refusal = self._error(channel, error)
            if not followed.asked:
                self._lose(channel)
            self._give_up(followed, refusal)
            return
        followed.asking = False
        top = found.position
        before = Position(followed.epoch, followed.offset)
        followed.epoch, followed.offset = top.epoch, top.offset
        asked, followed.asked = followed.asked, []
        for done in asked:
            done(None)
        if asked:
            return
        # Some may have been passed on since they were asked for.
        found.publications = [each for each in found.publications if each.offset > before.offset]
        if before.epoch != top.epoch or before.offset > top.offset or not _follows(before.offset, found):
            self._lose(channel)
        elif found.publications:
            self._receiver.on_publications(channel, found.publications)

    def _lose(self, channel: str) -> None:
        self._counters.lost += 1
        self._receiver.on_lost(channel)

    def _give_up(self, followed: _Followed, error: CommandError) -> None:
        self._followed.pop(followed.name, None)
        self._link.command("UNSUBSCRIBE", self._keys.messages(followed.name))
        for done in followed.asked:
            done(error)

    # What the link tells.

    def on_up(self, generation: str) -> None:
        self._generation = generation
        for topic in self._topics:
            self._link.command("SUBSCRIBE", topic)
        self._resuming = deque(self._followed.values())
        self._resume_some()
        self._publishing.on_up()
        self.members.on_up()

    def _resume_some(self) -> None:
        """Follow a part of the channels again: there may be a hundred thousand."""
        self._resume = None
        for _ in range(min(_MOST, len(self._resuming))):
            followed = self._resuming.popleft()
            if self._followed.get(followed.name) is followed:
                self._follow(followed)
        if self._resuming:
            self._resume = self._clock.callLater(0, self._resume_some)

    def on_down(self, error: RedisError) -> None:
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        self._publishing.on_down()
        self._on_change()

    def on_refused(self) -> None:
        self._on_change()

    def on_beat(self) -> None:
        self._on_change()

    def on_message(self, channel: bytes, message: bytes) -> None:
        topic = self._topics.get(channel)
        if topic is not None:
            topic(message)
            return
        name = self._keys.channel(channel)
        followed = self._followed.get(name)
        if followed is None:
            return
        try:
            kind = message[:1]
            if kind == b"P":
                if not followed.asked:
                    self._pass_on(followed, read_publications(name, message))
            elif kind == b"V":
                if not followed.asked:
                    self._receiver.on_publication(read_unkept(name, followed.epoch, message))
            elif not followed.asked:
                self._receiver.on_announcement(name, read_announcement(message))
        except BadRecordError as error:
            log.error("a message from Redis cannot be read: %s", error, extra=about("broker_refuses", channel=name))

    def _pass_on(self, followed: _Followed, publications: list[Publication]) -> None:
        first, last = publications[0], publications[-1]
        if first.epoch != followed.epoch or first.offset > followed.offset + 1:
            if not followed.asking:
                self._compare(followed)
            return  # they are in the answer
        if first.offset <= followed.offset:
            publications = [each for each in publications if each.offset > followed.offset]
            if not publications:
                return
        followed.epoch, followed.offset = last.epoch, last.offset
        if len(publications) == 1:
            self._receiver.on_publication(last)
        else:
            self._receiver.on_publications(followed.name, publications)

    def _on_second(self) -> None:
        self._second = self._clock.callLater(1, self._on_second)
        self.members.on_second()
        if not self._link.up:
            return
        if not self._unchecked:
            self._unchecked = deque(self._followed.values())
        for _ in range(min(len(self._unchecked), len(self._followed) // CHECK_INTERVAL + 1)):
            followed = self._unchecked.popleft()
            if self._followed.get(followed.name) is followed and not (followed.asking or followed.asked):
                self._compare(followed)


def _history(channel: str, reply: Any) -> History:
    """The answer of `READ`. Raises BadRecordError."""
    epoch, offset, _, entries = reply
    epoch = text(epoch)
    publications = []
    for id, values in entries:
        number, _, time = id.partition(b"-")
        publications.append(read_publication(channel, epoch, int(number), values[1], int(time) / 1000))
    return History(publications, Position(epoch, int(offset)))


def _follows(offset: int, history: History) -> bool:
    """Whether nothing is missing from after `offset` to where the channel stands."""
    expected = range(offset + 1, history.position.offset + 1)
    return [each.offset for each in history.publications] == list(expected)


def _ignore(reply: object) -> None:
    """An announcement may be lost."""
