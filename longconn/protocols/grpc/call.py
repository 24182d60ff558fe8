"""One call on the server's side, and the registry of what may be called.

A handler is a coroutine function that is given the `GrpcCall`. When it returns, the call has the status
OK; what it raises is the status otherwise. When the call ends before (the client cancels, the deadline
passes, the connection is lost), the handler is cancelled: what it awaits fails with CancelledError.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from h2.stream import H2Stream
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure

from longconn.core.disconnects import SLOW, WRITE_TIMEOUT, Disconnect
from longconn.core.errors import CommandError
from longconn.core.hub import Hub, log
from longconn.core.timers import Call as DelayedCall
from longconn.protocols.grpc.receiving import Inbox, Opening
from longconn.protocols.grpc.sending import Sender
from longconn.protocols.grpc.stream_outlet import StreamOutlet
from longconn.wire.grpc import frame
from longconn.wire.grpc_request import GrpcRequest
from longconn.wire.grpc_status import Metadata, StatusCode, StatusError, status_of_disconnect, status_of_error
from longconn.wire.http2 import ErrorCode

_LATE = StatusError(StatusCode.DEADLINE_EXCEEDED, "the message did not come in time")
_DEADLINE = StatusError(StatusCode.DEADLINE_EXCEEDED, "deadline exceeded")


class Connection(Opening, Protocol):
    """What a call asks of its connection (`longconn.protocols.grpc.streams.Streams`)."""

    hub: Hub
    host: str
    address: str
    sender: Sender

    def on_client(self, more: int) -> None: ...

    def send_headers(self, call: GrpcCall, metadata: Metadata) -> None: ...

    def send_trailers(self, call: GrpcCall, error: StatusError) -> None: ...

    def reset(self, call: GrpcCall, code: ErrorCode) -> None: ...


class GrpcCall:
    """One RPC.

    `path` is `/package.Service/Method`; `metadata` pairs of names and values, bytes for names that end in
    `-bin`; `host` and `address` are the peer's, as of other protocols; `deadline` is a time of the hub's
    clock. `trailing` is sent with the status, whatever that is: a handler may add to it.
    """

    __slots__ = (
        "_connection", "_handler", "_inbox", "_on_end", "_status", "_timer", "address", "cancelled", "compresses",
        "deadline", "head_size", "host", "hub", "metadata", "outlet", "over", "path", "stream_id", "to_come",
        "trailing",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        request: GrpcRequest,
        stream_id: int,
        stream: H2Stream,
        half_closed: bool,
        head_size: int = 0,
    ) -> None:
        #: bytes of the request's headers, and of its body that are still to come, if `content-length` says so
        self.head_size = head_size
        self.to_come: int | None = None
        self.hub = hub = connection.hub
        self.path = request.path
        self.metadata = request.metadata
        self.host = connection.host
        self.address = connection.address
        #: who sends compressed messages, and takes them, gets them
        self.compresses = request.encoding == "gzip" and request.accepts_gzip
        self.stream_id = stream_id
        self.trailing: list[tuple[str, str | bytes]] = []
        #: ended by somebody else than the handler; and ended at all
        self.cancelled = False
        self.over = False
        self.outlet = StreamOutlet(hub, self, connection.sender, stream_id, stream)
        self._connection = connection
        self._inbox = Inbox(connection, stream_id, request.encoding, half_closed)
        self._status: StatusError | None = None
        self._handler: Deferred[None] | None = None
        self._on_end: list[Callable[[], None]] = []
        self._timer: DelayedCall | None = None
        self.deadline: float | None = None
        if request.timeout is not None:
            self.deadline = hub.clock.seconds() + request.timeout
            self._timer = hub.clock.callLater(request.timeout, self._on_deadline)

    # For handlers: reading.

    def read(self) -> Deferred[bytes | None]:
        """The next whole message, decompressed; None when the client has half-closed.

        Fails with StatusError for a message that is malformed or too large, and with CancelledError when
        the call has ended. One read at a time. The client may send on only as far as is read here.
        """
        return self._inbox.read()

    async def read_one(self) -> bytes:
        """The only message of a request. Raises StatusError(UNIMPLEMENTED) if there is none, or a second.

        One that does not come within `http_idle_timeout` ends the call.
        """
        limit = self.hub.settings.http_idle_timeout
        timer = self.hub.clock.callLater(limit, self.cancel, _LATE) if limit else None
        try:
            message = await self.read()
            if message is None or await self.read() is not None:
                raise StatusError(StatusCode.UNIMPLEMENTED, "this method takes one message")
        finally:
            if timer is not None and timer.active():
                timer.cancel()
        return message

    # For handlers: writing.

    def start(self, metadata: Metadata = ()) -> None:
        """Send the response's headers now, with initial metadata; the first message would, without.

        Raises ValueError for metadata that cannot be, RuntimeError if they were sent.
        """
        if self.over:
            return
        if self.outlet.started:
            raise RuntimeError("the headers were sent")
        self._connection.send_headers(self, metadata)
        self.outlet.started = True

    def write(self, message: bytes) -> None:
        """Send one message, or queue it. A queue over `send_queue` ends the call as slow: await `drained`."""
        if not self.over:
            self.outlet.write_message(frame(message, self.compresses))

    def drained(self) -> Deferred[None]:
        """Fires when what was written is on its way, but for a little."""
        return fail(CancelledError()) if self.over else self.outlet.drained()

    def wait(self) -> Deferred[None]:
        """For a handler that has nothing more to do while its call lasts: fails at the end, never fires."""
        return fail(CancelledError()) if self.over else Deferred()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the call has ended for whatever reason; now if it has."""
        if self.over:
            callback()
        else:
            self._on_end.append(callback)

    # For the connection.

    def run(self, handler: Handler) -> None:
        """Let `handler` begin; its end is the call's."""
        running = Deferred.fromCoroutine(handler(self))
        running.addCallbacks(self._returned, self._raised)
        if not running.called:
            self._handler = running
            if self.over:
                running.cancel()

    def _returned(self, result: object) -> None:
        self._handler = None
        self._finish(StatusError(StatusCode.OK))

    def _raised(self, failure: Failure) -> None:
        self._handler = None
        error: BaseException = failure.value  # type: ignore[assignment]
        if isinstance(error, StatusError):
            self._finish(error)
        elif isinstance(error, CommandError):
            self._finish(status_of_error(error))
        elif isinstance(error, CancelledError) and self.over:
            return
        else:
            log.error(
                "the handler of %s failed", self.path, exc_info=error.with_traceback(failure.getTracebackObject())
            )
            # The codes' table has UNKNOWN for an application that throws. What it was is nobody's business.
            self._finish(StatusError(StatusCode.UNKNOWN, "internal error"))

    def on_data(self, data: bytes, size: int, last: bool) -> None:
        """A part of the stream came, that counts as `size` bytes in its window; perhaps the last."""
        self._inbox.on_data(data, size, last)

    def on_half_close(self) -> None:
        """The client sends nothing more."""
        self._inbox.on_half_close()

    @property
    def half_closed(self) -> bool:
        """Whether the client has half-closed."""
        return self._inbox.half_closed

    # The end.

    def _on_deadline(self) -> None:
        self._timer = None
        if self.over and self.outlet.ending:  # what the handler said waits to be sent, and nobody waits for it
            self._abandon(_DEADLINE)
        else:
            self.cancel(_DEADLINE)

    def close(self, disconnect: Disconnect) -> None:
        """The hub's side ends the call; what waits is sent before, but not to the slow."""
        error = status_of_disconnect(disconnect)
        if self.over:
            if self.outlet.ending:  # its status waits to be sent, and that takes too long
                self._abandon(error)
            return
        self._end(cancelled=True)
        if disconnect in (SLOW, WRITE_TIMEOUT):
            self._abandon(error)
        else:
            self._say(error)
        # Not now: perhaps the handler itself has written too much.
        self.hub.turn.soon(self._cancel_handler)

    def cancel(self, error: StatusError) -> None:
        """End the call with a status that is not the handler's; what waits is dropped."""
        if not self.over:
            self._end(cancelled=True)
            self._abandon(error)
            self._cancel_handler()

    def lost(self) -> None:
        """The client has reset the stream, or the connection is lost: nothing more can be sent."""
        ended = self.over
        if not ended:
            self._end(cancelled=True)
        self._forget_deadline()
        self.outlet.stop()
        if not ended:
            self._cancel_handler()

    def _forget_deadline(self) -> None:
        """Nothing more is to be sent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _finish(self, error: StatusError) -> None:
        """The handler has said how the call ends."""
        if not self.over:
            self._end(cancelled=False)
            self._say(error)

    def _say(self, error: StatusError) -> None:
        """Send the status after what waits."""
        self._status = error
        self.outlet.finish()

    def sent(self) -> None:
        """All is out but the status."""
        error, self._status = self._status, None
        if error is not None:
            self._forget_deadline()
            self.outlet.stop()
            self._connection.send_trailers(self, error)

    def _abandon(self, error: StatusError) -> None:
        """Drop what waits. Between two messages there is still a status to send; within one, only a reset.

        ("Errors": CANCEL for an incomplete payload; ENHANCE_YOUR_CALM is read as RESOURCE_EXHAUSTED.)
        """
        torn = self.outlet.torn
        self._forget_deadline()
        self.outlet.stop()
        self._status = None
        if torn:
            exhausted = error.code is StatusCode.RESOURCE_EXHAUSTED
            self._connection.reset(self, ErrorCode.ENHANCE_YOUR_CALM if exhausted else ErrorCode.CANCEL)
        else:
            self._connection.send_trailers(self, error)

    def _end(self, cancelled: bool) -> None:
        """Whatever the reason: tell those who want to know, once."""
        self.over = True
        self.cancelled = cancelled
        self._inbox.stop()
        client, self.outlet.client = self.outlet.client, None
        if client is not None:
            client.gone()
        callbacks, self._on_end = self._on_end, []
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.exception("what is to be done at the end of %s failed", self.path)

    def _cancel_handler(self) -> None:
        handler, self._handler = self._handler, None
        if handler is not None and not handler.called:
            handler.cancel()

    def on_client(self, more: int) -> None:
        """The call has become a client of the hub, or is none any more."""
        if more:
            self._connection.on_client(more)


#: What serves a method.
Handler = Callable[[GrpcCall], Coroutine[Any, Any, None]]


class Services(dict[str, Handler]):
    """Handlers by path: `/package.Service/Method`."""
