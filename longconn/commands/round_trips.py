"""Connections that measure round trips. The next message is sent after the answer to the one before."""

from __future__ import annotations

import re
from typing import Any, NoReturn, cast

from autobahn.twisted.websocket import WebSocketClientFactory
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from longconn.clients.address import Address
from longconn.clients.endpoints import endpoint_for, explain
from longconn.clients.errors import ClientError, ConnectionFailed, NotLongconn
from longconn.clients.transports.base import TransportConfiguration, check_no_path
from longconn.clients.transports.json_frames import not_longconn
from longconn.clients.transports.websocket import OnePongProtocol

#: Bytes of the head of a handshake, and of a message.
_MOST = 64 * 1024
#: The first bytes of servers of other protocols (RFC 9112, section 4; RFC 4253, section 4.2; RFC 5321, section 4.2).
_FOREIGN = re.compile(r"HTTP/|SSH-|\d\d\d[ -]|\* OK|\+OK")


class RoundTrips:
    """A connection to `address`. The configuration's `timeout` is also that for each answer."""

    def __init__(self, address: Address, configuration: TransportConfiguration) -> None:
        self.reactor = configuration.reactor
        self.address = address
        self.protocol: Any = None
        self._configuration = configuration
        self._timeout = configuration.timeout
        self._waiting: Deferred[None] | None = None
        self._error: ClientError | None = None

    def factory(self) -> Any:
        """A factory of the protocol, which calls `on_answer`, `fail` and `on_lost`."""
        raise NotImplementedError

    def send(self, text: str) -> None:
        """Send a message."""
        raise NotImplementedError

    async def connect(self) -> None:
        """Fails with a ClientError."""
        connecting = endpoint_for(self.address, self._configuration).connect(self.factory())
        connecting.addTimeout(self._timeout, self.reactor, lambda failure, seconds: failure)
        try:
            await connecting
        except CancelledError:
            raise
        except Exception as error:
            raise explain(error, self.address) from error

    async def measure(self, number: int) -> float:
        """The seconds of one round trip. Fails with a ClientError."""
        started = self.reactor.seconds()
        self.send(str(number))
        await self.wait("no answer")
        seconds: float = self.reactor.seconds() - started
        return seconds

    async def wait(self, what: str) -> None:
        """Wait until `on_answer` or `fail` is called."""
        if self._error is not None:
            raise self._error
        self._waiting = Deferred()

        def too_late(result: object, seconds: float) -> NoReturn:
            raise ConnectionFailed(f"{self.address.netloc}: {what} for {seconds:g} s")

        try:
            await self._waiting.addTimeout(self._timeout, self.reactor, too_late)
        finally:
            self._waiting = None

    def on_answer(self) -> None:
        if self._waiting is not None:
            self._waiting.callback(None)

    def fail(self, error: ClientError) -> None:
        self._error = self._error or error
        if self._waiting is not None:
            self._waiting.errback(Failure(self._error))

    def on_lost(self, reason: Failure) -> None:
        self.fail(explain(reason.value, self.address))

    def close(self) -> None:
        if self.protocol is not None:
            self.protocol.transport.abortConnection()


class LineRoundTrips(RoundTrips):
    """Sends `ping` lines. Other lines of the channel are ignored."""

    def factory(self) -> Any:
        check_no_path(self.address)
        factory = Factory.forProtocol(lambda: _LineProtocol(self))
        factory.noisy = False
        return factory

    def send(self, text: str) -> None:
        self.protocol.transport.write(b"ping\n")


class _LineProtocol(LineOnlyReceiver):
    delimiter = b"\n"
    MAX_LENGTH = 1024 * 1024

    def __init__(self, round_trips: LineRoundTrips) -> None:
        self._round_trips = round_trips
        self._is_chat = False

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        self._round_trips.protocol = self

    def lineReceived(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        if text == "pong":
            self._is_chat = True
            self._round_trips.on_answer()
        elif not self._is_chat and _FOREIGN.match(text):
            self._round_trips.fail(not_longconn(line))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._round_trips.on_lost(reason)


class MessageRoundTrips(RoundTrips):
    """Sends text messages over WebSocket."""

    def factory(self) -> Any:
        path = self.address.path if self.address.path not in ("", "/") else "/echo"
        url = f"{self.address.scheme}://{self.address.netloc}{path}"
        factory = WebSocketClientFactory(url, reactor=self.reactor)
        factory.noisy = False
        factory.host = self.address.uri_host  # for the Host header (RFC 9110, section 7.2)
        factory.protocol = cast(Any, lambda: _MessageProtocol(self))
        factory.setProtocolOptions(
            version=13,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            maxFramePayloadSize=_MOST,
            maxMessagePayloadSize=_MOST,
            failByDrop=True,
        )
        return factory

    async def connect(self) -> None:
        await super().connect()
        await self.wait("no WebSocket")

    def send(self, text: str) -> None:
        self.sent = text
        self.protocol.sendMessage(text.encode())


class _MessageProtocol(OnePongProtocol):
    def __init__(self, round_trips: MessageRoundTrips) -> None:
        super().__init__()
        self._round_trips = round_trips
        self._opened = False
        self._head_size = 0

    def connectionMade(self) -> None:
        self._round_trips.protocol = self
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        if not self._opened:
            self._head_size += len(data)
            if self._head_size > _MOST:
                where = self._round_trips.address.netloc
                self._round_trips.fail(NotLongconn(f"{where}: no WebSocket: its answer does not end"))
                self._round_trips.close()
                return
        super().dataReceived(data)

    def onOpen(self) -> None:
        self._opened = True
        self._round_trips.on_answer()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if payload.decode("utf-8", "replace") == self._round_trips.sent:
            self._round_trips.on_answer()
        else:
            self._round_trips.fail(NotLongconn(f"{self._round_trips.address} does not echo"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self.droppedByMe and self.wasNotCleanReason:
            what = "does not echo" if self._opened else "no WebSocket"
            text = " ".join(self.wasNotCleanReason.split())
            self._round_trips.fail(NotLongconn(f"{self._round_trips.address.netloc}: {what}: {text}"))
        self._round_trips.on_lost(reason)
