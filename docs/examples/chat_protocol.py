"""A chat on a UNIX socket, in which the program sees each line first.

    python chat_protocol.py PATH        and then: nc -U PATH

It answers `!count` to the client that sends it, and publishes all other lines.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXServerEndpoint

from longconn import ChatFactory, ChatProtocol, Hub


class CountingProtocol(ChatProtocol):
    MAX_LENGTH = 1_000
    lines = 0

    def lineReceived(self, line: bytes) -> None:
        if line == b"!count":
            self.sendLine(b"* you have said %d lines" % self.lines)
        else:
            self.lines += 1
            super().lineReceived(line)


async def main(reactor: Any, path: str) -> None:
    factory = ChatFactory(Hub(reactor))
    factory.protocol = CountingProtocol
    await UNIXServerEndpoint(reactor, path, mode=0o600).listen(factory)
    print(f"listening on {path}", flush=True)
    await Deferred()  # until the reactor stops


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
