"""A connection in memory: the server's transport and the client's end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, ITCPTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from longconn.testing.clock import FakeClock

#: Bytes that fit between a server that writes and a client that does not read, as in the buffers of two kernels.
WINDOW = 64 * 1024
#: The most bytes that the server receives at once (twisted/internet/abstract.py, bufferSize).
_SEGMENT = 64 * 1024


@implementer(ITCPTransport)
class MemoryTransport:
    """The transport that a protocol of the server writes to. It behaves as Twisted's own transports.

    `write` sends nothing itself. A producer is paused above `bufferSize` and resumed once the buffer is empty.
    `loseConnection` first sends the buffer and waits for a registered producer; `abortConnection` drops the buffer.
    `protocol` may be replaced while the connection lives: some protocols hand a connection on.
    """

    bufferSize = 64 * 1024
    TLS = False

    def __init__(self, clock: FakeClock, client: MemoryConnection, peer: Any, host: Any) -> None:
        self.protocol: Any = None
        self.connected = True
        self.disconnected = False
        self.disconnecting = False
        self.options: dict[str, bool] = {}
        self.producer: Any = None
        self.streamingProducer = False
        self.producerPaused = False
        self._clock = clock
        self._client = client
        self._peer = peer
        self._host = host
        self._buffer = bytearray()
        self._call: Any = None
        self._reading = True
        self._incoming = bytearray()
        self._ended = False
        self._delivering = False
        self._write_ended = False

    # Called by the protocol (ITransport, ITCPTransport).

    def getPeer(self) -> Any:
        return self._peer

    def getHost(self) -> Any:
        return self._host

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if not self.connected or self._write_ended or not data:
            return
        self._buffer += data
        self._pause_producer_if_full()
        self._send_later()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._reading = False
            self._send_later()

    def loseWriteConnection(self) -> None:
        self._write_ended = True
        self._send_later()

    def abortConnection(self) -> None:
        if self.connected:
            self.connected = False
            self._reading = False
            self._buffer.clear()
            self._client.on_abort()
            self._clock.callLater(0, self.lose, ConnectionAborted())

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.options["nodelay"] = enabled

    def getTcpNoDelay(self) -> bool:
        return self.options.get("nodelay", False)

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.options["keepalive"] = enabled

    def getTcpKeepAlive(self) -> bool:
        return self.options.get("keepalive", False)

    # Producers (IConsumer), as twisted.internet.abstract.FileDescriptor has them.

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError(f"{producer} cannot be registered: {self.producer} was never unregistered")
        if self.disconnected:
            producer.stopProducing()
            return
        self.producer = producer
        self.streamingProducer = streaming
        self.producerPaused = False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None
        if self.connected and self.disconnecting:
            self._send_later()

    def _pause_producer_if_full(self) -> None:
        if self.producer is not None and self.streamingProducer and len(self._buffer) > self.bufferSize:
            self.producerPaused = True
            self.producer.pauseProducing()

    def _send_later(self) -> None:
        if self._call is None and not self.disconnected:
            self._call = self._clock.callLater(0, self._send)

    def _send(self) -> None:
        """Send from the buffer, as a reactor does when the socket is writable."""
        self._call = None
        if self.disconnected or not self.connected:
            return
        if self._buffer:
            taken = self._client.take(self._buffer)
            if taken is None:
                self.lose(ConnectionLost())
                return
            del self._buffer[:taken]
            if self._buffer:
                if taken:
                    self._send_later()
                return  # with nothing taken, `on_room` continues
        if self.producer is not None and (not self.streamingProducer or self.producerPaused):
            self.producerPaused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            self.lose(ConnectionDone())
        elif self._write_ended:
            self._client.on_end()

    def on_room(self) -> None:
        """Continue to send: the client has read, and there is room."""
        if self._buffer:
            self._send_later()

    # Input from the client.

    @property
    def reading(self) -> bool:
        """Whether the server reads now."""
        return self._reading

    def pauseProducing(self) -> None:
        self._reading = False

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting:
            self._reading = True
            self._clock.callLater(0, self._deliver)

    def stopProducing(self) -> None:
        self.loseConnection()

    def arrive(self, data: bytes, end: bool = False) -> None:
        """Take bytes that the client sent. `end` says that they are the last."""
        self._incoming += data
        self._ended = self._ended or end
        self._deliver()

    def _deliver(self) -> None:
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._incoming and self._reading and self.connected:
                data = bytes(self._incoming[:_SEGMENT])
                del self._incoming[:_SEGMENT]
                self.protocol.dataReceived(data)
        finally:
            self._delivering = False
        if self._ended and self._reading and self.connected:
            self._reading = False
            half: Any = IHalfCloseableProtocol(self.protocol, None)
            if half is None:
                self.lose(ConnectionDone())
            else:
                half.readConnectionLost()

    def lose(self, reason: Exception) -> None:
        """The connection is lost: notify the producer and the protocol, once."""
        if self.disconnected:
            return
        self.disconnected = True
        self.connected = False
        self._reading = False
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._client.on_end()
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))


class MemoryConnection:
    """The client's end. Bytes that it reads go to `on_data`, or without one into `received`.

    `closed` is true once the server has closed the connection and all bytes were read; `aborted` once the server has
    aborted it. `local` is this end's address as the server sees it.
    """

    _ports = count(50_000)

    def __init__(
        self,
        clock: FakeClock,
        factory: Any,
        *,
        local: Any = None,
        remote: Any = None,
        window: int = WINDOW,
    ) -> None:
        self.local: Any = local or IPv4Address("TCP", "127.0.0.1", next(self._ports))
        #: bytes that fit on the way to a client that does not read
        self.window = window
        self.received = bytearray()
        self.on_data: Callable[[bytes], None] | None = None
        self.on_closed: Callable[[], None] | None = None
        self.closed = False
        self.aborted = False
        self._reading = True
        self._gone = False
        self._ended = False
        self._held = bytearray()
        #: the server's end, for tests of its options and its producer
        self.transport = MemoryTransport(clock, self, self.local, remote or IPv4Address("TCP", "127.0.0.1", 9999))
        protocol = factory.buildProtocol(self.local)
        if protocol is None:
            self.transport.disconnected = True
            self.transport.connected = False
            self._ended = True
            self._read()
        else:
            self.transport.protocol = protocol
            protocol.makeConnection(self.transport)

    # Called by the test.

    def send(self, data: bytes) -> None:
        """Send bytes. The server has them when this returns, unless it does not read."""
        if not self._gone:
            self.transport.arrive(data)

    def stop_reading(self) -> None:
        """Stop reading. After `window` more bytes the server's buffer grows."""
        self._reading = False

    def start_reading(self) -> None:
        self._reading = True
        self._read()
        self.transport.on_room()

    def half_close(self) -> None:
        """End this direction of the connection, and read on."""
        if not self._gone:
            self.transport.arrive(b"", end=True)

    def close(self) -> None:
        """Close the connection. Bytes on their way to this end are lost."""
        if not self._gone:
            self._gone = True
            self._held.clear()
            self.transport.arrive(b"", end=True)

    def reset(self) -> None:
        """Reset the connection, as when a client dies."""
        self._gone = True
        self._held.clear()
        self.transport.lose(ConnectionLost())

    # Called by the transport.

    def take(self, data: bytearray) -> int | None:
        """Take as many bytes as there is room for. Returns their number; None if this end is closed."""
        if self._gone:
            return None
        part = bytes(data[: self.window - len(self._held)])
        self._held += part
        if self._reading:
            self._read()
        return len(part)

    def on_abort(self) -> None:
        self.aborted = True
        self._held.clear()

    def on_end(self) -> None:
        self._ended = True
        if self._reading:
            self._read()

    def _read(self) -> None:
        data = bytes(self._held)
        self._held.clear()
        if data:
            if self.on_data is None:
                self.received += data
            else:
                self.on_data(data)
        if self._ended and not self.closed:
            self.closed = True
            if self.on_closed is not None:
                self.on_closed()
