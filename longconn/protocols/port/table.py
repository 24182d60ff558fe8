"""The protocols that the connections of a port get, by their first bytes (`docs/topics/shared-port.md`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IAddress

from longconn.core.hub import Hub
from longconn.protocols.connection.handover import hand_over
from longconn.protocols.connection.peer import log_closed
from longconn.wire.first_bytes import Kind, detect

#: Makes the protocol of a connection, as `IProtocolFactory.buildProtocol`; None if there is no room.
Builder = Callable[[IAddress | None], Any]


class PortTable:
    """Hands a connection to the protocol that its first bytes show.

    `builders` make the protocols that the port serves. `not_served` is the log's text, after the kind, for
    a connection that is closed because the port does not serve its kind.
    """

    def __init__(self, hub: Hub, builders: Mapping[Kind, Builder], not_served: str) -> None:
        self.hub = hub
        self._builders = builders
        self._not_served = not_served

    def detect(self, data: bytearray, before: int) -> Kind:
        """The protocol of a connection that has sent `data`; for `before` see `longconn.wire.first_bytes.detect`."""
        return detect(data, self.hub.settings.max_message, before)

    def pass_on(self, kind: Kind, transport: Any, data: bytes, written: bool = False) -> None:
        """Let the protocol of this kind take a connection that has sent `data`, or close it; the log says why.

        `written` says whether anything was sent to the client: it would take that for the start of its answer.
        """
        builder = self._builders.get(kind)
        if builder is None:
            why = self._not_served
        elif written:
            why = "on a connection that was written to"
        else:
            protocol = builder(transport.getPeer())
            if protocol is None:
                transport.abortConnection()
            else:
                hand_over(transport, protocol)
                protocol.dataReceived(data)
            return
        log_closed(transport.getPeer(), f"{kind.value} {why}")
        transport.abortConnection()
