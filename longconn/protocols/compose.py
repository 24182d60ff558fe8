"""Where protocols meet: the only module that knows several of them."""

from __future__ import annotations

from longconn.core.hub import Hub
from longconn.protocols.centrifugo.tcp import CentrifugoTCP


def structured_lines(hub: Hub) -> CentrifugoTCP:
    """What a chat connection becomes whose first line asks for the structured protocol."""
    return CentrifugoTCP(hub)
