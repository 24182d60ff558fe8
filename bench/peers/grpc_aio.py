"""Publish and Subscribe of `longconn.v1.LongConn` on grpc.aio: a queue for each stream, each message encoded once.

    python bench/peers/grpc_aio.py PORT [LIFETIME]

It ends on SIGTERM or after LIFETIME seconds (600). It has no history, no limits and no other protocol.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from longconn.v1 import longconn_pb2 as pb

SERVICE = "longconn.v1.LongConn"


class Feed:
    """The only channel."""

    def __init__(self) -> None:
        self.queues: set[asyncio.Queue[bytes]] = set()
        self.offset = 0

    async def publish(self, request: pb.PublishRequest, context: Any) -> pb.PublishResponse:
        """Put the publication into the queue of each stream."""
        self.offset += 1
        publication = pb.Publication(
            channel=request.channel, offset=self.offset, epoch="e", data=f'"{request.text}"', time=time.time()
        )
        data = pb.SubscribeResponse(publication=publication).SerializeToString()
        for queue in self.queues:
            queue.put_nowait(data)
        return pb.PublishResponse(position=pb.Position(epoch="e", offset=self.offset))

    async def subscribe(self, request: pb.SubscribeRequest, context: Any) -> AsyncIterator[bytes]:
        """Send publications from the stream's own queue."""
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self.queues.discard(queue)


async def main() -> None:
    """Serve."""
    feed = Feed()
    server = grpc.aio.server()
    methods = {
        "Publish": grpc.unary_unary_rpc_method_handler(
            feed.publish, pb.PublishRequest.FromString, pb.PublishResponse.SerializeToString
        ),
        "Subscribe": grpc.unary_stream_rpc_method_handler(feed.subscribe, pb.SubscribeRequest.FromString),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    await server.wait_for_termination(float(sys.argv[2]) if len(sys.argv) > 2 else 600.0)


if __name__ == "__main__":
    asyncio.run(main())
