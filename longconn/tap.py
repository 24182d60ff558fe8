"""What `twistd longconn` and `twist longconn` run: `Options` and `makeService`.

Whatever is wrong with the options or the ports is one line on stderr and exit status 1,
where Twisted would print its whole help, or a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NoReturn

from twisted.python import usage

from longconn.config import flags
from longconn.core.errors import LongConnError
from longconn.service.service import LongConnService


class Options(flags.Options):
    """The flags; whatever cannot be ends the program."""

    def parseOptions(self, options: Any = None) -> None:
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            fail(error)


def makeService(options: flags.Options) -> LongConnService:
    """The service that the parsed `options` describe."""
    from twisted.internet import reactor

    config = options.config
    try:
        service = _Server(reactor, config.settings, config.port, config.tcp, config.http, grpc=config.grpc)
    except LongConnError as error:  # an endpoint that shows only with a reactor that it cannot be
        fail(error)
    service.daemon = options.parent is not None and not options.parent.get("nodaemon", True)
    return service


def fail(error: object) -> NoReturn:
    """End the program with one line on stderr and exit status 1."""
    raise SystemExit(f"longconn: {error}")


class _Server(LongConnService):
    """The service as a program of its own."""

    daemon = False

    def privilegedStartService(self) -> None:
        with _one_line(self.daemon):
            super().privilegedStartService()

    def startService(self) -> None:
        with _one_line(self.daemon):
            super().startService()


@contextmanager
def _one_line(daemon: bool) -> Generator[None, None, None]:
    """Let our errors end the program with one line.

    They go on as the exceptions that they are, and not as SystemExit, so that twistd removes
    its pid file and tells the process that waits for its daemon.
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
        # twistd has put its log in place of sys.stderr. People in the foreground look at the
        # real one; a daemon has none any more, and its log is where twistd tells them to look.
        print(f"longconn: {error}", file=sys.stderr if daemon else sys.__stderr__, flush=True)

    return hook
