"""Requests a URL several times over two persistent connections: python keep_alive.py URL"""

import sys

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from longconn.clients import ClientError
from longconn.clients.keepalive import KeepAliveClient


async def ask(client, url):
    try:
        async with await client.request("GET", url, auth=("ann", "secret")) as response:
            size = 0
            async for piece in response:  # as it arrives; never the whole body
                size += len(piece)
    except ClientError as error:
        return f"no answer: {error}"
    return f"{response.status}, {size} bytes, {'reused' if response.reused else 'new'}"


async def main(reactor, url):
    client = KeepAliveClient(reactor, connections=2, connect_timeout=5.0, read_timeout=30.0)
    try:
        # Six at a time: four of them wait for one of the two connections.
        asked = [Deferred.fromCoroutine(ask(client, url)) for _ in range(6)]
        for answer in await gatherResults(asked):
            print(answer)
    finally:
        await client.close()


react(lambda reactor: Deferred.fromCoroutine(main(reactor, *sys.argv[1:])))
