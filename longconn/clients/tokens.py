"""Tokens: the program gives them, and they are renewed at the server before they expire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from longconn.clients.backoff import Backoff
from longconn.clients.centrifugo import member
from longconn.clients.delayed_calls import DelayedCalls
from longconn.clients.errors import ClientError, ConnectionFailed, OutcomeUnknown
from longconn.clients.events import JSONObject

Token: TypeAlias = str | Callable[[], Deferred[str]]
#: Seconds before a token expires that the next one is asked for; less for a token that lives less than 40 s.
_AHEAD = 10.0


def ask_token(token: Token) -> Deferred[str]:
    """A token. Fails with a ClientError: an exception of the program's callable becomes one, with one line of text."""

    def failed(failure: Failure) -> str:
        error = failure.value
        if isinstance(error, ClientError):
            raise error
        raise ConnectionFailed(f"no token: {type(error).__name__}: {error}") from error

    asked: Deferred[str] = maybeDeferred(token if callable(token) else lambda: token)
    return asked.addErrback(failed)


def error_of(failure: Failure) -> ClientError:
    """The error of a failed `ask_token`."""
    error = failure.value
    assert isinstance(error, ClientError)
    return error


class Renewal:
    """Renews one token. `send` brings it to the server and calls back with the answer; `end` is called on a refusal.

    After any other error it tries again: the server accepts a new token for a while after the old one has expired.
    """

    def __init__(
        self,
        calls: DelayedCalls,
        token: Token,
        random: Callable[[], float],
        send: Callable[[str, Callable[[JSONObject | ClientError], None]], None],
        end: Callable[[ClientError], None],
    ) -> None:
        self._calls = calls
        self._token = token
        self._backoff = Backoff(random, calls.seconds)
        self._send = send
        self._end = end
        self._call: Any = None
        # Answers that were asked for before the last `expect` or `stop` are ignored.
        self._round = 0

    def expect(self, result: JSONObject) -> None:
        """Read from an answer, or from a push, when the token expires. Raises NotLongconn."""
        self.stop()
        self._backoff.succeed()
        if member(result, "expires", bool, False) and callable(self._token):
            ttl = member(result, "ttl", int, 0)
            self._call = self._calls.call(ttl - min(_AHEAD, ttl / 4), self._ask)

    def stop(self) -> None:
        """There is nothing to renew now."""
        self._round += 1
        self._calls.cancel(self._call)

    def _ask(self) -> None:
        this = self._round

        def answered(answer: JSONObject | ClientError) -> None:
            if this != self._round:
                return
            if not isinstance(answer, ClientError):
                self.expect(answer)
            elif isinstance(answer, ConnectionFailed | OutcomeUnknown) or getattr(answer, "temporary", False):
                self._call = self._calls.call(self._backoff.delay(), self._ask)
            else:
                self._end(answer)

        def got(token: str) -> None:
            if this == self._round:
                self._send(token, answered)

        ask_token(self._token).addCallbacks(got, lambda failure: answered(error_of(failure)))
