"""What a connection has received: messages for handlers, credit for the sender, and how much may be kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from h2.connection import H2Connection
from twisted.internet.defer import CancelledError, Deferred, fail, succeed

from longconn.protocols.grpc.h2_adapter import CONNECTION_WINDOW
from longconn.wire.grpc import MessageReader
from longconn.wire.grpc_status import StatusCode, StatusError
from longconn.wire.http2 import DEFAULT_WINDOW

#: Bytes that calls may leave unread before the connection gets no more credit for them.
_UNREAD = 4 * 1024 * 1024
#: Bytes of a call that were consumed before its sender is given credit for them.
_CREDIT = DEFAULT_WINDOW // 2


class ReceiveBudget:
    """Bytes that all calls of a hub keep of messages that are not whole, or not read: at most `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.kept = 0

    def keep(self, amount: int) -> bool:
        """`amount` bytes more are kept (or fewer, if negative); False if that is too much."""
        self.kept += amount
        return self.kept <= self.limit


class ConnectionWindow:
    """The window of a whole connection (RFC 9113, section 5.2), apart from those of its streams.

    It opens with what comes, whether that was read or not: a call that stalls has a window of its own, and
    must not hold up the others. Only when very much is unread, the connection has to wait.
    """

    def __init__(self, library: H2Connection, send: Callable[[], None]) -> None:
        self._library = library
        self._send = send
        self._owed = 0
        self._unread = 0

    def received(self, amount: int) -> None:
        """`amount` bytes counted against the window."""
        self._owed += amount
        self._open()

    def hold(self, amount: int) -> None:
        """`amount` bytes more (or fewer, if negative) wait for a handler."""
        self._unread += amount
        if amount < 0:
            self._open()

    def _open(self) -> None:
        due = self._owed - max(0, self._unread - _UNREAD)
        if due >= CONNECTION_WINDOW // 2:
            self._owed -= due
            self._library.increment_flow_control_window(due)
            self._send()


class Opening(Protocol):
    """What an inbox asks of its connection (`longconn.protocols.grpc.streams.Streams`)."""

    max_receive: int

    def open_window(self, stream_id: int, amount: int) -> None: ...

    def keep(self, amount: int) -> bool: ...

    def hold(self, amount: int) -> None: ...


class Inbox:
    """What came in one call, as messages for one handler."""

    __slots__ = (
        "_connection", "_consumed", "_credited", "_error", "_held", "_kept", "_messages", "_reader", "_received",
        "_stopped", "_stream_id", "half_closed",
    )  # fmt: skip

    def __init__(self, connection: Opening, stream_id: int, encoding: str, half_closed: bool) -> None:
        #: whether the client sends nothing more
        self.half_closed = half_closed
        self._connection = connection
        self._stream_id = stream_id
        self._messages = MessageReader(connection.max_receive, encoding)
        self._reader: Deferred[bytes | None] | None = None
        self._error: StatusError | None = None
        self._stopped = False
        # Bytes of the stream: that came, that the handler has or waits for, that were given credit for;
        # and those that the connection was told to hold, and to keep.
        self._received = self._consumed = self._credited = self._held = self._kept = 0

    # For the handler.

    def read(self) -> Deferred[bytes | None]:
        """See `GrpcCall.read`."""
        if self._stopped:
            return fail(CancelledError())
        if self._reader is not None:
            raise RuntimeError("another read is under way")
        try:
            message = self._next()
        except StatusError as error:
            return fail(error)
        if message is not None or self.half_closed:
            return succeed(message)
        reader: Deferred[bytes | None] = Deferred(self._on_read_cancelled)
        self._reader = reader
        self._credit()
        return reader

    def _on_read_cancelled(self, reader: object) -> None:
        self._reader = None

    def _next(self) -> bytes | None:
        """A message that is whole already."""
        if self._error is not None:
            raise self._error
        try:
            message = self._messages.take()
            if message is None and self.half_closed and len(self._messages):
                raise StatusError(StatusCode.INTERNAL, "the last message is not whole")
        except StatusError as error:
            self._error = error
            raise
        finally:
            self._recount()
        if message is not None:
            self._consumed = max(self._consumed, self._received - len(self._messages))
            self._credit()
        return message

    def _credit(self) -> None:
        """Let the client send as much more as the handler has taken, or waits for.

        So a handler that stalls stops its sender within one window (RFC 9113, section 5.2).
        """
        if self._reader is not None:
            self._consumed = self._received
        held = self._received - self._consumed
        if held != self._held:
            more, self._held = held - self._held, held
            self._connection.hold(more)
        due = self._consumed - self._credited
        if due >= _CREDIT and not self.half_closed and not self._stopped:
            self._credited = self._consumed
            self._connection.open_window(self._stream_id, due)

    def _recount(self) -> bool:
        """Tell how much is kept here; False if it is too much, with all others."""
        before, self._kept = self._kept, len(self._messages)
        return self._connection.keep(self._kept - before)

    # For the connection.

    def on_data(self, data: bytes, size: int, last: bool) -> None:
        """A part of the stream came, that counts as `size` bytes in its window; perhaps the last."""
        self.half_closed = last
        self._received += size
        self._consumed += size - len(data)  # padding is nobody's to read
        if self._stopped or self._error is not None:
            self._consumed = self._received
            return
        self._messages.feed(data)
        if not self._recount():
            self._error = StatusError(StatusCode.RESOURCE_EXHAUSTED, "too much is being received; try again later")
        self._wake()

    def on_half_close(self) -> None:
        """The client sends nothing more."""
        self.half_closed = True
        self._wake()

    def _wake(self) -> None:
        """Give the handler that waits a message, or the end of them."""
        reader = self._reader
        if reader is None:
            self._credit()
            return
        try:
            message = self._next()
        except StatusError as error:
            self._reader = None
            reader.errback(error)
            return
        if message is None and not self.half_closed:
            self._credit()
            return
        self._reader = None
        reader.callback(message)

    def stop(self) -> None:
        """The call has ended: nothing is kept."""
        self._stopped = True
        self._messages = MessageReader(0)
        self._recount()
        self._consumed = self._received
        self._credit()
