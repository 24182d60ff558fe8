"""Receives the messages of calls: the messages themselves, the receive windows, and the bytes that may be kept."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail, succeed

from longconn.protocols.grpc.h2_adapter import CONNECTION_WINDOW
from longconn.protocols.grpc.sending import Sender
from longconn.wire.grpc import MessageReader
from longconn.wire.grpc_status import StatusCode, StatusError
from longconn.wire.http2 import DEFAULT_WINDOW

#: Bytes that the calls of a connection may leave unread before the connection's window stops opening.
_MAX_UNREAD = 4 * 1024 * 1024
#: Bytes that a call consumes before the window of its stream is opened by as much.
_CREDIT = DEFAULT_WINDOW // 2
#: One connection may keep at most this part of the whole budget (1 / _SHARE).
_SHARE = 4


class ReceiveBudget:
    """Bytes that all calls of a hub keep, of messages that are not complete or not read: at most `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.kept = 0

    def keep(self, amount: int) -> bool:
        """Count `amount` more bytes (negative: fewer). False if the sum is over the limit."""
        self.kept += amount
        return self.kept <= self.limit


class ConnectionWindow:
    """What one connection receives: its window (RFC 9113, section 5.2) and its part of the budget.

    The window opens as data comes, whether a handler has read the data or not. A call that stalls has a window of its
    own and must not hold up the others. The connection waits only while more than `_MAX_UNREAD` bytes are unread.
    """

    def __init__(self, sender: Sender, budget: ReceiveBudget, max_message: int) -> None:
        #: bytes of a message
        self.max_message = max_message
        self._sender = sender
        self._budget = budget
        self._max_kept = max(budget.limit // _SHARE, max_message)
        self._kept = 0
        # Bytes that came and were not given back to the sender, and bytes that wait for handlers.
        self._owed = 0
        self._unread = 0

    def on_received(self, amount: int) -> None:
        """`amount` bytes came that count against the window."""
        self._owed += amount
        self._open()

    def hold(self, amount: int) -> None:
        """`amount` more bytes (negative: fewer) wait for a handler."""
        self._unread += amount
        if amount < 0:
            self._open()

    def keep(self, amount: int) -> bool:
        """Calls keep `amount` more bytes in memory (negative: fewer). False if they are over a limit."""
        self._kept += amount
        return self._budget.keep(amount) and self._kept <= self._max_kept

    def _open(self) -> None:
        due = self._owed - max(0, self._unread - _MAX_UNREAD)
        if due >= CONNECTION_WINDOW // 2:
            self._owed -= due
            self._sender.open_window(due)


class Inbox:
    """The messages that one call receives, for one reader: the call's handler."""

    __slots__ = (
        "_consumed", "_credited", "_error", "_held", "_kept", "_messages", "_reader", "_received",
        "_sender", "_stopped", "_stream_id", "_window", "half_closed",
    )  # fmt: skip

    def __init__(
        self, window: ConnectionWindow, sender: Sender, stream_id: int, encoding: str, half_closed: bool
    ) -> None:
        #: whether the client has half-closed: it sends nothing more
        self.half_closed = half_closed
        self._window = window
        self._sender = sender
        self._stream_id = stream_id
        self._messages = MessageReader(window.max_message, encoding)
        self._reader: Deferred[bytes | None] | None = None
        self._error: StatusError | None = None
        self._stopped = False
        # Bytes of the stream: received, consumed (the handler has them or waits for them), credited (the stream's
        # window was opened by them). And bytes that the connection's window counts as held and as kept.
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
        self._reader = Deferred(self._on_read_cancelled)
        self._update_windows()
        return self._reader

    def _on_read_cancelled(self, reader: object) -> None:
        self._reader = None

    def _next(self) -> bytes | None:
        """Return the next message if it is complete. Raises StatusError."""
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
            self._count_kept()
        if message is not None:
            self._consumed = max(self._consumed, self._received - len(self._messages))
            self._update_windows()
        return message

    def _update_windows(self) -> None:
        """Open the stream's window by what the handler has consumed, or waits for.

        A handler that stalls stops its sender within one window (RFC 9113, section 5.2).
        """
        if self._reader is not None:
            self._consumed = self._received
        held = self._received - self._consumed
        if held != self._held:
            more, self._held = held - self._held, held
            self._window.hold(more)
        due = self._consumed - self._credited
        if due >= _CREDIT and not self.half_closed and not self._stopped:
            self._credited = self._consumed
            self._sender.open_window(due, self._stream_id)

    def _count_kept(self) -> bool:
        before, self._kept = self._kept, len(self._messages)
        return self._window.keep(self._kept - before)

    # For the connection.

    def on_data(self, data: bytes, size: int, ended: bool) -> None:
        """A DATA frame came; `size` is its data and padding, which the window counts."""
        self.half_closed = ended
        self._received += size
        self._consumed += size - len(data)  # padding needs no reader
        if self._stopped or self._error is not None:
            self._consumed = self._received
            return
        self._messages.feed(data)
        if not self._count_kept():
            self._error = StatusError(StatusCode.RESOURCE_EXHAUSTED, "too much is being received; try again later")
        self._wake_reader()

    def on_half_close(self) -> None:
        """The client sends nothing more."""
        self.half_closed = True
        self._wake_reader()

    def _wake_reader(self) -> None:
        """Give the handler that waits the next message, the end of messages, or an error."""
        reader = self._reader
        if reader is None:
            self._update_windows()
            return
        try:
            message = self._next()
        except StatusError as error:
            self._reader = None
            reader.errback(error)
            return
        if message is None and not self.half_closed:
            self._update_windows()
            return
        self._reader = None
        reader.callback(message)

    def stop(self) -> None:
        """The call has ended: keep nothing."""
        self._stopped = True
        self._messages = MessageReader(0)
        self._count_kept()
        self._consumed = self._received
        self._update_windows()
