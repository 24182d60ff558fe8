"""A subscription: an asynchronous iterator of a channel's events that outlives connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from longconn.clients.backoff import Backoff
from longconn.clients.centrifugo import TOKEN_EXPIRED, UNRECOVERABLE, Command, Push, member
from longconn.clients.delayed_calls import DelayedCalls
from longconn.clients.errors import ClientError, Closed, ConnectionFailed, Refused
from longconn.clients.events import Event, JSONObject, Lost, Position, Publication
from longconn.clients.recovery import RecoveryPosition
from longconn.clients.tokens import Renewal, Token, ask_token, error_of

#: Events that wait unread, from which on the client's connection is not read until half of them are.
MOST_UNREAD = 1024
#: Codes of `unsubscribe` pushes from which on one is to subscribe again.
_AGAIN = 2500


class Home(Protocol):
    """What a subscription asks of its client."""

    timeout: float

    @property
    def is_up(self) -> bool:
        """Whether commands can be sent now."""

    def say(self, command: Command) -> None:
        """Send a command on the present connection."""

    def renew(self, error: ClientError) -> None:
        """Give the present connection up for a new one."""

    def forget(self, subscription: Subscription) -> None:
        """It has ended."""

    def on_unread(self, subscription: Subscription, much: bool) -> None:
        """Whether much of it waits unread has changed."""


class Subscription:
    """What is said in a channel, from the moment of subscribing on: `async for event in subscription`.

    It ends after `unsubscribe` and `Client.close`. Where it ends otherwise, the iteration hands out what came before,
    and raises the ClientError that says why: the connection was lost for good, or the server refuses the channel now.
    """

    def __init__(
        self,
        home: Home,
        calls: DelayedCalls,
        recovery: RecoveryPosition,
        token: Token,
        random: Callable[[], float],
        first: Deferred[Subscription],
    ) -> None:
        self.channel = recovery.channel
        #: after the last event handed out
        self.position: Position = recovery.position
        self._home = home
        self._calls = calls
        self._recovery = recovery
        self._token = token
        self._backoff = Backoff(random)
        # Told when it is subscribed for the first time; None from then on.
        self._first: Deferred[Subscription] | None = first
        self._overdue = calls.call(home.timeout, self._on_overdue)
        self._renewal = Renewal(calls, token, random, self._send_refresh, self.end)
        self._why = "no answer yet"
        # The subscribe that is under way on the present connection; and whether one was answered there.
        self._asking: Command | None = None
        self._live = False
        self._events: deque[tuple[Event, Position]] = deque()
        self._much = False
        self._readers: deque[Deferred[Event]] = deque()
        self._ended: BaseException | None = None

    # For programs.

    def __aiter__(self) -> Subscription:
        return self

    def __anext__(self) -> Deferred[Event]:
        """The next event. Cancelling it takes nothing away from the next one who asks."""
        if self._events:
            event, self.position = self._events.popleft()
            self._look_at_unread()
            return succeed(event)
        if self._ended is not None:
            return fail(self._ended)
        reader: Deferred[Event] = Deferred(self._readers.remove)
        self._readers.append(reader)
        return reader

    def unsubscribe(self) -> Deferred[None]:
        """Leave the channel. The iteration ends; what was not read yet is dropped. Never fails."""
        return self._leave(Closed(f"left {self.channel}"))

    def _leave(self, why: ClientError) -> Deferred[None]:
        known = self._ended is None and self._home.is_up and (self._live or self._asking is not None)
        self.end(why)
        if not known:
            return succeed(None)
        done: Deferred[None] = Deferred()
        # Whatever is answered, it is left: on a lost connection, too.
        self._home.say(Command("unsubscribe", {"channel": self.channel}, lambda answer: done.callback(None)))
        return done

    # For the client.

    def give_up(self) -> None:
        """Nobody waits for it any more: end it before it has begun."""
        self._leave(Closed(f"left {self.channel}"))

    def request(self) -> Command | None:
        """The subscribe to send first on a new connection; None where its token has to be asked for first."""
        self._live = False
        if callable(self._token):
            self._ask()
            return None
        return self._command(self._token)

    def on_down(self, error: ClientError) -> None:
        """The connection is lost; there will be another."""
        self._live = False
        self._renewal.stop()
        if self._asking is not None:
            self._asking.given_up = True  # the next connection has one of its own
            self._asking = None
        self._why = str(error)

    def on_push(self, push: Push) -> None:
        if not self._live:
            return
        if push.kind != "unsubscribe":
            for event in self._recovery.on_push(push.kind, push.value):
                self._put(event)
            return
        self._live = False
        self._renewal.stop()
        code = member(push.value, "code", int, 0)
        if code >= _AGAIN:
            self._ask()
        else:
            self.end(Refused(code, member(push.value, "reason", str, "") or "unsubscribed"))

    def end(self, error: ClientError) -> None:
        """Nothing follows. `Closed` ends the iteration, anything else is raised by it."""
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
        self._home.forget(self)
        self._look_at_unread()
        first, self._first = self._first, None
        if first is not None and not first.called:
            first.errback(error)
        readers, self._readers = self._readers, deque()
        for each in readers:
            each.errback(self._ended)

    # Subscribing.

    def _ask(self) -> None:
        """Subscribe on the present connection."""

        def got(token: str) -> None:
            if self._ended is None and self._asking is None and not self._live and self._home.is_up:
                command = self._command(token)
                self._home.say(command)

        ask_token(self._token).addCallbacks(got, self._on_no_token)

    def _on_no_token(self, failure: Failure) -> None:
        if self._ended is not None:
            return
        error = error_of(failure)
        if isinstance(error, ConnectionFailed):
            self._ask_later(error)
        else:
            self.end(error)

    def _ask_later(self, error: ClientError) -> None:
        self._why = str(error)
        self._calls.call(self._backoff.delay(), self._ask_if_needed)

    def _ask_if_needed(self) -> None:
        if self._home.is_up and not self._live and self._asking is None:
            self._ask()

    def _command(self, token: str) -> Command:
        command = Command(
            "subscribe", self._recovery.request(token), lambda answer: self._on_answer(command, answer), True
        )
        self._asking = command
        return command

    def _on_answer(self, command: Command, answer: JSONObject | ClientError) -> None:
        if command is not self._asking or self._ended is not None:
            return  # of a connection that is no more, or nobody waits for it
        self._asking = None
        if isinstance(answer, Refused):
            self._on_refused(answer)
        elif isinstance(answer, ClientError):
            self._home.renew(answer)  # whether we are subscribed is not known
        else:
            events = self._recovery.on_subscribed(answer)
            self._live = True
            self._backoff.reset()
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
            self._ask()
        elif error.temporary or (error.code == TOKEN_EXPIRED and callable(self._token)):
            self._ask_later(error)
        else:
            self.end(error)

    def _on_overdue(self) -> None:
        """It did not come about in time: nobody is to be surprised by it later."""
        self._leave(ConnectionFailed(f"not subscribed to {self.channel} within {self._home.timeout:g} s: {self._why}"))

    def _send_refresh(self, token: str, answered: Callable[[JSONObject | ClientError], None]) -> None:
        self._home.say(Command("sub_refresh", {"channel": self.channel, "token": token}, answered))

    # Events.

    def _put(self, event: Event) -> None:
        position = self._after(event)
        if self._readers:
            self.position = position
            self._readers.popleft().callback(event)
        else:
            self._events.append((event, position))
            self._look_at_unread()

    def _after(self, event: Event) -> Position:
        """Where the channel stands after an event that came next."""
        if isinstance(event, Lost):
            return event.resumed
        if isinstance(event, Publication) and event.offset:
            return Position(event.epoch, event.offset)
        return self._events[-1][1] if self._events else self.position

    def _look_at_unread(self) -> None:
        much = len(self._events) > (MOST_UNREAD // 2 if self._much else MOST_UNREAD) and self._ended is None
        if much != self._much:
            self._much = much
            self._home.on_unread(self, much)
