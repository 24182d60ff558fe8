"""The places of a hub: one for each client, and some for connections that are no client.

A connection that is no client has sent half a line or nothing, waits for the next HTTP request, or answers one. When
there is no place for a newcomer, one of these gives way: one that waits for its peer before one that works for it, and
of either kind the one that has been so for the longest time. An address with more than a few of them gives one of its
own, so that one address cannot close those of the others. A long poll has the place of a client, and gives it to one.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sized
from typing import Protocol

from longconn.core.errors import LIMIT_EXCEEDED, CommandError
from longconn.core.log import about, log
from longconn.core.settings import Settings

#: Connections beyond `max_connections`, and beyond `max_connections_per_ip`, that are accepted: their protocol can tell
#: them that there are too many, and a short request can be answered.
_SPARE = 50
_SPARE_OF_ADDRESS = 2
#: Connections that a browser opens at once, and some more. The address of a newcomer keeps as many.
_FEW = 8
#: Seconds between two lines of the log that say that all places are taken.
_LINE_PAUSE = 60.0


class Guest(Protocol):
    """A connection that is no client, or a long poll."""

    def give_way(self) -> None:
        """End, since the place is needed. It is not counted any more."""


class Places:
    """Counts clients (`clients` has them all) and guests. A peer without a host is not limited by address."""

    def __init__(self, settings: Settings, clients: Sized, seconds: Callable[[], float]) -> None:
        self._settings = settings
        self._clients = clients
        self._seconds = seconds
        # Newcomers without a place since the last line of the log, and when the next one may come.
        self._refused = 0
        self._next_line = 0.0
        # By host, while `max_connections_per_ip` is set.
        self._clients_of: Counter[str] = Counter()
        self._waiting = _Queue()
        self._working = _Queue()
        self._polls = _Queue()

    # Clients.

    def check(self, host: str) -> None:
        """Raises CommandError(LIMIT_EXCEEDED) if there are too many clients, or too many of `host`."""
        most, per_ip = self._settings.max_connections, self._settings.max_connections_per_ip
        if most and len(self._clients) >= most:
            self._on_full()
            raise CommandError(LIMIT_EXCEEDED, what="connections")
        if per_ip and host and self._clients_of[host] >= per_ip:
            raise CommandError(LIMIT_EXCEEDED, what="connections of one address")

    def add_client(self, host: str) -> None:
        """Count a client of `host`, after it was added to `clients`. It may get the place of a long poll."""
        if self._settings.max_connections_per_ip:
            self._clients_of[host] += 1
        most = self._settings.max_connections
        if most and len(self._clients) + len(self._polls) > most:
            poll = self._polls.next(host)
            if poll is not None:
                self._polls.remove(poll)
                poll.give_way()

    def remove_client(self, host: str) -> None:
        """A client of `host` is gone."""
        if host in self._clients_of:
            self._clients_of[host] -= 1
            if not self._clients_of[host]:
                del self._clients_of[host]

    # Long polls.

    def check_poll(self, host: str) -> None:
        """Raises CommandError(LIMIT_EXCEEDED) if there is no place for a long poll of `host`."""
        self.check(host)
        most = self._settings.max_connections
        if most and len(self._clients) + len(self._polls) >= most:
            self._on_full()
            raise CommandError(LIMIT_EXCEEDED, what="connections")

    def add_poll(self, poll: Guest, host: str) -> None:
        """A long poll waits for the next publication."""
        self._polls.add(poll, host)

    def remove_poll(self, poll: Guest) -> None:
        """A long poll ended. A second call has no effect."""
        self._polls.remove(poll)

    # Guests.

    @property
    def guests(self) -> int:
        """Connections that are no client."""
        return len(self._waiting) + len(self._working)

    def add(self, guest: Guest, host: str) -> None:
        """A connection of `host` is no client (any more), and waits for its peer. A second call has no effect."""
        if guest not in self._working:
            self._waiting.add(guest, host)

    def remove(self, guest: Guest) -> None:
        """A connection became a client, or is lost. A second call has no effect."""
        self._waiting.remove(guest)
        self._working.remove(guest)

    def works(self, guest: Guest) -> None:
        """A guest has sent a whole request or a part of a body: for now it is the last of those that give way."""
        host = self._waiting.remove(guest)
        if host is None:
            host = self._working.remove(guest)
        if host is not None:
            self._working.add(guest, host)

    def waits(self, guest: Guest) -> None:
        """A guest waits for its peer."""
        host = self._working.remove(guest)
        if host is not None:
            self._waiting.add(guest, host)

    # Newcomers.

    def make_room(self, host: str) -> bool:
        """Whether there is a place for a newcomer of `host`, be it that of another connection, which is closed."""
        most, per_ip = self._settings.max_connections, self._settings.max_connections_per_ip
        if per_ip and host and self._of(host) >= per_ip + _SPARE_OF_ADDRESS:
            guest = self._waiting.first_of(host)
        elif most and self._all >= most + _SPARE:
            guest = self._waiting.next(host) or self._working.next(host)
        else:
            return True
        if guest is None:
            self._on_full()
            return False
        self.remove(guest)
        guest.give_way()
        return True

    def is_crowded(self, host: str) -> bool:
        """Whether connections are open that are spare, so that those of `host` should end when they were answered."""
        most, per_ip = self._settings.max_connections, self._settings.max_connections_per_ip
        return bool((most and self._all > most) or (per_ip and host and self._of(host) > per_ip))

    def _on_full(self) -> None:
        self._refused += 1
        now = self._seconds()
        if now >= self._next_line:
            log.warning(
                "no place for a newcomer: %d clients and %d other connections are here; %d without a place since "
                "the last such line. max_connections and the open-file limit set how many there are.",
                len(self._clients), self.guests, self._refused,
                extra=about("full", code=LIMIT_EXCEEDED.code),
            )  # fmt: skip
            self._refused = 0
            self._next_line = now + _LINE_PAUSE

    @property
    def _all(self) -> int:
        return len(self._clients) + self.guests

    def _of(self, host: str) -> int:
        return self._clients_of[host] + self._waiting.count(host) + self._working.count(host)


class _Queue:
    """Guests in the order in which they were added."""

    def __init__(self) -> None:
        self._hosts: OrderedDict[Guest, str] = OrderedDict()
        self._of: dict[str, OrderedDict[Guest, None]] = {}

    def __len__(self) -> int:
        return len(self._hosts)

    def __contains__(self, guest: Guest) -> bool:
        return guest in self._hosts

    def add(self, guest: Guest, host: str) -> None:
        if guest not in self._hosts:
            self._hosts[guest] = host
            self._of.setdefault(host, OrderedDict())[guest] = None

    def remove(self, guest: Guest) -> str | None:
        """Forget a guest, and return its host; None if it is not here."""
        host = self._hosts.pop(guest, None)
        if host is not None:
            guests = self._of[host]
            del guests[guest]
            if not guests:
                del self._of[host]
        return host

    def count(self, host: str) -> int:
        return len(self._of.get(host, ()))

    def first_of(self, host: str) -> Guest | None:
        return next(iter(self._of.get(host, ())), None)

    def next(self, host: str) -> Guest | None:
        """The guest that gives way to a newcomer of `host`."""
        if self.count(host) > _FEW:
            return self.first_of(host)
        return next(iter(self._hosts), None)
