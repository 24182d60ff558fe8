"""The five promises of the server, checked over all protocols at once and at random.

Each promise has tests of its own beside the code that keeps it. Here many clients connect, publish, stall, break off
and reconnect in random order.

    Order           all subscribers see the same publications in the same order
    No silent loss  exactly once after subscribing, or a disconnect with a number; recovery without a gap
    Isolation       a slow, broken or hostile client neither delays nor breaks the others
    Bounds          nothing that a peer controls grows without a limit
    One encoding    per wire format and batch, however many subscribers
"""

from typing import Any
from unittest import mock

from longconn.core.publication import Data, Info
from tests.behaviour.members import EventMember, ListenerMember, PollMember, StreamMember, TCPMember, WebSocketMember
from tests.behaviour.suite import Case as Suite
from tests.behaviour.suite import Late
from tests.long.chaos import Chaos

KINDS: tuple[Any, ...] = (TCPMember, ListenerMember, WebSocketMember, EventMember, StreamMember)


class Case(Suite):
    def crowd(self, each: int) -> list[Any]:
        members = [self.join(kind=kind) for kind in KINDS for _ in range(each)]
        self.clear(*members)
        return members


class OrderTests(Case):
    def test_every_protocol_reads_the_same_in_the_same_order(self) -> None:
        self.serve(history_size=10_000)  # for the polls, which read what is kept
        members = [*self.crowd(3), self.join(kind=PollMember)]
        speakers = [each for each in members if each.speaks]
        for number in range(40):
            for speaker in speakers[number % 3 :: 2]:
                speaker.client.say(f"{number}")
            if number % 5 == 0:
                self.server.clock.turn()
        orders = [each.hears() for each in members]
        self.assertGreater(len(orders[0]), 80)
        self.assertEqual([each for each in orders if each != orders[0]], [])


class OrderOverLateBrokerTests(Late, OrderTests):
    pass


class LossTests(Case):
    def test_a_crowd_in_chaos_loses_and_doubles_nothing(self) -> None:
        for seed in range(3):
            chaos = Chaos(seed=seed, late=False)
            chaos.run(steps=250)
            self.assertGreater(chaos.checked, 200)

    def test_nor_over_a_broker_that_answers_late_and_refuses_at_times(self) -> None:
        checked = 0
        for seed in range(3):
            chaos = Chaos(seed=seed, late=True)
            chaos.run(steps=250)
            checked += chaos.checked
        self.assertGreater(checked, 500)


class IsolationTests(Case):
    def test_the_stalled_the_broken_and_the_hostile_change_nothing_for_the_others(self) -> None:
        self.serve(send_queue=50_000, history_bytes=0)
        good, stalled, broken = self.crowd(1), self.crowd(1), self.crowd(1)
        for each in stalled:
            each.connection.stop_reading()
        for client in self.server.hub.clients.values():
            if client.address in {each.name for each in broken}:
                client.subscriptions["lobby"].write = mock.Mock(side_effect=ValueError("broken"))
        hostile = self.server.connect(self.factories["shared"])
        texts = [f"{number:02}" + "x" * 5_000 for number in range(60)]
        with self.assertLogs("longconn") as logs:
            for number, text in enumerate(texts):
                hostile.send(bytes([number, 0xFF, 0x81]) * 500)
                self.server.hub.publish("lobby", Data.of_text(text), Info("poster"), lambda result: None)
                self.server.clock.turn()
                for each in good:
                    # Nobody waits for anybody: each turn's publication is there two turns later.
                    self.server.clock.turn()
                    self.assertTrue(each.says() == [text], f"{each.protocol} at {number}")
        self.assertEqual(len([each for each in logs.output if "is disconnected (3008" in each]), len(stalled))


class BoundTests(Case):
    def test_what_waits_for_clients_that_do_not_read_is_bounded_in_each_protocol(self) -> None:
        self.serve(send_queue=50_000, history_bytes=0)
        members = self.crowd(2)
        for each in members:
            each.connection.stop_reading()
        for _ in range(100):
            self.post("x" * 5_000)
            self.assertLessEqual(self.server.hub._queued, len(members) * 56_000)
        self.assertEqual((self.server.hub.clients, self.server.hub._queued), ({}, 0))

    def test_what_peers_send_without_end_is_not_kept(self) -> None:
        """The size of all that a connection holds, by what it was sent, is bounded at every protocol's every stage."""
        starts = (
            b"",
            b"x",
            b"hello\n",
            b"GET ",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
            b"GET /channels/lobby/stream HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /channels/lobby/events HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"POST /channels/lobby HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        for start in starts:
            connection = self.server.connect(self.factories["shared"])
            connection.send(start)
            for _ in range(50):
                connection.send(b"y" * 65_536)
                self.server.clock.turn()
            held = self.held(connection.transport.protocol)
            self.assertLess(held, 1_200_000, start)
            connection.reset()

    def held(self, protocol: Any) -> int:
        """Bytes in buffers that belong to a protocol."""
        seen: set[int] = set()

        def count(value: Any, depth: int) -> int:
            if id(value) in seen or depth > 4:
                return 0
            seen.add(id(value))
            if isinstance(value, bytes | bytearray | str):
                return len(value)
            if isinstance(value, list | tuple | set):
                return sum(count(each, depth) for each in value)
            if isinstance(value, dict):
                return sum(count(each, depth) for each in value.values())
            if hasattr(value, "getbuffer"):
                return 0 if value.closed else len(value.getbuffer())
            names = [*getattr(value, "__dict__", ())]
            names += [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
            skipped = ("factory", "site", "hub", "transport", "client", "_hub")
            return sum(count(getattr(value, name, None), depth + 1) for name in names if name not in skipped)

        return count(protocol, 0)

    def test_channels_named_by_peers_are_bounded(self) -> None:
        self.serve(max_channels=50, channel_rate=0, history_ttl=0)
        member = self.join(kind=TCPMember)
        for number in range(200):
            member.client.say(f"/join room-{number}")
            self.server.settle()
            for hub in (self.server.hub,):
                broker: Any = hub.broker
                self.assertLessEqual(len(broker._streams), 50)
                self.assertLessEqual(len(hub.channels), 2)
                self.assertLessEqual(len(hub.rates._known), 50)


class EncodingTests(Case):
    def test_one_for_each_wire_format_and_batch_however_many_read(self) -> None:
        """All who read a format are sent the very same bytes object."""
        self.crowd(10)
        written: dict[Any, list[bytes]] = {}
        for client in self.server.hub.clients.values():
            subscription = client.subscriptions["lobby"]
            sent = written.setdefault(subscription.format, [])

            def write(data: bytes, sent: list[bytes] = sent, original: Any = subscription.write) -> None:
                sent.append(data)
                original(data)

            subscription.write = write
        self.assertEqual(sorted(map(len, written.values())), [0] * 4)  # TCP, WebSocket, SSE, stream
        for _ in range(3):
            for number in range(50):
                self.server.hub.publish("lobby", Data.of_text(str(number)), Info("poster"), lambda result: None)
            self.server.settle()
        self.assertEqual(sorted(map(len, written.values())), [30, 30, 30, 60])
        for sent in written.values():
            self.assertEqual(len({id(each) for each in sent}), 3)
