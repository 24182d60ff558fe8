"""One attempt to connect, and the connection that comes of it: its transport, its commands, its liveness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from longconn.clients.address import Address
from longconn.clients.centrifugo import PendingCommand, ReceivedPing, ReceivedPush, ReceivedReply, ReplyMatcher, member
from longconn.clients.delayed_calls import DelayedCalls
from longconn.clients.errors import ClientError, ConnectionFailed, Disconnected, NotLongconn, OutcomeUnknown
from longconn.clients.events import JSONObject
from longconn.clients.recovery import GapError
from longconn.clients.transports.base import TransportConfiguration, TransportFactory, TransportListener

#: Seconds by which a ping of the server may be late.
LATENESS = 10.0
#: Seconds for a clean end, before the connection is aborted.
CLOSE_TIMEOUT = 1.0
#: Seconds between two answers to pings at least: the shortest interval of pings is a second. More answers could wait
#: without a limit for a server that does not read.
PONG_PAUSE = 0.5


class ConnectTimeout(ConnectionFailed):
    """The server did not answer `connect` in time."""


class ConnectionAttempt:
    """Connects once. `connected` turns true when the server has answered `connect`, and false when the end begins.

    `on_push` gets the server's pushes, except that of a disconnect. `on_idle` is called when all commands have their
    answers. `on_lost` is called once, when nothing is left of the connection: with the reason, the seconds that the
    server asks to wait before the next attempt, and the commands that get no answer.
    """

    def __init__(
        self,
        factory: TransportFactory,
        address: Address,
        configuration: TransportConfiguration,
        *,
        on_push: Callable[[ReceivedPush], None],
        on_idle: Callable[[], None],
        on_lost: Callable[[ClientError, float, list[PendingCommand]], None],
    ) -> None:
        self._on_push = on_push
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._address = address
        self._timeout = configuration.timeout
        self._calls = DelayedCalls(configuration.reactor)
        self._matcher = ReplyMatcher()
        listener = TransportListener(self._on_objects, self._on_transport_lost)
        self._transport = factory(address, configuration, listener)
        self.connected = False
        # Why it ends. The transport may still be there for a while.
        self._error: ClientError | None = None
        # Seconds without a byte after which the server counts as dead; 0: it sends no pings.
        self._silence = 0.0
        self._received_at = self._answered_at = self._calls.seconds()
        self._sends_pongs = False
        self._pong_at = 0.0
        self._held = self._paused = False
        self._silence_call: Any = None
        self._answer_call: Any = None

    # Sending.

    def open(self, connect: PendingCommand, timeout: float) -> None:
        """Connect, and send `connect`. The answer has to come within `timeout` seconds."""
        self._silence_call = self._calls.call(timeout, self._on_connect_timeout)
        self._transport.open([self._matcher.add(connect)])

    def send(self, commands: Sequence[PendingCommand]) -> None:
        """Send commands, in one piece."""
        if not commands or self._error is not None:
            return
        now = self._calls.seconds()
        for each in commands:
            each.sent_at = now
        objects = [self._matcher.add(each) for each in commands]
        self._pause_or_resume()  # the answers have to be read
        if self._answer_call is None:
            self._answer_call = self._calls.call(self._timeout, self._check_answers)
        self._transport.send(objects)

    def hold(self, held: bool) -> None:
        """Stop or resume reading. While a command waits for its answer, reading goes on in any case."""
        self._held = held
        self._pause_or_resume()

    def _pause_or_resume(self) -> None:
        pause = self._held and self.connected and not self._matcher.pending
        if pause == self._paused or self._error is not None:
            return
        self._paused = pause
        self._calls.cancel(self._silence_call)
        self._silence_call = None
        if pause:
            self._transport.pause()
            self._show_life()
        else:
            self._received_at = self._calls.seconds()
            self._check_silence()
            self._transport.resume()

    # Time.

    def _on_connect_timeout(self) -> None:
        self.fail(ConnectTimeout(f"{self._address.netloc}: no answer within {self._timeout:g} s"))

    def _check_silence(self) -> None:
        """The server is dead when nothing came for longer than the interval of its pings."""
        if not self._silence:
            return
        left = self._received_at + self._silence - self._calls.seconds()
        if left <= 0:
            self.fail(ConnectionFailed(f"nothing came from the server for {self._silence:g} s"))
        else:
            self._silence_call = self._calls.call(left, self._check_silence)

    def _show_life(self) -> None:
        """Send pings of our own while reading is paused: the server's pings are not read then, and get no pong."""
        if self._sends_pongs:
            ping = self._matcher.add(PendingCommand("ping", {}, lambda answer: None))
            self._matcher.pending.pop(ping["id"])
            self._transport.send([ping])
            self._silence_call = self._calls.call(self._silence - LATENESS, self._show_life)

    def _check_answers(self) -> None:
        """Give up the oldest command when no answer at all came for too long. Answers come in the commands' order."""
        self._answer_call = None
        pending = self._matcher.pending
        while pending:
            number, oldest = next(iter(pending.items()))
            left = max(oldest.sent_at, self._answered_at) + self._timeout - self._calls.seconds()
            if left > 0:
                self._answer_call = self._calls.call(left, self._check_answers)
                return
            del pending[number]
            text = f"no answer within {self._timeout:g} s"
            oldest.on_answer(ConnectionFailed(text) if oldest.repeatable else outcome_unknown(oldest, text))
        self._pause_or_resume()

    # Receiving.

    def _on_objects(self, objects: Sequence[JSONObject]) -> None:
        self._received_at = self._calls.seconds()
        for each in objects:
            if self._error is not None:
                return
            try:
                self._on_object(each)
            except (NotLongconn, GapError) as error:
                self.fail(error)

    def _on_object(self, value: JSONObject) -> None:
        received = self._matcher.read(value)
        if isinstance(received, ReceivedPing):
            if self._sends_pongs and self._received_at >= self._pong_at:
                self._pong_at = self._received_at + PONG_PAUSE
                self._transport.send([{}])
        elif isinstance(received, ReceivedReply):
            self._answered_at = self._received_at
            received.command.on_answer(received.result)
            if not self._matcher.pending:
                self._pause_or_resume()
                self._on_idle()
        elif isinstance(received, ReceivedPush) and received.kind == "disconnect":
            value = received.value
            code, reason = member(value, "code", int, 0), member(value, "reason", str, "")
            self.fail(Disconnected(code, reason, member(value, "reconnect", bool, False)))
        elif isinstance(received, ReceivedPush):
            self._on_push(received)

    def on_connected(self, result: JSONObject) -> None:
        """The server has accepted `connect`. Its result says how often the server sends pings."""
        self.connected = True
        self._calls.cancel(self._silence_call)
        self._silence_call = None
        ping = member(result, "ping", int, 0)
        self._sends_pongs = bool(ping) and member(result, "pong", bool, False)
        self._silence = ping + LATENESS if ping else 0.0
        self._check_silence()

    # The end.

    def fail(self, error: ClientError) -> None:
        """Abort the connection."""
        if self._error is None:
            self._end(error)
            self._transport.abort()

    def close(self, error: ClientError) -> None:
        """End the connection cleanly, in bounded time."""
        if self._error is None:
            self._end(error)
            self._calls.call(CLOSE_TIMEOUT, self._transport.abort)
            if self._paused:
                self._transport.resume()  # otherwise the server's end of the connection is never read
            self._transport.close()

    def _end(self, error: ClientError) -> None:
        self._error = error
        # Commands from now on wait for the next connection, though this transport may still be there for a while.
        self.connected = False
        self._calls.cancel_all()

    def _on_transport_lost(self, error: ClientError, retry_after: float) -> None:
        if self._error is None:
            self._error = error
        self._calls.cancel_all()
        self.connected = False
        self._on_lost(self._error, retry_after, list(self._matcher.pending.values()))


def outcome_unknown(command: PendingCommand, why: object) -> OutcomeUnknown:
    """The error of a command whose answer was lost."""
    return OutcomeUnknown(f"whether {command.method} was carried out is not known: {why}")
