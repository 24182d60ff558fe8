"""A program that embeds the server and decides who may connect.

python hooks_program.py PORT
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from longconn import HookRefusalError, HookReply, HookRequest, LongConnService, program_hooks


async def connect(request: HookRequest) -> HookReply:
    """Let in whoever knows the word; a real program asks its database, and awaits the answer."""
    if request.headers.get("x-word") != "please":
        raise HookRefusalError(1000, "say the word")
    return HookReply(user="ann", info=b'{"team":"storage"}')


async def main(reactor: Any, port: str) -> None:
    hooks = program_hooks({"connect": connect}, header_names=("X-Word",), reactor=reactor)
    service = LongConnService(reactor, port=[f"tcp:{port}:interface=127.0.0.1"], hooks=hooks)
    service.startService()
    print("ready", flush=True)
    await Deferred()


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
