"""Running a command on a reactor, from its start to its exit status."""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from longconn.clients.errors import ClientError
from longconn.commands.parser import USAGE, UsageError
from longconn.commands.standard_streams import InputStream, OutputStream
from longconn.wire.chat import safe

#: Added to the number of a signal in an exit status (POSIX, 2.8.2).
_BY_SIGNAL = 128


@dataclass(frozen=True)
class Console:
    """The surroundings of a command: a reactor, standard streams, environment variables."""

    reactor: Any
    input: InputStream
    out: OutputStream
    err: OutputStream
    environ: Mapping[str, str]

    def say(self, line: str) -> Deferred[None]:
        """Write a line of the command itself to standard error."""
        return self.err.write(f"longconn: {safe(line)}\n")

    @property
    def coloured(self) -> bool:
        """Whether the output may have colours (no-color.org)."""
        return self.out.is_terminal and not self.environ.get("NO_COLOR") and self.environ.get("TERM") != "dumb"


Main: TypeAlias = Callable[[Console, Namespace], Coroutine[Deferred[Any], Any, int]]


def standard_console(reactor: Any) -> Console:
    """The console of this process."""
    return Console(reactor, InputStream(reactor, 0), OutputStream(reactor, 1), OutputStream(reactor, 2), os.environ)


async def outcome(main: Main, console: Console, arguments: Namespace) -> int:
    """Run `main`; returns the exit status. An error is written as one line."""
    status = 1
    try:
        return await main(console, arguments)
    except BrokenPipeError:
        return _BY_SIGNAL + signal.SIGPIPE  # the reader of the output has closed it
    except UsageError as error:
        line, status = str(error), USAGE
    except ClientError as error:
        line = str(error)
    except OSError as error:  # of the output: clients convert theirs
        line = f"cannot write: {error.strerror or error}"
    except CancelledError:  # by a signal
        raise
    except Exception as error:
        line = " ".join(f"internal error: {type(error).__name__}: {error}".split())
    with suppress(OSError):  # if standard error is closed, the exit status is all
        await console.say(line)
    return status


async def repeat(reactor: Any, times: int, every: float, action: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `action` so many times (0: without end), with `every` seconds from one start to the next."""
    done = 0
    while True:
        started = reactor.seconds()
        await action()
        done += 1
        if done == times:
            return
        await deferLater(reactor, max(0.0, started + every - reactor.seconds()))


def ended_by() -> list[int]:
    """The signals that end a command. `nohup` starts it with SIGHUP ignored."""
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hangs_up else [])]


def run(reactor: Any, main: Main, arguments: Namespace) -> int:
    """Run `main` on the reactor until it is done, or a signal ends it; returns the exit status."""
    status = 1

    def start() -> None:
        caught: list[int] = []

        def on_signal(number: int, frame: Any) -> None:
            signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
            caught.append(number)
            reactor.callFromThread(lambda: command.cancel())

        for number in ended_by():
            signal.signal(number, on_signal)
        command = Deferred.fromCoroutine(outcome(main, standard_console(reactor), arguments))

        def ended(result: Any) -> None:
            nonlocal status
            if caught:
                status = _BY_SIGNAL + caught[0]
            elif isinstance(result, Failure):
                result.printTraceback(sys.stderr)
            else:
                status = result
            reactor.stop()

        command.addBoth(ended)

    reactor.callWhenRunning(start)
    reactor.run()
    return status
