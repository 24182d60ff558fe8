"""Recovery positions, and the events that answers and pushes give."""

import json
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from longconn.clients import Joined, Lost, NotLongconn, Position, Publication
from longconn.clients.recovery import GapError, RecoveryPosition, read_member


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


class RecoveryPositionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.recovery = RecoveryPosition("c", None, True, False)
        self.assertEqual(self.recovery.on_subscribed({"recoverable": True, "epoch": "e", "offset": 3}), [])

    def push(self, offset: int) -> list[Any]:
        return self.recovery.on_push("pub", {"data": raw(offset), "offset": offset})

    def test_publications_move_the_position(self) -> None:
        self.assertEqual(self.push(4), [Publication("c", 4, "e", 4, "", "")])
        self.assertEqual(self.push(4), [])
        self.assertEqual(self.recovery.position, Position("e", 4))
        self.assertEqual(self.recovery.request(""), {"channel": "c", "recover": True, "epoch": "e", "offset": 4})
        with self.assertRaises(GapError):
            self.push(6)
        self.assertEqual(self.recovery.position, Position("e", 4))

    def test_recovered_or_lost(self) -> None:
        result = {"recoverable": True, "epoch": "e", "offset": 5, "recovered": True, "was_recovering": True}
        events = self.recovery.on_subscribed(
            result | {"publications": [{"data": raw(1), "offset": 4}, {"data": raw(2), "offset": 5}]}
        )
        self.assertEqual(
            [(each.offset, each.data) for each in events if isinstance(each, Publication)], [(4, 1), (5, 2)]
        )
        self.assertEqual(self.recovery.on_subscribed(result), [])
        result = {"recoverable": True, "epoch": "f", "offset": 1, "was_recovering": True}
        self.assertEqual(self.recovery.on_subscribed(result), [Lost("c", Position("e", 5), Position("f", 1))])

    def test_a_refused_position_is_a_loss(self) -> None:
        self.recovery.forget()
        self.assertEqual(self.recovery.request("t"), {"channel": "c", "token": "t"})
        events = self.recovery.on_subscribed({"recoverable": True, "epoch": "f"})
        self.assertEqual(events, [Lost("c", Position("e", 3), Position("f", 0))])

    def test_names_of_members(self) -> None:
        def name(**info: Any) -> str:
            (event,) = self.recovery.on_push("join", {"info": info})
            assert isinstance(event, Joined)
            return event.member.name

        self.assertEqual(name(client="i", user="u", conn_info=raw({"name": "ann"})), "ann")
        self.assertEqual(name(client="i", user="u", conn_info=raw({"name": 1})), "u")
        self.assertEqual(name(client="i", conn_info=raw([])), "i")
        self.assertEqual(name(client="i", conn_info=raw({"name": ""})), "i")
        named = [
            read_member({"client": "i"} | more).named for more in ({}, {"user": "u"}, {"conn_info": raw({"name": "i"})})
        ]
        self.assertEqual(named, [False, True, True])
        (event,) = self.recovery.on_push("pub", {"data": raw(None), "offset": 4, "time": 1_700_000_000_500})
        assert isinstance(event, Publication)
        self.assertEqual((event.name, event.time), ("", 1_700_000_000.5))

    def test_malformed_answers(self) -> None:
        for result in ({"recoverable": 1}, {"recoverable": True, "epoch": 5}, {"recovered": True, "publications": [1]}):
            recovery = RecoveryPosition("c", Position("e", 1), True, False)
            with self.assertRaises(NotLongconn):
                recovery.on_subscribed(result)
