"""The log: its fields in both forms, its levels, and the page that lists its events."""

import ast
import json
import logging
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.logger import LogEvent, Logger, formatEvent, globalLogPublisher

import longconn
from longconn.core.log import FIELDS, about, log
from longconn.service import logs
from longconn.service.logs import json_line
from longconn.service.process_log import KIND_RATE, Storm
from longconn.testing import FakeClock
from tests.core.common import Case
from tests.live.programs import Process, reserve

PACKAGE = Path(longconn.__file__).parent
PAGE = Path(__file__).parents[2] / "docs/how-to/logs.md"


class LogCase(Case):
    def seen(self, level: str = "info") -> list[LogEvent]:
        """The events of Twisted's log from now on, of those that a service passes on."""
        events: list[LogEvent] = []
        logs.attach(level)
        self.addCleanup(logs.detach)
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        return events

    def read(self, event: LogEvent) -> dict[str, Any]:
        line = json_line(event)
        assert line is not None
        self.assertEqual((line[-1], line.count("\n")), ("\n", 1))
        values: dict[str, Any] = json.loads(line)
        self.assertRegex(values.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")
        return values


class FieldTests(LogCase):
    def test_a_client_comes_and_leaves(self) -> None:
        events = self.seen()
        client = self.connect("ada")
        client.gone()
        fields = {"protocol": "test", "client": client.id, "name": "ada", "address": "192.0.2.1:1000"}
        came, left = map(self.read, events)
        self.assertEqual(
            came,
            {
                "level": "info",
                "event": "client_connected",
                "message": "test client ada from 192.0.2.1:1000 came",
                **fields,
            },
        )
        self.assertEqual(
            left,
            {
                "level": "info",
                "event": "client_disconnected",
                "message": "test client ada from 192.0.2.1:1000 left",
                **fields,
                "code": 0,
            },
        )
        self.assertEqual(
            [formatEvent(each) for each in events],
            [
                f"test client ada from 192.0.2.1:1000 came [client_connected client={client.id}]",
                f"test client ada from 192.0.2.1:1000 left [client_disconnected client={client.id} code=0]",
            ],
        )

    def test_lines_of_clients_can_be_left_out(self) -> None:
        self.make(log_clients=False)
        events = self.seen()
        self.connect("ada").gone()
        self.assertEqual(events, [])

    def test_a_value_cannot_end_its_field_or_its_line(self) -> None:
        events = self.seen()
        log.info("one", extra=about("x", address='a b\n"c"', channel="é"))
        self.assertEqual(formatEvent(events[0]), r'one [x address="a b\n\"c\"" channel=é]')
        self.assertEqual(self.read(events[0])["address"], 'a b\n"c"')

    def test_half_a_surrogate_is_written(self) -> None:
        line = json_line({"log_time": 0.0, "log_format": "one \udcff"})
        self.assertIn('"one \\udcff"', ascii(line).replace("\\\\", "\\"))

    def test_a_traceback_is_a_field(self) -> None:
        events = self.seen()
        try:
            raise ValueError("why")
        except ValueError:
            log.exception("failed", extra=about("internal_error"))
        values = self.read(events[0])
        self.assertIn("ValueError: why", values.pop("traceback"))
        self.assertEqual(values, {"level": "error", "event": "internal_error", "message": "failed"})
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_lines_of_others(self) -> None:
        events = self.seen()
        Logger(namespace="shop").warn("{count} left", count=3)
        self.assertEqual(
            self.read(events[0]), {"level": "warning", "event": "log", "message": "3 left", "logger": "shop"}
        )
        self.assertIsNone(json_line({"log_time": 0.0}))

    def test_a_summary_of_a_storm_keeps_the_fields_of_the_last(self) -> None:
        events = self.seen()
        clock = FakeClock()
        storm = Storm(clock.seconds)
        for number in range(KIND_RATE + 2):
            log.info("%s came", number, extra=about("client_connected", address=f"192.0.2.1:{number}"))
            storm.admits(events[-1])
        (summary,) = storm.summaries(all=True)
        values = self.read(summary)
        self.assertEqual(values["message"], f"{KIND_RATE + 1} came (and 1 more of the kind)")
        self.assertEqual(values["address"], f"192.0.2.1:{KIND_RATE + 1}")
        self.assertEqual(
            formatEvent(summary),
            f"{KIND_RATE + 1} came [client_connected address=192.0.2.1:{KIND_RATE + 1}] (and 1 more of the kind)",
        )


class FullTests(LogCase):
    def test_no_place_is_logged_once_a_minute(self) -> None:
        self.make(max_connections=1)
        events = self.seen()
        self.connect("ada")
        for _ in range(3):
            self.refused("limit_exceeded", self.connect)
        self.clock.advance(61)
        self.refused("limit_exceeded", self.connect)
        full = [self.read(each) for each in events if each["fields"]["event"] == "full"]
        self.assertEqual([each["level"] for each in full], ["warning", "warning"])
        self.assertIn("1 without a place", full[0]["message"])
        self.assertIn("3 without a place", full[1]["message"])
        self.assertEqual(full[0]["code"], 106)


class LevelTests(LogCase):
    def test_less_serious_lines_are_left_out(self) -> None:
        for level, wanted in (("debug", 4), ("info", 3), ("warning", 2), ("error", 1)):
            events: list[LogEvent] = []
            globalLogPublisher.addObserver(events.append)
            logs.attach(level)
            for each in (log.debug, log.info, log.warning, log.error):
                each("a line", extra=about("x"))
            logs.detach()
            globalLogPublisher.removeObserver(events.append)
            self.assertEqual(len([each for each in events if each.get("text") == "a line"]), wanted, level)

    def test_the_level_of_the_program_stays(self) -> None:
        logger = logging.getLogger("longconn")
        logger.setLevel(logging.ERROR)
        self.addCleanup(logger.setLevel, logging.NOTSET)
        bridge = logs.Bridge()
        bridge.attach("debug")
        self.addCleanup(bridge.detach)
        self.assertEqual(logger.level, logging.ERROR)


class ProcessTests(Case):
    def lines(self, *options: str) -> Iterator[str]:
        with reserve() as reserved:
            port = reserved.getsockname()[1]
            process = Process(
                ["longconn", "serve", f"--port=127.0.0.1:{port}", *options], None, main="longconn.cli:main"
            )
            self.addCleanup(process.stop)
            line = ""
            while "browser" not in line:
                line = process.line()
                yield line
            process.send(signal.SIGTERM)
            while True:
                try:
                    yield process.line()
                except EOFError:
                    return

    def test_every_line_is_one_json_object(self) -> None:
        values = [json.loads(each) for each in self.lines("--log-format=json")]
        self.assertIn("listening", {each["event"] for each in values})
        for each in values:
            self.assertLess({"time", "level", "event", "message"}, {*each, "logger"})
            self.assertLessEqual({*each}, {"time", "level", "event", "message", "logger", *FIELDS})


class PageTests(Case):
    def events(self) -> Iterator[tuple[str, str]]:
        """The events of all lines, and where they are. Each call of the log has one."""
        for path in sorted(PACKAGE.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                    continue
                called = node.func.value
                if not (isinstance(called, ast.Name) and called.id == "log") or node.func.attr not in _METHODS:
                    continue
                where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
                (extra,) = [each.value for each in node.keywords if each.arg == "extra"] or [None]
                assert isinstance(extra, ast.Call), f"{where}: without extra=about(…)"
                name = extra.args[0]
                assert isinstance(name, ast.Constant), where
                yield name.value, where

    def test_the_page_has_every_event_and_no_other(self) -> None:
        rows = re.findall(r"^\| (`.*?) \| (?:debug|info|warning|error|critical)", PAGE.read_text("utf-8"), re.M)
        listed = {event for row in rows for event in re.findall(r"`(\w+)`", row)}
        self.assertEqual({event for event, _ in self.events()}, listed)

    def test_the_page_has_every_field(self) -> None:
        keys = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ", PAGE.read_text("utf-8"), re.M)
        self.assertLessEqual({*FIELDS}, {key for row in keys for key in re.findall(r"`(\w+)`", row)})


_METHODS = ("debug", "info", "warning", "error", "exception", "critical")
