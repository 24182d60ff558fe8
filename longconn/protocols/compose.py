"""Where protocols meet: the only module that knows several of them."""

from __future__ import annotations

from longconn.core.hub import Hub
from longconn.protocols.centrifugo.tcp import CentrifugoTCP
from longconn.protocols.websocket.connection import WebSocketFactory


def websocket_factory(hub: Hub) -> WebSocketFactory:
    """What a resource hands its upgrades to, unless it is given something else."""
    return WebSocketFactory(hub)


def structured_lines(hub: Hub) -> CentrifugoTCP:
    """What a chat connection becomes whose first line asks for the structured protocol."""
    return CentrifugoTCP(hub)
