"""The gate: decides who a peer is, before anything that it asks for has an effect. Every protocol asks here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from longconn.core.asking import request_of
from longconn.core.broker import Done
from longconn.core.client import Caller
from longconn.core.errors import NOT_AVAILABLE, TOKEN_EXPIRED, TOO_MANY_REQUESTS, CommandError
from longconn.core.guesses import Guesses
from longconn.core.hooks import Hook, HookReply, HookRequest, Hooks
from longconn.core.identity import ANONYMOUS, Admission, AdmissionError, Credentials, Identity
from longconn.core.log import about, log
from longconn.core.revocations import Revocations
from longconn.core.settings import Settings
from longconn.core.timers import Clock
from longconn.core.tokens import SubscriptionToken, TokenError, Verifier

_T = TypeVar("_T")

#: Checks the password of a user. `done` gets the user's id, or an AdmissionError.
Passwords = Callable[[str, str, Done[str]], None]


class Gate:
    """The ways to prove who one is. One that is None is not there.

    Without any, a peer is let in as anonymous, unless the settings say otherwise. `wall_time` is the time of tokens.
    Every answer comes by calling `done` once: within the call, or later if something has to be fetched or asked.
    """

    def __init__(self, clock: Clock, wall_time: Callable[[], float], settings: Settings) -> None:
        self._wall_time = wall_time
        self._anonymous = settings.anonymous
        self._guesses = Guesses(clock)
        #: reads tokens (`longconn.auth.jwt.JWTVerifier`)
        self.verifier: Verifier | None = None
        #: checks passwords (`longconn.auth.passwords.check_passwords`)
        self.passwords: Passwords | None = None
        #: whether a client certificate names a user
        self.certificates = False
        #: the application's decisions
        self.hooks = Hooks()
        #: tokens that count no more
        self.revocations = Revocations()

    @property
    def is_open(self) -> bool:
        """Whether a peer without credentials is let in."""
        if self._anonymous != "auto":
            return self._anonymous != "no"
        known = self.verifier is not None or self.passwords is not None or self.hooks.connect is not None
        return not (known or self.certificates)

    @property
    def takes_credentials(self) -> bool:
        """Whether a token or a password can be checked."""
        return self.verifier is not None or self.passwords is not None or self.certificates

    @property
    def wants_login(self) -> bool:
        """Whether a peer that can log in later, by what it sends, has to do that first."""
        can_log_in = self.verifier is not None or self.passwords is not None
        return can_log_in and not (self.is_open or self.certificates) and self.hooks.connect is None

    def admit(self, admission: Admission, done: Done[Identity]) -> None:
        """`done` gets the identity of a peer, or an error, which the log has.

        The error is an AdmissionError, or a CommandError: TOKEN_EXPIRED, or TOO_MANY_REQUESTS after wrong guesses.
        """
        credentials = admission.credentials
        if self.hooks.connect is not None and not self._can_check(credentials):
            self._ask(self.hooks.connect, admission, done)
        elif credentials.token:
            self._prove(admission, self._read_token, done)
        elif credentials.password is not None:
            self._prove(admission, self._check_password, done)
        elif credentials.certificate:
            done(Identity(credentials.certificate))
        elif self.is_open:
            done(ANONYMOUS)
        else:
            _refuse(admission, AdmissionError("it brings no credentials"), done)

    def _can_check(self, credentials: Credentials) -> bool:
        if credentials.token:
            return self.verifier is not None
        return bool(credentials.certificate) or (credentials.password is not None and self.passwords is not None)

    def _ask(self, hook: Hook, admission: Admission, done: Done[Identity]) -> None:
        def decided(reply: HookReply | CommandError) -> None:
            if isinstance(reply, CommandError):
                _refuse(admission, reply, done)
            else:
                done(identity_of(reply))

        hook(
            HookRequest(
                client=admission.client,
                protocol=admission.protocol,
                address=admission.address,
                data=admission.data,
                headers=admission.headers,
            ),
            decided,
        )

    def renew(self, caller: Caller, done: Done[Identity]) -> bool:
        """Ask the application whether a caller that it let in may stay; False if it decides no more."""
        hook, identity = self.hooks.refresh, caller.identity
        if hook is None or not identity.by_hook:
            return False

        def decided(reply: HookReply | CommandError) -> None:
            if isinstance(reply, CommandError):
                done(reply)
            elif reply.expired:
                done(CommandError(TOKEN_EXPIRED))
            else:
                done(replace(identity, expires_at=reply.expires_at, info=reply.info or identity.info))

        hook(request_of(caller), decided)
        return True

    def refresh(self, admission: Admission, user: str, done: Done[Identity]) -> None:
        """The same for a connection of `user` that brings a newer token."""

        def read(admission: Admission, done: Done[Identity]) -> None:
            def known(identity: Identity | CommandError) -> None:
                if isinstance(identity, Identity) and identity.user != user:
                    done(TokenError("connection", "it is for another user", mismatch=True))
                else:
                    done(identity)

            self._read_token(admission, known)

        if self.verifier is None:
            done(CommandError(NOT_AVAILABLE, what="tokens"))
        else:
            self._prove(admission, read, done)

    def subscription(
        self, admission: Admission, channel: str, user: str, client: str, done: Done[SubscriptionToken]
    ) -> None:
        """What a token grants to `user` in a channel; `client` is the id of the client. Errors are those of `admit`."""
        verifier = self.verifier
        if verifier is None:
            done(CommandError(NOT_AVAILABLE, what="tokens"))
            return

        def read(admission: Admission, done: Done[SubscriptionToken]) -> None:
            token = admission.credentials.token

            def ready() -> None:
                try:
                    found = verifier.subscription(token, channel, user, self._wall_time(), client)
                except CommandError as error:
                    done(error)
                else:
                    done(found)

            verifier.prepare(token, ready)

        self._prove(admission, read, done)

    def _prove(self, admission: Admission, ask: Callable[[Admission, Done[_T]], None], done: Done[_T]) -> None:
        """Call `ask`, unless there were too many wrong guesses from the address of the peer."""
        wait = self._guesses.wait(admission.host)
        if wait:
            _refuse(admission, CommandError(TOO_MANY_REQUESTS, retry_after=wait), done)
            return

        def answered(result: _T | CommandError) -> None:
            if not isinstance(result, CommandError):
                done(result)
                return
            if isinstance(result, AdmissionError) and not (isinstance(result, TokenError) and result.mismatch):
                self._guesses.failed(admission.host)
            _refuse(admission, result, done)

        ask(admission, answered)

    def _read_token(self, admission: Admission, done: Done[Identity]) -> None:
        verifier, token = self.verifier, admission.credentials.token
        if verifier is None:
            done(TokenError("connection", "there is no key here to check it"))
            return

        def ready() -> None:
            now = self._wall_time()
            try:
                identity = verifier.connection(token, now)
            except CommandError as error:
                done(error)
                return
            revoked = self.revocations.cover(identity, now)
            done(TokenError("connection", "it is revoked") if revoked else identity)

        verifier.prepare(token, ready)

    def _check_password(self, admission: Admission, done: Done[Identity]) -> None:
        def checked(user: str | CommandError) -> None:
            done(user if isinstance(user, CommandError) else Identity(user))

        credentials = admission.credentials
        if self.passwords is None:
            done(AdmissionError("passwords are not checked here"))
        else:
            self.passwords(credentials.user, credentials.password or "", checked)


def identity_of(reply: HookReply) -> Identity:
    """The identity that the application decided on."""
    return Identity(
        reply.user, reply.expires_at, reply.info, dict(reply.subs), by_hook=True, data=reply.data
    )  # fmt: skip


def _refuse(admission: Admission, error: CommandError, done: Done[_T]) -> None:
    why = error.why if isinstance(error, AdmissionError) else error
    log.info(
        "%s client from %s refused: %s",
        admission.protocol,
        admission.address,
        why,
        extra=about("client_refused", admission, code=error.reason.code),
    )
    done(error)
