"""Receives the messages of calls: the messages themselves, the receive windows, and the bytes that may be kept.

A peer may send the first bytes of a message without being asked (`first_window`). The rest of a larger message comes
when there is room for all of it: the window of its stream opens only then (RFC 9113, section 5.2). So a message that
was begun can always be completed, and a sender that is too fast waits and is not refused.
"""

from __future__ import annotations

from h2.stream import H2Stream
from twisted.internet.defer import CancelledError, Deferred, fail, succeed

from longconn.protocols.grpc.h2_adapter import CONNECTION_WINDOW
from longconn.protocols.grpc.limits import MAX_STREAMS
from longconn.protocols.grpc.sending import Sender
from longconn.wire.grpc import Compressed, MessageReader
from longconn.wire.grpc_status import PUSHBACK, StatusCode, StatusError

#: One address may reserve at most this part of the whole budget (1 / _SHARE), and one connection may keep as much
#: without a reservation.
_SHARE = 4
#: The first bytes of messages on all streams of a connection may take this part of the budget.
_FIRST_SHARE = 8
#: The bounds of `first_window`. A message that is not larger than this needs no second round trip.
_MIN_FIRST, _MAX_FIRST = 1024, 16 * 1024
#: Milliseconds after which a caller may try again if there was no room for its message.
_PUSHBACK_MS = "1000"


class ReceiveBudget:
    """Bytes that all calls of a hub keep, of messages that are not complete, not read, or being handled.

    `limit` bounds them. Three quarters of it can be reserved, by one address a quarter. Reservations that do not fit
    wait for others to end, each address in its own order. A message that is larger than a share is received alone.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: bytes that are kept or reserved
        self.kept = 0
        #: bytes that a stream may send before a handler has read any
        self.first_window = max(_MIN_FIRST, min(_MAX_FIRST, limit // _FIRST_SHARE // MAX_STREAMS))
        self.share = limit // _SHARE
        self._reserved = 0
        self._reserved_by: dict[str, int] = {}
        # Reservations that wait, by address.
        self._waiting: dict[str, dict[Inbox, int]] = {}

    def keep(self, amount: int) -> bool:
        """Count `amount` more bytes (negative: fewer). False if the sum is over the limit."""
        self.kept += amount
        return self.kept <= self.limit

    def reserve(self, host: str, inbox: Inbox, amount: int) -> bool:
        """Reserve `amount` bytes for a message. False if it has to wait: `inbox.on_reserved` is called then."""
        if host not in self._waiting and self._fits(host, amount):
            self._take(host, amount)
            return True
        self._waiting.setdefault(host, {})[inbox] = amount
        return False

    def release(self, host: str, inbox: Inbox, amount: int) -> None:
        """Give a reservation back; with an `amount` of 0 wait for it no longer."""
        waiting = self._waiting.get(host)
        if waiting is not None and waiting.pop(inbox, None) is not None and not waiting:
            del self._waiting[host]
        if amount:
            self._reserved -= amount
            self.kept -= amount
            self._reserved_by[host] -= amount
            if not self._reserved_by[host]:
                del self._reserved_by[host]
            self._go_on()

    def _fits(self, host: str, amount: int) -> bool:
        room = self.limit - self.share
        return (not self._reserved or self._reserved + amount <= room) and (
            host not in self._reserved_by or self._reserved_by[host] + amount <= self.share
        )

    def _take(self, host: str, amount: int) -> None:
        self._reserved += amount
        self.kept += amount
        self._reserved_by[host] = self._reserved_by.get(host, 0) + amount

    def _go_on(self) -> None:
        """Make the reservations that fit now."""
        for host in list(self._waiting):
            waiting = self._waiting.get(host, {})
            while waiting:
                inbox, amount = next(iter(waiting.items()))
                if not self._fits(host, amount):
                    break
                del waiting[inbox]
                self._take(host, amount)
                inbox.on_reserved(amount)
            if not waiting:
                self._waiting.pop(host, None)


class ConnectionWindow:
    """The bytes that one connection receives: its window (RFC 9113, section 5.2) and its part of the budget.

    The window opens as data comes, whether a handler has read the data or not: a call that stalls has a window of its
    own and must not hold up the others.
    """

    def __init__(self, sender: Sender, budget: ReceiveBudget, host: str, max_message: int) -> None:
        self.budget = budget
        self.host = host
        #: bytes of a message
        self.max_message = max_message
        self._sender = sender
        self._max_kept = max(budget.share, max_message)
        self._kept = 0
        # Bytes that came and were not given back to the sender.
        self._owed = 0

    def on_received(self, amount: int) -> None:
        """`amount` bytes came that count against the window."""
        self._owed += amount
        if self._owed >= CONNECTION_WINDOW // 2:
            owed, self._owed = self._owed, 0
            self._sender.open_window(owed)

    def keep(self, amount: int) -> bool:
        """Calls keep `amount` more bytes without a reservation (negative: fewer). False if they are over a limit."""
        self._kept += amount
        return self.budget.keep(amount) and self._kept <= self._max_kept


class Inbox:
    """The messages that one call receives, for one reader: the call's handler.

    A message counts from its first byte until the handler reads on or the call ends.
    """

    __slots__ = (
        "_error", "_kept", "_messages", "_reader", "_reserved", "_sender", "_stopped", "_stream", "_taken", "_waits",
        "_window", "half_closed",
    )  # fmt: skip

    def __init__(
        self, window: ConnectionWindow, sender: Sender, stream: H2Stream, encoding: str, half_closed: bool
    ) -> None:
        #: whether the client has half-closed: it sends nothing more
        self.half_closed = half_closed
        self._window = window
        self._sender = sender
        self._stream = stream
        self._messages = MessageReader(window.max_message, encoding)
        self._reader: Deferred[bytes | Compressed | None] | None = None
        self._error: StatusError | None = None
        self._stopped = False
        # Bytes of the message that the handler has; bytes that are reserved; bytes that are kept beyond them, as the
        # connection's window counts them. And whether a reservation is waited for.
        self._taken = self._reserved = self._kept = 0
        self._waits = False

    # For the handler.

    def read(self) -> Deferred[bytes | Compressed | None]:
        """See `GrpcCall.read`. A compressed message is returned as it came."""
        if self._stopped:
            return fail(CancelledError())
        if self._reader is not None:
            raise RuntimeError("another read is under way")
        self.release()
        try:
            message = self._next()
        except StatusError as error:
            return fail(error)
        if message is not None or self.half_closed:
            return succeed(message)
        self._reader = Deferred(self._on_read_cancelled)
        self._open_window()
        return self._reader

    def _on_read_cancelled(self, reader: object) -> None:
        self._reader = None

    def release(self) -> None:
        """The handler does not need its message any more."""
        if self._taken or self._reserved or self._waits:
            self._taken = 0
            reserved, self._reserved, self._waits = self._reserved, 0, False
            self._count()  # before others get the room
            self._window.budget.release(self._window.host, self, reserved)

    def hold(self, size: int) -> None:
        """The message that the handler has takes `size` bytes from now on. Raises StatusError if there is no room."""
        self._taken = size
        if not self._count():
            self._taken = 0
            self._count()
            raise _no_room()

    def _next(self) -> bytes | Compressed | None:
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
        if message is not None:
            self._taken = len(message)
            self._count()
        return message

    def _open_window(self) -> None:
        """The handler waits: let the peer complete the message that it has begun, and begin the next one."""
        if self.half_closed or self._stopped or self._waits or self._error is not None:
            return
        first = self._window.budget.first_window
        wanted = self._messages.wanted
        allowed = first
        if wanted > first:
            if not self._reserved:
                self._waits = not self._window.budget.reserve(self._window.host, self, wanted)
                if self._waits:
                    return
                self._reserved = wanted
                self._count()
            allowed += wanted
        due = allowed - len(self._messages) - self._stream.inbound_flow_control_window
        if due > first // 2:
            self._sender.open_window(due, self._stream.stream_id)

    def on_reserved(self, amount: int) -> None:
        """For the budget: there is room for the message that was begun."""
        self._waits = False
        self._reserved = amount
        self._count()
        self._open_window()

    def _count(self) -> bool:
        before, self._kept = self._kept, max(0, len(self._messages) + self._taken - self._reserved)
        return self._window.keep(self._kept - before)

    # For the connection.

    def on_data(self, data: bytes, ended: bool) -> None:
        """A DATA frame came."""
        self.half_closed = ended
        if self._stopped or self._error is not None:
            return
        self._messages.feed(data)
        if not self._count():
            self._error = _no_room()
        self._wake_reader()

    def on_half_close(self) -> None:
        """The client sends nothing more."""
        self.half_closed = True
        self._wake_reader()

    def _wake_reader(self) -> None:
        """Give the handler that waits the next message, the end of messages, or an error."""
        reader = self._reader
        if reader is None:
            return
        try:
            message = self._next()
        except StatusError as error:
            self._reader = None
            reader.errback(error)
            return
        if message is None and not self.half_closed:
            self._open_window()
            return
        self._reader = None
        reader.callback(message)

    def stop(self) -> None:
        """The call has ended: keep nothing."""
        self._stopped = True
        self._messages = MessageReader(0)
        self._count()
        self.release()


def _no_room() -> StatusError:
    return StatusError(
        StatusCode.RESOURCE_EXHAUSTED, "too much is being received; try again later", ((PUSHBACK, _PUSHBACK_MS),)
    )
