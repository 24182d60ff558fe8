"""One call on the server's side, and the registry of the methods that may be called.

A handler is a coroutine function that is given the `GrpcCall`. When it returns, the call has the status OK; an
exception gives another status. When the call ends first (the client cancels, the deadline passes, the connection is
lost), the handler is cancelled: its await fails with CancelledError.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from h2.stream import H2Stream
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, fail, succeed
from twisted.python.failure import Failure

from longconn.core.disconnects import SLOW, WRITE_TIMEOUT, Disconnect
from longconn.core.errors import CommandError
from longconn.core.hub import Hub
from longconn.core.identity import Identity
from longconn.core.log import about, log
from longconn.core.slices import cost_of_bytes
from longconn.core.timers import Call as DelayedCall
from longconn.protocols.grpc.receiving import ConnectionWindow, Inbox
from longconn.protocols.grpc.sending import Sender
from longconn.protocols.grpc.stream_outlet import StreamOutlet
from longconn.wire.grpc import Compressed, frame, trailers
from longconn.wire.grpc_request import GrpcRequest
from longconn.wire.grpc_status import Metadata, StatusCode, StatusError, status_of_disconnect, status_of_error
from longconn.wire.http2 import ErrorCode

_TOO_LATE = StatusError(StatusCode.DEADLINE_EXCEEDED, "the message did not come in time")
_DEADLINE = StatusError(StatusCode.DEADLINE_EXCEEDED, "deadline exceeded")


@dataclass(frozen=True, slots=True)
class CallContext:
    """Shared by the calls of one connection. `host` and `address` are the peer's, `certificate` names its user.

    `on_client` is called with 1 when a call becomes a client of the hub and with -1 when it ceases to be one; `on_sent`
    with a call whose last frame was sent. A call has `long_answer` while it encodes one: what is encoded and not sent
    yet counts nowhere, so one connection has no more than one of these.
    """

    hub: Hub
    host: str
    address: str
    certificate: str
    sender: Sender
    window: ConnectionWindow
    on_client: Callable[[int], None]
    on_sent: Callable[[GrpcCall], None]
    long_answer: DeferredLock = field(default_factory=DeferredLock)


class GrpcCall:
    """One RPC.

    `path` is `/package.Service/Method`; `metadata` are pairs of names and values, bytes for names that end in `-bin`;
    `host` and `address` are the peer's; `deadline` is a time of the hub's clock. `trailing` is metadata that is sent
    with the status, whatever the status is: a handler may add to it.
    """

    __slots__ = (
        "_context", "_gzip", "_handler", "_inbox", "_on_end", "_timer", "address", "body_left", "cancelled",
        "certificate", "deadline",
        "head_size", "host", "hub", "identity", "metadata", "outlet", "over", "path", "stream_id", "trailing",
    )  # fmt: skip

    def __init__(
        self,
        context: CallContext,
        request: GrpcRequest,
        stream: H2Stream,
        half_closed: bool,
        head_size: int,
        body_left: int | None,
    ) -> None:
        self.hub = hub = context.hub
        self.host = context.host
        self.address = context.address
        self.certificate = context.certificate
        #: who makes it; None until it is known
        self.identity: Identity | None = None
        self.path = request.path
        self.metadata = request.metadata
        self.trailing: list[tuple[str, str | bytes]] = []
        self.stream_id: int = stream.stream_id
        #: bytes of the request's headers
        self.head_size = head_size
        #: bytes of the request's body that are still to come, if the request has a `content-length`
        self.body_left = body_left
        #: whether the call has ended, and whether something else than its handler ended it
        self.over = False
        self.cancelled = False
        # A client that sends compressed messages, and accepts them, is sent compressed messages.
        self._gzip = request.encoding == "gzip" and request.accepts_gzip
        self.outlet = StreamOutlet(
            hub, context.sender, stream, self._gzip, context.on_client, self._on_close, self._on_sent
        )
        self._context = context
        self._inbox = Inbox(context.window, context.sender, stream, request.encoding, half_closed)
        self._handler: Deferred[None] | None = None
        self._on_end: list[Callable[[], None]] = []
        self._timer: DelayedCall | None = None
        self.deadline: float | None = None
        if request.timeout is not None:
            self.deadline = hub.clock.seconds() + request.timeout
            self._timer = hub.clock.callLater(request.timeout, self._on_deadline)

    # For handlers: reading.

    async def read(self) -> bytes | None:
        """Return the next complete message, decompressed, or None when the client has half-closed.

        Raises StatusError for a message that is malformed or too large, and CancelledError when the call has
        ended. One read at a time. Flow control stops the client when messages are not read.
        """
        message = await self._inbox.read()
        if isinstance(message, Compressed):
            self._inbox.hold(message.size)
            await self.slice(cost_of_bytes(message.size))
            return message.inflate()
        return message

    def read_encoded(self) -> Deferred[bytes | Compressed | None]:
        """As `read`, for a handler that inflates a message when it uses it, after it has awaited `slice`."""
        return self._inbox.read()

    async def read_one(self) -> bytes:
        """Return the only message of a request. Raises StatusError(UNIMPLEMENTED) if there is none, or a second.

        The call ends if the message does not come within `http_idle_timeout`.
        """
        limit = self.hub.settings.http_idle_timeout
        timer = self.hub.clock.callLater(limit, self.cancel, _TOO_LATE) if limit else None
        try:
            message = await self.read()
            if message is None or await self.read() is not None:
                raise StatusError(StatusCode.UNIMPLEMENTED, "this method takes one message")
        finally:
            if timer is not None and timer.active():
                timer.cancel()
        return message

    def slice(self, cost: int) -> Deferred[None]:
        """Fires when the handler may work for `cost` microseconds: await it before each part of long work."""
        if self.over:
            return fail(CancelledError())
        slices = self.hub.slices
        if slices.take(cost):
            return succeed(None)
        done: Deferred[None] = Deferred(lambda _: waiting.cancel())
        waiting = slices.wait(self.host, cost, lambda: done.callback(None))
        return done

    async def encode(self, parts: Iterator[bytes], cost: int) -> bytes:
        """The parts of one long message together. Each takes about `cost` microseconds, and a slice of a turn."""
        lock = self._context.long_answer
        await lock.acquire()
        try:
            encoded: list[bytes] = []
            while True:
                await self.slice(cost)
                part = next(parts, None)
                if part is None:
                    return b"".join(encoded)
                encoded.append(part)
        finally:
            lock.release()

    # For handlers: writing.

    def start(self, metadata: Metadata = ()) -> None:
        """Send the response's headers now, with initial metadata. Otherwise the first message sends them, without.

        Raises ValueError for metadata that is not allowed, RuntimeError if the headers were sent.
        """
        if self.over:
            return
        if self.outlet.started:
            raise RuntimeError("the headers were sent")
        self.outlet.start(metadata)

    def write(self, message: bytes) -> None:
        """Send one message, or queue it. A queue over `send_queue` bytes ends the call as slow: await `drained`."""
        if not self.over:
            self.outlet.write_message(frame(message, self._gzip))

    def drained(self) -> Deferred[None]:
        """Fires when few of the written bytes wait."""
        return fail(CancelledError()) if self.over else self.outlet.drained()

    def wait(self) -> Deferred[None]:
        """Wait for the end of the call, for a handler that has nothing more to do: never fires, fails at the end."""
        if self.over:
            return fail(CancelledError())
        self._inbox.release()
        return Deferred()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the call has ended for whatever reason; at once if it has."""
        if self.over:
            callback()
        else:
            self._on_end.append(callback)

    # For the connection.

    def run(self, handler: Handler) -> None:
        """Start `handler`; its end is the call's."""
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
            self.hub.counters.refusals[error.reason.key] += 1
            self._finish(status_of_error(error))
        elif isinstance(error, CancelledError) and self.over:
            return
        else:
            log.error(
                "the handler of %s failed",
                self.path,
                exc_info=error.with_traceback(failure.getTracebackObject()),
                extra=about("internal_error", protocol="grpc"),
            )
            # UNKNOWN is the code for an application that throws (`doc/statuscodes.md`). The peer does not
            # learn the cause.
            self._finish(StatusError(StatusCode.UNKNOWN, "internal error"))

    def on_data(self, data: bytes, ended: bool) -> None:
        """A DATA frame came; `ended` if it half-closes the stream."""
        self._inbox.on_data(data, ended)

    def on_half_close(self) -> None:
        """The client sends nothing more."""
        self._inbox.on_half_close()

    def lost(self) -> None:
        """The client has reset the stream, or the connection is lost: nothing more can be sent."""
        ended = self.over
        if not ended:
            self._end(cancelled=True)
        self._stop_timer()
        self.outlet.stop()
        if not ended:
            self._cancel_handler()

    # The end.

    def _on_deadline(self) -> None:
        self._timer = None
        if self.over and self.outlet.finishing:  # the status waits behind messages that the peer does not want any more
            self._abandon(_DEADLINE)
        else:
            self.cancel(_DEADLINE)

    def _on_close(self, disconnect: Disconnect) -> None:
        """The core ends the call, or the outlet does. Waiting messages are sent first, except to a slow client."""
        slow = disconnect in (SLOW, WRITE_TIMEOUT)
        if slow:
            self._log_slow(disconnect)
        status = status_of_disconnect(disconnect)
        if self.over:
            if self.outlet.finishing:  # the status waits to be sent, and that takes too long
                self._abandon(status)
            return
        self._end(cancelled=True)
        if slow:
            self._abandon(status)
        else:
            self.outlet.finish(self._trailers(status))
        # Not now: the handler itself may have written too much, and is running.
        self.hub.turn.soon(self._cancel_handler)

    def _log_slow(self, disconnect: Disconnect) -> None:
        client = self.outlet.client
        if client is not None:
            level, who = logging.WARNING, f"client {client.name}"
        else:  # a connection may have a thousand calls that wait for the same window
            level, who = logging.DEBUG, f"call {self.path}"
        log.log(
            level, "grpc %s from %s is disconnected (%d %s) with %d bytes waiting",
            who, self.address, disconnect.code, disconnect.text, self.outlet.queued,
        )  # fmt: skip

    def cancel(self, status: StatusError) -> None:
        """End the call with a status that is not the handler's. Waiting messages are dropped."""
        if not self.over:
            self._end(cancelled=True)
            self._abandon(status)
            self._cancel_handler()

    def _finish(self, status: StatusError) -> None:
        """The handler has ended the call: send the status after the waiting messages."""
        if not self.over:
            self._end(cancelled=False)
            self.outlet.finish(self._trailers(status))

    def _abandon(self, status: StatusError) -> None:
        """Drop waiting messages. Inside a message there is no place for a status, and the stream is reset.

        ("Errors": CANCEL for an incomplete payload; libraries read ENHANCE_YOUR_CALM as RESOURCE_EXHAUSTED.)
        """
        exhausted = status.code is StatusCode.RESOURCE_EXHAUSTED
        self.outlet.abandon(self._trailers(status), ErrorCode.ENHANCE_YOUR_CALM if exhausted else ErrorCode.CANCEL)

    def _trailers(self, status: StatusError) -> list[tuple[bytes, bytes]]:
        try:
            return trailers(status.code, status.message, (*status.metadata, *self.trailing))
        except ValueError as error:
            log.error(
                "the trailing metadata of %s: %s", self.path, error, extra=about("internal_error", protocol="grpc")
            )
            return trailers(StatusCode.UNKNOWN, "internal error")

    def _on_sent(self) -> None:
        self._stop_timer()
        self._context.on_sent(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, cancelled: bool) -> None:
        """The call has ended, for whatever reason: tell the client and the callbacks, once."""
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
                log.exception(
                    "a callback at the end of %s failed", self.path, extra=about("internal_error", protocol="grpc")
                )

    def _cancel_handler(self) -> None:
        handler, self._handler = self._handler, None
        if handler is not None and not handler.called:
            handler.cancel()


#: Serves a method.
Handler = Callable[[GrpcCall], Coroutine[Any, Any, None]]


class Services(dict[str, Handler]):
    """Handlers by path: `/package.Service/Method`."""
