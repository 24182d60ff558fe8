"""What comes together has the same effect as what comes one by one: it is only published together."""

import random
import re
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from longconn import ChatFactory, Hub, LiveSite, Settings, SharedPortFactory
from longconn.testing import FakeClock, MemoryServer
from tests.behaviour.broker import LateBroker
from tests.long.crowds import HEAD

LINES = [
    b"hello", b"", b"//slash", b"/ping", b"ping", b"/who", b'/json {"a": 1}', b"/json {", b"/join other",
    b"/join lobby", b"/nick ann", b"/nowhere", b"\xff\xfe",
    b"\xef\xbb\xbfmark", b"x" * 200, "日本語".encode(), b"two\rlines", b" ",
]  # fmt: skip
COMMANDS = [
    '"publish":{"channel":"lobby","data":"hello"}',
    '"publish":{"channel":"lobby","data": {"a":  [1, 2]}}',
    '"publish":{"channel":"other","data":"elsewhere"}',
    '"publish":{"channel":"lobby"}',
    '"publish":{"channel":"no way","data":1}',
    '"publish":{"channel":"lobby","data":"%s"}' % ("x" * 200),
    '"publish":{"channel":"lobby","data":"\\ud800"}',
    '"publish":{"channel":"lobby","data":1,"key":"map"}',
    '"publish":{"channel":"lobby","data":1,"new":true}',
    '"presence_stats":{"channel":"lobby"}',
    '"history":{"channel":"lobby","limit":1}',
]


def chat(inputs: list[bytes]) -> tuple[bytes, list[bytes]]:
    return b"/nick me\n", [each + b"\n" for each in inputs]


def structured(inputs: list[bytes]) -> tuple[bytes, list[bytes]]:
    return b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"lobby"}}\n', [each + b"\n" for each in inputs]


def kept(broker: Any) -> list[tuple[int, bytes]]:
    """The channel's history: offsets and values."""
    found: list[Any] = []
    broker.history("lobby", None, -1, False, found.append)
    return [(each.offset, each.data.json) for each in found[0].publications]


_RANDOM = re.compile(rb'127\.0\.0\.1:\d+|"(?:client|epoch)":"[^"]*"|"time":\d+')


class BatchTests(SynchronousTestCase):
    def run_one(self, way: Any, inputs: list[bytes], together: bool, late: bool, settings: dict[str, Any]) -> Any:
        """What the publisher received, what a member of the channel did, and the channel's history."""
        clock, made = FakeClock(), Settings(max_message=100, empty_line="ignore", **settings)
        broker = LateBroker(clock, made, failures=0) if late else None
        server = MemoryServer(hub=Hub(clock, made, broker))
        shared = SharedPortFactory(ChatFactory(server.hub), LiveSite(server.hub))
        member, publisher = server.connect(shared), server.connect(shared)
        begin, parts = way(inputs)
        member.send(b"/json 0\n")
        publisher.send(begin)
        server.settle()
        before = len(publisher.received)
        if together:
            publisher.send(b"".join(parts))
        for each in () if together else parts:
            publisher.send(each)
            server.settle()
        server.advance(60)
        history = kept(broker.inner if broker is not None else server.hub.broker)
        found = bytes(publisher.received[before:]), bytes(member.received), history
        server.stop()
        return found

    def check(self, way: Any, pool: list[bytes]) -> None:
        chance = random.Random(1)
        settings: tuple[dict[str, Any], ...] = ({}, {"publish_rate": 0, "publish_bytes": 0}, {"publish_rate": 5})
        for number in range(60):
            count = chance.randrange(2, 40)
            inputs = chance.choices(pool, k=count) if number % 2 else chance.choices(pool[:2], k=count)
            for late in (False, True):
                options = chance.choice(settings) | {"ping_interval": 0.0}
                apart, together = (self.run_one(way, inputs, each, late, options) for each in (False, True))
                for one, other in zip(apart, together, strict=True):
                    self.assertEqual(self.ordered(one), self.ordered(other), (inputs, options, late))

    @staticmethod
    def ordered(found: Any) -> Any:
        """Replies and publications as they are; how they are cut into frames and interleave is not compared."""
        if not isinstance(found, bytes):
            return found
        return sorted(_RANDOM.sub(b"", found).split(b"\n"))

    def test_chat_lines(self) -> None:
        self.check(chat, LINES)

    def test_structured_lines(self) -> None:
        numbered = [f'{{"id":{number},{each}}}'.encode() for number, each in enumerate(COMMANDS, 3)]
        self.check(structured, numbered)

    def test_what_waits_for_its_rate_is_not_read_again_and_again(self) -> None:
        server = MemoryServer(Settings(publish_rate=10, publish_burst=10))
        self.addCleanup(server.stop)
        shared = SharedPortFactory(ChatFactory(server.hub), LiveSite(server.hub))
        publisher = server.connect(shared)
        begin, parts = structured([f'{{"id":{number},{COMMANDS[0]}}}'.encode() for number in range(3, 203)])
        publisher.send(begin)
        server.settle()
        (client,) = server.hub.clients.values()
        codec = client.session.codec
        read = mock.Mock(side_effect=codec.read)
        self.patch(client.session, "codec", mock.Mock(wraps=codec, read=read))
        publisher.send(b"".join(parts))
        for _ in range(100):
            server.advance(0.1)
        self.assertGreater(server.hub.counters.publications, 90)
        self.assertLess(read.call_count, 4 * server.hub.counters.publications)

    def test_lines_of_a_request(self) -> None:
        """All that can be published is, in its order."""
        server = MemoryServer(Settings(history_size=1000))
        self.addCleanup(server.stop)
        shared = SharedPortFactory(ChatFactory(server.hub), LiveSite(server.hub))
        body = b"\n".join(b'"%d"' % number for number in range(700))
        head = f"POST /channels/lobby {HEAD}Content-Type: application/x-ndjson\r\nContent-Length: {len(body)}\r\n\r\n"
        poster = server.connect(shared)
        poster.send(head.encode() + body)
        server.advance(5)
        self.assertIn(b'"count":700', poster.received)
        self.assertEqual(kept(server.hub.broker), [(number, b'"%d"' % (number - 1)) for number in range(1, 701)])
