"""A chat made with ``websockets``: every message goes to every connection by its ``broadcast()``.

    python bench/peers/ws_broadcast.py PORT [LIFETIME]

Port 0 picks a free port. The port is printed. It ends on SIGTERM or after LIFETIME seconds (600). Compression and the
keepalive pings are off, so that neither costs time.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosedError

connections: set[ServerConnection] = set()


async def chat(connection: ServerConnection) -> None:
    """Broadcast the messages of a client until it disconnects."""
    connections.add(connection)
    try:
        async for message in connection:
            broadcast(connections, message)
    except ConnectionClosedError:
        pass  # a client that ends without a closing handshake
    finally:
        connections.discard(connection)


async def main(port: int, lifetime: float) -> None:
    """Serve on 127.0.0.1 until a signal or the end of the lifetime."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    loop.call_later(lifetime, over.set)
    server = await serve(chat, "127.0.0.1", port, compression=None, ping_interval=None)
    print(next(iter(server.sockets)).getsockname()[1], flush=True)
    await over.wait()
    for connection in list(connections):
        connection.transport.abort()
    server.close(close_connections=False)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 600.0))
