"""The embedded broker: it keeps channels in the memory of this process, and answers every call at once."""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from itertools import islice

from longconn.core.broker import Done, Receiver
from longconn.core.errors import LIMIT_EXCEEDED, CommandError
from longconn.core.idempotency import IdempotencyCache
from longconn.core.ids import new_id
from longconn.core.publication import Announcement, Data, History, Info, Position, Publication
from longconn.core.settings import Settings
from longconn.core.timers import Call, Clock, wall_time

#: Seconds for which a channel's epoch and offset outlive its subscribers and its history.
POSITION_TTL = 3_600.0
#: Bytes of memory that a kept publication needs beside its data (measured: objects and their slots).
_OVERHEAD = 300


class _Stream:
    """The epoch, the offset and the kept publications of one channel."""

    __slots__ = ("epoch", "kept_since", "most", "offset", "publications", "queued", "size", "subscribed", "ttl")

    def __init__(self, most: int, ttl: float) -> None:
        #: publications that are kept at most (0: none), and for how many seconds
        self.most = most if ttl else 0
        self.ttl = ttl
        # 64 random bits: an epoch never comes again, not even after a restart.
        self.epoch = new_id()
        self.offset = 0
        self.publications: deque[Publication] = deque()
        #: when each of them was made, by the clock that does not jump; `Publication.time` is for people
        self.kept_since: deque[float] = deque()
        self.size = 0
        self.subscribed = False
        #: whether a heap of `MemoryBroker._oldest` has an entry for this stream
        self.queued = False


class MemoryBroker:
    """Keeps history within the limits of `settings` and their namespaces. It is lost when the process ends.

    At `max_channels`, a new channel takes the place of the one without subscribers that was used least recently: one
    without history if there is one, else one with history. Its position is forgotten. If all have subscribers, the
    command is refused.
    """

    #: its hub is the only one
    presence = None
    counters = None
    #: it always takes publications
    problem = ""

    def __init__(self, clock: Clock, settings: Settings) -> None:
        self._clock = clock
        self._wall_time = wall_time(clock)
        self._settings = settings
        self._namespaces = settings.effective_namespaces()
        self._keeps = bool(settings.history_bytes and settings.history_total)
        self._streams: dict[str, _Stream] = {}
        # Streams with neither subscribers nor history: when each became idle, the longest idle first.
        self._idle: OrderedDict[str, float] = OrderedDict()
        # Streams with history but without subscribers, the least recently used first.
        self._unread: OrderedDict[str, None] = OrderedDict()
        # A heap for each `history_ttl`: (time, channel, epoch) of the oldest publication of each stream, when the entry
        # was pushed. The first entry of a heap expires first. There are few heaps: only namespaces may differ in their
        # ttl. An entry is stale if its stream was forgotten; `_stale` counts these.
        self._oldest: dict[float, list[tuple[float, str, str]]] = {}
        self._stale = 0
        self._size = 0
        self._sweep: Call | None = None
        self._receiver: Receiver
        self._topics: dict[str, Callable[[bytes], None]] = {}
        self._once = IdempotencyCache(clock)

    @property
    def kept_bytes(self) -> int:
        """Bytes of history."""
        return self._size

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def stop(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    # Requests of the hub.

    def subscribe(self, channel: str, done: Done[None]) -> None:
        try:
            stream = self._stream(channel)
        except CommandError as error:
            done(error)
            return
        stream.subscribed = True
        self._idle.pop(channel, None)
        self._unread.pop(channel, None)
        done(None)

    def unsubscribe(self, channel: str) -> None:
        stream = self._streams.get(channel)
        if stream is not None:
            stream.subscribed = False
            self._rest(channel, stream)

    def publish(
        self, channel: str, data: Data, info: Info, done: Done[Position], keep: bool = True, once: str = ""
    ) -> None:
        if once:
            self._once.publish(channel, once, lambda one: self.publish(channel, data, info, one, keep), done)
            return
        try:
            stream = self._stream(channel)
        except CommandError as error:
            done(error)
            return
        if not keep:
            self._rest(channel, stream)
            if stream.subscribed:
                now = self._wall_time()
                self._receiver.on_publication(Publication(channel, stream.epoch, 0, data, info, now))
            done(Position("", 0))
            return
        stream.offset += 1
        publication = Publication(channel, stream.epoch, stream.offset, data, info, self._wall_time())
        if self._keeps and stream.most:
            self._keep(channel, stream, publication)
        self._rest(channel, stream)
        if stream.subscribed:
            self._receiver.on_publication(publication)
        done(Position(stream.epoch, publication.offset))

    def publish_many(self, channel: str, data: Sequence[Data], info: Info, done: Done[Position]) -> None:
        try:
            stream = self._stream(channel)
        except CommandError as error:
            done(error)
            return
        epoch, now = stream.epoch, self._wall_time()
        publications = [
            Publication(channel, epoch, offset, each, info, now) for offset, each in enumerate(data, stream.offset + 1)
        ]
        stream.offset += len(publications)
        if self._keeps and stream.most:
            if len(publications) > stream.most:
                while stream.publications:
                    self._drop(stream)
            for each in publications[-stream.most :]:
                self._keep(channel, stream, each)
        self._rest(channel, stream)
        if stream.subscribed:
            self._receiver.on_publications(channel, publications)
        done(Position(epoch, stream.offset))

    def announce(self, channel: str, announcement: Announcement) -> None:
        stream = self._streams.get(channel)
        if stream is not None and stream.subscribed:
            self._receiver.on_announcement(channel, announcement)

    def history(self, channel: str, since: Position | None, limit: int, reverse: bool, done: Done[History]) -> None:
        try:
            stream = self._stream(channel)
        except CommandError as error:
            done(error)
            return
        self._expire(self._clock.seconds())
        self._rest(channel, stream)
        kept = stream.publications
        first = stream.offset - len(kept) + 1  # the offset of the oldest publication that is kept
        start, end = 0, len(kept)
        recovered = True
        if since is not None:
            same_epoch = since.epoch in ("", stream.epoch)
            recovered = same_epoch and first - 1 <= since.offset <= stream.offset
            if reverse and same_epoch:
                end = max(0, min(end, since.offset - first))
            elif recovered:
                start = since.offset - first + 1
        if limit >= 0:
            start, end = (max(start, end - limit), end) if reverse else (start, min(end, start + limit))
        wanted = list(islice(kept, start, end))
        if reverse:
            wanted.reverse()
        done(History(wanted, Position(stream.epoch, stream.offset), recovered))

    def remove_history(self, channel: str, done: Done[None]) -> None:
        stream = self._streams.get(channel)
        if stream is not None:
            while stream.publications:
                self._drop(stream)
            # A heap may still have an entry for it. `_drop_oldest` removes that entry.
            self._rest(channel, stream)
        done(None)

    def listen(self, topic: str, on_message: Callable[[bytes], None]) -> None:
        self._topics[topic] = on_message

    def tell(self, topic: str, message: bytes, done: Callable[[int | None], None]) -> None:
        listener = self._topics.get(topic)
        if listener is not None:
            listener(message)
        done(int(listener is not None))

    # History and idle channels.

    def _stream(self, channel: str) -> _Stream:
        stream = self._streams.get(channel)
        if stream is None:
            options = self._namespaces.options(channel)
            limit = self._settings.max_channels
            if limit and len(self._streams) >= limit:
                self._forget_one()
            stream = self._streams[channel] = _Stream(options.history_size or 0, options.history_ttl or 0)
        return stream

    def _forget_one(self) -> None:
        """Forget a channel that nobody reads, with its history. Raises CommandError(LIMIT_EXCEEDED)."""
        if not (self._idle or self._unread):
            raise CommandError(LIMIT_EXCEEDED, what="channels")
        stream = self._streams.pop((self._idle or self._unread).popitem(last=False)[0])
        while stream.publications:
            self._drop(stream)
        if stream.queued:
            self._stale += 1
            if self._stale > len(self._streams):
                self._remove_stale()

    def _remove_stale(self) -> None:
        self._stale = 0
        for heap in self._oldest.values():
            heap[:] = [each for each in heap if self._is_current(each)]
            heapq.heapify(heap)

    def _is_current(self, entry: tuple[float, str, str]) -> bool:
        stream = self._streams.get(entry[1])
        return stream is not None and stream.epoch == entry[2]

    def _rest(self, channel: str, stream: _Stream) -> None:
        """Note that a stream was used just now. Without subscribers and history it is idle from now on."""
        self._idle.pop(channel, None)
        self._unread.pop(channel, None)
        if stream.subscribed:
            return
        if stream.publications or stream.queued:
            self._unread[channel] = None
        else:
            self._idle[channel] = self._clock.seconds()
            self._schedule(POSITION_TTL)

    def _keep(self, channel: str, stream: _Stream, publication: Publication) -> None:
        settings = self._settings
        stream.publications.append(publication)
        stream.kept_since.append(self._clock.seconds())
        size = publication.data.size + _OVERHEAD
        stream.size += size
        self._size += size
        while len(stream.publications) > stream.most or stream.size > settings.history_bytes:
            self._drop(stream)
        if stream.publications and not stream.queued:
            stream.queued = True
            heapq.heappush(self._oldest.setdefault(stream.ttl, []), (stream.kept_since[0], channel, stream.epoch))
        while self._size > settings.history_total:
            self._drop_oldest(min(filter(None, self._oldest.values())))
        if stream.publications:
            self._schedule(stream.ttl)

    def _drop(self, stream: _Stream) -> None:
        size = stream.publications.popleft().data.size + _OVERHEAD
        stream.kept_since.popleft()
        stream.size -= size
        self._size -= size

    def _drop_oldest(self, heap: list[tuple[float, str, str]]) -> None:
        """Drop the publication of a heap's first entry, and push an entry for the next one of that stream.

        If that publication was dropped before, only the entry is replaced.
        """
        entry = heapq.heappop(heap)
        if not self._is_current(entry):
            self._stale -= 1
            return
        time, channel, epoch = entry
        stream = self._streams[channel]
        if stream.publications and stream.kept_since[0] <= time:
            self._drop(stream)
        if stream.publications:
            heapq.heappush(heap, (stream.kept_since[0], channel, epoch))
        else:
            stream.queued = False
            self._rest(channel, stream)

    def _expire(self, now: float) -> None:
        for ttl, heap in self._oldest.items():
            while heap and heap[0][0] <= now - ttl:
                self._drop_oldest(heap)
        while self._idle:
            channel, since = next(iter(self._idle.items()))
            if since > now - POSITION_TTL:
                break
            del self._idle[channel], self._streams[channel]

    def _schedule(self, delay: float) -> None:
        # One sweep serves all channels. If it finds nothing to do, it is scheduled again.
        if self._sweep is None:
            self._sweep = self._clock.callLater(max(1.0, min(delay, 60.0)), self._on_sweep)

    def _on_sweep(self) -> None:
        self._sweep = None
        self._expire(self._clock.seconds())
        waits = [ttl for ttl, heap in self._oldest.items() if heap]
        if waits or self._idle:
            self._schedule(min([*waits, POSITION_TTL]))
