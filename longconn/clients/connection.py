"""A connection that is made again whenever it is lost, and the commands that wait for it."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from longconn.clients.address import Address
from longconn.clients.attempt import ConnectionAttempt, ConnectTimeout, outcome_unknown
from longconn.clients.backoff import Backoff
from longconn.clients.centrifugo import TOKEN_EXPIRED, PendingCommand, ReceivedPush, member
from longconn.clients.delayed_calls import DelayedCalls
from longconn.clients.errors import (
    CertificateError,
    ClientError,
    Closed,
    ConnectionFailed,
    Disconnected,
    NotLongconn,
    Refused,
)
from longconn.clients.events import ConnectionState, JSONObject, State
from longconn.clients.tokens import Renewal, Token, ask_token, error_of
from longconn.clients.transports.base import TransportConfiguration, TransportFactory

#: Commands that wait for a connection at most.
MOST_WAITING = 10_000
#: The error reply to `connect` where another client has the name.
_NAME_TAKEN = 153
#: A close code of WebSocket (RFC 6455, section 7.4.1): a message was too big.
_TOO_BIG = 1009


@dataclass(slots=True)
class ConnectionConfiguration:
    """The program's options for its connection. `name` changes with the client's name.

    By `resume`, a secret, the server gives the name back to a new connection while it takes the old one for open.
    """

    token: Token
    name: str | None
    reconnect: bool
    random: Callable[[], float]
    login: tuple[str, str] | None = field(default=None, repr=False)
    label: str | None = None
    resume: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)


class ReconnectingConnection:
    """Keeps one connection to `address`, over the first of `transports` that works there.

    `on_connected` returns the commands to send first on a new connection. `on_push` gets the server's pushes.
    `on_state` is called after each change of `state`.
    """

    def __init__(
        self,
        address: Address,
        transports: Sequence[TransportFactory],
        transport_configuration: TransportConfiguration,
        configuration: ConnectionConfiguration,
        *,
        on_connected: Callable[[], Sequence[PendingCommand]],
        on_push: Callable[[ReceivedPush], None],
        on_state: Callable[[State], None],
    ) -> None:
        self.address = address
        self.configuration = configuration
        self.timeout = transport_configuration.timeout
        self.state = State(ConnectionState.CONNECTING)
        #: the client's id on the present or the last connection
        self.id = ""
        self._transports = transports
        self._transport_configuration = transport_configuration
        self._on_connected = on_connected
        self._on_push = on_push
        self._on_state = on_state
        self._calls = DelayedCalls(transport_configuration.reactor)
        self._backoff = Backoff(configuration.random, self._calls.seconds)
        self._current: ConnectionAttempt | None = None
        self._token_request: Deferred[str] | None = None
        # Commands that wait for a connection, and those that are sent again after a pause.
        self._waiting: deque[PendingCommand] = deque()
        self._delayed: set[PendingCommand] = set()
        # Subscriptions that are not read fast enough.
        self._holders: set[Hashable] = set()
        self._renewal = Renewal(self._calls, configuration.token, configuration.random, self._send_refresh, self.end)
        # The present transport, how many were tried in this attempt, and the seconds that are left for connecting.
        self._choice = self._tried = 0
        self._left = self.timeout
        self._opened_at = 0.0
        self._was_up = False
        # Why it ends for good.
        self._ending: ClientError | None = None
        self._calls.call(0, self._attempt)

    # Commands.

    @property
    def up(self) -> bool:
        """Whether a command can be sent now."""
        return self._current is not None and self._current.connected and self._ending is None

    def request(self, command: PendingCommand) -> None:
        """Send a command, now or when there is a connection."""
        now = self._calls.seconds()
        command.deadline = command.deadline or now + self.timeout
        if self._ending is not None:
            command.on_answer(self._ending)
        elif self._current is not None and self._current.connected:
            self._current.send([command])
        elif len(self._waiting) >= MOST_WAITING:
            command.on_answer(ConnectionFailed(f"{MOST_WAITING} commands wait for a connection already"))
        else:
            self._waiting.append(command)
            self._calls.call(max(0.0, command.deadline - now), self._drop_overdue)

    def request_later(self, command: PendingCommand, delay: float) -> None:
        """Send a command in `delay` seconds."""

        def send() -> None:
            self._delayed.discard(command)
            if not command.given_up:
                self.request(command)

        self._delayed.add(command)
        self._calls.call(delay, send)

    def send_now(self, command: PendingCommand) -> None:
        """Send a command on the present connection, if there is one."""
        if self._current is not None:
            self._current.send([command])

    def hold(self, holder: Hashable, held: bool) -> None:
        """Stop or resume reading on behalf of `holder`. Nothing is read while at least one holder wants it so."""
        (self._holders.add if held else self._holders.discard)(holder)
        self._apply_hold()

    def renew(self, error: ClientError) -> None:
        """Give the present connection up for a new one."""
        if self._current is not None:
            self._current.fail(error)

    def _apply_hold(self) -> None:
        if self._current is not None and self._current.connected:
            self._current.hold(bool(self._holders))

    def _drop_overdue(self) -> None:
        """Fail the commands that waited too long for a connection."""
        now = self._calls.seconds()
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            if each.given_up:
                continue
            if each.deadline > now:
                self._waiting.append(each)
            else:
                why = self.state.reason or "no answer yet"
                each.on_answer(ConnectionFailed(f"not connected within {self.timeout:g} s: {why}"))

    # Attempts.

    def _attempt(self) -> None:
        old = self.state
        self._set_state(State(ConnectionState.CONNECTING, old.reason, old.code, 0.0, old.error))
        if self._ending is None:
            self._token_request = ask_token(self.configuration.token)
            self._token_request.addCallbacks(self._open, self._on_no_token)

    def _on_no_token(self, failure: Failure) -> None:
        self._token_request = None
        if self._ending is None:
            error = error_of(failure)
            self._retry_or_end(error, isinstance(error, ConnectionFailed), 0.0)

    def _open(self, token: str) -> None:
        self._token_request = None
        if self._ending is not None:
            return
        body: JSONObject = {"token": token} if token else {}
        data: JSONObject = {}
        if self.configuration.name is not None:
            data["chat"] = {"name": self.configuration.name, "resume": self.configuration.resume}
        elif self.configuration.label is not None:
            data["chat"] = {"label": self.configuration.label}
        if self.configuration.login is not None:
            user, password = self.configuration.login
            data["login"] = {"user": user, "password": password}
        if data:
            body["data"] = data
        self._opened_at = self._calls.seconds()
        self._current = ConnectionAttempt(
            self._transports[self._choice],
            self.address,
            self._transport_configuration,
            on_push=self._on_any_push,
            on_idle=self._apply_hold,
            on_lost=self._on_lost,
        )
        # Each transport gets an equal share of the time, and the next ones the rest of it.
        share = self._left / (len(self._transports) - self._tried)
        self._current.open(PendingCommand("connect", body, self._on_connect_answer), share)

    def _on_connect_answer(self, result: JSONObject | ClientError) -> None:
        current = self._current
        assert current is not None  # it calls this
        if isinstance(result, ClientError):
            current.close(result)
            return
        client = member(result, "client", str, "")
        if not client:  # a server that echoes everything answers `connect`, too
            raise NotLongconn("this is no longconn server: its answer to connect names no client")
        current.on_connected(result)
        self.id = client
        self._was_up = True
        self._backoff.succeed()
        self._renewal.expect(result)
        # Subscribes go first: publications until they arrive have to be recovered.
        commands = [*self._on_connected(), *(each for each in self._waiting if not each.given_up)]
        self._waiting.clear()
        current.send(commands)
        self._set_state(State(ConnectionState.CONNECTED))

    def _send_refresh(self, token: str, answered: Callable[[JSONObject | ClientError], None]) -> None:
        self.send_now(PendingCommand("refresh", {"token": token}, answered))

    def _on_any_push(self, push: ReceivedPush) -> None:
        if push.kind == "refresh":
            self._renewal.expect(push.value)
        else:
            self._on_push(push)

    # Losses.

    def _on_lost(self, error: ClientError, retry_after: float, unanswered: list[PendingCommand]) -> None:
        pending = [each for each in unanswered if not each.given_up]
        self._current = None
        self._renewal.stop()
        if self._ending is not None:
            self._finish(pending)
            return
        if not self._try_next_transport(error):
            self._retry_or_end(error, self._may_retry(error), retry_after)
        last = next((each for each in reversed(pending) if not each.repeatable and each.method != "connect"), None)
        # After the state has changed: a callback may send the next command.
        for each in pending:
            if each.given_up or each.method == "connect":
                continue
            if each.repeatable:
                self.request(each)
            elif each is last and code_of(error) == _TOO_BIG:
                # The server reads nothing after a message that is too big. So the last command was that, or came later.
                each.on_answer(Refused(_TOO_BIG, "too large for the server"))
            else:
                each.on_answer(outcome_unknown(each, error))

    def _may_retry(self, error: ClientError) -> bool:
        if isinstance(error, Disconnected):
            return not error.final
        if isinstance(error, Refused):
            expired = error.code == TOKEN_EXPIRED and callable(self.configuration.token)
            if error.code == _NAME_TAKEN:  # the server may still take our own last connection for open
                return self._was_up
            return error.temporary or expired
        # Before the first connection, these errors say that the URL is wrong.
        return self._was_up or not isinstance(error, NotLongconn | CertificateError)

    def _try_next_transport(self, error: ClientError) -> bool:
        """Choose the next transport if this one does not get through; True if it is tried at once.

        Each transport is tried once in an attempt.
        """
        if not isinstance(error, NotLongconn | ConnectTimeout):
            return False
        self._choice = (self._choice + 1) % len(self._transports)
        if self.state.state is not ConnectionState.CONNECTING or self._tried + 1 == len(self._transports):
            return False
        self._tried += 1
        self._left = max(0.0, self._left - (self._calls.seconds() - self._opened_at))
        self._calls.call(0, self._attempt)
        return True

    def _retry_or_end(self, error: ClientError, may_retry: bool, retry_after: float) -> None:
        """After a failed attempt or a lost connection: plan the next attempt, or end for good."""
        self._tried = 0
        self._left = self.timeout
        if not (may_retry and self.configuration.reconnect):
            self.end(error)
            return
        delay = max(self._backoff.delay(), retry_after)
        self._calls.call(delay, self._attempt)
        self._set_state(State(ConnectionState.RECONNECTING, str(error), code_of(error), delay, error))

    # The end.

    def end(self, error: ClientError) -> None:
        """End for good. All commands fail with `error`."""
        if self._ending is not None:
            return
        self._ending = error
        self._calls.cancel_all()
        token_request, self._token_request = self._token_request, None
        if token_request is not None:
            token_request.cancel()
        if self._current is not None:
            self._current.close(error)
        else:
            self._finish([])

    def _finish(self, pending: Sequence[PendingCommand]) -> None:
        error = self._ending
        assert error is not None  # only `end` leads here, and sets it
        self._calls.cancel_all()
        waiting = [*pending, *self._waiting, *self._delayed]
        self._waiting.clear()
        self._delayed.clear()
        for each in waiting:
            if not each.given_up and each.method != "connect":
                each.on_answer(error)
        own = isinstance(error, Closed)
        self._set_state(State(ConnectionState.CLOSED, str(error), code_of(error), 0.0, None if own else error))

    def _set_state(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._on_state(state)


def code_of(error: ClientError) -> int:
    """The number that the server gave for an error; 0 if it gave none."""
    return error.code if isinstance(error, Disconnected | Refused) else 0
