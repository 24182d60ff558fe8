"""HTTPConnections that measure round trips: one message is under way at a time."""

from __future__ import annotations

import re
from typing import Any, cast

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from longconn.clients.address import Address
from longconn.clients.endpoints import endpoint_for, explain
from longconn.clients.errors import AddressError, ClientError, ConnectionFailed, NotLongconn
from longconn.clients.transports.base import TransportConfiguration
from longconn.clients.transports.json_frames import not_longconn

#: How servers of other protocols begin (RFC 9112, section 4; RFC 4253, section 4.2; RFC 5321, section 4.2).
_FOREIGN = re.compile(r"HTTP/|SSH-|\d\d\d[ -]|\* OK|\+OK")


class RoundTrips:
    """A connection to `address`. `timeout` in seconds, for each thing that it waits for."""

    def __init__(self, reactor: Any, address: Address, timeout: float) -> None:
        self.reactor = reactor
        self.address = address
        self.protocol: Any = None
        self._timeout = timeout
        self._waiting: Deferred[None] | None = None
        self._error: ClientError | None = None

    def factory(self) -> Any:
        """What makes the protocol."""
        raise NotImplementedError

    def send(self, text: str) -> None:
        raise NotImplementedError

    async def connect(self) -> None:
        """Fails with a ClientError."""
        configuration = TransportConfiguration(self.reactor, None, self._timeout)
        dialling = endpoint_for(self.address, configuration).connect(self.factory())
        late = self.reactor.callLater(self._timeout, dialling.cancel)
        try:
            await dialling
        except CancelledError:
            raise
        except Exception as error:
            raise explain(error, self.address) from error
        finally:
            if late.active():
                late.cancel()

    async def trip(self, number: int) -> float:
        """The seconds of one round trip. Fails with a ClientError."""
        started = self.reactor.seconds()
        self.send(str(number))
        await self.wait("no answer")
        seconds: float = self.reactor.seconds() - started
        return seconds

    async def wait(self, what: str) -> None:
        """Until `came` or `failed` is called."""
        if self._error is not None:
            raise self._error
        self._waiting = Deferred()
        text = f"{self.address.netloc}: {what} for {self._timeout:g} s"
        late = self.reactor.callLater(self._timeout, self.failed, ConnectionFailed(text))
        try:
            await self._waiting
        finally:
            self._waiting = None
            if late.active():
                late.cancel()

    def came(self) -> None:
        if self._waiting is not None:
            self._waiting.callback(None)

    def failed(self, error: ClientError) -> None:
        self._error = self._error or error
        if self._waiting is not None:
            self._waiting.errback(Failure(self._error))

    def lost(self, reason: Failure) -> None:
        assert reason.value is not None
        self.failed(explain(reason.value, self.address))

    def close(self) -> None:
        if self.protocol is not None:
            self.protocol.transport.abortConnection()


class LineRoundTrips(RoundTrips):
    """`ping` lines. What is said in the channel meanwhile comes, too, and is passed over."""

    def factory(self) -> Any:
        if self.address.path not in ("", "/"):
            raise AddressError(f"{self.address}: {self.address.scheme}:// has no path")
        factory = Factory.forProtocol(lambda: _Lines(self))
        factory.noisy = False
        return factory

    def send(self, text: str) -> None:
        self.protocol.transport.write(b"ping\n")


class _Lines(LineOnlyReceiver):
    delimiter = b"\n"
    MAX_LENGTH = 1024 * 1024

    def __init__(self, trips: LineRoundTrips) -> None:
        self._trips = trips
        self._known = False

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        self._trips.protocol = self

    def lineReceived(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        if text == "pong":
            self._known = True
            self._trips.came()
        elif not self._known and _FOREIGN.match(text):
            self._trips.failed(not_longconn(line))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._trips.lost(reason)


class MessageRoundTrips(RoundTrips):
    """Text messages over WebSocket."""

    def factory(self) -> Any:
        path = self.address.path if self.address.path not in ("", "/") else "/echo"
        url = f"{self.address.scheme}://{self.address.netloc}{path}"
        factory = WebSocketClientFactory(url, reactor=self.reactor)
        factory.noisy = False
        factory.protocol = cast(Any, lambda: _Messages(self))
        factory.setProtocolOptions(version=13, openHandshakeTimeout=0, closeHandshakeTimeout=0)
        return factory

    async def connect(self) -> None:
        await super().connect()
        await self.wait("no WebSocket")

    def send(self, text: str) -> None:
        self.sent = text
        self.protocol.sendMessage(text.encode())


class _Messages(WebSocketClientProtocol):
    def __init__(self, trips: MessageRoundTrips) -> None:
        super().__init__()
        self._trips = trips
        self._opened = False

    def connectionMade(self) -> None:
        self._trips.protocol = self
        super().connectionMade()

    def onOpen(self) -> None:
        self._opened = True
        self._trips.came()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if payload.decode("utf-8", "replace") == self._trips.sent:
            self._trips.came()
        else:
            self._trips.failed(NotLongconn(f"{self._trips.address} does not echo"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if not self._opened and self.droppedByMe and self.wasNotCleanReason:
            told = " ".join(self.wasNotCleanReason.split())
            self._trips.failed(NotLongconn(f"{self._trips.address.netloc}: no WebSocket: {told}"))
        self._trips.lost(reason)
