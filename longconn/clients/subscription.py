"""A subscription: an asynchronous iterator of a channel's events that outlives connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from longconn.clients.backoff import Backoff
from longconn.clients.centrifugo import TOKEN_EXPIRED, UNRECOVERABLE, PendingCommand, ReceivedPush, member
from longconn.clients.connection import ReconnectingConnection
from longconn.clients.delayed_calls import DelayedCalls
from longconn.clients.errors import ClientError, Closed, ConnectionFailed, Refused
from longconn.clients.events import Event, JSONObject, Lost, Position, Publication
from longconn.clients.recovery import RecoveryPosition
from longconn.clients.tokens import Renewal, Token, ask_token, error_of

#: Unread events above which the connection is not read any more, until half of them are read.
MOST_UNREAD = 1024
#: Codes of `unsubscribe` pushes from this one on ask the client to subscribe again.
_RESUBSCRIBE = 2500


class Subscription:
    """The events of a channel from the moment of subscribing: `async for event in subscription`.

    The iteration ends after `unsubscribe` and `Client.close`. Otherwise it gives the events that came before the end,
    and then raises the ClientError that says why: the connection was lost for good, or the server refuses the channel.
    """

    def __init__(
        self,
        connection: ReconnectingConnection,
        calls: DelayedCalls,
        recovery: RecoveryPosition,
        token: Token,
        first: Deferred[Subscription],
        on_end: Callable[[Subscription], None],
    ) -> None:
        """`first` fires when the channel is subscribed to for the first time."""
        self.channel = recovery.channel
        #: the position after the last event that was given out
        self.position: Position = recovery.position
        self._connection = connection
        self._calls = calls
        self._recovery = recovery
        self._token = token
        self._on_end = on_end
        random = connection.configuration.random
        self._backoff = Backoff(random, calls.seconds)
        # None once it has fired.
        self._first: Deferred[Subscription] | None = first
        self._overdue = calls.call(connection.timeout, self._on_overdue)
        self._renewal = Renewal(calls, token, random, self._send_refresh, self.end)
        # Why it is not subscribed yet, for the error of `_on_overdue`.
        self._why = "no answer yet"
        # The subscribe without an answer on the present connection; and whether one succeeded there.
        self._asking: PendingCommand | None = None
        self._live = False
        self._events: deque[tuple[Event, Position]] = deque()
        self._holds = False
        self._readers: deque[Deferred[Event]] = deque()
        self._ended: BaseException | None = None

    # For programs.

    def __aiter__(self) -> Subscription:
        return self

    def __anext__(self) -> Deferred[Event]:
        """The next event. A reader that is cancelled takes no event away."""
        if self._events:
            event, self.position = self._events.popleft()
            self._hold_if_unread()
            return succeed(event)
        if self._ended is not None:
            return fail(self._ended)
        reader: Deferred[Event] = Deferred(self._readers.remove)
        self._readers.append(reader)
        return reader

    def unsubscribe(self) -> Deferred[None]:
        """Leave the channel. The iteration ends; unread events are dropped. Never fails."""
        return self._leave(Closed(f"left {self.channel}"))

    def _leave(self, why: ClientError) -> Deferred[None]:
        known = self._ended is None and self._connection.up and (self._live or self._asking is not None)
        self.end(why)
        if not known:
            return succeed(None)
        done: Deferred[None] = Deferred()
        # Whatever the answer is, the client has left: the loss of the connection ends a subscription, too.
        command = PendingCommand("unsubscribe", {"channel": self.channel}, lambda answer: done.callback(None))
        self._connection.send_now(command)
        return done

    # For the client.

    def give_up(self) -> None:
        """The program cancelled `Client.subscribe`."""
        self._leave(Closed(f"left {self.channel}"))

    def command(self) -> PendingCommand | None:
        """The subscribe to send on a new connection; None if its token has to be asked for first."""
        self._live = False
        if callable(self._token):
            self.ask()
            return None
        return self._subscribe(self._token)

    def on_reconnecting(self, error: ClientError) -> None:
        """The connection is lost; there will be another."""
        self._live = False
        self._renewal.stop()
        if self._asking is not None:
            self._asking.given_up = True  # the next connection has a subscribe of its own
            self._asking = None
        self._why = str(error)

    def on_push(self, push: ReceivedPush) -> None:
        if not self._live:
            return
        if push.kind != "unsubscribe":
            for event in self._recovery.on_push(push.kind, push.value):
                self._put(event)
            return
        self._live = False
        self._renewal.stop()
        code = member(push.value, "code", int, 0)
        if code >= _RESUBSCRIBE:
            self.ask()
        else:
            self.end(Refused(code, member(push.value, "reason", str, "") or "unsubscribed"))

    def end(self, error: ClientError) -> None:
        """No event follows. `Closed` ends the iteration; it raises any other error."""
        if self._ended is not None:
            return
        own = isinstance(error, Closed)
        self._ended = StopAsyncIteration() if own else error
        self._calls.cancel_all()
        self._live = False
        if self._asking is not None:
            self._asking.given_up = True
        if own:
            self._events.clear()
        self._on_end(self)
        self._hold_if_unread()
        first, self._first = self._first, None
        if first is not None and not first.called:
            first.errback(error)
        readers, self._readers = self._readers, deque()
        for each in readers:
            each.errback(self._ended)

    # Subscribing.

    def ask(self) -> None:
        """Subscribe on the present connection."""

        def got(token: str) -> None:
            if self._ended is None and self._can_ask():
                self._connection.send_now(self._subscribe(token))

        ask_token(self._token).addCallbacks(got, self._on_no_token)

    def _can_ask(self) -> bool:
        return self._asking is None and not self._live and self._connection.up

    def _on_no_token(self, failure: Failure) -> None:
        if self._ended is not None:
            return
        error = error_of(failure)
        if isinstance(error, ConnectionFailed):
            self._ask_later(error)
        else:
            self.end(error)

    def _ask_later(self, error: ClientError) -> None:
        def ask() -> None:
            if self._can_ask():
                self.ask()

        self._why = str(error)
        self._calls.call(self._backoff.delay(), ask)

    def _subscribe(self, token: str) -> PendingCommand:
        command = PendingCommand(
            "subscribe", self._recovery.request(token), lambda answer: self._on_answer(command, answer)
        )
        command.repeatable = True
        self._asking = command
        return command

    def _on_answer(self, command: PendingCommand, answer: JSONObject | ClientError) -> None:
        if command is not self._asking or self._ended is not None:
            return  # it was sent on an earlier connection, or the subscription has ended
        self._asking = None
        if isinstance(answer, Refused):
            self._on_refused(answer)
        elif isinstance(answer, ClientError):
            self._connection.renew(answer)  # the server may or may not have subscribed us
        else:
            events = self._recovery.on_subscribed(answer)
            self._live = True
            self._backoff.succeed()
            self._renewal.expect(answer)
            first, self._first = self._first, None
            if first is not None:
                self._calls.cancel(self._overdue)
                if not events:
                    self.position = self._recovery.position
            for event in events:
                self._put(event)
            if first is not None:
                first.callback(self)

    def _on_refused(self, error: Refused) -> None:
        if error.code == UNRECOVERABLE:
            self._recovery.forget()
            self.ask()
        elif error.temporary or (error.code == TOKEN_EXPIRED and callable(self._token)):
            self._ask_later(error)
        else:
            self.end(error)

    def _on_overdue(self) -> None:
        """The first subscribe did not succeed in time."""
        text = f"not subscribed to {self.channel} within {self._connection.timeout:g} s: {self._why}"
        self._leave(ConnectionFailed(text))

    def _send_refresh(self, token: str, answered: Callable[[JSONObject | ClientError], None]) -> None:
        self._connection.send_now(PendingCommand("sub_refresh", {"channel": self.channel, "token": token}, answered))

    # Events.

    def _put(self, event: Event) -> None:
        position = self._position_after(event)
        if self._readers:
            self.position = position
            self._readers.popleft().callback(event)
        else:
            self._events.append((event, position))
            self._hold_if_unread()

    def _position_after(self, event: Event) -> Position:
        if isinstance(event, Lost):
            return event.resumed
        if isinstance(event, Publication) and event.offset:
            return Position(event.epoch, event.offset)
        return self._events[-1][1] if self._events else self.position

    def _hold_if_unread(self) -> None:
        """Stop reading the connection above MOST_UNREAD events, and resume at half of it."""
        holds = len(self._events) > (MOST_UNREAD // 2 if self._holds else MOST_UNREAD) and self._ended is None
        if holds != self._holds:
            self._holds = holds
            self._connection.hold(self, holds)
