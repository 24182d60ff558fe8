"""What goes wrong for a client, as one small tree.

    ClientError          whatever a client raises; its text is one line for people
      AddressError       a URL that cannot be used (a ValueError, too)
      ConnectionFailed   refused, unreachable, too late, lost
        CertificateError the server's certificate does not fit
      NotLongconn        it answered, but not in this protocol
      Refused            the server's error reply: `code`, `message`
      Disconnected       the server ended the connection: `code`, `reason`
      OutcomeUnknown     the connection was lost between a command and its answer
      Closed             the program closed the client, or left the channel

Exceptions of libraries are converted where they enter, and are the `__cause__`.
"""

from __future__ import annotations


class ClientError(Exception):
    """Whatever a client raises of its own accord."""


class AddressError(ClientError, ValueError):
    """A URL that cannot be used."""


class ConnectionFailed(ClientError):
    """No connection: refused, unreachable, unknown, too late, or lost."""


class CertificateError(ConnectionFailed):
    """The server's certificate does not fit its name, or is of nobody that is trusted."""


class NotLongconn(ClientError):
    """It answered, but not in this protocol."""


class Refused(ClientError):
    """The server refused a command. `code` and `message` are its own; `temporary` says that trying again may help."""

    def __init__(self, code: int, message: str, temporary: bool = False) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.temporary = temporary


class Disconnected(ClientError):
    """The server ended the connection. `code` is a disconnect's number; `final` says that one is not to come back.

    Which are final is a rule of Centrifugo's client protocol: 3500 to 3999, and 4500 to 4999 of applications.
    """

    def __init__(self, code: int, reason: str, reconnect: bool = False) -> None:
        super().__init__(f"disconnected by the server: {reason or 'no reason given'} ({code})")
        self.code = code
        self.reason = reason
        self.final = not reconnect and (3500 <= code < 4000 or 4500 <= code < 5000)


class OutcomeUnknown(ClientError):
    """A command was sent, and no answer came: whether it was carried out is not known, so it was not sent again."""


class Closed(ClientError):
    """The program itself closed the client, or left the channel, before the answer came."""
