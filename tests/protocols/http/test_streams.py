"""Server-sent events and lines of JSON."""

from __future__ import annotations

import json
from typing import Any

from longconn.core.disconnects import CONNECTION_LIMIT, SHUTDOWN
from longconn.core.publication import Data, Info
from longconn.wire.sse import EventFormat, StreamFormat
from tests.protocols.http.kit import Answer, Connection, HTTPTestCase, unchunk


def events(body: bytes) -> list[dict[str, str]]:
    """Server-sent events, parsed; comments are in `comment`."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            fields[name or "comment"] = value.removeprefix(" ")
        found.append(fields)
    return found


class StreamCase(HTTPTestCase):
    def open(self, path: str, *headers: str) -> tuple[Connection, Answer]:
        connection = self.connect()
        connection.ask(f"GET /channels/lobby/{path}", *headers)
        return connection, connection.answer()

    def heard(self, connection: Connection) -> bytes:
        return unchunk(connection.take())[0]


class EventTests(StreamCase):
    def test_head_and_opening(self) -> None:
        _, answer = self.open("events")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.headers["content-type"], "text/event-stream; charset=utf-8")
        self.assertEqual(answer.headers["x-accel-buffering"], "no")
        self.assertEqual(answer.headers["cache-control"], "no-store")
        self.assertEqual(answer.headers["transfer-encoding"], "chunked")
        self.assertNotIn("content-length", answer.headers)
        self.assertFalse(answer.ended)
        (opening,) = events(answer.body)
        epoch = self.position().partition(":")[0]
        told = {"channel": "lobby", "epoch": epoch, "offset": 0}
        self.assertEqual(json.loads(opening.pop("data")), told)
        expected = {"comment": "ok", "retry": "1000", "id": self.position(), "event": "position"}
        self.assertEqual(opening, expected)
        self.assertEqual([each.protocol for each in self.hub.clients.values()], ["sse"])

    def test_publications(self) -> None:
        connection, _ = self.open("events")
        self.publish("one\ntwo \u2028 <b>")
        (event,) = events(self.heard(connection))
        self.assertEqual(event["id"], self.position())
        self.assertNotIn("event", event)
        value = json.loads(event["data"])
        self.assertEqual((value["channel"], value["data"], value["name"]), ("lobby", "one\ntwo \u2028 <b>", "ann"))
        self.assertEqual(f"{value['epoch']}:{value['offset']}", self.position())

    def test_one_encoding_serves_all(self) -> None:
        connections = [self.open("events")[0] for _ in range(5)]
        calls: list[Any] = []
        encode = EventFormat.encode
        self.patch(StreamFormat, "encode", lambda *args: calls.append(1) or encode(*args))
        self.publish("x")
        self.assertEqual(len({each.take() for each in connections}), 1)
        self.assertEqual(len(calls), 1)

    def test_http_1_0(self) -> None:
        connection = self.connect()
        connection.ask("GET /channels/lobby/events", version="1.0")
        answer = connection.answer()
        self.assertNotIn("transfer-encoding", answer.headers)
        self.assertEqual(answer.version, "HTTP/1.0")
        self.publish("x")
        (event,) = events(connection.take())
        self.assertEqual(event["id"], self.position())
        (client,) = self.hub.clients.values()
        client.close(SHUTDOWN)
        self.assertEqual(events(connection.take())[0]["event"], "disconnect")
        self.assertTrue(connection.closing)

    def test_resumes(self) -> None:
        self.publish("one")
        position = self.position()
        self.publish("two")
        self.publish("three")
        for path, headers in (
            ("events", [f"Last-Event-ID: {position}"]),
            (f"events?since={position}", []),
            ("events?since=gone:1", [f"Last-Event-ID: {position}"]),
            (f"events?since=gone:1&lastEventId={position}", []),
            (f"events?lastEventID={position}", []),
            (f"events?Last-Event-ID={position}", []),
            ("events?lastEventId=gone:1", [f"Last-Event-ID: {position}"]),
            (f"events?lastEventId=&since={position}", []),
        ):
            connection, answer = self.open(path, *headers)
            opening, *rest = events(answer.body)
            self.assertEqual(opening["id"], position)
            self.assertEqual([json.loads(each["data"])["data"] for each in rest], ["two", "three"])
            connection.lose()
        connection, answer = self.open(f"events?since={self.position()}")
        self.assertEqual(len(events(answer.body)), 1)
        self.publish("four")
        self.assertEqual(len(events(self.heard(connection))), 1)

    def test_a_refusal_that_passes_is_an_event_to_an_event_source(self) -> None:
        """Every other status than 200 would be final to it."""
        accept = "Accept: text/event-stream"
        self.start(max_connections=1)
        holder, _ = self.open("events", accept)
        for headers, status in (((accept,), 200), ((), 503), (("Accept: */*",), 503)):
            _, answer = self.open("events", *headers)
            self.assertEqual(answer.status, status)
        _, answer = self.open("events", accept)
        self.assertEqual(answer.headers["content-type"], "text/event-stream; charset=utf-8")
        self.assertIn("content-length", answer.headers)  # it ends, and the browser asks again
        (event,) = events(answer.body)
        self.assertEqual(event["event"], "disconnect")
        self.assertTrue(1000 <= int(event["retry"]) < 6000)
        expected = {"code": 106, "reason": "limit exceeded: connections", "reconnect": True}
        self.assertEqual(json.loads(event["data"]), expected)
        for path, status in (("events?name=1.2.3.4", 400), ("stream", 503)):
            self.assertEqual(self.open(path, accept)[1].status, status)
        holder.lose()
        _, answer = self.open("events", accept)
        self.assertEqual(events(answer.body)[0]["event"], "position")

    def test_an_event_source_over_its_rate_is_asked_to_wait(self) -> None:
        self.start(publish_rate=0.01, publish_burst=1)  # ten requests at once, then one in ten seconds
        for _ in range(10):
            self.request("GET /channels/lobby")
        for headers, status in ((["Accept: text/event-stream"], 200), ([], 429)):
            _, answer = self.open("events", *headers)
            self.assertEqual(answer.status, status)
            if status == 200:
                (event,) = events(answer.body)
                self.assertEqual((event["event"], json.loads(event["data"])["code"]), ("disconnect", 111))
                self.assertTrue(10_000 <= int(event["retry"]) < 14_000, event)

    def test_a_reader_whose_name_is_taken_is_let_in_and_told(self) -> None:
        self.open("events?name=ann")
        for query, name in (("name=ann", "guest-1"), ("name=bo", "bo")):
            _, answer = self.open(f"events?{query}")
            self.assertEqual(json.loads(events(answer.body)[0]["data"])["name"], name)

    def test_a_lost_position(self) -> None:
        self.publish("one")
        self.publish("two")
        epoch = self.position().partition(":")[0]
        for since in ("gone:1", f"{epoch}:9"):
            connection, answer = self.open("events", f"Last-Event-ID: {since}")
            opening, unrecovered, *rest = events(answer.body)
            self.assertEqual((opening["id"], unrecovered["event"]), (f"{epoch}:0", "unrecovered"))
            self.assertEqual(json.loads(unrecovered["data"]), {"channel": "lobby", "epoch": epoch, "offset": 0})
            self.assertEqual([json.loads(each["data"])["data"] for each in rest], ["one", "two"])
            connection.lose()

    def test_malformed_positions(self) -> None:
        for path, headers in (
            ("events?lastEventId=1", []),
            ("events", ["Last-Event-ID: x"]), ("events?since=1", []), ("stream?since=:", []), ("events?since=a:-1", []),
            ("events?since=%FF", []), ("events?since=a:1&since=a:1", []), ("events", ["Last-Event-ID: a:1\u00b2"]),
        ):  # fmt: skip
            _, answer = self.open(path, *headers)
            self.assertEqual(answer.status, 400, (path, headers))

    def test_a_long_backlog_is_lazy(self) -> None:
        self.start(send_queue=1000)
        self.publish("first")
        since = self.position()
        for number in range(40):
            self.publish(f"{number}" + "x" * 20_000)
        connection = self.connect()
        connection.transport.full = True
        written: list[Any] = []
        write = EventFormat.write
        self.patch(EventFormat, "write", lambda *args: written.append(1) or write(*args))
        connection.ask(f"GET /channels/lobby/events?since={since}")
        connection.transport.drain(full=True)
        self.assertEqual(len(self.hub.clients), 1, "a backlog never counts as slow")
        self.assertLess(len(written), 10)
        self.publish("live")
        connection.transport.drain()
        answer = connection.answer()
        found = [json.loads(each["data"])["data"] for each in events(answer.body)[1:]]
        self.assertEqual(found, [f"{number}" + "x" * 20_000 for number in range(40)] + ["live"])

    def test_heartbeat_if_silent(self) -> None:
        connection, _ = self.open("events")
        self.clock.pump([1] * 20)
        self.publish("x")
        connection.take()
        self.clock.pump([1] * 23)
        self.assertEqual(connection.take(), b"")
        self.clock.pump([1] * 4)
        self.assertEqual(self.heard(connection), b":\n\n")
        self.clock.pump([1] * 54)
        self.assertEqual(self.heard(connection), b":\n\n" * 2)

    def test_joins_and_leaves(self) -> None:
        connection, _ = self.open("events")
        self.open("events?name=bob")
        self.turns()
        self.assertEqual(connection.take(), b"", "only chat clients are announced")

    def test_disconnect(self) -> None:
        for disconnect in (SHUTDOWN, CONNECTION_LIMIT):
            connection, _ = self.open("events")
            (client,) = self.hub.clients.values()
            client.close(disconnect)
            body, rest, ended = unchunk(connection.take())
            (event,) = events(body)
            self.assertEqual((event["event"], rest, ended), ("disconnect", b"", True))
            self.assertEqual(
                json.loads(event["data"]),
                {"code": disconnect.code, "reason": disconnect.text, "reconnect": disconnect.reconnect},
            )
            self.assertEqual("retry" in event, disconnect.reconnect)
            self.assertTrue(connection.closing)
            self.assertEqual(self.hub.clients, {})
            connection.lose()

    def test_a_slow_client_gets_a_whole_farewell(self) -> None:
        self.start(send_queue=10_000)
        slow, _ = self.open("events")
        other, _ = self.open("events")
        slow.transport.full = True
        with self.assertLogs("longconn", "WARNING") as logged:
            for number in range(12):
                self.publish(f"{number}" + "x" * 1000)
        self.assertIn("slow", logged.output[0])
        self.assertEqual(len(self.hub.clients), 1)
        self.assertEqual(len(events(self.heard(other))), 12)
        slow.transport.drain()
        body, _, ended = unchunk(slow.take())
        *told, last = events(body)
        self.assertTrue(ended)
        self.assertEqual((last["event"], json.loads(last["data"])["code"]), ("disconnect", 3008))
        self.assertEqual(len(told), 1)
        self.assertTrue(slow.closing)

    def test_a_client_that_never_reads_is_aborted(self) -> None:
        connection, _ = self.open("events")
        connection.transport.full = True
        self.publish("x")
        self.clock.pump([1] * 40)
        self.assertEqual(self.hub.clients, {})
        self.assertTrue(connection.transport.disconnected)

    def test_client_leaves(self) -> None:
        connection, _ = self.open("events")
        connection.lose()
        self.assertEqual((self.hub.clients, self.hub.channels), ({}, {}))
        self.publish("x")

    def test_input_during_a_stream_is_dropped(self) -> None:
        connection, _ = self.open("events")
        for _ in range(100):
            connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
        self.assertEqual(connection.transport.producerState, "producing")
        self.assertEqual(connection.take(), b"")

    def test_head(self) -> None:
        for path in ("events", "stream", "events?name=bob"):
            answer = self.request(f"HEAD /channels/lobby/{path}")
            self.assertEqual((answer.status, answer.rest), (200, b""))
        self.assertEqual(self.hub.clients, {})

    def test_limits_and_names(self) -> None:
        self.start(max_connections=2)
        self.open("events?name=ann")
        connection = self.connect()
        for query, status in (("?name=1.2.3.4", 400), ("?name=Ann", 200)):
            connection.ask(f"GET /channels/lobby/events{query}")
            answer = connection.answer()
            self.assertEqual(answer.status, status, "the connection is kept for more after a refusal")
        answer = self.open("events")[1]
        self.assertEqual((answer.status, "retry-after" in answer.headers), (503, True))
        self.assertEqual(len(self.hub.clients), 2)

    def test_a_slow_connection_is_kept_after_a_refusal(self) -> None:
        connection, answer = self.open("events?name=1.2.3.4")
        self.assertEqual(answer.status, 400)
        self.assertIs(connection.transport.producer, connection.protocol)
        self.assertEqual(connection.request("GET /PrintHello").body, b"hello word")


class LineTests(StreamCase):
    def test_lines(self) -> None:
        connection, answer = self.open("stream")
        self.assertEqual(answer.headers["content-type"], "application/x-ndjson")
        self.assertEqual(answer.body, b"")
        self.publish("one")
        self.publish("two")
        lines = self.heard(connection).split(b"\n")
        self.assertEqual([json.loads(each)["data"] for each in lines[:-1]], ["one", "two"])
        self.assertEqual(lines[-1], b"")
        self.clock.pump([1] * 27)
        self.assertEqual(self.heard(connection), b"\n")
        (client,) = self.hub.clients.values()
        self.assertEqual(client.protocol, "stream")
        client.close(SHUTDOWN)
        self.assertEqual(connection.take(), b"0\r\n\r\n")
        self.assertTrue(connection.closing)

    def test_resumes(self) -> None:
        self.publish("one")
        since = self.position()
        self.publish("two")
        _, answer = self.open(f"stream?since={since}")
        self.assertEqual([json.loads(each)["data"] for each in answer.body.splitlines()], ["two"])
        _, answer = self.open("stream?since=gone:1")
        first, *rest = map(json.loads, answer.body.splitlines())
        epoch = since.partition(":")[0]
        self.assertEqual(first, {"channel": "lobby", "recovered": False, "epoch": epoch, "offset": 0})
        self.assertEqual([each["data"] for each in rest], ["one", "two"])


class LateTests(StreamCase):
    """With a broker that answers turns later."""

    late = True

    def test_answer_comes_later(self) -> None:
        self.publish("one")
        since = self.position()
        self.publish("two")
        connection = self.connect()
        connection.ask(f"GET /channels/lobby/events?since={since}")
        self.assertEqual(connection.take(), b"")
        self.hub.publish("lobby", Data.of_text("three"), Info("ann"), lambda result: None)
        self.turns()
        self.publish("four")
        body = connection.answer().body
        found = [json.loads(each["data"])["data"] for each in events(body)[1:]]
        self.assertEqual(found, ["two", "three", "four"])

    def test_client_leaves_before(self) -> None:
        connection = self.connect()
        connection.ask("GET /channels/lobby/events")
        self.turns(1)
        connection.lose()
        self.turns()
        self.assertEqual((self.hub.clients, self.hub.channels), ({}, {}))

    def test_broker_fails(self) -> None:
        self.broker.failures = 1
        connection = self.connect()
        connection.ask("GET /channels/lobby/events")
        self.turns()
        answer = connection.answer()
        self.assertEqual(answer.status, 503)
        self.assertNotIn("transfer-encoding", answer.headers)
        self.assertEqual(self.hub.clients, {})
        self.assertEqual(connection.request("GET /PrintHello").status, 200)

    def test_shutdown_before(self) -> None:
        connection = self.connect()
        connection.ask("GET /channels/lobby/events")
        (client,) = self.hub.clients.values()
        client.close(SHUTDOWN)
        self.assertEqual(connection.answer().status, 503)
        self.turns()
        self.assertEqual(connection.take(), b"")
