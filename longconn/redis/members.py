"""The presence of channels at all processes: each process writes its own members, and they expire without it."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Any

from longconn.core.broker import Done
from longconn.core.errors import BROKER_UNAVAILABLE, INTERNAL, CommandError
from longconn.core.publication import Info
from longconn.core.timers import Call, Clock
from longconn.redis.errors import BadRecordError, RedisError
from longconn.redis.keys import RedisKeys
from longconn.redis.link import Link
from longconn.redis.records import read_member, write_member
from longconn.redis.scripts import MEMBERS, PRESENCE

#: Seconds after which the members of a process that died are gone.
MEMBERS_TTL = 30
#: A part of all channels is refreshed every second; each channel once in so many seconds.
_REFRESH = 10
#: Members in one request.
_MOST = 500


class Members:
    """The members that this process has in channels of one server.

    `node` names the process: a name never used before.
    """

    def __init__(self, clock: Clock, link: Link, keys: RedisKeys, node: str) -> None:
        self._clock = clock
        self._link = link
        self._keys = keys
        self._node = node
        self._here: dict[str, dict[str, bytes]] = {}
        # What is not written yet: a record, or None for a member that is gone.
        self._changes: dict[str, dict[str, bytes | None]] = {}
        # Channels whose members are to be written anew.
        self._stale: dict[str, None] = {}
        self._flush: Call | None = None
        self._requests = 0
        # Channels that are to be refreshed, in order.
        self._unrefreshed: deque[str] = deque()

    def add(self, channel: str, info: Info) -> None:
        """A client is in a channel, or its info is another now."""
        record = write_member(info)
        self._here.setdefault(channel, {})[info.client] = record
        self._changes.setdefault(channel, {})[info.client] = record
        self._flush_later()

    def remove(self, channel: str, client: str) -> None:
        """A client is no longer in a channel."""
        here = self._here.get(channel)
        if here is not None and here.pop(client, None) is not None:
            if not here:
                del self._here[channel]
            self._changes.setdefault(channel, {})[client] = None
            self._flush_later()

    def get(self, channel: str, done: Done[list[Info]]) -> None:
        """The members of a channel at all processes."""

        def answered(reply: Any) -> None:
            if isinstance(reply, RedisError):
                done(CommandError(BROKER_UNAVAILABLE))
                return
            try:
                found = [read_member(each) for each in reply]
            except BadRecordError:
                done(CommandError(INTERNAL))
            else:
                done(found)

        if self._changes:
            self._write()
        base = self._keys.base(channel)
        self._link.call(PRESENCE, (base + "nodes",), (base + "on:",), answered)

    def on_up(self) -> None:
        """There is a connection again: the server may have lost any of the members."""
        # Also channels that all members left in the meantime.
        for channel in (*self._here, *self._changes):
            self._stale[channel] = None
        self._changes.clear()
        self._flush_later()

    def on_second(self) -> None:
        """A second is over: refresh some of the channels."""
        if not self._link.up:
            return
        if not self._unrefreshed:
            self._unrefreshed = deque(self._here)
        for _ in range(min(len(self._unrefreshed), len(self._here) // _REFRESH + 1)):
            channel = self._unrefreshed.popleft()
            if channel in self._here:
                self._write_channel(channel, {}, anew=False)
        if self._stale:
            self._flush_later()

    def stop(self) -> None:
        """Remove all members, and leave no delayed call behind."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        for channel in tuple(self._here):
            self._write_channel(channel, {}, anew=True)
        self._here.clear()

    def _flush_later(self) -> None:
        if self._flush is None and self._link.up:
            self._flush = self._clock.callLater(0, self._on_flush)

    def _on_flush(self) -> None:
        self._flush = None
        self._write()

    def _write(self) -> None:
        if not self._link.up:
            return
        changes, self._changes = self._changes, {}
        for channel, changed in changes.items():
            if channel not in self._stale:
                self._write_channel(channel, changed, anew=False)
        for channel in tuple(islice(self._stale, _MOST)):
            del self._stale[channel]
            self._write_channel(channel, dict(self._here.get(channel, {})), anew=True)
        if self._stale:
            self._flush_later()

    def _write_channel(self, channel: str, changes: dict[str, bytes | None] | dict[str, bytes], anew: bool) -> None:
        base = self._keys.base(channel)
        keys = (base + "nodes", f"{base}on:{self._node}", f"{base}asked:{self._node}")
        items = list(changes.items())
        for start in range(0, max(1, len(items)), _MOST):
            part = items[start : start + _MOST]
            gone = [client for client, record in part if record is None]
            come = [word for client, record in part if record is not None for word in (client, record)]
            self._requests += 1
            head = (self._node, MEMBERS_TTL * 1000, int(anew and not start), self._requests)
            arguments = (*head, len(gone), *gone, *come)
            expected = len(self._here.get(channel, ())) if start + _MOST >= len(items) else None

            def answered(reply: Any, expected: int | None = expected) -> None:
                if isinstance(reply, RedisError):
                    self._stale[channel] = None
                elif expected is not None and reply != expected and channel not in self._changes and not anew:
                    self._stale[channel] = None
                    self._flush_later()

            self._link.call(MEMBERS, keys, arguments, answered)
