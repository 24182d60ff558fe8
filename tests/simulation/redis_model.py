"""A model of Redis: what the scripts of `longconn.redis.scripts` and some plain commands do, in Python.

`tests.simulation.test_model` holds it against a real server.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from longconn.redis.scripts import (
    BEAT,
    ENTER,
    MEMBERS,
    PRESENCE,
    PUBLISH,
    PUBLISH_UNKEPT,
    READ,
    REMOVE,
    SCRIPTS,
)

Words = Sequence[bytes]
_GENERATION = b"longconn:{longconn}:generation"
_BY_DIGEST = {each.digest.encode(): each for each in SCRIPTS}


class ModelError(Exception):
    """A reply that is an error."""


class Opened:
    """A channel as the scripts open it (`_OPEN` in `longconn.redis.scripts`)."""

    def __init__(self, data: ModelRedis, keys: Words, args: Words, now: int) -> None:
        self.data, self.keys, self.args, self.now = data, keys, args, now
        meta = data.value(keys[0], {})
        known = meta.get(b"e")
        self.offset = int(meta.get(b"o", 0))
        self.bytes, self.oldest = int(meta.get(b"b", 0)), int(meta.get(b"f", 0))
        self.ttl = int(args[3])
        self.fresh = known is None or meta.get(b"g") != args[0]
        if known is None:
            data.delete(keys[1])
        self.epoch: bytes = args[1] if self.fresh or known is None else known
        #: (offset, time, record)
        self.entries: list[tuple[int, int, bytes]] = data.value(keys[1], [])
        if not self.entries:
            self.bytes = self.oldest = 0

    def drop(self, most: float, most_bytes: float) -> bool:
        entries, dropped = self.entries, False
        while entries and (len(entries) > most or self.bytes > most_bytes or self.oldest <= self.now - self.ttl):
            self.bytes -= len(entries.pop(0)[2])
            dropped = True
            if entries:
                self.oldest = entries[0][1]
        if not entries:
            self.data.delete(self.keys[1])
            self.bytes = self.oldest = 0
        return dropped

    def save(self) -> None:
        meta = self.data.open(self.keys[0], {})
        saved = {b"o": self.offset, b"b": self.bytes, b"f": self.oldest}
        meta.update({name: b"%d" % value for name, value in saved.items()})
        meta[b"e"], meta[b"g"] = self.epoch, self.args[0]


class ModelRedis:
    """The data of one server.

    `on_message` is called with each message of Pub/Sub and returns the number of receivers, `on_made` with what a
    publication made: the key of the channel's hash, the epoch, the offset of its first record, the records.
    """

    def __init__(
        self,
        on_message: Callable[[bytes, bytes], int],
        on_made: Callable[[bytes, bytes, int, Words], None] | None = None,
    ) -> None:
        self._on_message = on_message
        self._on_made = on_made
        self._values: dict[bytes, Any] = {}
        self._ends: dict[bytes, int] = {}
        self._now = 0
        self._scripts = {
            PUBLISH: self._publish, PUBLISH_UNKEPT: self._publish_unkept, READ: self._read, REMOVE: self._remove,
            ENTER: self._enter, BEAT: self._beat, MEMBERS: self._members, PRESENCE: self._presence,
        }  # fmt: skip
        #: all calls of scripts, with their time in milliseconds: the append-only file
        self.log: list[tuple[int, Words]] = []

    def call(self, words: Words, now: int) -> Any:
        """Run `EVALSHA` with these words after it, at a time in milliseconds since 1970."""
        self.log.append((now, words))
        self._now = now
        count = 2 + int(words[1])
        return self._scripts[_BY_DIGEST[words[0]]](words[2:count], words[count:])

    def replay(self, log: Sequence[tuple[int, Words]]) -> ModelRedis:
        """A server that has read a part of this one's append-only file."""
        made = ModelRedis(lambda channel, message: 0)
        for now, words in log:
            made.call(words, now)
        made._on_message, made._on_made = self._on_message, self._on_made
        return made

    @property
    def beats(self) -> int:
        """The beats of all nodes."""
        found = self._values.get(_GENERATION, {})
        return int(found.get(b"beats", 0))

    # Keys.

    def value(self, key: bytes, default: Any) -> Any:
        """What is kept under a key."""
        end = self._ends.get(key)
        if end is not None and end <= self._now:
            self.delete(key)
        return self._values.get(key, default)

    def open(self, key: bytes, default: Any) -> Any:
        """What is kept under a key, to be changed."""
        found = self.value(key, default)
        self._values[key] = found
        return found

    def delete(self, key: bytes) -> None:
        self._values.pop(key, None)
        self._ends.pop(key, None)

    def _expire(self, key: bytes, milliseconds: int) -> None:
        if key in self._values:
            self._ends[key] = self._now + milliseconds

    # Scripts.

    def _publish(self, keys: Words, args: Words) -> Any:
        opened = Opened(self, keys, args, self._now)
        answer = self.value(keys[2], None)
        if answer is not None:
            request, epoch, offset = answer.split(b" ")
            if request == args[4]:
                return [epoch, int(offset)]
            if _count(request) > _count(args[4]):
                return ModelError("LATE a later request was answered before")
        most, most_bytes, records = int(args[6]), int(args[7]), args[9:]
        first = opened.offset + 1
        for index, record in enumerate(records):
            if len(records) - 1 - index < most:
                opened.entries.append((first + index, self._now, record))
                if len(opened.entries) == 1:
                    opened.oldest = self._now
                opened.bytes += len(record)
        opened.offset += len(records)
        if opened.entries:
            self._values[keys[1]] = opened.entries
        opened.drop(most, most_bytes)
        self._expire(keys[1], int(args[3]))
        opened.save()
        self._expire(keys[0], int(args[2]) * 1000)
        self._set(keys[2], b"%b %b %d" % (args[4], opened.epoch, opened.offset), int(args[5]))
        if self._on_made is not None:
            self._on_made(keys[0], opened.epoch, first, records)
        written = b"".join(b"%d:%b" % (len(each), each) for each in records)
        self._on_message(args[8], b"P%b:%d:%d:%b" % (opened.epoch, first, self._now, written))
        return [opened.epoch, opened.offset]

    def _set(self, key: bytes, value: bytes, seconds: int) -> None:
        self.delete(key)
        self._values[key] = value
        self._expire(key, seconds * 1000)

    def _publish_unkept(self, keys: Words, args: Words) -> Any:
        if self.value(keys[0], None) is None:
            self._set(keys[0], b"", int(args[0]))
            self._on_message(args[1], args[2])
        return 1

    def _read(self, keys: Words, args: Words) -> Any:
        opened = Opened(self, keys, args, self._now)
        if opened.drop(math.inf, math.inf) or opened.fresh:
            opened.save()
        self._expire(keys[0], int(args[2]) * 1000)
        entries, top = opened.entries, opened.offset
        first = entries[0][0] if entries else top + 1
        since, limit, reverse = int(args[5]), int(args[6]), args[7] == b"1"
        same = since >= 0 and args[4] in (b"", opened.epoch)
        if reverse:
            found = [each for each in reversed(entries) if not same or each[0] < since]
        elif same and first - 1 <= since <= top:
            found = [each for each in entries if each[0] > since]
        else:
            found = list(entries)
        if limit >= 0:
            found = found[:limit]
        written = [[b"%d-%d" % (offset, time), [b"r", record]] for offset, time, record in found]
        return [opened.epoch, top, first, written]

    def _remove(self, keys: Words, args: Words) -> Any:
        self.delete(keys[1])

    def _enter(self, keys: Words, args: Words) -> Any:
        found = self.open(keys[0], {})
        generation, beats, seen = found.get(b"generation"), int(found.get(b"beats", 0)), int(args[4])
        base = int(found.get(b"base", 0))
        if found.get(b"run") != args[0]:
            base = beats
            whole = generation is not None and found[b"durable"] == b"1" and args[2] == b"0" and generation == args[3]
            if not (whole and beats >= seen):
                generation = args[5]
        elif generation == args[3] and args[6] != args[0] and seen > base:
            generation = args[5]
        found.update({b"generation": generation, b"run": args[0], b"durable": args[1], b"base": b"%d" % base})
        return generation

    def _beat(self, keys: Words, args: Words) -> Any:
        found = self.value(keys[0], {})
        if found.get(b"generation") != args[0]:
            return None
        found[b"durable"] = args[1]
        beats = int(found.get(b"beats", 0)) + 1
        found[b"beats"] = b"%d" % beats
        return beats

    def _members(self, keys: Words, args: Words) -> Any:
        if int(self.value(keys[2], 0)) >= int(args[3]):
            return ModelError("LATE a later request was answered before")
        self._values[keys[2]] = args[3]
        self._expire(keys[2], int(args[1]))
        if args[2] == b"1":
            self.delete(keys[1])
        here = self.open(keys[1], {})
        gone = 5 + int(args[4])
        for each in args[5:gone]:
            here.pop(each, None)
        here.update(zip(args[gone::2], args[gone + 1 :: 2], strict=True))
        nodes = self.open(keys[0], {})
        if here:
            self._expire(keys[1], int(args[1]))
            nodes[args[0]] = self._now + int(args[1])
            self._expire(keys[0], int(args[1]))
        else:
            nodes.pop(args[0], None)
            self.delete(keys[1])
        if not nodes:
            self.delete(keys[0])
        return len(here)

    def _presence(self, keys: Words, args: Words) -> Any:
        nodes = self.value(keys[0], {})
        here = [each for each in _by_score(nodes) if nodes[each] >= self._now]
        return [record for node in here for record in self.value(args[0] + node, {}).values()]


def _count(request: bytes) -> int:
    """The number in the name of a request; the mark of a publication with a key has none."""
    return int(request.rpartition(b"-")[2]) if b"-" in request else 0


def _by_score(scores: dict[bytes, int]) -> list[bytes]:
    return [node for node, _ in sorted(scores.items(), key=lambda each: (each[1], each[0]))]
