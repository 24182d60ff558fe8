"""The network of a simulation: connections between nodes and the server, which take time, stand still and are cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

import hiredis
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError, TimeoutError
from twisted.python.failure import Failure

from tests.simulation.clock import SimulatedCall, SimulatedClock

#: Bytes that one call of `deliver` gets are those that were sent at one time.
Deliver = Callable[[bytes], None]
#: How often what was sent at one time comes in parts.
_IN_PARTS = 0.15


class Pipe:
    """One direction of a connection: bytes come in order, each after some time."""

    def __init__(self, clock: SimulatedClock, random: Random, deliver: Deliver) -> None:
        self._clock = clock
        self._random = random
        self._deliver = deliver
        # When it was sent, when it arrives, what it is.
        self._chunks: deque[list[Any]] = deque()
        self._call: SimulatedCall | None = None
        self._broken = False
        #: nothing arrives before
        self.held_until = 0.0

    def send(self, data: bytes) -> None:
        if self._broken:
            return
        now = self._clock.now
        chunks = self._chunks
        if chunks and chunks[-1][0] == now:
            chunks[-1][2] += data
            return
        arrival = now + self._random.choice((0.0001, 0.0005, 0.001, 0.01, 0.05))
        arrival = max(arrival, self.held_until, chunks[-1][1] if chunks else 0.0)
        chunks.append([now, arrival, data])
        if len(chunks) == 1:
            self._wait()

    def hold(self, until: float) -> None:
        """Let nothing arrive before that time."""
        self.held_until = until = max(self.held_until, until)
        for each in self._chunks:
            each[1] = max(each[1], until)
        self._wait()

    def truncate(self, whole: bool = False) -> None:
        """Lose what is under way from some byte on (`whole`: all of it), and all that comes after it."""
        self._broken = True
        if self._chunks and self._call is not None:
            chunks = list(self._chunks)
            kept = 0 if whole else self._random.randrange(len(chunks))
            data = chunks[kept][2]
            part = b"" if whole else data[: self._random.choice((0, len(data), self._random.randint(0, len(data))))]
            self._chunks = deque([*chunks[:kept], [*chunks[kept][:2], part]])

    @property
    def end(self) -> float:
        """When all that is under way has arrived."""
        return float(self._chunks[-1][1]) if self._chunks else self._clock.now

    def _wait(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._chunks:
            self._call = self._clock.callLater(max(0.0, self._chunks[0][1] - self._clock.now), self._arrive)

    def _arrive(self) -> None:
        self._call = None
        chunk, now = self._chunks[0], self._clock.now
        data = chunk[2]
        if now < self._clock.quiet_from and len(data) > 1 and self._random.random() < _IN_PARTS:
            # A part of it comes now, the rest later.
            size = self._random.randrange(1, len(data))
            chunk[1], chunk[2] = now + self._random.choice((0.01, 0.2, 1.0)), data[size:]
            data = data[:size]
        else:
            self._chunks.popleft()
        self._wait()
        if data:
            self._deliver(data)


class Wire:
    """A connection of a node to the server; the transport of its protocol.

    `on_command` is called with each command that arrives, `on_end` when the server learns that it has ended.
    """

    def __init__(
        self,
        machine: Machine,
        protocol: Any,
        on_command: Callable[[Wire, list[bytes]], None],
        on_end: Callable[[Wire], None],
    ) -> None:
        clock, random = machine.clock, machine.random
        self.machine = machine
        self._clock, self._random = clock, random
        self._protocol = protocol
        self._on_command = on_command
        self._on_end = on_end
        self._commands = hiredis.Reader()
        self.up = Pipe(clock, random, self._to_server)
        self.down = Pipe(clock, random, self._to_node)
        #: whether the node, and whether the server has it
        self.here = self.there = True
        self.topics: set[bytes] = set()

    # As a transport.

    def write(self, data: bytes) -> None:
        if self.here:
            self.up.send(data)

    def abortConnection(self) -> None:
        if self.here and self._random.random() < 0.5:
            self.up.truncate()
        self.leave(ConnectionLost())
        self._end_there(self._random.choice((0.0, 1.0, 10.0)))

    def loseConnection(self) -> None:
        self.leave(ConnectionDone())
        self._end_there(0.0)

    # What happens to it.

    def cut(self) -> None:
        """The network, or something between, cuts it."""
        self.up.truncate()
        self.down.truncate()
        if self._random.random() < 0.3:
            self.up.hold(self._clock.now + self._random.uniform(0, 4))
        delay = self.down.end - self._clock.now + self._random.choice((0.0, 0.001, 0.3))
        self._clock.callLater(delay, self.leave, ConnectionLost())
        self._end_there(self._random.choice((0.0, 0.001, 2.0)))

    def vanish(self) -> None:
        """Nothing arrives any more, and neither side is told."""
        self.up.truncate(whole=True)
        self.down.truncate(whole=True)
        self._end_there(15.0)

    def server_ended(self) -> None:
        """The process of the server has ended."""
        self.there = False
        self.up.truncate(whole=True)
        self.down.truncate()
        self._clock.callLater(self.down.end - self._clock.now, self.leave, ConnectionLost())

    def hold(self, until: float) -> None:
        self.up.hold(until)
        self.down.hold(until)

    def leave(self, reason: Exception) -> None:
        """The node learns that it has ended."""
        if self.here:
            self.here = False
            if self in self.machine.wires:
                self.machine.wires.remove(self)
            self.machine.callLater(0, self._protocol.connectionLost, Failure(reason))

    def _end_there(self, delay: float) -> None:
        self._clock.callLater(self.up.end - self._clock.now + delay, self._ended_there)

    def _ended_there(self) -> None:
        if self.there:
            self.there = False
            self._on_end(self)

    def _to_server(self, data: bytes) -> None:
        self._commands.feed(data)
        while self.there:
            command = self._commands.gets()
            if command is False:
                break
            self._on_command(self, command)

    def _to_node(self, data: bytes) -> None:
        if self.here and not self.machine.dead:
            self._protocol.dataReceived(data)


class Machine:
    """The reactor of one node. `accept` makes a connection to the server, or returns None if there is none."""

    def __init__(self, clock: SimulatedClock, random: Random, accept: Callable[[Machine, Any], Wire | None]) -> None:
        self.clock = clock
        self.random = random
        self._accept = accept
        self.dead = False
        #: it is cut off from the server until then
        self.apart_until = 0.0
        self.wires: list[Wire] = []
        self.seconds = clock.seconds
        self.wall_time = clock.wall_time

    def callLater(self, delay: float, function: Callable[..., Any], *arguments: Any) -> SimulatedCall:
        return self.clock.callLater(delay, self._run, function, arguments)

    def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if not self.dead:
            function(*arguments)

    def connectUNIX(self, path: str, factory: Any, timeout: float = 30, checkPID: bool = False) -> Any:
        connector = _Connector(factory)
        apart = self.apart_until > self.clock.now
        connector.call = self.callLater(timeout if apart else self.random.choice((0.0, 0.01)), self._connect, connector)
        factory.startedConnecting(connector)
        return connector

    def _connect(self, connector: _Connector) -> None:
        factory = connector.factory
        if self.apart_until > self.clock.now:
            factory.clientConnectionFailed(connector, Failure(TimeoutError()))
            return
        protocol = factory.buildProtocol(None)
        wire = self._accept(self, protocol)
        if wire is None:
            factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
            return
        self.wires.append(wire)
        protocol.makeConnection(wire)

    def part(self, until: float) -> None:
        """Cut it off: nothing arrives for a while."""
        self.apart_until = max(self.apart_until, until)
        for each in self.wires:
            each.hold(until)

    def die(self) -> None:
        """The process is killed."""
        self.dead = True
        for each in tuple(self.wires):
            each.cut()


class _Connector:
    """An attempt to connect."""

    def __init__(self, factory: Any) -> None:
        self.factory = factory
        self.call: SimulatedCall | None = None

    def stopConnecting(self) -> None:
        if self.call is not None:
            self.call.cancel()
