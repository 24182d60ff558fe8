"""A chat made with ``websockets`` on uvloop: every message goes to its channel by ``broadcast()``.

``/ws?channel=NAME`` is a member of that channel. Compression and keepalive pings are off.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

channels: defaultdict[str, set[ServerConnection]] = defaultdict(set)


async def chat(connection: ServerConnection) -> None:
    """Broadcast the messages of one client."""
    members = channels[connection.request.path.partition("channel=")[2]]
    members.add(connection)
    try:
        async for message in connection:
            broadcast(members, message)
    except ConnectionClosed:
        pass
    finally:
        members.discard(connection)


async def main(port: int) -> None:
    """Serve until the process is ended."""
    async with serve(chat, "127.0.0.1", port, compression=None, ping_interval=None, backlog=4096):
        await asyncio.Future()


uvloop.run(main(int(sys.argv[1])))
