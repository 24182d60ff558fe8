"""An HTTP client that keeps its connections and uses them again, on treq.

client = KeepAliveClient(reactor, connections=4)
async with await client.request("GET", "http://localhost:9999/PrintHello") as response:
    print(response.status, response.source_port, response.reused)
    async for piece in response:
        ...
await client.close()
"""

from longconn.clients.keepalive.client import KeepAliveClient
from longconn.clients.keepalive.response import BodyTooLarge, Response

__all__ = ["BodyTooLarge", "KeepAliveClient", "Response"]
