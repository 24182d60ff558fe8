"""Publishes in Redis: for each channel one request at a time, with all that came in the meantime.

A request whose answer is lost with the connection is asked again, and the script answers it once (`PUBLISH`). So its
publications are made once, or the caller is told after `TIMEOUT` seconds that the outcome is not known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from longconn.core.broker import Done
from longconn.core.counters import BrokerCounters
from longconn.core.errors import BROKER_UNAVAILABLE, INTERNAL, CommandError
from longconn.core.ids import new_id
from longconn.core.log import about, log
from longconn.core.publication import Position
from longconn.core.timers import Call, Clock
from longconn.redis.connection import text
from longconn.redis.errors import LinkLostError, RedisError, RefusedError
from longconn.redis.keys import RedisKeys
from longconn.redis.link import Link
from longconn.redis.scripts import PUBLISH, PUBLISH_UNKEPT

#: Seconds for which a channel's epoch and offset outlive its subscribers and its history.
POSITION_TTL = 3_600
#: Seconds in which a publication is answered.
TIMEOUT = 5.0
#: Bytes that wait for the server in all.
MOST_WAITING = 32 * 1024 * 1024
#: Records and bytes of one request. A script keeps the server from all other work.
_MOST_RECORDS = 250
_MOST_BYTES = 128 * 1024
#: Seconds for which the server remembers the answer to a request.
_REMEMBERED = 60
#: Seconds for which it remembers the answer to a publication with an idempotency key.
_ONCE = 300
#: Bytes that a record needs in a request beside itself.
_OVERHEAD = 60
#: The server took nothing, and may later (redis, `server.c`, `shared` errors).
_PASSING = frozenset(
    ("OOM", "READONLY", "MISCONF", "LOADING", "BUSY", "NOREPLICAS", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN")
)


class Batch:
    """What one caller publishes in a channel at once: all of it, or nothing.

    `kept` has what is kept with the channel: publications at most, and milliseconds; None for a publication that is
    only brought to those who are there. `once` is its idempotency key.
    """

    __slots__ = ("done", "expires_at", "kept", "once", "records", "size")

    def __init__(
        self, records: list[bytes], kept: tuple[int, int] | None, once: str, expires_at: float, done: Done[Position]
    ) -> None:
        self.records = records
        self.size = sum(map(len, records)) + _OVERHEAD * len(records)
        self.kept = kept
        self.once = once
        self.expires_at = expires_at
        #: called once; then None
        self.done: Done[Position] | None = done

    def end(self, result: Position | CommandError) -> None:
        done, self.done = self.done, None
        if done is not None:
            done(result)


class _ChannelQueue:
    """What is to be published in one channel, and the request that is under way."""

    __slots__ = ("asked", "asked_at", "batches", "request")

    def __init__(self) -> None:
        self.batches: deque[Batch] = deque()
        self.asked: list[Batch] = []
        self.request = ""
        self.asked_at = 0.0


class Publishing:
    """The publications of one process that go to one server. `node` names the process: a name never used before.

    `generation` tells that of the server's data, `most_bytes` is the bound of what a channel keeps.
    """

    def __init__(
        self,
        clock: Clock,
        link: Link,
        keys: RedisKeys,
        node: str,
        counters: BrokerCounters,
        generation: Callable[[], str],
        most_bytes: int,
    ) -> None:
        self._clock = clock
        self._link = link
        self._keys = keys
        self._node = node
        self._counters = counters
        self._generation = generation
        self._most_bytes = most_bytes
        self._queues: dict[str, _ChannelQueue] = {}
        self._dirty: dict[str, None] = {}
        self._size = 0
        self._requests = 0
        self._deadlines: deque[Batch] = deque()
        self._flush: Call | None = None
        self._expiry: Call | None = None
        self._logged_at = -60.0

    def publish(
        self, channel: str, records: list[bytes], kept: tuple[int, int] | None, done: Done[Position], once: str = ""
    ) -> None:
        """Publish `records` in order; see `Batch`. `done` gets the position of the last."""
        batch = Batch(records, kept, once, self._clock.seconds() + TIMEOUT, done)
        if not self._link.up or self._link.problem or self._size + batch.size > MOST_WAITING:
            self._counters.failures["away"] += 1
            batch.end(CommandError(BROKER_UNAVAILABLE))
            return
        self._size += batch.size
        while self._deadlines and self._deadlines[0].done is None:
            self._deadlines.popleft()
        self._deadlines.append(batch)
        if self._expiry is None:
            self._expiry = self._clock.callLater(TIMEOUT, self._on_expiry)
        queue = self._queues.get(channel)
        if queue is None:
            queue = self._queues[channel] = _ChannelQueue()
        queue.batches.append(batch)
        if not queue.asked:
            self._ask_later(channel)

    def on_up(self) -> None:
        """There is a connection again: ask for the answers that were lost."""
        for channel, queue in tuple(self._queues.items()):
            if queue.asked:
                self._send(channel, queue)

    def on_down(self) -> None:
        """The connection is lost: refuse what was not sent."""
        for channel, queue in tuple(self._queues.items()):
            batches, queue.batches = queue.batches, deque()
            for each in batches:
                self._counters.failures["away"] += 1
                self._end(each, CommandError(BROKER_UNAVAILABLE))
            if not queue.asked:
                self._queues.pop(channel, None)

    def stop(self) -> None:
        """Leave no delayed call behind. What is not answered is refused."""
        for call in (self._flush, self._expiry):
            if call is not None:
                call.cancel()
        self._flush = self._expiry = None
        queues, self._queues = self._queues, {}
        for queue in queues.values():
            for batch in (*queue.asked, *queue.batches):
                self._end(batch, CommandError(BROKER_UNAVAILABLE))

    # Requests.

    def _ask_later(self, channel: str) -> None:
        self._dirty[channel] = None
        if self._flush is None:
            self._flush = self._clock.callLater(0, self._ask_all)

    def _ask_all(self) -> None:
        self._flush = None
        dirty, self._dirty = self._dirty, {}
        for channel in dirty:
            queue = self._queues.get(channel)
            if queue is not None and not queue.asked:
                self._ask(channel, queue)

    def _ask(self, channel: str, queue: _ChannelQueue) -> None:
        """Take what fits from the queue, and ask for it. Batches of one request are kept alike."""
        size = count = 0
        while queue.batches:
            batch = queue.batches[0]
            size, count = size + batch.size, count + len(batch.records)
            first = queue.asked[0] if queue.asked else batch
            full = count > _MOST_RECORDS or size > _MOST_BYTES or batch.once or first.once
            if batch.kept != first.kept or (queue.asked and full):
                break
            queue.batches.popleft()
            if batch.done is not None:  # else its time is over
                queue.asked.append(batch)
        if not queue.asked:
            del self._queues[channel]
            return
        self._requests += 1
        queue.request = f"{self._node}-{self._requests}"
        queue.asked_at = self._clock.seconds()
        self._send(channel, queue)

    def _send(self, channel: str, queue: _ChannelQueue) -> None:
        asked = queue.asked
        request = queue.request

        def answered(reply: Any) -> None:
            if self._queues.get(channel) is queue and queue.request == request and queue.asked:
                self._answered(channel, queue, reply)

        kept, once = asked[0].kept, asked[0].once
        messages = self._keys.messages(channel)
        base = self._keys.base(channel)
        if once:
            mark, remembered, answer = "once", _ONCE, f"{base}once:key:{once}"
        else:
            mark, remembered, answer = request, _REMEMBERED, f"{base}once:{self._node}"
        if kept is None and once:
            self._link.call(PUBLISH_UNKEPT, (answer,), (remembered, messages, asked[0].records[0]), answered)
            return
        if kept is None:
            left = len(asked)

            def one_answered(reply: Any) -> None:
                nonlocal left
                left -= 1
                if not left or isinstance(reply, LinkLostError):
                    answered(reply)

            for each in asked:
                self._link.command("PUBLISH", messages, each.records[0], done=one_answered)
            return
        most, ttl = kept
        head = (
            self._generation(), new_id(), POSITION_TTL + ttl // 1000, ttl, mark, remembered, most,
            self._most_bytes, messages,
        )  # fmt: skip
        records = [record for batch in asked for record in batch.records]
        keys = (base + "meta", base + "stream", answer)
        self._link.call(PUBLISH, keys, (*head, *records), answered)

    def _answered(self, channel: str, queue: _ChannelQueue, reply: Any) -> None:
        waits = queue.asked[0].kept is not None and any(each.done is not None for each in queue.asked)
        if waits and isinstance(reply, LinkLostError) and reply.sent:
            return  # it may be done: ask again when there is a connection
        asked, queue.asked = queue.asked, []
        self._counters.seconds.observe(self._clock.seconds() - queue.asked_at)
        if isinstance(reply, RedisError):
            error = self._error(channel, reply)
            self._counters.failures["away" if isinstance(reply, LinkLostError) else "refused"] += 1
            for each in asked:
                self._end(each, error)
        elif asked[0].kept is None:
            for each in asked:
                self._end(each, Position("", 0))
        else:
            epoch, offset = text(reply[0]), int(reply[1])
            offset -= sum(len(each.records) for each in asked)
            for each in asked:
                offset += len(each.records)
                each.records = []
                self._end(each, Position(epoch, offset))
        if self._queues.get(channel) is queue and not queue.asked:
            if queue.batches:
                self._ask_later(channel)
            else:
                del self._queues[channel]

    def _error(self, channel: str, error: RedisError) -> CommandError:
        if not isinstance(error, RefusedError) or error.code in _PASSING:
            return CommandError(BROKER_UNAVAILABLE)
        now = self._clock.seconds()
        if now - self._logged_at >= 60:
            self._logged_at = now
            log.error("the broker refuses a publication: %s", error, extra=about("broker_refuses", channel=channel))
        return CommandError(INTERNAL)

    def _end(self, batch: Batch, result: Position | CommandError) -> None:
        if batch.done is not None:
            self._size -= batch.size
            batch.end(result)

    def _on_expiry(self) -> None:
        """Answer those that waited too long. The server may still do what it was asked."""
        self._expiry = None
        now = self._clock.seconds()
        while self._deadlines and (self._deadlines[0].done is None or self._deadlines[0].expires_at <= now):
            batch = self._deadlines.popleft()
            self._counters.failures["late"] += batch.done is not None
            self._end(batch, CommandError(BROKER_UNAVAILABLE))
        if not self._link.up:
            for channel, queue in tuple(self._queues.items()):
                if queue.asked and all(each.done is None for each in queue.asked):
                    queue.asked = []
                    if not queue.batches:
                        del self._queues[channel]
        if self._deadlines:
            wait = max(0.05, self._deadlines[0].expires_at - now)
            self._expiry = self._clock.callLater(wait, self._on_expiry)
