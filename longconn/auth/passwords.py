"""Checks passwords by the checkers of Twisted (`twisted.cred`): a file, memory, whatever a plugin brings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.cred.strcred import InvalidAuthArgumentString, InvalidAuthType, UnsupportedInterfaces, makeChecker
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from longconn.core.broker import Done
from longconn.core.errors import INTERNAL, CommandError, ConfigError, shown
from longconn.core.gate import Passwords
from longconn.core.identity import AdmissionError
from longconn.core.log import about, log


def check_passwords(descriptions: Sequence[str]) -> Passwords:
    """A check by the checkers that `descriptions` name (`twisted.cred.strcred`): one of them has to know the user.

    Raises ConfigError for a description that is no checker of passwords.
    """
    return PasswordChecks([_checker(each) for each in descriptions]).check


def _checker(description: str) -> ICredentialsChecker:
    kind, _, argument = description.partition(":")
    # The checker itself would only print a warning.
    if kind == "file" and not Path(argument).is_file():
        raise ConfigError(f"auth: file: there is no file {shown(argument, 200)}")
    try:
        checker: ICredentialsChecker = makeChecker(description)
    except InvalidAuthType:
        raise ConfigError(f"auth: there is no checker {kind!r}; --help-auth lists them") from None
    except (InvalidAuthArgumentString, UnsupportedInterfaces, ValueError, OSError) as error:
        raise ConfigError(f"auth: {kind}: {error}") from None
    if IUsernamePassword not in checker.credentialInterfaces:
        raise ConfigError(f"auth: the checker {kind!r} does not check passwords")
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        # `makeChecker` fills it with strings, which never equal the bytes of credentials.
        checker.users = {name.encode(): password.encode() for name, password in checker.users.items()}
    return checker


class PasswordChecks:
    """Asks one checker after the other, until one knows the user and the password."""

    def __init__(self, checkers: Sequence[ICredentialsChecker]) -> None:
        self._checkers = checkers

    def check(self, user: str, password: str, done: Done[str]) -> None:
        """`done` gets the user's id, an AdmissionError, or INTERNAL if a checker fails."""
        credentials = UsernamePassword(user.encode(), password.encode())
        left = list(self._checkers)

        def ask_next() -> None:
            if not left:
                done(AdmissionError("wrong name or password"))
                return
            checker: Any = left.pop(0)
            asked: Deferred[Any] = maybeDeferred(checker.requestAvatarId, credentials)
            asked.addCallbacks(known, unknown)

        def known(avatar: object) -> None:
            done(avatar.decode("utf-8", "replace") if isinstance(avatar, bytes) else user)

        def unknown(failure: Failure) -> None:
            if failure.check(UnauthorizedLogin, LoginFailed) is not None:
                ask_next()
                return
            log.error("a password could not be checked: %s", failure.getTraceback(), extra=about("internal_error"))
            done(CommandError(INTERNAL))

        ask_next()
