"""Tokens: asked of the program, and brought to the server anew before they expire."""

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
#: Seconds before it expires, at most, that a token is asked for anew.
_AHEAD = 10.0


def ask_token(token: Token) -> Deferred[str]:
    """A token. Fails with a ClientError: what the program's callable raised, told in one line."""

    def failed(failure: Failure) -> str:
        error = failure.value
        if isinstance(error, ClientError):
            raise error
        raise ConnectionFailed(f"no token: {type(error).__name__}: {error}") from error

    asked: Deferred[str] = maybeDeferred(token if callable(token) else lambda: token)
    return asked.addErrback(failed)


def error_of(failure: Failure) -> ClientError:
    """What `ask_token` failed with."""
    error = failure.value
    assert isinstance(error, ClientError)
    return error


class Renewal:
    """Renews one token. `send` brings it to the server, and calls back with the answer; `end` is told a refusal.

    What fails otherwise is tried again: until it has expired, and for a while after, the server waits.
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
        self._backoff = Backoff(random)
        self._send = send
        self._end = end
        self._call: Any = None
        # What was asked for before the last `expect` or `stop` counts no more.
        self._round = 0

    def expect(self, result: JSONObject) -> None:
        """An answer, or a push, says whether it expires and when. Raises NotLongconn."""
        self.stop()
        self._backoff.reset()
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
