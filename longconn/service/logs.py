"""Passes the lines of the log on to Twisted's log, and writes events of Twisted's log as JSON.

The core does not use Twisted: it logs through the standard library (`longconn.core.log`). A running service attaches
that logger to Twisted's log; with several services each record is passed on once.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime

from twisted.logger import FileLogObserver, LogEvent, Logger, LogLevel, formatEvent
from twisted.python.failure import Failure

from longconn.core.log import FIELDS

# Twisted's log puts the namespace in front of each line.
_twisted = Logger(namespace="longconn")

_LEVELS = (
    (logging.CRITICAL, LogLevel.critical),
    (logging.ERROR, LogLevel.error),
    (logging.WARNING, LogLevel.warn),
    (logging.INFO, LogLevel.info),
)
#: Values that a line shows without quotes.
_PLAIN = re.compile(r'[^\s"=\\]+')
#: The event of lines that are not of this package.
_OTHER = "log"


class _TwistedHandler(logging.Handler):
    """Emits each record as an event of Twisted's log, with `fields` (see `longconn.core.log.about`)."""

    def emit(self, record: logging.LogRecord) -> None:
        level = next((ours for number, ours in _LEVELS if record.levelno >= number), LogLevel.debug)
        text = record.getMessage()
        fields = getattr(record, "fields", {})
        values = {"text": text, "fields": fields, "suffix": _suffix(text, fields), "template": record.msg}
        if record.exc_info and record.exc_info[1] is not None:
            _twisted.emit(level, "{text}{suffix}", log_failure=Failure(record.exc_info[1]), **values)
        else:
            _twisted.emit(level, "{text}{suffix}", **values)


def _suffix(text: str, fields: dict[str, object]) -> str:
    """What a line for people shows of the fields: those that its sentence does not have, and its event before them."""
    shown = [(each, str(fields[each])) for each in FIELDS if each in fields]
    # A sentence has a code as `(3008 slow)`.
    missing = [
        (field, value)
        for field, value in shown
        if not re.search((r"\(" if field == "code" else r"(?<!\w)") + re.escape(value) + r"(?!\w)", text)
    ]
    if not missing:
        return ""
    parts = [f"{field}={value if _PLAIN.fullmatch(value) else json.dumps(value)}" for field, value in missing]
    return f" [{fields['event']} {' '.join(parts)}]"


def json_line(event: LogEvent) -> str | None:
    """An event of Twisted's log as one JSON object on a line; None for an event without a text.

    Keys: `time` (RFC 3339, UTC), `level` (debug, info, warning, error, critical), `event`, `message`; of `FIELDS` those
    that the event has; `logger` for lines that are not of this package; `traceback` if there is one.
    """
    message = event["text"] + event.get("more", "") if "text" in event else formatEvent(event)
    failure = event.get("log_failure")
    if not message and failure is None:
        return None
    fields = event.get("fields", {})
    level = event.get("log_level", LogLevel.info)
    written: dict[str, object] = {
        "time": datetime.fromtimestamp(event["log_time"], UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "level": "warning" if level is LogLevel.warn else level.name,
        "event": fields.get("event", _OTHER),
        "message": message,
    }
    written |= {each: fields[each] for each in FIELDS if each in fields}
    if "event" not in fields:
        written["logger"] = event.get("log_namespace", "")
    if failure is not None:
        written["traceback"] = failure.getTraceback()
    return json.dumps(written, ensure_ascii=False).encode("utf-8", "backslashreplace").decode() + "\n"


def json_observer() -> FileLogObserver:
    """Writes all lines to standard output as JSON; for twistd's `--logger`."""
    return FileLogObserver(sys.stdout, json_line)


class Bridge:
    """Installs the one handler while at least one service is attached."""

    def __init__(self) -> None:
        self._handler = _TwistedHandler()
        self._users = 0
        self._level = logging.NOTSET

    def attach(self, level: str = "info") -> None:
        """Pass lines of `level` (debug, info, warning, error) and more serious ones on.

        A level that the program has given the logger stays; otherwise the service that is attached last decides.
        """
        logger = logging.getLogger("longconn")
        self._users += 1
        if self._users == 1:
            self._level = logger.level
            logger.addHandler(self._handler)
        if self._level == logging.NOTSET:
            logger.setLevel(level.upper())

    def detach(self) -> None:
        self._users -= 1
        if self._users == 0:
            logger = logging.getLogger("longconn")
            logger.removeHandler(self._handler)
            logger.setLevel(self._level)


_bridge = Bridge()
attach = _bridge.attach
detach = _bridge.detach
