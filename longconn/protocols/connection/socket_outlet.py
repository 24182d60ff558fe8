"""The writable end of one connection: it sends directly, or adds to a bounded queue.

If nothing waits, `write` hands the bytes to the kernel at once. Twisted's own
`transport.write` only remembers them and asks the reactor for another event: two system
calls and a dispatch more for each subscriber. Bytes that the kernel does not take wait in a
`SendQueue`, not in the transport: the transport gets one small piece and tells by
`resumeProducing` that it went out. So the bound holds, a backlog is written only as fast
as it is read, and progress can be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from longconn.core.client import Client
from longconn.core.disconnects import SLOW, WRITE_TIMEOUT, Disconnect
from longconn.core.hub import Hub
from longconn.core.log import about, log
from longconn.core.timers import Call
from longconn.protocols.connection.send_queue import SendQueue

_PLAIN: tuple[type, ...] = (tcp.Server,)
try:
    from twisted.internet import unix
except ImportError:  # a platform without UNIX sockets
    pass
else:
    _PLAIN += (unix.Server,)

#: Bytes that a TLS connection's socket may hold before it says that it is full: one TLS record.
_SMALL = 16 * 1024
#: Bytes in one piece for a transport that is full: progress is seen by the piece, and a client that
#: reads less than this in `write_timeout` makes none.
PIECE = 4 * 1024
#: Bytes taken off the queue for one direct send.
_SEND = 64 * 1024
#: Seconds in which a farewell may still go out.
LINGER = 5.0


@implementer(IPushProducer)
class SocketOutlet:
    """Writes to one transport for one client (see `longconn.core.client.Outlet`).

    `on_close` is called once, with the reason, when the connection is to end; it writes the protocol's
    farewell by `finish`. The outlet takes the place of any producer of the
    transport. On a plain socket it registers only while something waits, as a pull producer:
    that is asked for more exactly when the transport is empty. Elsewhere it is a push producer.
    """

    __slots__ = (
        "_ended", "_linger", "_on_close", "_paused", "_queue", "_registered", "_send",
        "client", "closing", "hub", "sent_at", "transport",
    )  # fmt: skip

    def __init__(self, hub: Hub, transport: Any, on_close: Callable[[Disconnect], None]) -> None:
        self.hub = hub
        self.transport = transport
        self.client: Client | None = None
        #: when something last went out (the hub's coarse time); 0 before
        self.sent_at = 0.0
        #: whether nothing more is taken but the farewell
        self.closing = False
        self._on_close = on_close
        # Only a transport of exactly this type is sent to directly: a wrapper (TLS above all) hands
        # unknown attributes through to the raw one, and plaintext would leave
        # (twisted/protocols/policies.py, ProtocolWrapper.__getattr__).
        self._send = transport.getHandle().send if type(transport) in _PLAIN else None
        # None unless something waits here or in the transport.
        self._queue: SendQueue | None = None
        self._paused = False
        # Called when all is out.
        self._ended: Callable[[], None] | None = None
        self._linger: Call | None = None
        transport.unregisterProducer()
        self._registered = self._send is None
        if self._registered:
            _make_small(transport)
            transport.registerProducer(self, True)

    @property
    def queued(self) -> int:
        """Bytes that wait, those of a backlog excepted."""
        return 0 if self._queue is None else self._queue.queued

    @property
    def idle(self) -> bool:
        """Whether nothing waits here or in the transport, so that `write` sends at once."""
        return self._queue is None

    # Writing.

    def write(self, data: bytes) -> None:
        """Send `data` now, or let it wait within the bound. Over the bound the client is disconnected."""
        if self.closing or not data:
            return
        if self._queue is not None:
            self._queue.add(data)
        elif self._send is None:
            self.sent_at = self.hub.wheel.now
            self.transport.write(data)
        else:
            sent = self._try(data)
            if sent < len(data):
                self._need_queue().add_rest(data[sent:])
                self._pass_on(self._need_queue())

    def write_backlog(self, source: Iterator[bytes]) -> None:
        """Send the bytes that `source` yields, and ask it for more as they go out. They do not count as waiting."""
        if not self.closing:
            self._need_queue().add_backlog(source)
            self._flush()

    def send_all(self, data: bytes, sent: Callable[[], None]) -> None:
        """Send `data`, which may be larger than the bound of a client, and call `sent` when all of it is out."""
        self._ended = sent
        queue = self._need_queue()
        # In slices, because the queue keeps a part until all of the part is out.
        for start in range(0, len(data), _SEND):
            queue.add(data[start : start + _SEND], bounded=False)
        self._flush()

    def _need_queue(self) -> SendQueue:
        if self._queue is None:
            self._queue = SendQueue(self.hub, self)
        return self._queue

    def _try(self, data: bytes | memoryview) -> int:
        """Send directly; return how many bytes the kernel took."""
        transport = self.transport
        # Connected, not closing, not upgraded to TLS, and nothing before this in the transport.
        if (
            not transport.connected
            or transport.disconnecting
            or transport._writeDisconnected
            or transport.TLS
            or transport._tempDataLen
            or transport.dataBuffer
        ):
            sent = 0
        else:
            try:
                sent = self._send(data)  # type: ignore[misc]
            except OSError:
                # EWOULDBLOCK. After any other error the reactor meets it too, and delivers connectionLost.
                sent = 0
        self.sent_at = self.hub.wheel.now
        if sent < len(data):
            self.hub.counters.indirect_sends += 1
        return sent

    def _flush(self) -> None:
        """Send waiting bytes, directly while the kernel takes them."""
        queue = self._queue
        while queue is not None and not queue.empty and not self._paused:
            if self._send is not None:
                data = queue.head(_SEND)
                sent = self._try(data) if data else 0
                queue.sent(sent)
                if sent == len(data):
                    continue
            self._pass_on(queue)
        if not self._paused and (queue is None or queue.empty):
            self._drained()

    def _pass_on(self, queue: SendQueue) -> None:
        """Hand the transport pieces of the waiting bytes, until it says that it is full."""
        while not self._paused:
            piece = bytes(queue.head(PIECE)[:PIECE])
            if not piece:
                break
            queue.sent(len(piece))
            self.transport.write(piece)
            if self._send is not None:
                # A plain transport tells by a pull producer when it has sent all that it holds.
                self.pauseProducing()
                if not self._registered:
                    # It calls resumeProducing at once, which is ignored: nothing is out yet.
                    self.transport.registerProducer(self, False)
                    self._registered = True

    def _drained(self) -> None:
        if self._queue is not None:
            self._queue.stop()
            self._queue = None
        if self._send is not None:
            self._unregister()
        if self._ended is not None:
            ended, self._ended = self._ended, None
            ended()

    # The transport's producer.

    def pauseProducing(self) -> None:
        if not self._paused:
            self._paused = True
            self._need_queue().watch()

    def resumeProducing(self) -> None:
        if not self._registered:
            return
        self._paused = False
        self.sent_at = self.hub.clock.seconds()
        if self._queue is not None:
            self._queue.moved_at = self.sent_at
        self._flush()

    def stopProducing(self) -> None:
        """The connection is lost; connectionLost follows."""

    # The end.

    def close(self, disconnect: Disconnect) -> None:
        """End the connection for a numbered reason. Waiting bytes are sent before that, but not to a slow client."""
        slow = disconnect in (SLOW, WRITE_TIMEOUT)
        if self.closing:
            if slow:  # another reason was sent already; waiting bytes are dropped all the same
                self._drop_queue()
                self.transport.abortConnection()
            return
        self.closing = True
        if self.client is not None:
            self.client.closing(disconnect)
        if slow:
            if self.client is not None:
                log.warning(
                    "%s client %s from %s is disconnected (%d %s) with %d bytes waiting",
                    self.client.protocol, self.client.name, self.client.address,
                    disconnect.code, disconnect.text, self.queued,
                    extra=about("client_slow", self.client, code=disconnect.code),
                )  # fmt: skip
            self._drop_queue()
        self._on_close(disconnect)
        if self.client is not None:
            self.client.gone()

    def _drop_queue(self) -> None:
        if self._queue is not None:
            self._queue.drop()

    def finish(self, farewell: bytes, ended: Callable[[], None] | None = None) -> None:
        """Send the last bytes after the waiting ones, then call `ended`.

        Without one the connection stays open, for a peer that has yet to answer; `finish` may be
        called again with one. A connection that has not ended `LINGER` seconds after the first call is aborted.
        """
        self.closing = True
        self._ended = ended
        if self._linger is None:
            self._linger = self.hub.clock.callLater(LINGER, self.abort)
        if farewell:
            # As a backlog, which does not count: it must fit.
            self._need_queue().add_backlog(iter((farewell,)))
        self._flush()

    def lose(self) -> None:
        """Let the connection end as soon as the transport has sent all that it holds."""
        # A paused producer that stays registered would keep the connection open for ever
        # (twisted/internet/abstract.py, doWrite).
        self._unregister()
        self.transport.loseConnection()

    def end_writing(self) -> None:
        """Send the FIN now. Bytes from the peer are read until `lose`."""
        self._unregister()
        if self._send is not None and not self.transport.TLS:
            self.transport.loseWriteConnection()
        else:  # TLS goes on reading until the peer has sent its close_notify
            self.transport.loseConnection()

    def abort(self) -> None:
        """End the connection now, whatever waits."""
        self._linger = None
        self.transport.abortConnection()

    def detach(self) -> None:
        """Let go of the connection, before another protocol takes it."""
        self._unregister()
        self.stop()

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            self.transport.unregisterProducer()

    def stop(self) -> None:
        """The connection is lost: forget everything. A reference cycle would keep protocol and transport."""
        self.closing = True
        self._unregister()
        self._on_close = _ignore
        self.client = None
        self._ended = None
        if self._queue is not None:
            self._queue.stop()
            self._queue = None
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None


def _ignore(disconnect: Disconnect) -> None:
    """Do nothing: the connection is lost already."""


def _make_small(transport: Any) -> None:
    """Make the socket below a wrapped transport full early, so that little waits where it is not counted.

    It is not made smaller than one record: `bufferSize` is also the size of a read (twisted/internet/tcp.py, doRead).
    """
    raw = transport
    while hasattr(raw, "transport") and not hasattr(type(raw), "bufferSize"):
        raw = raw.transport
    if hasattr(type(raw), "bufferSize"):
        raw.bufferSize = _SMALL
