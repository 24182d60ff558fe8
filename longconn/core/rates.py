"""Rates: how often a client or an address may publish, ask, and name new channels, and what an answer costs it."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Sequence

from longconn.core.client import Caller, Client
from longconn.core.command_queue import LOOKED_AT
from longconn.core.errors import LIMIT_EXCEEDED, TOO_MANY_REQUESTS, CommandError
from longconn.core.publication import Data, History
from longconn.core.settings import CHANNEL_BURST, Settings
from longconn.core.timers import ADDRESS_SHARE, Bucket, Buckets, ClientBuckets, Clock

#: Bytes of history that cost as much as one item that is looked at.
_BYTES_PER_ITEM = 1024
#: Channels that are remembered where `max_channels` sets no limit.
_KNOWN_CHANNELS = 100_000


class Rates:
    """The rates of one hub. A client has its own, callers without a connection share those of their address."""

    def __init__(self, clock: Clock, settings: Settings) -> None:
        self._clock = clock
        self._settings = settings
        # Channels named lately. Any other channel is new to the address that names it.
        self._known: OrderedDict[str, None] = OrderedDict()
        rate, burst, size = settings.publish_rate, settings.publish_burst, settings.publish_bytes
        self._new_channels = Buckets(settings.channel_rate, CHANNEL_BURST)
        self._publications = Buckets(rate, burst)
        self._published_bytes = Buckets(size, 2 * size)
        self._requests = Buckets(ADDRESS_SHARE * rate, ADDRESS_SHARE * burst)
        # Those of clients.
        self._client_publications = ClientBuckets(rate, burst)
        self._client_bytes = ClientBuckets(size, 2 * size)

    # Publications.

    def publish_wait(self, caller: Caller, size: int) -> float:
        """Count a message of `size` bytes against the caller's rate of publications, and return 0.

        Or count nothing, and return the seconds until it is allowed.
        """
        now = self._clock.seconds()
        publications, published_bytes = caller.publications, caller.published_bytes
        if publications is None or published_bytes is None:
            publications, published_bytes = self._buckets_of(caller, now)
        wait = publications.wait(now) or published_bytes.wait(now)
        if wait:
            return max(wait, published_bytes.wait(now))
        publications.spend(1)
        published_bytes.spend(size)
        return 0.0

    def allowance(self, caller: Caller) -> int:
        """How many publications the caller's rate allows now, about: further ones need not be looked at."""
        if not (self._settings.publish_rate or self._settings.publish_bytes):
            return sys.maxsize
        if caller.publications is None or caller.published_bytes is None:
            return 1  # the first one makes its rates
        now = self._clock.seconds()
        if caller.publications.wait(now) or caller.published_bytes.wait(now):
            return 0
        return int(caller.publications.level(now)) if self._settings.publish_rate else sys.maxsize

    def count_publications(self, caller: Caller, data: Sequence[Data]) -> int:
        """Count messages against the caller's rate; how many of them it allows now."""
        limit = self._settings.max_message
        count = 0
        unlimited = not (self._settings.publish_rate or self._settings.publish_bytes)
        for each in data:
            if each.size > limit or not (unlimited or not self.publish_wait(caller, each.size)):
                break
            count += 1
        return count

    def _buckets_of(self, caller: Caller, now: float) -> tuple[Bucket, Bucket]:
        if isinstance(caller, Client):
            caller.publications = self._client_publications.bucket(caller.host, now)
            caller.published_bytes = self._client_bytes.bucket(caller.host, now)
        else:
            caller.publications = self._publications.bucket(caller.host, now)
            caller.published_bytes = self._published_bytes.bucket(caller.host, now)
        return caller.publications, caller.published_bytes

    def forget(self, client: Client) -> None:
        """A client is gone: what it has used counts for the next one of its address."""
        if client.publications is not None and client.published_bytes is not None and not client.trusted:
            now = self._clock.seconds()
            self._client_publications.close(client.host, client.publications, now)
            self._client_bytes.close(client.host, client.published_bytes, now)

    # Channels.

    def knows(self, channel: str) -> bool:
        """Whether a channel was named lately."""
        return channel in self._known

    def admit_channel(self, name: str, caller: Caller, here: int) -> None:
        """Count a channel that was not named lately against the address that names it.

        `here` is the number of channels with subscribers. Raises CommandError: LIMIT_EXCEEDED at `max_channels`,
        TOO_MANY_REQUESTS over `channel_rate`.
        """
        if name in self._known:
            self._known.move_to_end(name)
            return
        limit = self._settings.max_channels
        if limit and here >= limit:
            raise CommandError(LIMIT_EXCEEDED, what="channels")
        if not caller.trusted:
            bucket = self._new_channels.bucket(caller.host, self._clock.seconds())
            wait = bucket.wait(self._clock.seconds())
            if wait:
                raise CommandError(TOO_MANY_REQUESTS, retry_after=wait)
            bucket.spend(1)
        self._known[name] = None
        if len(self._known) > (limit or _KNOWN_CHANNELS):
            self._known.popitem(last=False)

    # Requests, and what their answers cost.

    def count_request(self, caller: Caller) -> None:
        """Count a request without a connection of its own against the rate of its address.

        That rate is `ADDRESS_SHARE` times that of one client's commands. Each protocol calls this in one place, before
        it looks what is asked for. A peer without a host is not limited. Raises CommandError(TOO_MANY_REQUESTS).
        """
        now = self._clock.seconds()
        bucket = self._requests.bucket(caller.host, now)
        wait = bucket.wait(now) if caller.host else 0.0
        if wait:
            raise CommandError(TOO_MANY_REQUESTS, retry_after=wait)
        bucket.spend(1)

    def charge(self, caller: Caller, looked_at: int) -> None:
        """Count a command or a request as several: its answer needed a look at this many items."""
        if caller.trusted:
            return
        if isinstance(caller, Client) and caller.queue is not None:
            caller.queue.charge(looked_at)
        else:
            self._requests.bucket(caller.host, self._clock.seconds()).spend(looked_at / LOOKED_AT)

    def charge_history(self, caller: Caller, history: History) -> None:
        """Count what a history took to be read."""
        kept = history.publications
        if kept:
            self.charge(caller, len(kept) + sum([each.data.size for each in kept]) // _BYTES_PER_ITEM)
