"""Centrifugo's client protocol over TCP: an object a line. The first line is `connect`."""

from __future__ import annotations

from collections.abc import Sequence

from longconn.clients.address import Address
from longconn.clients.errors import NotLongconn
from longconn.clients.events import JSONObject
from longconn.clients.transports.base import (
    TransportConfiguration,
    TransportFactory,
    TransportListener,
    check_no_path,
)
from longconn.clients.transports.json_frames import Lines, not_longconn, read_lines, write_frame
from longconn.clients.transports.sockets import ByteStreamTransport


def transports(address: Address) -> list[TransportFactory]:
    """Raises AddressError for a URL with a path."""
    check_no_path(address)
    return [TCPTransport]


class TCPTransport(ByteStreamTransport):
    """tcp:// and tls://"""

    def __init__(self, address: Address, configuration: TransportConfiguration, listener: TransportListener) -> None:
        super().__init__(address, configuration, listener)
        self._first: Sequence[JSONObject] = ()
        self._lines = Lines()
        self._is_json = False

    def open(self, first: Sequence[JSONObject]) -> None:
        self._first = first
        self.connect_itself()

    def connectionMade(self) -> None:
        super().connectionMade()
        self.send(self._first)

    def send(self, objects: Sequence[JSONObject]) -> None:
        if self.transport is not None:
            self.transport.write(write_frame(objects) + b"\n")

    def dataReceived(self, data: bytes) -> None:
        try:
            lines = self._lines.feed(data)
            if not self._is_json:
                # A server of another protocol may greet with a line that does not end.
                start = b"".join(lines).lstrip() or self._lines.unfinished.lstrip()
                self._is_json = start.startswith(b"{")
                if start and not self._is_json:
                    raise not_longconn(start)
            objects = read_lines(lines)
        except NotLongconn as error:
            self.fail(error)
            return
        self.listener.on_objects(objects)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()
        else:
            self.abort()
