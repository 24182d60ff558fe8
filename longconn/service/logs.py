"""What the core says, brought into Twisted's log.

The core knows no Twisted and logs by the standard library, as logger "longconn". While
a service runs, `attach` hands that to Twisted's log, once however many services run.
"""

from __future__ import annotations

import logging

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

#: Where our own lines go; its name stands in front of each in the log.
log = Logger(namespace="longconn")

_LEVELS = (
    (logging.CRITICAL, LogLevel.critical),
    (logging.ERROR, LogLevel.error),
    (logging.WARNING, LogLevel.warn),
    (logging.INFO, LogLevel.info),
)


class _ToTwisted(logging.Handler):
    """Every record as an event of Twisted's log."""

    def emit(self, record: logging.LogRecord) -> None:
        level = next((ours for number, ours in _LEVELS if record.levelno >= number), LogLevel.debug)
        failure = None
        if record.exc_info and record.exc_info[1] is not None:
            failure = Failure(record.exc_info[1])
        if failure is None:
            log.emit(level, "{text}", text=record.getMessage())
        else:
            log.emit(level, "{text}", text=record.getMessage(), log_failure=failure)


class _Bridge:
    """The one handler, there while somebody needs it."""

    def __init__(self) -> None:
        self._handler = _ToTwisted()
        self._users = 0
        self._level = logging.NOTSET

    def attach(self) -> None:
        self._users += 1
        if self._users == 1:
            logger = logging.getLogger("longconn")
            self._level = logger.level
            if logger.level == logging.NOTSET:
                # Else the root's WARNING counts, and nobody reads who comes and goes. Not
                # DEBUG: that is a record for every message.
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
