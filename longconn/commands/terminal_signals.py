"""Stopping and continuing a program of prompt_toolkit, whose terminal is in raw mode.

A program that stops gives the terminal back as it was, and takes it again when it continues. It may be stopped by
Ctrl-Z or SIGTSTP, which it can handle, and by SIGSTOP, which it cannot: then it takes the terminal at SIGCONT.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from prompt_toolkit import Application


class TerminalSignals:
    """Handles SIGTSTP and SIGCONT for an application while it runs."""

    def __init__(self, reactor: Any, app: Application[Any]) -> None:
        self._reactor = reactor
        self._app = app
        self._stopping = False
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Handle the signals from now on, in the reactor's turns. Call it in the main thread."""
        for number, action in ((signal.SIGTSTP, self._stop), (signal.SIGCONT, self._continue)):

            def handle(number: int, frame: Any, action: Any = action) -> None:
                self._reactor.callFromThread(action)

            self._before[number] = signal.signal(number, handle)

    def remove(self) -> None:
        """Restore the handlers that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _stop(self) -> None:
        app = self._app
        if not app.is_running or self._stopping:
            return
        self._stopping = True
        app.renderer.erase()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        try:
            with app.input.detach(), app.input.cooked_mode():
                os.kill(os.getpid(), signal.SIGTSTP)  # returns when the process continues
        finally:
            signal.signal(signal.SIGTSTP, handler)
            # After the turn of the SIGCONT that ended the stop.
            self._reactor.callLater(0, self._stopped)
        self._draw()

    def _stopped(self) -> None:
        self._stopping = False

    def _continue(self) -> None:
        if self._app.is_running and not self._stopping:
            self._app.input.raw_mode().__enter__()  # the application leaves raw mode when it ends
            self._draw()

    def _draw(self) -> None:
        self._app.renderer.reset()
        self._app.renderer.request_absolute_cursor_position()
        self._app.invalidate()
