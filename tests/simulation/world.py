"""One simulation: nodes, a server, clients and faults, all by one seed."""

from __future__ import annotations

import logging
import random as global_random
import secrets
from random import Random
from typing import Any
from unittest.mock import patch

from longconn.core.hub import Hub
from longconn.core.settings import Settings
from longconn.redis.address import parse_address
from longconn.redis.broker import RedisBroker
from longconn.redis.keys import RedisKeys
from longconn.redis.members import MEMBERS_TTL
from longconn.redis.server import RedisLink
from tests.simulation.checker import Checker, Request, WrongError
from tests.simulation.clock import SimulatedClock
from tests.simulation.members import ChatReader, Member, Program, Publisher
from tests.simulation.network import Machine
from tests.simulation.server import SimulatedServer

CHANNELS = ("one", "two")
#: Seconds with faults, and then without.
_ACTIVE, _QUIET = 9.0, 12.0
_FAULTS = (
    "cut", "cut", "cut", "part", "part", "slow", "restart", "restart", "old file", "promoted", "full", "kill",
    "forget scripts", "vanish",
)  # fmt: skip


class Node:
    """A process: a hub with a broker in Redis."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.machine = Machine(world.clock, world.random, world.server.accept)
        machine: Any = self.machine
        address = parse_address("unix:///redis")
        self.link = RedisLink(machine, address)
        self.broker = RedisBroker(machine, [(self.link, address.prefix)], world.settings)
        self.hub = Hub(machine, world.settings, self.broker, name)
        #: what it was asked to publish
        self.asked: list[Request] = []
        self.broker.start()


class World:
    """What a seed decides. `run` raises `WrongError` if something is wrong. `trace` gets a line for each event."""

    def __init__(self, seed: int, trace: list[str] | None = None) -> None:
        self.random = random = Random(seed)
        self._trace = trace
        self.clock = SimulatedClock()
        self.checker = Checker()
        size = random.choice((3, 10, 100))
        self.settings = Settings(history_size=size, publish_rate=0, channel_rate=0, log_clients=False, ping_interval=0)
        self.server = SimulatedServer(self.clock, random, self.checker, random.choice(("always", "everysec", "none")))
        self.over = False
        self._quiet = _QUIET
        self.killed = False
        self._node_number = 0
        self.nodes: list[Node] = []
        for _ in range(random.choice((1, 2, 2, 3))):
            self._add_node()
        self.programs = [Program(self, f"program{number}", CHANNELS) for number in range(3)]
        self.readers = [ChatReader(self, f"reader{number}", random.choice(CHANNELS)) for number in range(2)]
        self.members: list[Member] = [*self.programs, *self.readers]
        self._publisher = Publisher(self)
        self._texts = 0

    def say(self, *words: object) -> None:
        if self._trace is not None:
            self._trace.append(f"{self.clock.now - 1_700_000_000:9.4f} " + " ".join(map(str, words)))

    # What happens.

    def run(self) -> None:
        random = self.random
        for each in self.members:
            self.clock.callLater(random.uniform(0, 2), each.come)
        for _ in range(random.choice((6, 20, 40))):
            self.clock.callLater(random.uniform(0.5, _ACTIVE), self._publish)
        for _ in range(random.choice((1, 2, 4, 8))):
            self.clock.callLater(random.uniform(1, _ACTIVE), self._fault, random.choice(_FAULTS))
        for _ in range(random.choice((0, 5, 15))):
            self.clock.callLater(random.uniform(1, _ACTIVE), self._move)
        self.clock.advance(_ACTIVE)
        self._heal()
        self.clock.advance(self._quiet)
        self._check_quiet()
        self._end()

    def some_node(self) -> Node | None:
        return self.random.choice(self.nodes) if self.nodes else None

    def _add_node(self) -> None:
        self._node_number = self._node_number + 1
        self.nodes.append(Node(self, f"node{self._node_number}"))

    def _publish(self) -> None:
        random = self.random
        channel = random.choice(CHANNELS)
        for _ in range(random.choice((1, 1, 1, 2, 5))):
            self._texts += 1
            text = f"p{self._texts}"
            program = random.choice(self.programs)
            if random.random() < 0.4 and program.connected:
                program.publish(channel, [text, f"{text}b"] if random.random() < 0.3 else [text])
            else:
                kind = random.random()
                self._publisher.publish(channel, text, text if kind < 0.4 else "", keep=kind < 0.95)

    def _move(self) -> None:
        """A client goes, stands still, leaves a channel; a history is removed."""
        random = self.random
        member = random.choice(self.members)
        outlet = member.outlet
        if outlet is None or member.node is None:
            return
        kind = random.choice(("drop", "drop", "pause", "unsubscribe", "remove history"))
        self.say(member.name, kind)
        if kind == "drop":
            member.leave(outlet)
        elif kind == "pause":
            outlet.paused = True
            self.clock.callLater(random.uniform(0.1, 3), outlet.resume)
        elif kind == "unsubscribe" and isinstance(member, Program):
            channel = random.choice(CHANNELS)
            member.unsubscribe(channel)
            member.subscribe(channel)
        elif kind == "remove history":
            channel = random.choice(CHANNELS)
            self.checker.removed.add(channel)
            member.node.broker.remove_history(channel, _ignore)

    def _fault(self, fault: str) -> None:
        random, now = self.random, self.clock.now
        self.say("--", fault)
        node = random.choice(self.nodes)
        if fault == "cut":
            for wire in tuple(node.machine.wires):
                wire.cut()
        elif fault == "vanish":
            for wire in node.machine.wires:
                wire.vanish()
            self._quiet = _QUIET + 6
        elif fault == "part":
            node.machine.part(now + random.choice((0.5, 3.0, 9.0, 12.0)))
        elif fault == "slow":
            self.server.slow(now + random.choice((0.5, 3.0, 7.0, 9.0)))
        elif fault in ("restart", "old file", "promoted"):
            beats = self._seen_beats()
            if self.server.up and (fault != "old file" or beats):
                self.server.restart("again" if fault == "restart" else fault, beats)
        elif fault == "full":
            self.server.full = True
            self.clock.callLater(random.uniform(0.1, 3), self._make_room)
        elif fault == "kill":
            self._kill(node)
        else:
            self.server.forget_scripts()

    def _seen_beats(self) -> int:
        """The beats that each node has seen that may say that the server has what it had."""
        return min((each.link._beats for each in self.nodes if each.link._generation), default=0)

    def _make_room(self) -> None:
        self.server.full = False

    def _kill(self, node: Node) -> None:
        self.killed = True
        self.nodes.remove(node)
        self._add_node()
        node.machine.die()
        for each in self.members:
            if each.node is node:
                each.leave(each.outlet)

    def _heal(self) -> None:
        self.say("-- quiet")
        self.clock.quiet_from = self.clock.now
        self._make_room()
        if self.killed and self.random.random() < 0.2:
            self._quiet = MEMBERS_TTL + 16
        apart = max(each.machine.apart_until for each in self.nodes) - self.clock.now
        slow = self.server.slow_until - self.clock.now
        self._quiet = max(self._quiet, apart + 14, slow + 14)
        for each in self.members:
            if each.outlet is not None:
                each.outlet.resume()

    # What is checked at the end.

    def _check_quiet(self) -> None:
        data, prefix = self.server.data, RedisKeys("longconn")
        keys = {}
        for channel in CHANNELS:
            base = prefix.base(channel).encode()
            keys[channel] = (base + b"meta", base + b"stream")
        self.checker.check_kept(data, keys, self.settings.history_size)
        for node in self.nodes:
            if node.broker.problem:
                raise WrongError(f"{node.name} has a problem: {node.broker.problem}")
            for request in node.asked:
                if not request.answered:
                    raise WrongError(f"{request.text} is not answered")
            self._check_memory(node)
        for member in self.members:
            for channel in member.channels:
                meta = data.value(keys[channel][0], {})
                top = (meta[b"e"].decode(), int(meta[b"o"]))
                at = member.at.get(channel)
                if at is None or (at.epoch, at.offset) != top:
                    raise WrongError(f"{member.name} is at {at} in {channel}, which is at {top}")
        # A node that died, and a file that is older, leave members until their time is over.
        if self._quiet > MEMBERS_TTL or not (self.killed or self.checker.lost_something):
            for channel in CHANNELS:
                self._check_presence(channel)

    def _check_presence(self, channel: str) -> None:
        wanted = sorted(each.client_id for each in self.members if channel in each.at)
        for node in self.nodes:
            found: list[Any] = []
            node.broker.presence.get(channel, found.append)
            for _ in range(10):
                if not found:
                    self.clock.advance(1.0)
            infos = found[0]
            if isinstance(infos, Exception) or sorted(each.client for each in infos) != wanted:
                raise WrongError(f"{node.name} has {infos} in {channel}, and not {wanted}")

    def _check_memory(self, node: Node) -> None:
        shard = node.broker._shards[0]
        publishing, members = shard._publishing, shard.members
        left = [each for each in publishing._deadlines if each.done is not None]
        if publishing._queues or publishing._size or left or publishing._dirty:
            raise WrongError(f"{node.name} keeps {publishing._queues}, {publishing._size} bytes, {left}")
        if set(shard._followed) != set(node.hub.channels) or any(each.asked for each in shard._followed.values()):
            raise WrongError(f"{node.name} follows {set(shard._followed)} for {set(node.hub.channels)}")
        if members._stale or members._changes or set(members._here) - set(node.hub.channels):
            raise WrongError(f"{node.name} has members to write: {members._stale} {members._changes}")
        topics = {topic.decode() for wire in node.machine.wires for topic in wire.topics}
        messages = {each for each in topics if ":messages:" in each}
        if messages != {shard._keys.messages(each) for each in shard._followed}:
            raise WrongError(f"{node.name} is subscribed to {messages}, and follows {set(shard._followed)}")

    def _end(self) -> None:
        """All leave: nothing may be left behind."""
        self.over = True
        for each in self.members:
            each.leave(each.outlet)
        self.clock.advance(1)
        for node in self.nodes:
            node.hub.stop()
        self.clock.advance(20)
        if self.server.wires or self.clock.waiting:
            raise WrongError(f"left behind: {self.server.wires} {[each.function for each in self.clock.waiting]}")


def _ignore(result: object) -> None:
    """It may have failed."""


def simulate(seed: int, trace: list[str] | None = None) -> None:
    """Run one seed. Raises what went wrong."""
    random = Random(-seed)
    global_random.seed(seed)
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with patch.object(secrets, "token_urlsafe", lambda length: f"{random.getrandbits(64):x}"):
            World(seed, trace).run()
    finally:
        logging.disable(before)
