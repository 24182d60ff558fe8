"""Commands in the process of the tests, with lists as standard input and output."""

from collections import deque
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, fail, succeed

from longconn.clients import ClientError
from longconn.commands.running import Console, outcome
from tests.live.common import Case as LiveCase
from tests.live.common import until

reactor: Any = installed


class Written:
    """The text that was written. `broken`: the reader has closed it. `error`: writing fails with it."""

    def __init__(self, is_terminal: bool = False) -> None:
        self.is_terminal = is_terminal
        self.text = ""
        self.broken = False
        self.error: OSError | None = None

    def write(self, text: str) -> Deferred[None]:
        if self.broken:
            return fail(BrokenPipeError())
        if self.error is not None:
            return fail(self.error)
        self.text += text
        return succeed(None)

    def write_bytes(self, data: bytes) -> Deferred[None]:
        return self.write(data.decode())

    @property
    def lines(self) -> list[str]:
        assert not self.text or self.text.endswith("\n")
        return self.text.split("\n")[:-1]


class Typed:
    """Lines of input; `type` adds one, `end` ends them."""

    is_terminal = False

    def __init__(self, lines: Iterable[bytes | ClientError], size: int | None, ended: bool) -> None:
        self.size = size
        self._lines: deque[bytes | ClientError | None] = deque([*lines, *([None] if ended else [])])
        self._waiting: Deferred[bytes | None] | None = None

    def line(self) -> Deferred[bytes | None]:
        if self._lines:
            line = self._lines.popleft()
            return fail(line) if isinstance(line, ClientError) else succeed(line)
        self._waiting = Deferred(lambda _: None)
        return self._waiting

    def type(self, line: str) -> None:
        self._put(line.encode())

    def end(self) -> None:
        self._put(None)

    def _put(self, line: bytes | None) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            self._lines.append(line)
        else:
            waiting.callback(line)


class Command:
    """A running command. `status` fires with its exit status."""

    def __init__(
        self,
        *arguments: str,
        lines: Iterable[bytes | ClientError] | None = None,
        size: int | None = None,
        terminal: bool = False,
        interactive: bool = False,
        environ: dict[str, str] | None = None,
    ) -> None:
        name, *rest = arguments
        module = import_module(f"longconn.commands.{name}")
        self.input = Typed(lines or [], size, lines is not None)
        self.out, self.err = Written(interactive), Written(terminal)
        self.input.is_terminal = interactive
        console = Console(reactor, self.input, self.out, self.err, environ or {})
        parsed = module.parser().parse_intermixed_args(rest)
        self.ended = False
        self.status: Deferred[int] = Deferred.fromCoroutine(outcome(module.main, console, parsed))
        self.status.addBoth(self._end)

    def _end(self, result: Any) -> Any:
        self.ended = True
        return result

    async def prints(self, *texts: str) -> None:
        """Wait until these are in the output, in this order."""

        def there() -> bool:
            start = 0
            for each in texts:
                start = self.out.text.find(each, start)
                if start < 0:
                    assert not self.ended, f"it ended with {self.out.text!r} and {self.err.text!r}"
                    return False
                start += len(each)
            return True

        await until(there)

    async def says(self, text: str) -> None:
        """Wait until this is in the error output."""
        await until(lambda: text in self.err.text)


class Commands:
    """For test cases: `command` starts a command, which ends with the test."""

    def command(self: Any, *arguments: str, **options: Any) -> Command:
        found = Command(*arguments, **options)

        def end() -> Any:
            found.status.addErrback(lambda failure: None)
            found.status.cancel()
            return until(lambda: found.ended)

        self.addCleanup(end)
        return found

    async def run_command(self, *arguments: str, **options: Any) -> tuple[int, str, str]:
        """Its exit status, output and error output."""
        found = self.command(*arguments, **options)
        status = await found.status
        return status, found.out.text, found.err.text

    async def assert_one_line(self: Any, line: str, *arguments: str, usage: bool = False, **options: Any) -> None:
        """It fails with one line; with `usage` because the command line is wrong."""
        status, out, err = await self.run_command(*arguments, **options)
        self.assertEqual((status, out), (2 if usage else 1, ""))
        self.assertEqual(err.count("\n"), 1, err)
        self.assertIn(line, err)


class Case(Commands, LiveCase):
    """Commands and a server. `at`: the arguments that name the server."""

    @property
    def at(self) -> tuple[str, str]:
        return "-s", f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """The server closes the connections of the clients; they may reconnect."""
        from longconn.core.disconnects import FORCE_RECONNECT

        for each in list(self.hub.sessions.values()):
            each.close(FORCE_RECONNECT)
