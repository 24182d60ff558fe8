"""300 clients over all protocols follow a channel at three nodes on one Redis. Meanwhile connections drop, a node is
killed, the network to Redis fails, Redis is restarted, and a replica takes its place.

Clients come back to any node. Within an epoch each must read every publication once, and it must learn where an epoch
ended. Two clients must read the same at the same position. No publication may be doubled. Where Redis keeps each write,
no epoch may end, and each publication that was acknowledged must be read.
"""

import json
import random
import signal
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from longconn.clients import Client, ConnectionFailed, Lost, OutcomeUnknown, Position, Publication, Refused, connect
from tests.live.programs import Server
from tests.long.clients import Cable, Far, Wrong, first_of
from tests.redis.server import RedisServer, free_port

NODES = 3
URLS = (
    "tcp://127.0.0.1:{port}",
    "ws://127.0.0.1:{port}",
    "http://127.0.0.1:{port}/connection/http_stream",
    "http://127.0.0.1:{port}/connection/sse",
    "grpc://127.0.0.1:{port}",
)
OF_EACH = 50
EVENT_READERS = 30
CHAT_READERS = 20
PUBLISHERS = 6
PAUSE = 0.3
CHANNEL = "soak"
SETTINGS = "ping_interval = 3\npong_timeout = 20\nhistory_size = 10000\nhistory_bytes = 10000000\nchannel_rate = 0\n"
LAST = 60.0
#: How Redis keeps its data, and whether a restart of it loses any.
MODES = {
    "always": (("--appendonly", "yes", "--appendfsync", "always"), False),
    "everysec": (("--appendonly", "yes", "--appendfsync", "everysec"), True),
    "none": ((), True),
    "sentinel": (("--appendonly", "yes", "--appendfsync", "everysec"), True),
}


class Balancer(Cable):
    """Passes each connection on to some node."""

    def __init__(self, reactor: Any, servers: list[Server], numbers: random.Random) -> None:
        self._servers = servers
        super().__init__(reactor, 0, numbers)

    @property
    def target(self) -> int:
        return self.random.choice(self._servers).port

    @target.setter
    def target(self, port: int) -> None:
        pass

    def drop(self) -> None:
        """Break some connection."""
        sides = [each for each in self.sides if isinstance(each, Far)]
        if sides:
            self.random.choice(sides).break_off()


class SoakReader:
    """A client of longconn's own that reads and checks its position."""

    def __init__(self, soak: "NodeSoak", url: str) -> None:
        self.soak = soak
        self.url = url
        self.client = soak.connect(url)
        self.position = Position("", 0)

    async def run(self) -> None:
        while True:
            try:
                subscription = await self.client.subscribe(CHANNEL)
                break
            except (ConnectionFailed, Refused):  # a first subscribe may meet the trouble, too
                self.soak.counts["subscribed again"] += 1
        self.position = subscription.position
        async for event in subscription:
            if isinstance(event, Lost):
                self.soak.lost(self.url, self.position, event.resumed.epoch)
                self.position = event.resumed
            elif isinstance(event, Publication):
                self.position = self.soak.take(self.url, self.position, event.epoch, event.offset, event.data)


class EventReader(Protocol):
    """Reads server-sent events with nothing but a socket, and comes back with the last id."""

    def __init__(self, soak: "NodeSoak") -> None:
        self.soak = soak
        self.position = Position("", 0)
        self._buffer = b""
        self._unrecovered = False

    def run(self) -> None:
        where = TCP4ClientEndpoint(self.soak.reactor, "127.0.0.1", self.soak.balancer.port, timeout=5)
        where.connect(Factory.forProtocol(lambda: self)).addErrback(lambda _: self.again())

    def again(self) -> None:
        if not self.soak.over_reading:
            self.soak.reactor.callLater(self.soak.random.uniform(0.2, 1.5), self.run)

    def connectionMade(self) -> None:
        self._buffer = b""
        last = f"Last-Event-ID: {self.position.epoch}:{self.position.offset}\r\n" if self.position.epoch else ""
        head = f"GET /channels/{CHANNEL}/events HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n{last}\r\n"
        self.transport.write(head.encode())  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        *events, self._buffer = self._buffer.split(b"\n\n")
        for each in events:
            if b"data: " not in each:
                continue
            fields = dict(line.partition(b": ")[::2] for line in each.split(b"\n") if b": " in line)
            kind = fields.get(b"event", b"message")
            try:
                self._read(kind.decode(), fields)
            except Wrong as error:
                self.soak.fail(error)

    def _read(self, kind: str, fields: dict[bytes, bytes]) -> None:
        if kind not in ("position", "unrecovered", "message"):
            return
        value = json.loads(fields[b"data"])
        if kind == "message":
            offset = value["offset"]
            self.position = self.soak.take("events", self.position, value["epoch"], offset, value["data"])
            return
        start = Position(value["epoch"], value["offset"])
        if kind == "unrecovered":
            self.soak.lost("events", self.position, start.epoch)
            self.position = start
        elif not self.position.epoch:
            self.position = start
        elif start != self.position and start.epoch == self.position.epoch:
            raise Wrong(f"events at {self.position} go on from {start}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.again()


class ChatReader(Protocol):
    """Reads chat lines. On one connection each publisher's numbers rise by one, and a connection ends with a word."""

    def __init__(self, soak: "NodeSoak") -> None:
        self.soak = soak

    def run(self) -> None:
        where = TCP4ClientEndpoint(self.soak.reactor, "127.0.0.1", self.soak.balancer.port, timeout=5)
        where.connect(Factory.forProtocol(lambda: self)).addErrback(lambda _: self.again())

    def again(self) -> None:
        if not self.soak.over_reading:
            self.soak.reactor.callLater(self.soak.random.uniform(0.2, 1.5), self.run)

    def connectionMade(self) -> None:
        self._buffer = b""
        self._last: dict[int, int] = {}
        self.transport.write(f"/join {CHANNEL}\r\n".encode())  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\r\n")
        for line in lines:
            _, _, text = line.partition(b": ")
            if not text.startswith(b"["):
                continue
            publisher, said = json.loads(text)
            if said <= self._last.get(publisher, -1):
                self.soak.fail(Wrong(f"chat read {said} of {publisher} after {self._last[publisher]}"))
            self._last[publisher] = said
            self.soak.counts["read as chat"] += 1

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.again()


class NodeSoak:
    """One run in one mode."""

    def __init__(self, reactor: Any, seed: int, mode: str, say: Any) -> None:
        self.reactor = reactor
        self.random = random.Random(seed)
        self.say = say
        self.mode = mode
        options, self.loses = MODES[mode]
        self.redis = RedisServer("--save", "", *options, port=free_port())
        self.others: list[RedisServer] = []
        self.relays: list[Cable] = []
        urls = self._sentinel() if mode == "sentinel" else self._relayed()
        self.servers = [Server(SETTINGS + f'broker = ["{url}"]\n') for url in urls]
        self.balancer = Balancer(reactor, self.servers, self.random)
        self.clients: list[Client] = []
        #: the publications that were read, by position
        self.truth: dict[Position, tuple[int, ...]] = {}
        self.acknowledged: list[tuple[int, ...]] = []
        self.counts: Counter[str] = Counter()
        self.over = self.over_reading = False
        self._failed: Deferred[Any] = Deferred()

    def _relayed(self) -> list[str]:
        """Each node reaches Redis by a relay of its own, which may stop to pass anything on."""
        self.relays = [Cable(self.reactor, self.redis.port, self.random) for _ in range(NODES)]
        return [f"redis://127.0.0.1:{each.port}" for each in self.relays]

    def _sentinel(self) -> list[str]:
        """A replica, and a Sentinel that promotes it a second after the master has gone."""
        replica = RedisServer("--save", "", "--replicaof", "127.0.0.1", str(self.redis.port), port=free_port())
        folder = tempfile.mkdtemp(prefix="sentinel")
        (Path(folder) / "sentinel.conf").write_text(
            f"sentinel monitor main 127.0.0.1 {self.redis.port} 1\nsentinel down-after-milliseconds main 1000\n"
            "sentinel failover-timeout main 4000\n"
        )
        sentinel = RedisServer(port=free_port(), folder=folder, sentinel=True)
        self.others = [replica, sentinel]
        return [f"redis+sentinel://127.0.0.1:{sentinel.port}/main"] * NODES

    # What readers find.

    def take(self, who: str, before: Position, epoch: str, offset: int, data: Any) -> Position:
        """A publication was read; the position after it."""
        if before.epoch and (epoch, offset) != (before.epoch, before.offset + 1):
            raise Wrong(f"{who} read {offset} of {epoch} after {before}")
        position = Position(epoch, offset)
        said = self.truth.setdefault(position, tuple(data))
        if said != tuple(data):
            raise Wrong(f"{position} is {said} to one and {data} to another")
        self.counts["received"] += 1
        return position

    def lost(self, who: str, before: Position, epoch: str) -> None:
        """A reader was told that it may have missed something."""
        self.counts["told lost"] += 1
        if epoch == before.epoch:
            raise Wrong(f"{who} at {before} is told of a loss in the same epoch")
        if not self.loses:
            raise Wrong(f"{who} at {before} is told of a loss, and nothing was lost")

    def fail(self, error: Wrong) -> None:
        if not self._failed.called:
            self._failed.errback(error)

    def connect(self, url: str) -> Client:
        client = connect(url, reactor=self.reactor, timeout=8, random=self.random.random)
        self.clients.append(client)
        return client

    def sleep(self, seconds: float) -> "Deferred[None]":
        return deferLater(self.reactor, seconds)

    async def run(self, seconds: float) -> None:
        await self._ready()
        urls = [each.format(port=self.balancer.port) for each in URLS]
        readers: list[Any] = [SoakReader(self, url) for url in urls for _ in range(OF_EACH)]
        events = [EventReader(self) for _ in range(EVENT_READERS)]
        chats = [ChatReader(self) for _ in range(CHAT_READERS)]
        for each in (*events, *chats):
            each.run()
        reading = [Deferred.fromCoroutine(each.run()) for each in readers]
        while not all(each.position.epoch for each in (*readers, *events)):
            await self.sleep(0.05)
        publishing = [Deferred.fromCoroutine(self._publish(number)) for number in range(PUBLISHERS)]
        troubling = Deferred.fromCoroutine(self._trouble(seconds))
        dropping = Deferred.fromCoroutine(self._drop())
        running = [*reading, *publishing, troubling, dropping, self._failed]
        failing = DeferredList(running, fireOnOneErrback=True, consumeErrors=True)
        calm = DeferredList([troubling, dropping, *publishing], fireOnOneErrback=True, consumeErrors=True)
        await first_of(failing, calm)
        await first_of(failing, Deferred.fromCoroutine(self._agree([*readers, *events])))
        self.over_reading = True
        await DeferredList([each.close() for each in self.clients])
        said = Counter((position.epoch, data) for position, data in self.truth.items())
        twice = [each for each, number in said.items() if number > 1]
        if twice:
            raise Wrong(f"published twice: {twice[:5]}")
        missing = set(self.acknowledged) - set(self.truth.values())
        if missing and not self.loses:
            raise Wrong(f"acknowledged and not read by any: {sorted(missing)[:5]}")
        self.counts["acknowledged and lost with Redis"] = len(missing)
        self.counts["epochs"] = len({each.epoch for each in self.truth})

    async def _ready(self) -> None:
        for server in self.servers:
            while True:
                try:
                    await deferToThread(server.api, "publish", channel="ready", data=1)
                    break
                except AssertionError:
                    await self.sleep(0.1)

    async def _publish(self, number: int) -> None:
        port = self.servers[number % NODES].port
        client = self.connect(URLS[number % len(URLS)].format(port=port))
        said = 0
        while not self.over:
            said += 1
            try:
                await client.publish(CHANNEL, [number, said])
                self.counts["published"] += 1
                self.acknowledged.append((number, said))
            except OutcomeUnknown:
                self.counts["unknown outcome"] += 1
            except ConnectionFailed:
                self.counts["not sent"] += 1
            except Refused as error:
                if not error.temporary:
                    raise
                self.counts["refused"] += 1
            await self.sleep(PAUSE)

    async def _drop(self) -> None:
        while not self.over:
            self.balancer.drop()
            self.counts["dropped"] += 1
            await self.sleep(self.random.expovariate(8))

    async def _trouble(self, seconds: float) -> None:
        end = self.reactor.seconds() + seconds
        await self.sleep(2)
        troubles = [self._kill_node, self._restart_redis]
        if self.relays:
            troubles.append(self._cut_off)
        while not self.over:
            self.random.shuffle(troubles)
            for each in troubles:
                if self.reactor.seconds() < end:
                    await each()
                    await self.sleep(self.random.uniform(1, 5))
            self.over = self.reactor.seconds() >= end

    async def _kill_node(self) -> None:
        self.counts["nodes killed"] += 1
        server = self.random.choice(self.servers)
        await deferToThread(server.kill)
        await self.sleep(self.random.uniform(0.5, 3))
        await deferToThread(server.start)

    async def _cut_off(self) -> None:
        """A node is cut off from Redis for ten seconds: nothing passes, and nothing is closed."""
        self.counts["nodes cut off"] += 1
        relay = self.random.choice(self.relays)
        relay.die(1.0)
        await self.sleep(10)
        relay.mend()
        for each in list(relay.sides):
            each.break_off()

    async def _restart_redis(self) -> None:
        if self.mode == "sentinel":
            await self._fail_over()
            return
        self.counts["Redis killed"] += 1
        await deferToThread(self.redis.end, signal.SIGKILL)
        await self.sleep(self.random.uniform(0, 2))
        await deferToThread(self.redis.start)

    async def _fail_over(self) -> None:
        """The master is killed; the Sentinel promotes the replica; the old master comes back as its replica."""
        self.counts["replicas promoted"] += 1
        replica, sentinel = self.others
        await deferToThread(self.redis.end, signal.SIGKILL)
        for _ in range(150):
            await self.sleep(0.1)
            with sentinel._connect() as connection:
                connection.sendall(b"SENTINEL GET-MASTER-ADDR-BY-NAME main\r\n")
                if str(replica.port).encode() in connection.recv(200):
                    break
        await self.sleep(1)
        await deferToThread(self.redis.start)
        self.redis, self.others[0] = replica, self.redis
        await self.sleep(3)

    async def _agree(self, readers: list[Any]) -> None:
        """Wait until all have read to the end, and compare what they read."""
        end = self.reactor.seconds() + LAST
        witness = self.connect(URLS[0].format(port=self.servers[0].port))
        while True:
            try:
                await witness.publish(CHANNEL, [-1, self.counts["last words"]])
                break
            except (Refused, OutcomeUnknown):
                self.counts["last words"] += 1
                await self.sleep(0.5)
        goal = (await witness.history(CHANNEL)).position
        while any(each.position != goal for each in readers):
            if self.reactor.seconds() > end:
                behind = Counter(
                    (getattr(each, "url", "events"), each.position.epoch == goal.epoch, each.position.offset)
                    for each in readers
                    if each.position != goal
                )
                raise Wrong(f"not at {goal}: {behind}")
            await self.sleep(0.05)

    @inlineCallbacks
    def clean_up(self) -> Any:
        self.over = self.over_reading = True
        yield DeferredList([each.close() for each in self.clients])
        yield DeferredList([each.stop() for each in (self.balancer, *self.relays)])
        for server in self.servers:
            yield deferToThread(server.clean_up)
        for redis in (self.redis, *self.others):
            yield deferToThread(redis.remove)


def main(seed: int, seconds: float, say: Any, only: Any = None) -> None:
    """Run once in each mode, or in one of them if there is little time. Raises Wrong, or the error that ended a run."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    names = list(MODES)
    modes = only or (names if seconds >= 120 else [names[seed % len(names)]])
    failures: list[Failure] = []

    async def run() -> None:
        for mode in modes:
            soak = NodeSoak(reactor, seed, mode, say)
            try:
                await soak.run(seconds / len(modes))
            finally:
                await soak.clean_up()
                say(f"{mode}: " + ", ".join(f"{number} {what}" for what, number in sorted(soak.counts.items())))

    def start() -> None:
        Deferred.fromCoroutine(run()).addErrback(failures.append).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(start)
    reactor.run()
    if failures:
        failures[0].raiseException()
