"""A connection that is made anew whenever it is lost, and the commands that wait for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from longconn.clients.address import Address
from longconn.clients.attempt import ConnectionAttempt, ConnectTimeout
from longconn.clients.backoff import Backoff
from longconn.clients.centrifugo import TOKEN_EXPIRED, Command, Push, member
from longconn.clients.delayed_calls import DelayedCalls
from longconn.clients.errors import (
    CertificateError,
    ClientError,
    Closed,
    ConnectionFailed,
    Disconnected,
    NotLongconn,
    OutcomeUnknown,
    Refused,
)
from longconn.clients.events import ConnectionState, JSONObject, State
from longconn.clients.tokens import Renewal, Token, ask_token, error_of
from longconn.clients.transports.base import TransportConfiguration, TransportFactory

#: Commands that wait for a connection at most.
MOST_WAITING = 10_000
#: An error reply to `connect`: the name is another client's.
_NAME_TAKEN = 153
#: A close code of WebSocket (RFC 6455, section 7.4.1): a message was too big to be taken.
_TOO_BIG = 1009


class Owner(Protocol):
    """Who is told of a connection."""

    def on_up(self) -> Sequence[Command]:
        """Connected: what is to be sent first."""

    def on_down(self, error: ClientError) -> None:
        """Not connected any more, and it will be tried again."""

    def on_end(self, error: ClientError) -> None:
        """It will not be tried again."""

    def on_push(self, push: Push) -> None: ...

    def on_answered(self) -> None: ...

    def on_state(self, state: State) -> None: ...


@dataclass(slots=True)
class ConnectionConfiguration:
    """What a program asks of its connection. `name` may change while it lives."""

    token: Token
    name: str | None
    reconnect: bool
    random: Callable[[], float]


class Connection:
    """Keeps one connection to `address`, over the first of `transports` that works there."""

    def __init__(
        self,
        address: Address,
        transports: Sequence[TransportFactory],
        configuration: TransportConfiguration,
        options: ConnectionConfiguration,
        owner: Owner,
    ) -> None:
        self.address = address
        self.options = options
        self.state = State(ConnectionState.CONNECTING)
        self.id = ""
        self._transports = transports
        self._configuration = configuration
        self._owner = owner
        self._calls = DelayedCalls(configuration.reactor)
        self._backoff = Backoff(options.random)
        self._current: ConnectionAttempt | None = None
        self._asking: Deferred[str] | None = None
        self._waiting: deque[Command] = deque()
        self._delayed: set[Command] = set()
        self._renewal = Renewal(self._calls, options.token, options.random, self._send_refresh, self.end)
        # Which transport is tried, how many were in this attempt, and the seconds that it has left for connecting.
        self._choice = self._tried = 0
        self._left = configuration.timeout
        self._opened_at = 0.0
        self._was_up = False
        # Why it ends, once it does.
        self._ending: ClientError | None = None
        self._calls.call(0, self._attempt)

    # Commands.

    def request(self, command: Command) -> None:
        """Send a command, now or when there is a connection."""
        now = self._calls.seconds()
        command.deadline = command.deadline or now + self._configuration.timeout
        if self._ending is not None:
            command.on_answer(self._ending)
        elif self._current is not None and self._current.connected:
            self._current.send([command])
        elif len(self._waiting) >= MOST_WAITING:
            command.on_answer(ConnectionFailed(f"{MOST_WAITING} commands wait for a connection already"))
        else:
            self._waiting.append(command)
            self._calls.call(max(0.0, command.deadline - now), self._drop_overdue)

    @property
    def up(self) -> bool:
        return self._current is not None and self._current.connected and self._ending is None

    def say(self, command: Command) -> None:
        """Send a command on the present connection."""
        if self._current is not None:
            self._current.send([command])

    def request_later(self, command: Command, delay: float) -> None:
        """Send a command in `delay` seconds."""

        def now() -> None:
            self._delayed.discard(command)
            if not command.given_up:
                self.request(command)

        self._delayed.add(command)
        self._calls.call(delay, now)

    def hold(self, held: bool) -> None:
        """Whether reading is to be stopped."""
        if self._current is not None and self._current.connected:
            self._current.hold(held)

    def renew(self, error: ClientError) -> None:
        """Give this connection up for a new one."""
        if self._current is not None:
            self._current.fail(error)

    def _drop_overdue(self) -> None:
        """Commands that have waited for a connection for long enough."""
        now = self._calls.seconds()
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            if each.given_up:
                continue
            if each.deadline > now:
                self._waiting.append(each)
            else:
                why = self.state.reason or "no answer yet"
                each.on_answer(ConnectionFailed(f"not connected within {self._configuration.timeout:g} s: {why}"))

    # Attempts.

    def _attempt(self) -> None:
        old = self.state
        self._tell(State(ConnectionState.CONNECTING, old.reason, old.code, 0.0, old.error))
        if self._ending is None:
            self._asking = ask_token(self.options.token)
            self._asking.addCallbacks(self._open, self._on_no_token)

    def _on_no_token(self, failure: Failure) -> None:
        self._asking = None
        if self._ending is None:
            error = error_of(failure)
            self._decide(error, isinstance(error, ConnectionFailed), 0.0)

    def _open(self, token: str) -> None:
        self._asking = None
        if self._ending is not None:
            return
        body: JSONObject = {"token": token} if token else {}
        if self.options.name is not None:
            body["data"] = {"chat": {"name": self.options.name}}
        self._opened_at = self._calls.seconds()
        self._current = ConnectionAttempt(self._transports[self._choice], self.address, self._configuration, self)
        # Equal shares, and what one did not need is for those after it.
        patience = self._left / (len(self._transports) - self._tried)
        self._current.open(Command("connect", body, self._on_connect), patience)

    def _on_connect(self, result: JSONObject | ClientError) -> None:
        link = self._current
        assert link is not None  # it is the link that calls
        if isinstance(result, ClientError):
            link.close(result)
            return
        client = member(result, "client", str, "")
        if not client:  # whoever echoes what comes has an answer to `connect`, too
            raise NotLongconn("this is no longconn server: its answer to connect names no client")
        link.greet(result)
        self.id = client
        self._was_up = True
        self._backoff.reset()
        self._renewal.expect(result)
        # What it was subscribed to comes first: nothing that is published now is to be missed for long.
        commands = [*self._owner.on_up(), *(each for each in self._waiting if not each.given_up)]
        self._waiting.clear()
        link.send(commands)
        self._tell(State(ConnectionState.CONNECTED))

    def _send_refresh(self, token: str, answered: Callable[[JSONObject | ClientError], None]) -> None:
        self.say(Command("refresh", {"token": token}, answered))

    # What the link tells.

    def on_push(self, push: Push) -> None:
        if push.kind == "refresh":
            self._renewal.expect(push.value)
        else:
            self._owner.on_push(push)

    def on_answered(self) -> None:
        self._owner.on_answered()

    def on_link_lost(self, link: ConnectionAttempt, error: ClientError, retry_after: float) -> None:
        self._current = None
        self._renewal.stop()
        pending = [each for each in link.take_pending() if not each.given_up]
        if self._ending is not None:
            self._finish(pending)
            return
        if not self._try_next(error):
            self._decide(error, self._may_retry(error), retry_after)
        last = next((each for each in reversed(pending) if not each.repeatable and each.method != "connect"), None)
        # Only now: whoever is told may do anything, and ask again.
        for each in pending:
            if each.given_up or each.method == "connect":
                continue
            if each.repeatable:
                self.request(each)
            elif each is last and code_of(error) == _TOO_BIG:
                # It was too large itself, or came after what was: the server reads nothing after that.
                each.on_answer(Refused(_TOO_BIG, "too large for the server"))
            else:
                each.on_answer(OutcomeUnknown(f"whether {each.method} was carried out is not known: {error}"))

    def _may_retry(self, error: ClientError) -> bool:
        if isinstance(error, Disconnected):
            return not error.final
        if isinstance(error, Refused):
            expired = error.code == TOKEN_EXPIRED and callable(self.options.token)
            # Our own last connection may be open still, as the server sees it.
            ours = error.code == _NAME_TAKEN and self._was_up
            return error.temporary or expired or ours
        # What has never worked there will not work by waiting.
        return self._was_up or not isinstance(error, NotLongconn | CertificateError)

    def _try_next(self, error: ClientError) -> bool:
        """Where a transport does not get through the next one is taken: at once, if this attempt has not tried it."""
        if not isinstance(error, NotLongconn | ConnectTimeout):
            return False
        self._choice = (self._choice + 1) % len(self._transports)
        if self.state.state is not ConnectionState.CONNECTING or self._tried + 1 == len(self._transports):
            return False
        self._tried += 1
        self._left = max(0.0, self._left - (self._calls.seconds() - self._opened_at))
        self._calls.call(0, self._attempt)
        return True

    def _decide(self, error: ClientError, may_retry: bool, retry_after: float) -> None:
        """What comes after a failed attempt, or a lost connection: another attempt later, or the end."""
        self._tried = 0
        self._left = self._configuration.timeout
        if not (may_retry and self.options.reconnect):
            self.end(error)
            return
        delay = max(self._backoff.delay(), retry_after)
        self._owner.on_down(error)
        self._calls.call(delay, self._attempt)
        self._tell(State(ConnectionState.RECONNECTING, str(error), code_of(error), delay, error))

    # The end.

    def end(self, error: ClientError) -> None:
        """End for good: commands and whatever waits are told `error`."""
        if self._ending is not None:
            return
        self._ending = error
        self._calls.cancel_all()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
        if self._current is not None:
            self._current.close(error)
        else:
            self._finish([])

    def _finish(self, pending: Sequence[Command]) -> None:
        error = self._ending
        assert error is not None  # set by `end`, the only way here
        self._calls.cancel_all()
        waiting = [*pending, *self._waiting, *self._delayed]
        self._waiting.clear()
        self._delayed.clear()
        for each in waiting:
            if not each.given_up and each.method != "connect":
                each.on_answer(error)
        own = isinstance(error, Closed)
        self._tell(State(ConnectionState.CLOSED, str(error), code_of(error), 0.0, None if own else error))
        self._owner.on_end(error)

    def _tell(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        self._owner.on_state(state)


def code_of(error: ClientError) -> int:
    """The number that a server gave."""
    return error.code if isinstance(error, Disconnected | Refused) else 0
