"""The suite of Centrifugo's client protocol, for each carrier, over the embedded broker and one that answers late."""

import json
from typing import Any

from longconn.core.disconnects import IDLE
from longconn.testing import client_frame
from tests.behaviour.centrifugo import (
    SharedStructuredLinesMember,
    StructuredEventsMember,
    StructuredLinesMember,
    StructuredStreamMember,
    StructuredWebSocketMember,
)
from tests.behaviour.centrifugo_suite import FramedBehaviour, OwnEndpointBehaviour, StructuredBehaviour
from tests.behaviour.suite import Late

#: Bytes of answers that are under way at once over a broker that is far away: eight of them.
MOST_UNDER_WAY = 3_500_000


class StructuredWebSocketTests(FramedBehaviour, OwnEndpointBehaviour):
    member = StructuredWebSocketMember

    def refused(self, member: Any) -> bool:
        return bool(member.client.status == 503 or member.farewell == 3504)

    def test_who_does_not_connect_is_let_go(self) -> None:
        member = self.silent()
        self.server.advance(12)
        self.assertTrue(self.was_told(member, IDLE))
        self.assertEqual(self.server.hub.clients, {})

    def test_a_message_that_is_no_command_by_its_size_closes(self) -> None:
        self.serve(max_message=1_000)
        member = self.join()
        member.ask("publish", channel="lobby", data="y" * 1_900)
        self.server.advance(1)
        self.assertEqual(member.hears("error"), [("error", "too large: at most 1000 bytes")])
        self.assertIsNone(member.farewell)
        member.ask("publish", channel="lobby", data="y" * 2_001)
        self.server.advance(1)
        self.assertEqual(member.farewell, 1009)

    def test_a_binary_message_is_read_as_a_text(self) -> None:
        member = self.join()
        member.client.say(b'{"id":9,"ping":{}}\n{"id":10,"ping":{}}')
        self.server.advance(1)
        member.hear()
        self.assertEqual([member.replies[each]["ping"] for each in (9, 10)], [{}, {}])
        member.client.say(b'{"id":11,"ping":{"a":"\xff"}}')
        self.server.advance(1)
        self.assertEqual(member.farewell, 3501)

    def test_what_is_not_utf8_closes(self) -> None:
        member = self.join()
        member.connection.send(client_frame(b'{"id":1,"ping":{"a":"\xff"}}'))
        self.server.advance(1)
        self.assertEqual(member.farewell, 1007)


class StructuredWebSocketOverLateBrokerTests(Late, StructuredWebSocketTests):
    most_for_one = MOST_UNDER_WAY


class StructuredLinesTests(StructuredBehaviour):
    member = SharedStructuredLinesMember

    def refused(self, member: Any) -> bool:
        return bool(member.closed and len(member.client.lines) == 1 and "limit exceeded" in member.client.lines[0])

    def test_a_first_line_that_is_nearly_a_connect_is_answered_and_never_said(self) -> None:
        witness = self.witness()
        connect = b'{"connect":{"token":"secret"}}'
        for line in (
            connect, connect.replace(b"{", b'{"id":"1",', 1), connect.replace(b"{", b'{"id":0,', 1),
            b'{"id":1,"connect":{"token":"secret"},}', b"[" + connect + b"]", connect + b" " + connect,
            b'\xef\xbb\xbf{"id":1.0,"connect":{"token":"secret"}}', b'{"id":1,"subscribe":{"channel":"lobby"}}',
            b"[secret",
        ):  # fmt: skip
            connection = self.server.connect(self.factories[self.member.port])
            connection.send(line + b"\n")
            self.server.advance(1)
            self.assertTrue(connection.closed, line)
            if not connection.aborted:  # a late broker may have refused the chat before: then something was written
                self.assertIn(b'"code":3501', connection.received, line)
            self.assertTrue(self.may_refuse or not connection.aborted, line)
        self.assertEqual(witness.says(), [])

    def test_a_line_without_an_end_is_bounded(self) -> None:
        self.serve(max_message=1_000)
        member = self.join()
        self.records.clear()
        member.connection.send(b'{"id":5,"publish":{"data":"' + b"x" * 5_000)
        self.server.advance(1)
        self.assertEqual(member.farewell, 3501)
        self.assert_quiet(1)

    def test_every_command_before_a_half_close_is_answered(self) -> None:
        for settings in ({}, {"publish_rate": 20, "publish_burst": 5}):
            self.serve(**settings)
            connection = self.server.connect(self.factories[self.member.port])
            commands = ['{"id":1,"connect":{}}', '{"id":2,"subscribe":{"channel":"lobby"}}']
            commands += [f'{{"id":{number},"publish":{{"channel":"c","data":1}}}}' for number in range(3, 40)]
            commands += [f'{{"id":{number},"history":{{"channel":"c","limit":1}}}}' for number in range(40, 60)]
            connection.send("".join(each + "\n" for each in commands).encode())
            connection.half_close()
            self.server.advance(30)
            if b'"code":3501' in connection.received or not connection.received:
                self.assertTrue(self.may_refuse)
                continue
            answered = {json.loads(each).get("id") for each in connection.received.decode().splitlines()} - {None}
            self.assertEqual(answered, set(range(1, 60)))
            self.assertTrue(connection.closed)
            self.assertNotIn(b"disconnect", connection.received)

    def test_lines_come_in_any_pieces_and_may_end_in_crlf(self) -> None:
        member = self.join()
        for byte in b'{"id":6000,"ping":{}}\r\n\r\n{"id":6001,"ping":{}}\n':
            member.connection.send(bytes([byte]))
        member.hear()
        self.assertEqual([each in member.replies for each in (6000, 6001)], [True, True])


class StructuredLinesOverLateBrokerTests(Late, StructuredLinesTests):
    most_for_one = MOST_UNDER_WAY


class ChatPortStructuredLinesTests(StructuredLinesTests):
    """On a port for chat lines a client is announced when it connects, and so are those that turn out programs."""

    member = StructuredLinesMember  # type: ignore[assignment]

    def test_readers_of_chat_are_told_of_people_only(self) -> None:
        witness, member = self.witness(), self.join()
        self.lost_for(member)
        self.assertEqual(witness.hear(), [("joined", member.name), ("left", member.name)])

    def test_people_hear_nothing_of_a_program_that_breaks_off(self) -> None:
        witness, member = self.witness(), self.join()
        self.clear(witness)
        self.lost_for(member)
        self.assertEqual(witness.hear(), [])

    def test_comings_and_goings_are_told_to_those_who_ask(self) -> None:
        member = self.join(asks={"join_leave": True})
        self.clear(member)
        witness = self.witness()
        self.lost_for(witness)
        self.assertEqual(member.hear(), [("joined", witness.name), ("left", witness.name)])


class StructuredStreamTests(OwnEndpointBehaviour):
    member = StructuredStreamMember

    def refused(self, member: Any) -> bool:
        return bool(member.response.status == 503 and "connections" in member.response.text)

    def begin_with(self, frame: str) -> Any:
        class Other(self.member):  # type: ignore[misc,name-defined]
            def open(self, commands: list[Any]) -> None:
                super().open([])

            def begin(self, commands: str) -> Any:
                return super().begin(frame)

        return Other(self.server, self.factories)

    def gone(self, member: Any) -> bool:
        return bool(member.closed or member.farewell is not None)

    def test_commands_for_a_session_that_is_none_are_refused(self) -> None:
        member = self.join()
        client = self.server.http_client(self.factories["shared"])
        session, node = member.connected["session"], member.connected["node"]
        good = {"session": session, "node": node, "data": '{"id":7000,"ping":{}}'}
        for status, body in (
            (404, good | {"session": "other"}),
            (404, good | {"node": "other"}),
            (404, good | {"session": member.id}),
            (400, {"session": session}),
            (400, good | {"session": 1}),
            (400, good | {"node": None}),
            (400, []),
            (400, "text"),
            (204, good),
            (204, good | {"data": {"id": 7001, "ping": {}}}),
        ):
            with self.subTest(body=body):
                self.assertEqual(client.post("/emulation", json.dumps(body)).status, status)
        for raw in ("", "{", "[" * 500_000):
            self.assertEqual(client.post("/emulation", raw).status, 400)
        member.hear()
        self.assertEqual([each in member.replies for each in (7000, 7001)], [True, True])
        self.lost_for(member)
        self.assertEqual(client.post("/emulation", json.dumps(good)).status, 404)
        self.assert_quiet(0)

    def test_commands_that_wait_are_bounded(self) -> None:
        self.serve(publish_rate=1, publish_burst=5)
        member = self.join()
        for _ in range(20):
            member.say(*["x" * 1_000] * 30)
        self.server.settle()
        statuses = [each.status for each in member.posts]
        self.assertEqual((statuses[0], statuses[-1]), (204, 429))
        session = next(iter(self.server.hub.sessions.values()))
        self.assertLess(session.waiting_bytes, 300_000)

    def test_another_site_can_neither_read_nor_speak(self) -> None:
        member = self.join()
        client = self.server.http_client(self.factories["shared"])
        foreign = [("Origin", "https://evil.example")]
        self.assertEqual(client.request("POST", "/emulation", "{}", foreign).status, 403)
        self.assertEqual(client.request("POST", "/connection/http_stream", "{}", foreign).status, 403)
        self.assertEqual(client.request("GET", "/connection/sse?cf_connect=%7B%7D", None, foreign).status, 403)
        self.assertEqual(member.result("ping"), {})


class StructuredStreamOverLateBrokerTests(Late, StructuredStreamTests):
    most_for_one = MOST_UNDER_WAY


class StructuredEventsTests(FramedBehaviour, StructuredStreamTests):
    member = StructuredEventsMember


class StructuredEventsOverLateBrokerTests(Late, StructuredEventsTests):
    most_for_one = MOST_UNDER_WAY


del FramedBehaviour, OwnEndpointBehaviour, StructuredBehaviour
