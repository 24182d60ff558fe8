"""The Redis server of a simulation: a process with a model of its data, its connections, and its restarts."""

from __future__ import annotations

import bisect
from random import Random
from typing import Any

from longconn.redis.scripts import BEAT, ENTER, MEMBERS, PUBLISH, PUBLISH_UNKEPT
from tests.simulation.checker import Checker
from tests.simulation.clock import SimulatedClock
from tests.simulation.network import Machine, Wire
from tests.simulation.redis_model import ModelError, ModelRedis

#: Scripts that a full server refuses.
_GROW = frozenset(each.digest.encode() for each in (PUBLISH, PUBLISH_UNKEPT, BEAT, MEMBERS, ENTER))
_OOM = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"


def written(value: Any) -> bytes:
    """A reply as RESP3 has it."""
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if isinstance(value, int):
        return b":%d\r\n" % value
    if value is None:
        return b"_\r\n"
    if isinstance(value, ModelError):
        return b"-%b\r\n" % str(value).encode()
    return b"*%d\r\n%b" % (len(value), b"".join(map(written, value)))


class SimulatedServer:
    """One process after the other. `persistence` is always, everysec or none."""

    def __init__(self, clock: SimulatedClock, random: Random, checker: Checker, persistence: str) -> None:
        self._clock = clock
        self._random = random
        self._checker = checker
        self.persistence = persistence
        self.data = ModelRedis(self._send, checker.on_made)
        self.wires: list[Wire] = []
        self.up = True
        self.full = False
        self.promoted = False
        self._runs = 1
        #: it answers nothing before
        self.slow_until = 0.0
        # Whether messages of a script come before its answer, to the connection that called it.
        self._messages_first = random.random() < 0.5
        self._calling: Wire | None = None
        self._own: list[bytes] = []
        self._loaded = False

    # Connections.

    def accept(self, machine: Machine, protocol: Any) -> Wire | None:
        if not self.up:
            return None
        wire = Wire(machine, protocol, self._on_command, self._on_end)
        wire.up.hold(self.slow_until)
        self.wires.append(wire)
        return wire

    def _on_end(self, wire: Wire) -> None:
        if wire in self.wires:
            self.wires.remove(wire)

    def _on_command(self, wire: Wire, words: list[bytes]) -> None:
        name = words[0]
        self._calling = wire
        if name == b"EVALSHA":
            reply = self._call(words[1:])
        elif name == b"PUBLISH":
            reply = written(self._send(words[1], words[2]))
        elif name in (b"SUBSCRIBE", b"UNSUBSCRIBE"):
            (wire.topics.add if name == b"SUBSCRIBE" else wire.topics.discard)(words[1])
            reply = b">3\r\n" + written(name.lower()) + written(words[1]) + written(len(wire.topics))
        else:
            reply = self._tell(words)
        self._calling = None
        own, self._own = b"".join(self._own), []
        wire.down.send(own + reply if self._messages_first else reply + own)

    def _call(self, words: list[bytes]) -> bytes:
        if not self._loaded:
            return b"-NOSCRIPT No matching script.\r\n"
        if self.full and words[0] in _GROW:
            return _OOM
        return written(self.data.call(words, int(self._clock.now * 1000)))

    def _tell(self, words: list[bytes]) -> bytes:
        match words[:2]:
            case [b"INFO", b"server"]:
                return written(b"redis_version:7.0.15\r\nrun_id:run-%d\r\n" % self._runs)
            case [b"INFO", b"replication"]:
                former = b"1" * 40 if self.promoted else b"0" * 40
                return written(b"role:master\r\nmaster_replid2:%b\r\n" % former)
            case [b"CONFIG", b"GET"]:
                kept = b"no" if self.persistence == "none" else b"yes"
                return written([b"appendonly", kept, b"appendfsync", self.persistence.encode()])
            case [b"SCRIPT", b"LOAD"]:
                self._loaded = True
                return b"+OK\r\n"
            case [b"HELLO", _]:
                return b"%1\r\n+proto\r\n:3\r\n"
        return b"-ERR unknown command\r\n"

    def _send(self, channel: bytes, message: bytes) -> int:
        """A message of Pub/Sub to all that subscribed."""
        push = b">3\r\n$7\r\nmessage\r\n" + written(channel) + written(message)
        receivers = [each for each in self.wires if channel in each.topics]
        for each in receivers:
            if each is self._calling:
                self._own.append(push)
            else:
                each.down.send(push)
        return len(receivers)

    # Faults.

    def slow(self, until: float) -> None:
        """It answers nothing until then."""
        self.slow_until = until
        for each in self.wires:
            each.up.hold(until)

    def forget_scripts(self) -> None:
        self._loaded = False

    def restart(self, how: str, seen_beats: int) -> None:
        """End the process, and start one `how`: again; with an old file; or a replica that was promoted.

        `seen_beats` are those that a node saw: an old file does not have all of them.
        """
        log = self.data.log
        kept = len(log)
        if how == "again" and self.persistence == "everysec":
            until = (self._clock.now - self._random.uniform(0, 2)) * 1000
            kept = bisect.bisect_left(log, until, key=lambda call: call[0])
        elif how == "again" and self.persistence == "none":
            kept = 0
        elif how == "old file":
            kept = self._random.randrange(kept + 1)
            while kept and self.data.replay(log[:kept]).beats >= seen_beats:
                kept //= 2
        elif how == "promoted":
            kept -= self._random.choice((0, 1, 2, 5, 20, 100))
            self.promoted = True
        kept = max(0, kept)
        if kept < len(log):
            self._checker.on_loss()
        self.data = self.data.replay(log[:kept])
        self.data.log = log[:kept]
        self._checker.on_replayed(self.data)
        self._runs += 1
        self._loaded = False
        self.slow_until = 0.0
        wires, self.wires = self.wires, []
        for each in wires:
            each.server_ended()
        self.up = False
        self._clock.callLater(self._random.choice((0.01, 0.5, 3.0)), self._start)

    def _start(self) -> None:
        self.up = True
