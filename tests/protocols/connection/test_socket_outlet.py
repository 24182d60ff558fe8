"""The outlet over real sockets and Twisted's own transports, with a reactor that the test drives."""

import errno
import logging
import socket
import struct
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from longconn import Hub, Settings
from longconn.core.disconnects import CLOSED, SHUTDOWN, SLOW, WRITE_TIMEOUT
from longconn.protocols.connection.socket_outlet import LINGER, PIECE, SocketOutlet
from longconn.testing import FakeClock


class Reactor(FakeClock):
    """Remembers the transports that wait to write; `writable` does what epoll would do."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: set[Any] = set()

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def addReader(self, reader: Any) -> None: ...

    def removeReader(self, reader: Any) -> None: ...

    def writable(self) -> bool:
        """One event for each transport that waits for it."""
        waiting = list(self.writers)
        for each in waiting:
            why = each.doWrite()
            if why:
                self.writers.discard(each)
                each.connectionLost(Failure(why))
        return bool(waiting)


class Server(Protocol):
    lost: Any = None

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = reason


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.make()

    def make(self, kind: type = tcp.Server, **settings: Any) -> None:
        """A connection, one end a transport of Twisted's with an outlet, the other a bare socket."""
        self.reactor = Reactor()
        self.hub = Hub(self.reactor, Settings(**settings))
        near, self.far = self.pair(kind)
        near.setblocking(False)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        self.far.setblocking(False)
        self.addCleanup(self.far.close)
        self.protocol = Server()
        name = ("127.0.0.1", 9)
        self.transport: Any = kind(near, self.protocol, name if kind is tcp.Server else None, None, 1, self.reactor)
        self.addCleanup(near.close)
        self.protocol.makeConnection(self.transport)
        self.closed: list[Any] = []
        self.outlet = SocketOutlet(self.hub, self.transport, self.closed.append)

    def pair(self, kind: type) -> tuple[socket.socket, socket.socket]:
        if kind is unix.Server:
            return socket.socketpair()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            far = socket.socket()
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
            far.connect(listener.getsockname())
            near, _ = listener.accept()
        return near, far

    def read(self) -> bytes:
        """What the client has now."""
        parts = []
        while True:
            try:
                part = self.far.recv(1 << 20)
            except BlockingIOError:
                break
            if not part:
                break
            parts.append(part)
        return b"".join(parts)

    def read_all(self) -> bytes:
        """What the client gets while it reads and the reactor turns."""
        data = self.read()
        while self.reactor.writable():
            data += self.read()
        return data + self.read()

    def fill(self) -> bytes:
        """Write until something waits in the outlet; return all that was written."""
        written = b""
        while not self.outlet.queued:
            part = b"%07d\n" % len(written) * 512
            written += part
            self.outlet.write(part)
        return written


class DirectTests(Case):
    def test_the_client_has_what_is_written_before_the_turn_ends(self) -> None:
        for kind in (tcp.Server, unix.Server):
            with self.subTest(kind=kind):
                self.make(kind)
                self.outlet.write(b"one ")
                self.outlet.write(b"two")
                self.assertEqual(self.read(), b"one two")
                self.assertEqual(
                    (self.reactor.writers, self.hub.counters.indirect_sends, self.transport.producer), (set(), 0, None)
                )

    def test_what_the_kernel_does_not_take_waits_in_the_outlet_and_goes_out_in_order(self) -> None:
        written = self.fill()
        self.assertLess(self.transport._tempDataLen + len(self.transport.dataBuffer), 2 * PIECE)
        self.assertTrue(self.outlet in self.hub.waiting)
        self.assertEqual(self.read_all(), written)
        self.assertEqual((self.outlet.queued, self.hub.waiting, self.hub._queued), (0, set(), 0))
        self.assertIsNone(self.transport.producer)

    def test_when_nothing_waits_any_more_it_sends_directly_again(self) -> None:
        self.fill()
        self.read_all()
        before = self.hub.counters.indirect_sends
        self.outlet.write(b"again")
        self.assertEqual((self.read(), self.hub.counters.indirect_sends), (b"again", before))

    def test_a_message_larger_than_the_kernel_takes_at_once_goes_out_whole(self) -> None:
        data = bytes(range(256)) * 20_000
        self.outlet.write(data)
        self.outlet.write(b"end")
        self.assertEqual(self.read_all(), data + b"end")
        self.assertEqual(self.closed, [])

    def test_the_metric_counts_sends_that_could_not_go_directly(self) -> None:
        self.assertEqual(self.hub.counters.indirect_sends, 0)
        self.fill()
        self.assertGreater(self.hub.counters.indirect_sends, 0)

    def test_bytes_that_wait_in_the_transport_go_first(self) -> None:
        self.transport.write(b"head ")
        self.outlet.write(b"body ")
        self.outlet.write(b"more")
        self.assertEqual(self.read_all(), b"head body more")

    def test_after_a_reset_nothing_raises_and_the_reactor_reports_the_loss(self) -> None:
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()
        for _ in range(3):
            self.outlet.write(b"x")
        while self.reactor.writable():
            pass
        self.assertIsNotNone(self.protocol.lost)
        self.outlet.stop()
        self.outlet.write(b"after")
        self.assertEqual(self.hub._queued, 0)


class GuardTests(Case):
    """Twisted's own names that the direct send relies on, and the transports that it must not use."""

    def test_a_new_transport_has_the_attributes_that_the_guard_reads(self) -> None:
        for name in ("connected", "disconnecting", "_writeDisconnected", "TLS", "_tempDataLen", "dataBuffer"):
            self.assertTrue(hasattr(self.transport, name), name)
        self.transport.write(b"x")
        self.assertTrue(self.transport._tempDataLen or self.transport.dataBuffer)

    def test_a_wrapper_of_a_transport_is_not_bypassed(self) -> None:
        wrapper = ProtocolWrapper(WrappingFactory(None), Server())
        wrapper.makeConnection(self.transport)
        self.assertEqual(wrapper.dataBuffer, b"")  # the trap: it looks like the transport itself
        written: list[bytes] = []
        wrapper.write = written.append  # type: ignore[method-assign,assignment]
        SocketOutlet(self.hub, wrapper, self.closed.append).write(b"secret")
        self.assertEqual((written, self.read()), ([b"secret"], b""))

    def test_nothing_is_sent_directly_on_a_transport_that_was_upgraded_to_tls(self) -> None:
        self.transport.TLS = True
        tls: Any = self.protocol
        tls.registerProducer = lambda producer, streaming: None
        written: list[bytes] = []
        self.transport.write = written.append
        self.outlet.write(b"secret")
        self.assertEqual((written, self.read()), ([b"secret"], b""))

    def test_nothing_is_sent_directly_on_a_transport_of_another_type(self) -> None:
        class Other(tcp.Server):
            pass

        self.transport.__class__ = Other
        outlet = SocketOutlet(self.hub, self.transport, self.closed.append)
        outlet.write(b"x")
        self.assertEqual(self.read(), b"")
        self.assertEqual(self.read_all(), b"x")

    def test_nothing_is_sent_directly_on_a_transport_that_is_being_closed(self) -> None:
        self.transport.loseConnection()
        self.outlet.write(b"x")
        self.assertEqual(self.hub.counters.indirect_sends, 1)


class SlowTests(Case):
    def test_over_its_bound_the_client_is_disconnected_and_named(self) -> None:
        self.make(send_queue=100_000)
        client = self.outlet.client = self.hub.connect(self.outlet, "tcp", "192.0.2.1", "192.0.2.1:5", "ada")
        with self.assertLogs("longconn", logging.WARNING) as logs:
            while not self.closed:
                self.outlet.write(b"x" * 1_000)
                self.assertLessEqual(self.outlet.queued, 101_000)
        self.assertEqual(self.closed, [SLOW])
        self.assertIn("tcp client ada from 192.0.2.1:5 is disconnected (3008 slow)", logs.output[0])
        self.assertFalse(client.live)
        self.assertEqual((self.outlet.queued, self.hub._queued), (0, 0))
        self.outlet.write(b"x" * 200_000)
        self.assertEqual((self.closed, self.outlet.queued), ([SLOW], 0))

    def test_a_message_that_was_begun_goes_out_whole_before_the_farewell(self) -> None:
        self.make(send_queue=50_000)
        written = self.fill()
        while not self.closed:
            written += b"y" * 999 + b"\n"
            self.outlet.write(b"y" * 999 + b"\n")
        self.outlet.finish(b"bye\n", self.outlet.lose)
        data = self.read_all()
        self.assertTrue(data.endswith(b"\nbye\n"))
        self.assertTrue(written.startswith(data[:-4]))
        self.assertIsNotNone(self.protocol.lost)

    def test_without_progress_the_client_is_disconnected_but_only_while_something_waits(self) -> None:
        self.make(write_timeout=30)
        self.outlet.write(b"x")
        self.reactor.advance(100)
        self.assertEqual(self.closed, [])
        self.fill()
        self.reactor.advance(29)
        self.assertEqual(self.closed, [])
        self.reactor.advance(3)
        self.assertEqual(self.closed, [WRITE_TIMEOUT])

    def test_progress_starts_the_time_anew(self) -> None:
        self.make(write_timeout=30, send_queue=10_000_000)
        for _ in range(300):
            self.fill()
            self.outlet.write(b"x" * 10_000)
        for _ in range(6):
            self.reactor.advance(20)
            self.far.recv(20_000)
            for _ in range(10):
                self.reactor.writable()
        self.assertEqual(self.closed, [])

    def test_without_a_write_timeout_it_waits_for_ever(self) -> None:
        self.make(write_timeout=0)
        self.fill()
        self.reactor.advance(100_000)
        self.assertEqual(self.closed, [])


class BacklogTests(Case):
    def test_a_backlog_is_asked_for_as_fast_as_it_is_read_and_never_counts_as_slow(self) -> None:
        self.make(send_queue=10_000)
        asked = 0

        def source() -> Any:
            nonlocal asked
            for number in range(1_000):
                asked += 1
                yield b"%09d\n" % number * 100

        self.outlet.write_backlog(source())
        self.assertTrue(0 < asked < 900, asked)
        self.assertEqual((self.outlet.queued, self.closed), (0, []))
        self.assertEqual(self.read_all(), b"".join(b"%09d\n" % number * 100 for number in range(1_000)))
        self.assertEqual(asked, 1_000)

    def test_what_is_written_meanwhile_follows_it_and_counts(self) -> None:
        self.outlet.write_backlog(b"%09d\n" % number * 1_000 for number in range(100))
        self.outlet.write(b"live 1 ")
        self.outlet.write(b"live 2")
        self.assertEqual(self.outlet.queued, 13)
        self.assertTrue(self.read_all().endswith(b"\nlive 1 live 2"))

    def test_an_empty_backlog_changes_nothing(self) -> None:
        self.outlet.write_backlog(iter(()))
        self.outlet.write(b"x")
        self.assertEqual((self.read(), self.hub.counters.indirect_sends), (b"x", 0))


class EndTests(Case):
    def test_what_waits_goes_out_before_the_farewell(self) -> None:
        written = self.fill()
        self.outlet.close(SHUTDOWN)
        self.assertEqual(self.closed, [SHUTDOWN])
        self.outlet.finish(b"bye", self.outlet.lose)
        self.assertEqual(self.read_all(), written + b"bye")
        self.assertIsNotNone(self.protocol.lost)
        self.outlet.stop()
        self.reactor.advance(2)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_client_that_does_not_take_its_farewell_is_aborted(self) -> None:
        self.fill()
        self.outlet.close(CLOSED)
        self.outlet.finish(b"bye", self.outlet.lose)
        self.reactor.advance(LINGER - 0.1)
        self.assertIsNone(self.protocol.lost)
        self.reactor.advance(0.2)
        self.assertIsNotNone(self.protocol.lost)

    def test_a_client_that_is_closing_is_aborted_if_too_much_waits_in_all(self) -> None:
        self.make(send_queue_total=100_000)
        self.fill()
        self.outlet.write(b"x" * 80_000)
        self.outlet.close(SHUTDOWN)
        self.outlet.finish(b"bye", self.outlet.lose)
        self.hub.on_queued(self.outlet, 100_000)  # as another's would
        self.hub._queued -= 100_000
        self.assertEqual((self.closed, self.outlet.queued, self.hub._queued), ([SHUTDOWN], 0, 0))
        self.reactor.advance(0.1)
        self.assertIsNotNone(self.protocol.lost)

    def test_on_close_is_called_once(self) -> None:
        for _ in range(3):
            self.outlet.close(CLOSED)
        self.assertEqual(self.closed, [CLOSED])

    def test_nothing_is_written_after_the_end(self) -> None:
        self.outlet.close(CLOSED)
        self.outlet.write(b"x")
        self.outlet.write_backlog(iter((b"y",)))
        self.assertEqual(self.read_all(), b"")

    def test_after_detach_the_connection_is_as_it_was(self) -> None:
        self.outlet.detach()
        self.assertIsNone(self.transport.producer)
        self.transport.write(b"of another")
        self.assertEqual(self.read_all(), b"of another")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_connection_that_is_lost_in_the_middle_leaves_nothing_behind(self) -> None:
        self.fill()
        self.outlet.finish(b"bye", self.outlet.lose)
        self.transport.connectionLost(Failure(OSError(errno.ECONNRESET, "gone")))
        self.outlet.stop()
        self.assertEqual((self.hub._queued, self.hub.waiting), (0, set()))
        self.reactor.advance(100)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
