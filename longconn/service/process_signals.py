"""Handles signals that would kill a server process before it closes its clients."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from longconn.core.log import about, log
from longconn.service.process_log import ProcessLog


class ProcessSignals:
    """Handles SIGHUP, SIGUSR1 and SIGUSR2, unless the program handles them itself.

    SIGHUP stops a server in a terminal as SIGTERM does, because the terminal is gone. Elsewhere it calls `reload`, for
    certificates, and begins new log files. SIGUSR1 begins new log files, too. SIGUSR2 does nothing. A signal
    that is ignored, as by nohup(1), stays ignored.
    """

    def __init__(self, reactor: Any, process_log: ProcessLog, reload: Callable[[], object] = lambda: None) -> None:
        self._reactor = reactor
        self._reload = reload
        self._log = process_log
        self._terminal = any(os.isatty(each) for each in (0, 1, 2))

    def install(self) -> None:
        """Handle the signals. Does nothing outside of the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        handlers = {"SIGHUP": self._on_hangup, "SIGUSR1": self._rotate, "SIGUSR2": self._ignore}
        for name, handler in handlers.items():
            number = getattr(signal, name, None)
            # twistd rotates its log file on SIGUSR1, but in the reactor's thread.
            if number is not None and (signal.getsignal(number) is signal.SIG_DFL or self._is_twistds(number)):
                signal.signal(number, self._in_turn(handler, name))

    def _is_twistds(self, number: int) -> bool:
        return getattr(signal.getsignal(number), "__module__", "") == "twisted.scripts._twistd_unix"

    def _in_turn(self, handler: Callable[[str], None], name: str) -> Callable[[int, object], None]:
        def on_signal(number: int, frame: object) -> None:
            self._reactor.callFromThread(handler, name)

        return on_signal

    def _on_hangup(self, name: str) -> None:
        if self._terminal:
            log.info("received %s: the terminal is gone; stopping", name, extra=about("signal"))
            self._reactor.stop()
        else:
            self._reload()
            self._rotate(name)

    def _rotate(self, name: str) -> None:
        if self._log.rotate():
            log.info("received %s: the log file was begun anew", name, extra=about("log_rotated"))
        else:
            log.info("received %s: there is no log file to begin anew; running on", name, extra=about("signal"))

    def _ignore(self, name: str) -> None:
        log.info("received %s, which has no meaning here; running on", name, extra=about("signal"))
