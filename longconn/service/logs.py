"""Passes the log records of the core to Twisted's log.

The core does not use Twisted. It logs through the standard library, with the logger "longconn". A running service
attaches that logger to Twisted's log; with several services each record is passed on once.
"""

from __future__ import annotations

import logging

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

#: The logger of the service. Twisted's log puts its namespace in front of each line.
log = Logger(namespace="longconn")

_LEVELS = (
    (logging.CRITICAL, LogLevel.critical),
    (logging.ERROR, LogLevel.error),
    (logging.WARNING, LogLevel.warn),
    (logging.INFO, LogLevel.info),
)


class _TwistedHandler(logging.Handler):
    """Emits each record as an event of Twisted's log."""

    def emit(self, record: logging.LogRecord) -> None:
        level = next((ours for number, ours in _LEVELS if record.levelno >= number), LogLevel.debug)
        failure = None
        if record.exc_info and record.exc_info[1] is not None:
            failure = Failure(record.exc_info[1])
        if failure is None:
            log.emit(level, "{text}", text=record.getMessage(), template=record.msg)
        else:
            log.emit(level, "{text}", text=record.getMessage(), template=record.msg, log_failure=failure)


class _Bridge:
    """Installs the one handler while at least one service is attached."""

    def __init__(self) -> None:
        self._handler = _TwistedHandler()
        self._users = 0
        self._level = logging.NOTSET

    def attach(self) -> None:
        self._users += 1
        if self._users == 1:
            logger = logging.getLogger("longconn")
            self._level = logger.level
            if logger.level == logging.NOTSET:
                # The root's default, WARNING, would hide the lines for clients that come and go. DEBUG would
                # make a record for every message.
                logger.setLevel(logging.INFO)
            logger.addHandler(self._handler)

    def detach(self) -> None:
        self._users -= 1
        if self._users == 0:
            logger = logging.getLogger("longconn")
            logger.removeHandler(self._handler)
            logger.setLevel(self._level)


_bridge = _Bridge()
attach = _bridge.attach
detach = _bridge.detach
