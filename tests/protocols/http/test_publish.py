"""POST: one publication, and many."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

from longconn.core.publication import Data, Publication
from longconn.protocols.http.publish import MAX_LINES
from tests.protocols.http.kit import HTTPTestCase

JSON = "Content-Type: application/json"
BULK = "Content-Type: application/x-ndjson"


class PublishCase(HTTPTestCase):
    def kept(self, channel: str = "lobby") -> list[Publication]:
        found: list[Any] = []
        self.memory.history(channel, None, -1, False, found.append)
        return list(found[0].publications)

    def said(self, channel: str = "lobby") -> list[str]:
        return [each.data.json.decode() for each in self.kept(channel)]


class PublishTests(PublishCase):
    def test_text(self) -> None:
        form = "Content-Type: application/x-www-form-urlencoded"
        for header in (form, "Content-Type: text/plain; charset=UTF-8", "X: y", "Content-Type: image/png"):
            answer = self.request("POST /channels/lobby", header, body="disk full & so on: +%41 ü".encode())
            self.assertEqual(answer.status, 200)
        self.assertEqual(self.said(), ['"disk full & so on: +%41 ü"'] * 4)
        self.assertEqual(f"{answer.json['epoch']}:{answer.json['offset']}", self.position())
        self.assertEqual(answer.json["offset"], 4)
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(self.kept()[0].info.name, "guest-1")
        self.assertEqual(self.kept()[0].info.client, "")

    def test_json(self) -> None:
        for body in (b'\xef\xbb\xbf{"a": [1, 2.50]}', b'"line\\nend"', b" null "):
            self.assertEqual(self.request("POST /channels/lobby", JSON + "; charset=utf-8", body=body).status, 200)
        self.assertEqual(self.said(), ['{"a":[1,2.50]}', '"line\\nend"', "null"])

    def test_malformed_json(self) -> None:
        for body in (b"{", b"NaN", b"1 2", b"\xff", b'"\\ud800"', b"[" * 5000):
            answer = self.request("POST /channels/lobby", JSON, body=body)
            self.assertEqual((answer.status, answer.json["error"]["code"]), (400, 155), body[:9])
        self.assertEqual(self.said(), [])

    def test_refused_bodies(self) -> None:
        for headers, body, status in (
            ((), b"\xff\xfe", 415),
            (("Content-Type: text/plain; charset=latin-1",), b"abc", 415),
            (("Content-Encoding: gzip",), b"abc", 415),
            ((), b"", 400),
            ((JSON,), b"", 400),
            ((BULK,), b"\n\n", 400),
            ((), b"x" * (64 * 1024 + 1), 413),
            ((JSON,), b'"%b"' % (b"x" * 64 * 1024), 413),
        ):
            self.assertEqual(self.request("POST /channels/lobby", *headers, body=body).status, status, body[:9])
        self.assertEqual(self.request("POST /channels/lobby", "Content-Encoding: br", body=b"x").status, 415)
        self.assertEqual(self.said(), [])
        self.assertEqual(self.request("POST /channels/lobby", body=b"x" * 64 * 1024).status, 200)

    def test_names(self) -> None:
        taken = self.connect()
        taken.ask("GET /channels/lobby/events?name=bob")
        self.assertEqual(self.request("POST /channels/lobby?name=ann", body=b"x").status, 200)
        self.assertEqual(self.request("POST /channels/lobby?name=B%4Fb", body=b"x").status, 409)
        self.assertEqual(self.request("POST /channels/lobby?name=a+b", body=b"x").status, 400)
        self.assertEqual(self.request("POST /channels/lobby?name=", body=b"x").status, 400)
        self.assertEqual([each.info.name for each in self.kept()], ["ann"])

    def test_guests(self) -> None:
        self.start(names="guest")
        self.request("POST /channels/lobby", body=b"x")
        self.assertEqual(self.kept()[0].info.name, "guest-1")

    def test_channel_names(self) -> None:
        for path, name in (("a%2Fb", "a/b"), ("ns:x", "ns:x"), ("%C3%BC", "ü"), ("a+b", "a+b"), ("%252F", "%2F")):
            self.assertEqual(self.request(f"POST /channels/{path}", body=b"x").status, 200)
            self.assertEqual(len(self.kept(name)), 1, name)
        for path in ("", "%20", "%00", "%FF", "%zz", "%", "%C3", "x" * 256, "%E2%80%A8"):
            self.assertEqual(self.request(f"POST /channels/{path}", body=b"x").status, 400, path)
        for path in ("a/b", "a/"):
            self.assertEqual(self.request(f"POST /channels/{path}", body=b"x").status, 404, path)

    def test_rate(self) -> None:
        self.start(publish_rate=1, publish_burst=2)
        connection = self.connect()
        for status in (200, 200, 429):
            answer = connection.request("POST /channels/lobby", body=b"x")
            self.assertEqual(answer.status, status)
        self.assertEqual(answer.headers["retry-after"], "1")
        self.assertEqual(answer.json["error"]["code"], 111)
        self.assertEqual(len(self.kept()), 2)
        self.clock.advance(1)
        self.assertEqual(connection.request("POST /channels/lobby", body=b"x").status, 200)

    def test_new_channels(self) -> None:
        for number in range(200):
            self.hub.door.history(self.hub.request("192.0.2.1", ""), f"c{number}", lambda result: None)
        answer = self.request("POST /channels/another", body=b"x")
        self.assertEqual((answer.status, "retry-after" in answer.headers), (429, True))


class BulkTests(PublishCase):
    def bulk(self, body: bytes, status: int = 200) -> Any:
        connection = self.connect()
        connection.ask("POST /channels/lobby?name=ann", BULK, body=body)
        self.clock.pump([0.01] * 500)
        answer = connection.answer()
        self.assertEqual(answer.status, status, answer.body)
        return answer.json

    def test_in_order(self) -> None:
        answer = self.bulk(b'1\r\n\n{"a": 2}\n"three"')
        self.assertEqual(self.said(), ["1", '{"a":2}', '"three"'])
        self.assertEqual((answer["offset"], answer["count"]), (3, 3))
        self.assertEqual({each.info.name for each in self.kept()}, {"ann"})

    def test_checked_whole(self) -> None:
        error = self.bulk(b"1\n2\n\n{\n5\n", 400)["error"]
        self.assertIn("line 4", error["message"])
        self.assertEqual(error["line"], 4)
        error = self.bulk(b'1\n"%b"\n' % (b"x" * 65536), 413)["error"]
        self.assertIn("line 2", error["message"])
        self.bulk(b"1\n\xff\n", 400)
        self.assertEqual(self.said(), [])

    def test_too_many_lines(self) -> None:
        self.start(history_size=0, publish_rate=0, publish_bytes=0)
        self.bulk(b"1\n" * MAX_LINES)
        error = self.bulk(b"1\n" * (MAX_LINES + 1), 413)["error"]
        self.assertIn(str(MAX_LINES), error["message"])

    def test_paced_by_the_rate(self) -> None:
        self.start(publish_rate=10, publish_burst=5)
        connection = self.connect()
        connection.ask("POST /channels/lobby", BULK, body=b"1\n" * 25)
        self.turns()
        self.assertEqual(len(self.kept()), 5)
        self.clock.pump([0.1] * 10)
        self.assertTrue(13 <= len(self.kept()) <= 16, len(self.kept()))
        self.assertEqual(connection.take(), b"")
        self.clock.pump([0.1] * 12)
        self.assertEqual(connection.answer().json["count"], 25)

    def test_a_burst_is_spread_over_turns(self) -> None:
        self.start(publish_rate=0, publish_bytes=0, max_message=1024, history_size=0)
        received = self.connect()
        received.ask("GET /channels/lobby/stream")
        poster = self.connect()
        poster.ask("POST /channels/lobby", BULK, body=b'"%b"\n' % (b"x" * 1000) * 1000)
        slices = 0
        for _ in range(100):
            self.clock.advance(0.002)
            data = received.take()
            slices += bool(data)
            self.assertLess(len(data), 200_000)
        self.assertGreater(slices, 10)
        self.assertEqual(poster.answer().json["count"], 1000)

    def test_the_poster_leaves(self) -> None:
        self.start(publish_rate=10, publish_burst=5)
        connection = self.connect()
        connection.ask("POST /channels/lobby", BULK, body=b"1\n" * 25)
        self.turns()
        connection.lose()
        self.clock.pump([1] * 10)
        self.assertEqual(len(self.kept()), 5)

    def test_leaves_while_it_is_checked(self) -> None:
        connection = self.connect()
        connection.ask("POST /channels/lobby", BULK, body=b"1\n" * 9000)
        connection.lose()
        self.turns()
        self.assertEqual(self.said(), [])

    def test_lines_that_wait_take_no_memory_of_their_own(self) -> None:
        self.start(publish_rate=1, publish_burst=1)
        body = b"1\n" * 50_000
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        connection = self.connect()
        connection.ask("POST /channels/lobby", BULK, body=body)
        self.clock.pump([0.01] * 100)
        gc.collect()
        self.assertEqual(len(self.kept()), 1)
        self.assertLess(tracemalloc.get_traced_memory()[0] - before, 5 * len(body))

    def test_many_requests_share_a_turn(self) -> None:
        self.start(publish_rate=0, publish_bytes=0, history_size=0, publish_burst=1_000_000)
        checked = self.patch_data()
        for _ in range(20):
            self.connect().ask("POST /channels/lobby", BULK, body=b"1\n" * 2_000)
        most_checked = most_published = 0
        published = 0
        for _ in range(400):
            self.clock.rightNow += 0.01
            going = True
            while going:
                checked.clear()
                going = self.clock.turn()
                most_checked = max(most_checked, len(checked))
                most_published = max(most_published, self.hub.counters.publications - published)
                published = self.hub.counters.publications
        self.assertEqual(published, 40_000)
        self.assertLess(most_checked, 8_000)
        self.assertLess(most_published, 5_000)

    def patch_data(self) -> list[bytes]:
        """What is read as JSON from now on."""
        read: list[bytes] = []
        of_json = Data.of_json

        def counted(written: bytes) -> Data:
            read.append(written)
            return of_json(written)

        self.patch(Data, "of_json", counted)
        return read


class LateTests(PublishCase):
    """With a broker that answers turns later."""

    late = True

    def test_answer_comes_later(self) -> None:
        connection = self.connect()
        connection.ask("POST /channels/lobby", body=b"x")
        self.assertEqual(connection.take(), b"")
        self.turns()
        self.assertEqual(connection.answer().json["offset"], 1)

    def test_poster_leaves_before(self) -> None:
        connection = self.connect()
        connection.ask("POST /channels/lobby", body=b"x")
        connection.lose()
        self.turns()
        self.assertEqual(len(self.kept()), 1)

    def test_broker_fails(self) -> None:
        self.broker.failures = 1
        connection = self.connect()
        connection.ask("POST /channels/lobby", body=b"x")
        self.turns()
        answer = connection.answer()
        self.assertEqual((answer.status, answer.json["error"]["code"]), (503, 100))
        self.assertIn("retry-after", answer.headers)

    def test_broker_fails_midway(self) -> None:
        connection = self.connect()
        connection.ask("POST /channels/lobby", BULK, body=b"1\n2\n3\n4\n")
        while not self.kept():
            self.turns(1)
        self.broker.failures = 1
        self.turns()
        answer = connection.answer()
        self.assertEqual((answer.status, answer.json["error"]["count"]), (503, 1))
        self.assertEqual(self.said(), ["1"])

    def test_bulk_in_order(self) -> None:
        connection = self.connect()
        connection.ask("POST /channels/lobby", BULK, body=b"1\n2\n3\n4\n")
        self.turns(30)
        self.assertEqual(connection.answer().json["count"], 4)
        self.assertEqual(self.said(), ["1", "2", "3", "4"])
