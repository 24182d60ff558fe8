"""What a resource hands its upgrades to, unless it is given something else."""

from __future__ import annotations

from functools import partial

from longconn.core.hub import Hub
from longconn.protocols.centrifugo.websocket import CentrifugoWebSocket
from longconn.protocols.chat.websocket import ChatWebSocket
from longconn.protocols.websocket.connection import WebSocketServer
from longconn.protocols.websocket.echo import EchoWebSocket
from longconn.wire.chat import ChatFormat
from longconn.wire.chat_texts import CATALOGUES
from longconn.wire.websocket import text_frames


def websocket_factory(hub: Hub) -> WebSocketServer:
    format = ChatFormat(CATALOGUES[hub.settings.locale], text_frames)
    return WebSocketServer(
        hub, {"chat": partial(ChatWebSocket, format), "echo": EchoWebSocket, "structured": CentrifugoWebSocket}
    )
