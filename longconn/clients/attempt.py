"""One connection of a client: its transport, its conversation, and what notices that it is dead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from longconn.clients.address import Address
from longconn.clients.centrifugo import Answer, Command, Ping, Push, ReplyMatcher, member
from longconn.clients.delayed_calls import DelayedCalls
from longconn.clients.errors import ClientError, ConnectionFailed, Disconnected, NotLongconn, OutcomeUnknown
from longconn.clients.events import JSONObject
from longconn.clients.recovery import GapError
from longconn.clients.transports.base import TransportConfiguration, TransportFactory

#: Seconds that a ping may be late.
LATENESS = 10.0
#: Seconds for a clean end, before the connection is broken off.
FAREWELL = 1.0


class ConnectTimeout(ConnectionFailed):
    """No answer to `connect` came in time."""


class Owner(Protocol):
    """Who is told of a link."""

    def on_push(self, push: Push) -> None: ...

    def on_answered(self) -> None:
        """No command waits for an answer any more."""

    def on_link_lost(self, link: ConnectionAttempt, error: ClientError, retry_after: float) -> None:
        """The connection is gone, and nothing of it is left. Told once."""


class ConnectionAttempt:
    """An attempt to connect, and the connection that comes of it.

    `connected` turns true when the server answers `connect`. Then each object is acted on in order.
    """

    def __init__(
        self, factory: TransportFactory, address: Address, configuration: TransportConfiguration, owner: Owner
    ) -> None:
        self._owner = owner
        self._address = address
        self._configuration = configuration
        self._calls = DelayedCalls(configuration.reactor)
        self._conversation = ReplyMatcher()
        self._transport = factory(address, configuration, self)
        self.connected = False
        # What ended it, once something did; the transport may take a while to be gone.
        self._error: ClientError | None = None
        self._patience = 0.0
        self._heard_at = self._answered_at = self._calls.seconds()
        self._pongs = False
        self._held = self._paused = False
        self._watch: Any = None
        self._answer_watch: Any = None

    # Out.

    def open(self, connect: Command, patience: float) -> None:
        """Connect, and introduce ourselves; an answer is waited for as many seconds."""
        self._watch = self._calls.call(patience, self._on_late)
        self._transport.open([self._conversation.say(connect)])

    def send(self, commands: Sequence[Command]) -> None:
        """Send commands, in one piece."""
        if not commands or self._error is not None:
            return
        now = self._calls.seconds()
        for each in commands:
            each.sent_at = now
        objects = [self._conversation.say(each) for each in commands]
        self._look_at_reading()  # the answers are wanted
        if self._answer_watch is None:
            self._answer_watch = self._calls.call(self._configuration.timeout, self._look_for_answers)
        self._transport.send(objects)

    def hold(self, held: bool) -> None:
        """Whether reading is to be stopped: where somebody does not keep up, and no answer is waited for."""
        self._held = held
        self._look_at_reading()

    def _look_at_reading(self) -> None:
        pause = self._held and self.connected and not self._conversation.pending
        if pause == self._paused or self._error is not None:
            return
        self._paused = pause
        self._calls.cancel(self._watch)
        self._watch = None
        if pause:
            self._transport.pause()
            self._stay()
        else:
            self._heard_at = self._calls.seconds()
            self._look_alive()
            self._transport.resume()

    # Time.

    def _on_late(self) -> None:
        self.fail(ConnectTimeout(f"{self._address.netloc}: no answer within {self._configuration.timeout:g} s"))

    def _look_alive(self) -> None:
        """The peer is dead when it was silent for longer than it said that it would be."""
        if not self._patience:
            return
        left = self._heard_at + self._patience - self._calls.seconds()
        if left <= 0:
            self.fail(ConnectionFailed(f"nothing came from the server for {self._patience:g} s"))
        else:
            self._watch = self._calls.call(left, self._look_alive)

    def _stay(self) -> None:
        """While nothing is read, its pings are not either: tell the server that we are there."""
        if self._pongs:
            ping = self._conversation.say(Command("ping", {}, lambda answer: None))
            self._conversation.pending.pop(ping["id"])
            self._transport.send([ping])
            self._watch = self._calls.call(self._patience - LATENESS, self._stay)

    def _look_for_answers(self) -> None:
        """Commands are answered in order: the oldest is given up when there was no answer at all for too long."""
        self._answer_watch = None
        pending = self._conversation.pending
        while pending:
            number, oldest = next(iter(pending.items()))
            left = max(oldest.sent_at, self._answered_at) + self._configuration.timeout - self._calls.seconds()
            if left > 0:
                self._answer_watch = self._calls.call(left, self._look_for_answers)
                return
            del pending[number]
            text = f"no answer within {self._configuration.timeout:g} s"
            oldest.on_answer(ConnectionFailed(text) if oldest.repeatable else _unknown(oldest, text))
        self._look_at_reading()

    # In.

    def on_objects(self, objects: Sequence[JSONObject]) -> None:
        self._heard_at = self._calls.seconds()
        for each in objects:
            if self._error is not None:
                return
            try:
                self._hear(each)
            except (NotLongconn, GapError) as error:
                self.fail(error if isinstance(error, NotLongconn) else ConnectionFailed(str(error)))
                return

    def _hear(self, value: JSONObject) -> None:
        heard = self._conversation.hear(value)
        if isinstance(heard, Ping):
            if self._pongs:
                self._transport.send([{}])
        elif isinstance(heard, Answer):
            self._answered_at = self._heard_at
            heard.command.on_answer(heard.result)
            if not self._conversation.pending:
                self._look_at_reading()
                self._owner.on_answered()
        elif isinstance(heard, Push):
            if heard.kind == "disconnect":
                value = heard.value
                code, reason = member(value, "code", int, 0), member(value, "reason", str, "")
                self.fail(Disconnected(code, reason, member(value, "reconnect", bool, False)))
            else:
                self._owner.on_push(heard)

    def greet(self, result: JSONObject) -> None:
        """The server has answered `connect`: the result says how often it gives a sign of life."""
        self.connected = True
        self._calls.cancel(self._watch)
        self._watch = None
        ping = member(result, "ping", int, 0)
        self._pongs = bool(ping) and member(result, "pong", bool, False)
        self._patience = ping + LATENESS if ping else 0.0
        self._look_alive()

    # The end.

    def fail(self, error: ClientError) -> None:
        """Give the connection up."""
        if self._error is None:
            self._end(error)
            self._transport.abort()

    def close(self, error: ClientError) -> None:
        """End the connection cleanly, in bounded time."""
        if self._error is None:
            self._end(error)
            self._calls.call(FAREWELL, self._transport.abort)
            if self._paused:
                self._transport.resume()  # the other one's end is to be read
            self._transport.close()

    def _end(self, error: ClientError) -> None:
        self._error = error
        # What is asked from now on is for the next connection, though this one may take a while to be gone.
        self.connected = False
        self._calls.cancel_all()

    def on_lost(self, error: ClientError, retry_after: float = 0.0) -> None:
        if self._error is None:
            self._error = error
        self._calls.cancel_all()
        self.connected = False
        self._owner.on_link_lost(self, self._error, retry_after)

    def take_pending(self) -> list[Command]:
        """The commands whose answers will not come, once it is lost."""
        commands = list(self._conversation.pending.values())
        self._conversation.pending.clear()
        return commands


def _unknown(command: Command, why: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"whether {command.method} was carried out is not known: {why}")
