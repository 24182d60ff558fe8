"""Tells systemd of the state of the server process: sd_notify(3), and the watchdog of sd_watchdog_enabled(3)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from longconn.core.log import about, log
from longconn.core.timers import Clock

#: The variables by which systemd says what it wants to hear. They are meant for this process alone.
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
#: Seconds until a message is tried again that the socket had no room for.
_AGAIN = 0.1
#: Messages that wait for room. There are few states, so more than that means that nobody reads.
_MOST_WAITING = 20


def take_variables(environ: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """Take the variables of systemd out of `environ`, so that no child of the process has them."""
    return {name: environ.pop(name) for name in VARIABLES if name in environ}


class SdNotify:
    """Sends datagrams to the socket of `NOTIFY_SOCKET`. Without that variable it does nothing.

    No method raises. The first failure is logged, and later messages are sent nevertheless: the socket may come back.
    The calls come in this order: `ready`, `reloading` and `reloaded` any number of times, `stopping`, `stop`.
    """

    def __init__(self, clock: Clock, variables: Mapping[str, str]) -> None:
        self._clock = clock
        self._address = variables.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        self._interval = _interval(variables) if self._address else 0.0
        self._waiting: list[bytes] = []
        self._retry: Any = None
        self._beat: Any = None
        self._stopping = False
        self._failed = False
        if self._address:
            # It is opened now and kept: later the clients may have taken all open files.
            self._open()

    def ready(self, status: str) -> None:
        """All ports listen. From now on the watchdog is fed."""
        self._tell("READY=1", f"STATUS={_line(status)}")
        if self._interval and self._beat is None:
            self._beat = self._clock.callLater(self._interval, self._feed)

    def reloading(self) -> None:
        """Files are about to be read anew. `reloaded` must follow."""
        if not self._stopping:
            # By this time systemd tells this reload from earlier ones.
            self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1_000}")

    def reloaded(self) -> None:
        """They are read."""
        if not self._stopping:
            self._tell("READY=1")

    def stopping(self, status: str) -> None:
        """The shutdown begins. The watchdog is fed until `stop`."""
        if not self._stopping:
            self._stopping = True
            self._tell("STOPPING=1", f"STATUS={_line(status)}")

    def stop(self) -> None:
        """The shutdown is over: leave no timer and no socket."""
        for call in (self._beat, self._retry):
            if call is not None:
                call.cancel()
        self._beat = self._retry = None
        self._waiting.clear()
        self._address = ""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _feed(self) -> None:
        self._beat = self._clock.callLater(self._interval, self._feed)
        # The next one comes in time if there is no room for this one, so it never waits.
        if not self._waiting:
            self._send(b"WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if self._address:
            self._waiting.append("\n".join(lines).encode("utf-8", "surrogateescape"))
            del self._waiting[:-_MOST_WAITING]
            if self._retry is None:
                self._flush()

    def _flush(self) -> None:
        self._retry = None
        while self._waiting:
            if not self._send(self._waiting[0]):
                self._retry = self._clock.callLater(_AGAIN, self._flush)
                return
            del self._waiting[0]

    def _send(self, message: bytes) -> bool:
        """Whether the message is dealt with: it was sent, or it failed. False if there is no room for it now."""
        if self._socket is None and not self._open():
            return True
        assert self._socket is not None
        try:
            self._socket.sendto(message, _socket_address(self._address))
        except BlockingIOError:
            return False
        except (OSError, ValueError) as error:  # ValueError: a path with a null character
            self._fail(error)
        return True

    def _open(self) -> bool:
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        except (AttributeError, OSError) as error:  # AttributeError: a system without UNIX sockets
            self._fail(error)
            return False
        return True

    def _fail(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            log.warning(
                "systemd is not told of the state: NOTIFY_SOCKET %s: %s",
                self._address,
                error,
                extra=about("notify_failed"),
            )


def _socket_address(text: str) -> str:
    """The address for `sendto`; one that begins with `@` is abstract, which the kernel writes with a null byte."""
    return "\0" + text[1:] if text.startswith("@") else text


def _interval(variables: Mapping[str, str]) -> float:
    """Seconds between two messages to the watchdog, half of what it allows; 0 if it is not for this process."""
    if variables.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    text = variables.get("WATCHDOG_USEC", "")
    return int(text) / 2_000_000 if text.isascii() and text.isdecimal() else 0.0


def _line(text: str) -> str:
    """`text` without line ends, each of which would begin another message."""
    return " ".join(text.split())
