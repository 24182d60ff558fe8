"""The clients of a simulation: programs that come back with their positions, readers of chat, and publishers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from longconn.core import commands
from longconn.core.client import Client
from longconn.core.disconnects import SLOW, Disconnect
from longconn.core.errors import CommandError
from longconn.core.hub import Hub
from longconn.core.publication import Data, Event, History, Info, Position, Publication
from longconn.core.session import Session
from longconn.redis.publishing import TIMEOUT
from tests.simulation.checker import Request, WrongError

if TYPE_CHECKING:
    from tests.simulation.world import Node, World

#: Writes that may wait for a client that does not read.
_MOST_WAITING = 8


class EventFormat:
    """A wire format of events as they are."""

    tells_own_join = False

    def encode(self, channel: str, events: Sequence[Event]) -> Any:
        return [("events", channel, list(events))]


FORMAT = EventFormat()


class PlainCodec:
    """Commands and replies as they are."""

    ping: Any = ("ping",)
    expiry_grace = 0.0
    closes_on_mismatch = False

    def split(self, frame: bytes) -> list[Any]:
        return [frame]

    def read(self, item: Any) -> Any:
        return item

    def reply(self, id: int, result: commands.Result) -> Any:
        return ("reply", id, result)

    def refusal(self, id: int, error: CommandError) -> Any:
        return ("refusal", id, error)

    def push(self, push: commands.Push) -> Any:
        return ("push", 0, push)

    def frame(self, messages: Sequence[bytes]) -> Any:
        return list(messages)

    def format(self, join_leave: bool) -> EventFormat:
        return FORMAT


class MemoryOutlet:
    """The writable end of a client's connection. While the client does not read, what is written waits."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.client: Client | None = None
        self.waiting: list[Any] = []
        self.paused = False
        self.closed = False

    @property
    def queued(self) -> int:
        return len(self.waiting)

    def write(self, data: Any) -> None:
        if self.closed:
            return
        if not self.paused:
            self._member.on_data(self, data)
            return
        self.waiting.append(data)
        if len(self.waiting) > _MOST_WAITING and self.client is not None:
            self.client.close(SLOW)

    def write_backlog(self, source: Iterator[bytes]) -> None:
        for each in source:
            self.write(each)

    def resume(self) -> None:
        self.paused = False
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            if not self.closed:
                self._member.on_data(self, each)

    def close(self, disconnect: Disconnect) -> None:
        if not self.closed:
            self.closed = True
            self._member.on_closed(disconnect)


class Member:
    """A client. It comes to a random node, and comes again when its connection has ended."""

    client_id = ""

    def __init__(self, world: World, name: str, channels: Sequence[str]) -> None:
        self.world = world
        self.name = name
        self.channels = channels
        self.node: Node | None = None
        self.outlet: MemoryOutlet | None = None
        #: where it is in each channel that it is subscribed to now
        self.at: dict[str, Position] = {}

    @property
    def connected(self) -> bool:
        return self.outlet is not None

    def come(self) -> None:
        node = self.world.some_node()
        if node is None or self.connected or self.world.over:
            return
        self.node = node
        self.outlet = MemoryOutlet(self)
        self.world.say(self.name, "comes to", node.name)
        self.connect(node.hub)

    def connect(self, hub: Hub) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """Its side of the connection has ended."""
        raise NotImplementedError

    def on_closed(self, disconnect: Disconnect) -> None:
        self.world.say(self.name, "is closed:", disconnect.text)
        assert self.node is not None
        self.node.machine.callLater(0, self.leave, self.outlet)

    def leave(self, outlet: MemoryOutlet | None) -> None:
        """Its connection is lost, for this side and for the node, if that lives."""
        if outlet is None or outlet is not self.outlet or self.node is None:
            return
        outlet.closed = True
        self.outlet = None
        self.at.clear()
        if not self.node.machine.dead:
            self.end()
        self.world.clock.callLater(self.world.random.choice((0.01, 0.2, 1.5)), self.come)

    def on_data(self, outlet: MemoryOutlet, data: Sequence[tuple[str, Any, Any]]) -> None:
        for kind, first, second in data:
            if outlet is not self.outlet or outlet.closed:
                return
            if kind == "events":
                self._on_events(first, second)
            else:
                self.on_reply(first, second)

    def on_reply(self, id: int, result: Any) -> None:
        raise NotImplementedError

    def _on_events(self, channel: str, events: list[Event]) -> None:
        for each in events:
            if isinstance(each, Publication) and each.offset:
                if channel not in self.at:
                    raise WrongError(f"{self.name} is sent {each.data.text} in {channel}, and is not in it")
                self.see(channel, each)

    def see(self, channel: str, publication: Publication) -> None:
        self.at[channel] = self.world.checker.check_next(
            channel, self.at[channel], publication.epoch, publication.offset, publication.data.text
        )
        self.world.say(self.name, "reads", publication.data.text, publication.offset)


class ChatReader(Member):
    """Reads what comes from now on, in one channel."""

    def __init__(self, world: World, name: str, channel: str) -> None:
        super().__init__(world, name, (channel,))
        self.client: Client | None = None

    def connect(self, hub: Hub) -> None:
        outlet = self.outlet
        assert outlet is not None
        client = self.client = outlet.client = hub.connect(outlet, "tcp", "", self.name)
        client.announced = True
        self.client_id = client.id

        def subscribed(result: History | CommandError) -> None:
            if outlet is not self.outlet or outlet.closed:
                return
            if isinstance(result, CommandError):
                self.world.say(self.name, "is refused:", result)
                client.gone()
                self.leave(outlet)
            else:
                self.at[self.channels[0]] = result.position

        hub.door.subscribe(client, self.channels[0], FORMAT, subscribed)

    def end(self) -> None:
        if self.client is not None:
            self.client.gone()

    def on_reply(self, id: int, result: Any) -> None:
        raise AssertionError(result)


class Program(Member):
    """Subscribes to channels, comes back with its positions, and publishes."""

    def __init__(self, world: World, name: str, channels: Sequence[str]) -> None:
        super().__init__(world, name, channels)
        self.session: Session | None = None
        self.input_waits = False
        # The positions with which it comes back.
        self._positions: dict[str, Position] = {}
        self._ids = 0
        self._asked: dict[int, Any] = {}

    # As the reader of its session.

    def pause_reading(self) -> None:
        """It sends little."""

    def resume_reading(self) -> None:
        """It sends little."""

    # What it does.

    def connect(self, hub: Hub) -> None:
        assert self.outlet is not None
        self._asked.clear()
        codec: Any = PlainCodec()
        self.session = Session(hub, self.outlet, codec, self, "websocket", "", self.name)
        self.client_id = self.session.client.id
        self._send(commands.Connect(self._id(None)))
        for channel in self.channels:
            self.subscribe(channel)

    def end(self) -> None:
        if self.session is not None:
            self.session.stop()

    def subscribe(self, channel: str) -> None:
        since = self._positions.get(channel)
        self._send(commands.Subscribe(self._id((channel, since)), channel, since=since))

    def unsubscribe(self, channel: str) -> None:
        self._send(commands.Unsubscribe(self._id(channel), channel))

    def publish(self, channel: str, texts: list[str]) -> None:
        """Publish texts in one read of the server, once each."""
        wanted = []
        for text in texts:
            request = Request(channel, text, self.world.clock.now)
            wanted.append(commands.Publish(self._id(request), channel, Data.of_text(text)))
        self._send(*wanted)

    @property
    def idle(self) -> bool:
        """Whether it waits for no answer."""
        return not self._asked

    def _id(self, asked: Any) -> int:
        self._ids += 1
        self._asked[self._ids] = asked
        return self._ids

    def _send(self, *items: Any) -> None:
        if self.session is not None and self.outlet is not None and not self.outlet.closed:
            self.session.receive(list(items))

    def on_reply(self, id: int, result: Any) -> None:
        asked = self._asked.pop(id)
        match result:
            case commands.SubscribeResult(channel=channel):
                self._on_subscribed(channel, asked[1], result.history)
            case commands.UnsubscribeResult(channel=channel):
                self.at.pop(channel, None)
            case commands.PublishResult(position=position):
                self.world.checker.on_acknowledged(asked, position)
            case CommandError() if isinstance(asked, tuple):
                self.world.say(self.name, "is refused:", result)
                self.world.clock.callLater(self.world.random.choice((0.1, 1.0)), self._again, self.outlet, asked[0])

    def _again(self, outlet: MemoryOutlet, channel: str) -> None:
        if outlet is self.outlet and not self.world.over:
            self.subscribe(channel)

    def _on_subscribed(self, channel: str, since: Position | None, history: History) -> None:
        if since is None or not history.recovered:
            self.world.say(self.name, "is in", channel, "at", history.position, "since", since)
            self.at[channel] = self._positions[channel] = history.position
            return
        self.world.say(self.name, "recovers", channel, "to", history.position, "since", since)
        self.at[channel] = since
        for each in history.publications:
            self.see(channel, each)
        if self.at[channel] != history.position:
            raise WrongError(f"{self.name} recovers {channel} to {self.at[channel]}, not {history.position}")

    def see(self, channel: str, publication: Publication) -> None:
        super().see(channel, publication)
        self._positions[channel] = self.at[channel]


class Publisher:
    """Publishes at nodes as a program that embeds the hub. With a key it asks until the answer is known."""

    def __init__(self, world: World) -> None:
        self._world = world

    def publish(self, channel: str, text: str, key: str, keep: bool = True) -> None:
        world = self._world
        node = world.some_node()
        if node is None or world.over:
            return
        request = Request(channel, text, world.clock.now)
        world.say("a publisher asks", node.name, "for", text, "in", channel)

        def done(result: Position | CommandError) -> None:
            if request.answered:
                raise WrongError(f"{text} is answered twice")
            if world.clock.now - request.asked_at > TIMEOUT + 0.1:
                raise WrongError(f"{text} is answered after {world.clock.now - request.asked_at:.1f} s")
            request.answered = True
            world.say(text, "is answered:", result)
            if isinstance(result, CommandError):
                if key:
                    world.clock.callLater(world.random.choice((0.1, 1.0)), self.publish, channel, text, key)
            elif keep:
                world.checker.on_acknowledged(request, result)

        node.asked.append(request)
        node.hub.publish(channel, Data.of_text(text), Info("publisher"), done, keep, key)
