"""The Twisted plugin that `twistd longconn` and `twist longconn` run: `Options` and `makeService`.

An error in the options is one line on stderr and exit status 2; one in the ports, exit status 1. Twisted alone would
print its whole help or a traceback.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.python import usage

from longconn.config.flags import CommandLineOptions
from longconn.core.errors import LongConnError
from longconn.service.process_log import ProcessLog
from longconn.service.process_signals import ProcessSignals
from longconn.service.sd_notify import SdNotify, take_variables
from longconn.service.service import LongConnService

#: The exit status of a command line, a variable or a file that is wrong: the server does not even try to start.
_USAGE = 2


class Options(CommandLineOptions):
    """The flags. An error in them ends the program."""

    def parseOptions(self, options: Any = None) -> None:
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            print(f"longconn: {error}", file=sys.stderr)
            raise SystemExit(_USAGE) from None


def makeService(options: CommandLineOptions) -> LongConnService:
    """The service that the parsed `options` describe."""
    # twistd has installed the reactor by now; an import at the top would install the default one.
    from twisted.internet import reactor

    config = options.config
    try:
        service = _ServerProcess(
            reactor, config.settings, config.port, config.tcp, config.http, grpc=config.grpc, admin=config.admin
        )
    except LongConnError as error:  # an endpoint that cannot be checked without a reactor
        fail(error)
    service.daemon = options.parent is not None and not options.parent.get("nodaemon", True)
    return service


def fail(error: object) -> NoReturn:
    """End the program with one line on stderr and exit status 1."""
    raise SystemExit(f"longconn: {error}")


class _ServerProcess(LongConnService):
    """The service in a process of its own: an error at its start is one line."""

    daemon = False
    _has_process = False
    _systemd: SdNotify | None = None

    def privilegedStartService(self) -> None:
        with _errors_on_one_line(self.daemon):
            super().privilegedStartService()

    def startService(self) -> None:
        with _errors_on_one_line(self.daemon):
            super().startService()
        if not self._has_process:
            self._has_process = True
            self._reactor.callWhenRunning(self._take_process)

    def _take_process(self) -> None:
        """The process is a daemon by now, has its privileges and its log, and is this service's alone."""
        process_log = ProcessLog()
        process_log.take_over(self.hub.settings.log_format, self.hub.settings.log_level)
        ProcessSignals(self._reactor, process_log, self._reload).install()
        self._reactor.addSystemEventTrigger("after", "shutdown", process_log.end)
        _collect_seldom()
        self._systemd = SdNotify(self._reactor, take_variables())
        self._systemd.ready(f"listening on {', '.join(map(str, self._ports.open_ports)) or 'nothing'}")

    def _reload(self) -> None:
        if self._systemd is None:
            self.reload_certificates()
            return
        self._systemd.reloading()
        self.reload_certificates()
        self._systemd.reloaded()

    def stopService(self) -> Deferred[None]:
        systemd = self._systemd
        if systemd is None:
            return super().stopService()
        systemd.stopping(f"stopping; clients: {len(self.hub.clients)}")
        return super().stopService().addBoth(self._on_end, systemd)

    def _on_end(self, result: Any, systemd: SdNotify) -> Any:
        systemd.stop()
        return result


def _collect_seldom() -> None:
    """Let full garbage collections be seldom and short: each stops the server while it looks at all objects.

    Connections are free without one, since they leave no reference cycles (tests/live/test_garbage.py). What the start
    made stays, and is looked at no more. With Python's own thresholds, 5,000 clients that come cause six full
    collections of up to 0.3 s; with these none.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 10, 50)


@contextmanager
def _errors_on_one_line(daemon: bool) -> Generator[None, None, None]:
    """Let an error of longconn end the program with one line.

    The exception goes on as it is, and not as SystemExit: twistd then removes its pid file, and reports to the process
    that waits for the daemon.
    """
    try:
        yield
    except LongConnError as error:
        sys.excepthook = _hook(error, daemon, sys.excepthook)
        raise


def _hook(error: LongConnError, daemon: bool, before: Callable[..., Any]) -> Callable[..., None]:
    def hook(kind: type[BaseException], value: BaseException, traceback: TracebackType | None) -> None:
        if value is not error:
            before(kind, value, traceback)
            return
        # twistd has replaced sys.stderr by its log. In the foreground the line belongs on the real stderr. A daemon
        # has none, and twistd refers its user to the log.
        print(f"longconn: {error}", file=sys.stderr if daemon else sys.__stderr__, flush=True)

    return hook
