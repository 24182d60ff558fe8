"""Random clients over all protocols connect, publish, stall, drop and recover. None may miss or double a publication.

The order in which the broker returned publications is compared with what each client read. A client must have read all
from its subscribe or recovery up to now, or up to its disconnect.
"""

import logging
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from longconn import ChatFactory, Hub, Settings, SharedPortFactory, WebSocketFactory
from longconn.core.publication import Data, Info
from longconn.service.embedding import LiveSite
from longconn.testing import FakeClock, MemoryServer
from tests.behaviour.broker import LateBroker
from tests.behaviour.centrifugo import (
    SharedStructuredLinesMember,
    StructuredEventsMember,
    StructuredStreamMember,
    StructuredWebSocketMember,
)
from tests.behaviour.members import (
    EventMember,
    ListenerMember,
    Member,
    OldStreamMember,
    PollMember,
    StreamMember,
    TCPMember,
    WebSocketMember,
    WebSocketPortMember,
)

_STRUCTURED: tuple[type[Member], ...] = (
    StructuredWebSocketMember,
    SharedStructuredLinesMember,
    StructuredStreamMember,
    StructuredEventsMember,
)
_KINDS: tuple[type[Member], ...] = (
    TCPMember,
    ListenerMember,
    WebSocketMember,
    WebSocketPortMember,
    EventMember,
    StreamMember,
    OldStreamMember,
    PollMember,
    *_STRUCTURED,
)
_CHANNELS = ("lobby", "den", "a/b:c")
_SETTINGS = Settings(
    send_queue=60_000, history_size=200, publish_rate=0, publish_bytes=0, channel_rate=0, max_connections=0
)
_MOST = 40


class Wrong(AssertionError):
    """A check failed. The same seed repeats it."""


class _Person:
    """A member, and what it must have read."""

    def __init__(self, member: Any, channel: str, resumed: bool) -> None:
        self.member = member
        self.channel = channel
        self.resumed = resumed
        self.since = member.since
        self.stalled = False
        self.stalls = 0
        #: the next offset by channel, once it is known
        self.next: dict[str, int] = {}


class Chaos:
    """One run. `checked` counts the publications that clients read and that were compared."""

    def __init__(self, seed: int, late: bool) -> None:
        self.random = random.Random(seed)
        clock = FakeClock()
        self.broker = LateBroker(clock, _SETTINGS, seed, failures=0.1, lag=seed % 4) if late else None
        self.late = late
        self.hub = Hub(clock, _SETTINGS, self.broker)
        self.server = MemoryServer(hub=self.hub)
        self.clock = clock
        chat = ChatFactory(self.hub)
        self.factories = {
            "chat": chat,
            "shared": SharedPortFactory(chat, LiveSite(self.hub)),
            "websocket": WebSocketFactory(self.hub),
        }
        self.people: list[_Person] = []
        #: the published texts by channel: the text of offset N is at N - 1
        self.truth: dict[str, list[str]] = {each: [] for each in _CHANNELS}
        #: the channel in which each text was published: a member may still be in its previous channel
        self.places: dict[str, tuple[str, int]] = {}
        self.told = 0
        self.checked = 0
        self.actions: Counter[str] = Counter()
        self._watch_broker()

    def _watch_broker(self) -> None:
        """Record publications where the inner broker returns them, which is their order."""
        inner: Any = self.broker.inner if self.broker is not None else self.hub.broker
        publish = inner.publish

        def noting(channel: str, data: Data, info: Info, done: Any, *options: Any, **named: Any) -> None:
            def noted(result: Any) -> None:
                said = self.truth[channel]
                said.append(data.text or "")
                self.places[said[-1]] = channel, len(said)
                if result.offset != len(said):
                    raise Wrong(f"offset {result.offset} for the publication number {len(said)} of {channel}")
                done(result)

            publish(channel, data, info, noted, *options, **named)

        inner.publish = noting
        publish_many = inner.publish_many

        def noting_many(channel: str, data: Sequence[Data], info: Info, done: Any) -> None:
            def noted(result: Any) -> None:
                said = self.truth[channel]
                for each in data:
                    said.append(each.text or "")
                    self.places[said[-1]] = channel, len(said)
                if result.offset != len(said):
                    raise Wrong(f"offset {result.offset} for the publication number {len(said)} of {channel}")
                done(result)

            publish_many(channel, data, info, noted)

        inner.publish_many = noting_many

    # Running.

    def run(self, steps: int, every: int = 25) -> None:
        """Run `steps` random steps, with a check after every `every` steps. Raises Wrong."""
        for number in range(1, steps + 1):
            self._disorderly(self._step)
            if number % every == 0:
                self.check()
        self.stop()

    def stop(self) -> None:
        self.check()
        self.server.stop()
        if self.hub.clients or self.hub.channels or self.hub._queued:
            raise Wrong("something was left behind")

    def _disorderly(self, action: Any) -> None:
        """Run with a few turns of the reactor, instead of turns until nothing is due."""
        clock: Any = self.clock
        clock.settle = lambda: [clock.turn() for _ in range(self.random.randrange(4))]
        try:
            action()
        finally:
            del clock.settle

    def _step(self) -> None:
        actions = {
            "come": 3 if len(self.people) < _MOST else 0,
            "speak": 8,
            "publish": 4,
            "flood": 1,
            "stall": 1,
            "read on": 2,
            "drop": 2,
            "come back": 2,
            "turn": 4,
            "wait": 1,
        }
        name = self.random.choices(list(actions), list(actions.values()))[0]
        self.actions[name] += 1
        getattr(self, "_" + name.replace(" ", "_"))()

    # Steps.

    def _text(self, channel: str) -> str:
        self.told += 1
        return f"{channel}|{self.told}|" + "x" * self.random.choice((0, 10, 1_000))

    def _someone(self) -> _Person | None:
        return self.random.choice(self.people) if self.people else None

    def _come(self) -> None:
        channel = self.random.choice(_CHANNELS)
        member = self.random.choice(_KINDS)(self.server, self.factories, channel)
        self.people.append(_Person(member, channel, resumed=False))

    def _speak(self) -> None:
        speakers = [each for each in self.people if each.member.speaks]
        if speakers:
            person = self.random.choice(speakers)
            texts = [self._text(person.channel) for _ in range(self.random.randrange(1, 4))]
            person.member.client.say(*texts)

    def _publish(self) -> None:
        channel = self.random.choice(_CHANNELS)
        for _ in range(self.random.randrange(1, 6)):
            self.hub.publish(channel, Data.of_text(self._text(channel)), Info("hub"), lambda result: None)

    def _flood(self) -> None:
        channel = self.random.choice(_CHANNELS)
        for _ in range(60):
            self.hub.publish(channel, Data.of_text(self._text(channel) + "y" * 3_000), Info("hub"), lambda result: None)

    def _stall(self) -> None:
        person = self._someone()
        if person is not None:
            person.stalled = True
            person.stalls += 1
            person.member.connection.stop_reading()

    def _read_on(self) -> None:
        for person in self.people:
            if person.stalled and self.random.random() < 0.5:
                person.stalled = False
                person.member.connection.start_reading()

    def _drop(self) -> None:
        person = self._someone()
        if person is not None:
            self.people.remove(person)
            self.random.choice((person.member.connection.reset, person.member.connection.close))()

    def _come_back(self) -> None:
        resumers = [each for each in self.people if each.member.resumes and each.since and not each.stalled]
        if resumers:
            person = self.random.choice(resumers)
            self.people.remove(person)
            person.member.connection.reset()
            kind = self.random.choice((EventMember, StreamMember, PollMember, *_STRUCTURED))
            member = kind(self.server, self.factories, person.channel, since=person.since)
            self.people.append(_Person(member, person.channel, resumed=True))

    def _turn(self) -> None:
        self.clock.turn()

    def _wait(self) -> None:
        self.clock.advance(self.random.choice((0.1, 0.5, 3, 27)))

    # Checking.

    def check(self) -> None:
        """Let all settle, and compare what each client read with the publications."""
        for person in self.people:
            if person.stalled and self.random.random() < 0.5:
                person.stalled = False
                person.member.connection.start_reading()
        self.clock.settle()
        for person in list(self.people):
            self._check(person)

    def _check(self, person: _Person) -> None:
        member = person.member
        heard = [] if member.client is None else member.hear()
        for each in heard:
            if each[0] == "lost":
                person.next.pop(person.channel, None)
                person.resumed = False
            elif each[0] == "said":
                self._check_said(person, each[2])
        person.since = member.since
        if member.closed:
            # Between two polls the connection is an idle HTTP connection.
            silent = member.farewell is None and not isinstance(member, PollMember)
            if silent and not person.stalls and not self._refused(member):
                raise Wrong(f"{type(member).__name__} {member.name} was closed without a word")
            self.people.remove(person)
        elif not person.stalled and member.inside:
            # Every client that has read any publication has read all.
            end = len(self.truth[person.channel]) + 1
            if person.next.get(person.channel, end) != end:
                raise Wrong(f"{type(member).__name__} {member.name} stopped at {person.next} of {end}")
        elif not person.stalled and not member.inside:
            self._disorderly(member.again)

    def _refused(self, member: Any) -> bool:
        """Whether the client never got in: the response to its request was an error."""
        return getattr(getattr(member, "response", None), "status", 0) >= 400

    def _check_said(self, person: _Person, text: str) -> None:
        channel, offset = self.places[text]
        expected = person.next.get(channel)
        if expected is None and person.resumed and channel == person.channel:
            expected = int(str(person.since).split(":")[1]) + 1
        if expected is not None and expected != offset:
            raise Wrong(f"{type(person.member).__name__} {person.member.name} read {offset} instead of {expected}")
        person.next[channel] = offset + 1
        self.checked += 1


def main(seed: int, seconds: float, say: Any) -> None:
    """Repeat runs until the time is over, each with the next seed."""
    import time

    logging.getLogger("longconn").setLevel(logging.CRITICAL)
    end = time.monotonic() + seconds
    runs = checked = 0
    actions: Counter[str] = Counter()
    while time.monotonic() < end:
        chaos = Chaos(seed + runs, late=bool((seed + runs) % 2))
        try:
            chaos.run(steps=1_000)
        except BaseException:
            say(f"failed with seed {seed + runs}: python -m tests.long chaos --seed {seed + runs} --seconds 1")
            raise
        runs += 1
        checked += chaos.checked
        actions += chaos.actions
    say(f"{runs} runs, {checked} publications read and compared; {dict(actions)}")
