"""Copies messages from one channel to another: python client_asyncio.py ws://localhost:9999 FROM TO"""

import asyncio
import sys
from typing import Any

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred

from longconn.clients import Client, Publication, connect


async def copy(client: Client, source: str, target: str) -> None:
    """Awaits Deferreds, which longconn's clients return."""
    subscription = await client.subscribe(source)
    print("subscribed", flush=True)
    async for event in subscription:
        if isinstance(event, Publication):
            print(f"{event.name}: {event.data}", flush=True)
            await client.publish(target, event.data)


async def main(url: str, source: str, target: str) -> None:
    """Awaits asyncio's futures. The reactor runs on the program's event loop."""
    loop = asyncio.get_running_loop()
    asyncioreactor.install(loop)  # before anything imports a reactor
    from twisted.internet import reactor

    def on_loop(deferred: "Deferred[Any]") -> "asyncio.Future[Any]":
        return deferred.asFuture(loop)

    client = connect(url, reactor=reactor)
    try:
        await on_loop(Deferred.fromCoroutine(copy(client, source, target)))
    finally:
        await on_loop(client.close())


asyncio.run(main(*sys.argv[1:]))
