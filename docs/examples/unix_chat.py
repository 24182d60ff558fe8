"""A Twisted program with a chat beside its own work: chat lines on a UNIX socket.

    python unix_chat.py PATH        and then: nc -U PATH

The work here is a timer. It reports in the chat.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXServerEndpoint

from longconn import ChatFactory, Hub, Settings
from longconn.core.disconnects import SHUTDOWN
from longconn.core.publication import Data, Info


async def main(reactor: Any, path: str) -> None:
    hub = Hub(reactor, Settings(default_channel="ops", names="guest"))
    port = await UNIXServerEndpoint(reactor, path, mode=0o600).listen(ChatFactory(hub))
    print(f"listening on {path}", flush=True)

    def work() -> None:
        # Only if there are readers: the channel exists while it has subscribers or history.
        if hub.presence("ops"):
            hub.publish("ops", Data.of_text("still working"), Info("worker"), done=lambda result: None)

    timer = task.LoopingCall(work)
    timer.clock = reactor
    timer.start(1.0, now=False)

    async def stop() -> None:
        timer.stop()
        await port.stopListening()
        for client in list(hub.clients.values()):
            client.close(SHUTDOWN)
        hub.stop()

    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(stop()))
    await Deferred()  # until the reactor stops


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
