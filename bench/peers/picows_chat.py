"""A chat made with picows on uvloop: every message goes to its channel by a loop over ``send``."""

from __future__ import annotations

import sys
from collections import defaultdict

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

channels: defaultdict[bytes, set[WSTransport]] = defaultdict(set)


class Member(WSListener):
    """One client."""

    def __init__(self, channel: bytes) -> None:
        super().__init__()
        self.members = channels[channel]

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.members.add(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            data = frame.get_payload_as_bytes()
            for each in self.members:
                each.send(WSMsgType.TEXT, data)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.members.discard(transport)


def member(request: WSUpgradeRequest) -> WSListener:
    """Return the listener of a new client."""
    return Member(request.path.partition(b"channel=")[2])


async def main(port: int) -> None:
    """Serve until the process is ended."""
    server = await ws_create_server(member, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
