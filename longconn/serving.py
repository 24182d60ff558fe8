"""`longconn serve` and `longconn config`: the commands that take the options of the server."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from twisted.python.usage import UsageError

from longconn.config.file import to_toml
from longconn.config.flags import CommandLineOptions

#: The exit status of a command line, a variable or a file that is wrong.
_USAGE = 2


def serve(arguments: list[str]) -> int:
    """Run the server in the foreground. Returns when it has ended."""
    if os.getpid() == 1:
        # In a container. The kernel drops signals for which process 1 has no handler, and the reactor installs its own
        # later: a container that is stopped while it starts would be killed at the end of its time.
        signal.signal(signal.SIGTERM, _end_early)
    # It takes a tenth of a second to import, and `longconn config` does not need it.
    from twisted.scripts import twistd

    parsed = _parsed("serve", arguments)  # twistd parses again; here --help and errors name `longconn serve`
    # What twistd says before the service has its log is JSON too.
    logger = ["--logger=longconn.service.logs.json_observer"] if parsed.config.settings.log_format == "json" else []
    sys.argv[1:] = ["--nodaemon", "--pidfile=", *logger, "longconn", *arguments]
    twistd.run()
    return 0


def _end_early(number: int, frame: object) -> NoReturn:
    """End a server that serves nobody yet. An exception might be caught by what it interrupts, such as a Deferred."""
    os._exit(0)


def config(arguments: list[str]) -> int:
    """Print the effective configuration."""
    print(to_toml(_parsed("config", arguments).config), end="")
    return 0


def _parsed(command: str, arguments: list[str]) -> CommandLineOptions:
    """Parse the options. An error ends the program with one line."""
    options = CommandLineOptions()
    options.synopsis = f"Usage: longconn {command} [options]"
    try:
        options.parseOptions(arguments)
    except UsageError as error:
        print(f"longconn: {error}", file=sys.stderr)
        raise SystemExit(_USAGE) from None
    return options
