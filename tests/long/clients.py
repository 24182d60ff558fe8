"""45 clients, 5 of each transport, in plain and through TLS, follow a channel while the server restarts, the network
fails, and responses are cut at random.

Within an epoch each client must read every publication once, and it must learn where an epoch ended. Two clients must
read the same at the same position. No publication may be doubled.
"""

import random
from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from longconn.clients import Client, ConnectionFailed, Lost, OutcomeUnknown, Position, Publication, Refused, connect
from tests.live.programs import Server

URLS = (
    "tcp://127.0.0.1:{plain}",
    "ws://127.0.0.1:{plain}",
    "http://127.0.0.1:{plain}/connection/http_stream",
    "http://127.0.0.1:{plain}/connection/sse",
    "grpc://127.0.0.1:{plain}",
    "tls://127.0.0.1:{tls}",
    "wss://127.0.0.1:{tls}",
    "https://127.0.0.1:{tls}/connection/http_stream",
    "https://127.0.0.1:{tls}/connection/sse",
)
OF_EACH = 5
#: Seconds between two publications of a publisher, and the most between two disturbances.
PAUSE = 0.1
CALM = 4.0
CHANNEL = "soak"
#: History outlasts the longest outage, so a client loses publications only by a restart.
SETTINGS = "ping_interval = 2\npong_timeout = 20\nhistory_size = 10000\nhistory_bytes = 10000000\n"
#: Seconds for the last publication to reach all clients: to notice a dead peer, and the longest wait after that.
LAST = 45.0


class Wrong(AssertionError):
    """A check failed."""


class Side(Protocol):
    """One of the two sockets of a connection through a `Cable`."""

    def __init__(self, cable: "Cable") -> None:
        self.cable = cable
        self.other: Side | None = None
        self.dead = self.doomed = self.over = False

    def dataReceived(self, data: bytes) -> None:
        other = self.other
        if self.dead or other is None or other.over:
            return
        transport: Any = other.transport
        if self.doomed:
            transport.write(data[: self.cable.random.randrange(len(data))])
            self.break_off()
            transport.loseConnection()
        else:
            transport.write(data)

    def break_off(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over = True
        self.cable.sides.discard(self)
        if self.other is not None and not self.other.over and not self.dead:
            transport: Any = self.other.transport
            transport.loseConnection()


class Near(Side):
    """The client's side."""

    def connectionMade(self) -> None:
        self.cable.sides.add(self)
        self.dead = self.cable.dead
        transport: Any = self.transport
        transport.pauseProducing()
        there = TCP4ClientEndpoint(self.cable.reactor, "127.0.0.1", self.cable.target, timeout=5)
        there.connect(Factory.forProtocol(lambda: Far(self))).addErrback(lambda _: self.break_off())


class Far(Side):
    """The server's side."""

    def __init__(self, near: Near) -> None:
        super().__init__(near.cable)
        self.dead = near.dead
        self.other, near.other = near, self

    def connectionMade(self) -> None:
        near: Any = self.other
        if near.over:
            self.break_off()
            return
        self.cable.sides.add(self)
        near.transport.resumeProducing()


class Cable(Factory):
    """Passes connections on to a port."""

    noisy = False

    def __init__(self, reactor: Any, target: int, numbers: random.Random) -> None:
        self.reactor = reactor
        self.target = target
        self.random = numbers
        self.sides: set[Side] = set()
        #: whether new connections are accepted, but no byte passes
        self.dead = False
        self.listening = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.port: int = self.listening.getHost().port

    def buildProtocol(self, addr: Any) -> Near:
        return Near(self)

    def die(self, share: float) -> None:
        """Pass no byte of the current connections on, without closing them. `mend` does not revive them."""
        self.dead = True
        for each in self.sides:
            if isinstance(each, Near) and each.other is not None and self.random.random() < share:
                each.dead = each.other.dead = True

    def mend(self) -> None:
        self.dead = False

    def cut_answers(self, share: float) -> None:
        """Pass only a part of the next response on some connections, and nothing after it."""
        for each in list(self.sides):
            if isinstance(each, Far) and self.random.random() < share:
                each.doomed = True

    def stop(self) -> Any:
        for each in list(self.sides):
            each.break_off()
        return self.listening.stopListening()


class Reader:
    """A client that reads and checks its position."""

    def __init__(self, soak: "Soak", url: str) -> None:
        self.soak = soak
        self.url = url
        self.client = soak.connect(url)
        self.position = Position("", 0)
        self.told: list[Lost] = []

    async def run(self) -> None:
        subscription = await self.client.subscribe(CHANNEL)
        self.position = subscription.position
        async for event in subscription:
            if isinstance(event, Lost):
                self._lost(event)
            elif isinstance(event, Publication):
                self._take(event)
            if subscription.position != self.position:
                raise Wrong(f"{self.url} stands at {subscription.position} instead of {self.position}")

    def _lost(self, event: Lost) -> None:
        if event.position != self.position or event.resumed.epoch == event.position.epoch:
            raise Wrong(f"{self.url} at {self.position} is told {event}")
        self.position = event.resumed
        self.told.append(event)
        self.soak.counts["told lost"] += 1

    def _take(self, event: Publication) -> None:
        if (event.epoch, event.offset) != (self.position.epoch, self.position.offset + 1):
            raise Wrong(f"{self.url} read {event.offset} of {event.epoch} after {self.position}")
        self.position = Position(event.epoch, event.offset)
        said = self.soak.truth.setdefault(self.position, tuple(event.data))
        if said != tuple(event.data):
            raise Wrong(f"{self.position} is {said} to one and {event.data} to another")
        self.soak.counts["received"] += 1


class Soak:
    """One run."""

    def __init__(self, reactor: Any, seed: int, say: Any) -> None:
        self.reactor = reactor
        self.random = random.Random(seed)
        self.say = say
        self.server = Server(SETTINGS, tls=True)
        assert self.server.certificate is not None
        self.trust_root = trustRootFromCertificates([Certificate.loadPEM(self.server.certificate.read_bytes())])
        plain, tls = (Cable(reactor, each, self.random) for each in (self.server.port, self.server.tls_port))
        self.cables = (plain, tls)
        self.urls = [each.format(plain=plain.port, tls=tls.port) for each in URLS]
        self.clients: list[Client] = []
        #: the publications that were read, by position
        self.truth: dict[Position, tuple[int, int]] = {}
        self.counts: Counter[str] = Counter()
        self.over = False

    def connect(self, url: str) -> Client:
        client = connect(url, reactor=self.reactor, timeout=5, random=self.random.random, trust_root=self.trust_root)
        self.clients.append(client)
        return client

    def sleep(self, seconds: float) -> "Deferred[None]":
        return deferLater(self.reactor, seconds)

    async def run(self, seconds: float) -> None:
        readers = [Reader(self, url) for url in self.urls for _ in range(OF_EACH)]
        reading = [Deferred.fromCoroutine(each.run()) for each in readers]
        publishing = [Deferred.fromCoroutine(self._publish(number, url)) for number, url in enumerate(self.urls)]
        troubling = Deferred.fromCoroutine(self._trouble(seconds))
        # An error anywhere ends the run.
        failing = DeferredList([*reading, *publishing, troubling], fireOnOneErrback=True, consumeErrors=True)
        calm = DeferredList([troubling, *publishing], fireOnOneErrback=True, consumeErrors=True)
        await first_of(failing, calm)
        await first_of(failing, Deferred.fromCoroutine(self._agree(readers)))
        await DeferredList([each.close() for each in self.clients])
        await DeferredList(reading, fireOnOneErrback=True, consumeErrors=True)
        said = Counter((position.epoch, data) for position, data in self.truth.items())
        twice = [each for each, number in said.items() if number > 1]
        if twice:
            raise Wrong(f"published twice: {twice[:5]}")
        if self.reactor.getDelayedCalls():
            raise Wrong(f"left: {self.reactor.getDelayedCalls()}")

    async def _publish(self, number: int, url: str) -> None:
        client = self.connect(url)
        said = 0
        while not self.over:
            said += 1
            try:
                await client.publish(CHANNEL, [number, said])
                self.counts["published"] += 1
            except OutcomeUnknown:
                self.counts["unknown outcome"] += 1
            except ConnectionFailed:
                said -= 1  # the publication was not sent
            except Refused as error:
                if not error.temporary:
                    raise
                said -= 1  # a server that shuts down refuses
                self.counts["refused"] += 1
            await self.sleep(PAUSE)

    async def _trouble(self, seconds: float) -> None:
        end = self.reactor.seconds() + seconds
        await self.sleep(1)
        troubles = [self._cut, self._restart, self._die, self._cut]
        while not self.over:
            self.random.shuffle(troubles)
            for each in troubles:
                if self.reactor.seconds() < end:
                    await each()
                    await self.sleep(self.random.uniform(0.2, CALM))
            self.over = self.reactor.seconds() >= end

    async def _cut(self) -> None:
        self.counts["cuts"] += 1
        share = self.random.choice((0.1, 0.5, 1.0))
        for each in self.cables:
            each.cut_answers(share)

    async def _die(self) -> None:
        self.counts["blackholes"] += 1
        share = self.random.choice((0.2, 0.5, 1.0))
        for each in self.cables:
            each.die(share)
        await self.sleep(self.random.uniform(0.5, CALM))
        for each in self.cables:
            each.mend()

    async def _restart(self) -> None:
        self.counts["restarts"] += 1
        await deferToThread(self.server.stop)
        await self.sleep(self.random.uniform(0, CALM))
        await deferToThread(self.server.start)

    async def _agree(self, readers: list[Reader]) -> None:
        """Wait until all have read to the end, and compare what they read."""
        witness = self.connect(URLS[0].format(plain=self.server.port))
        await witness.publish(CHANNEL, [-1, 0])
        goal = (await witness.history(CHANNEL)).position
        end = self.reactor.seconds() + LAST
        while any(each.position != goal for each in readers):
            if self.reactor.seconds() > end:
                behind = [(each.url, each.position, each.client.state) for each in readers if each.position != goal]
                raise Wrong(f"not at {goal}: {behind}")
            await self.sleep(0.05)

    @inlineCallbacks
    def clean_up(self) -> Any:
        self.over = True
        yield DeferredList([each.close() for each in self.clients])
        yield DeferredList([each.stop() for each in self.cables])
        yield deferToThread(self.server.clean_up)


def first_of(*waits: "Deferred[Any]") -> "Deferred[Any]":
    """A Deferred that fires or fails as the first of them does."""
    done: Deferred[Any] = Deferred()
    for each in waits:
        each.addCallbacks(
            lambda value: None if done.called else done.callback(value),
            lambda failure: None if done.called else done.errback(getattr(failure.value, "subFailure", failure)),
        )
    return done


def main(seed: int, seconds: float, say: Any) -> None:
    """Run once. Raises Wrong, or the error that ended the run."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    soak = Soak(reactor, seed, say)
    failures: list[Failure] = []

    async def run() -> None:
        try:
            await soak.run(seconds)
        finally:
            await soak.clean_up()

    def start() -> None:
        Deferred.fromCoroutine(run()).addErrback(failures.append).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(start)
    reactor.run()
    say(", ".join(f"{number} {what}" for what, number in sorted(soak.counts.items())))
    if failures:
        failures[0].raiseException()
