"""The errors of clients, as one small tree.

    ClientError          all errors of a client; the text is one line for people
      AddressError       a URL that cannot be used (a ValueError, too)
      CertificateFileError   a file of certificates or keys that cannot be used
      ConnectionFailed   refused, unreachable, too late, lost
        CertificateError the server's certificate does not fit, or the server refuses that of the client
      NotLongconn        the server does not speak this protocol
      Refused            an error reply of the server: `code`, `message`
      Disconnected       the server ended the connection: `code`, `reason`
      OutcomeUnknown     the connection was lost between a command and its answer
      Closed             the program closed the client, or left the channel

Exceptions of libraries are converted where they enter, and become the `__cause__`.
"""

from __future__ import annotations


class ClientError(Exception):
    """The base of all errors of a client."""


class AddressError(ClientError, ValueError):
    """A URL that cannot be used."""


class CertificateFileError(ClientError, ValueError):
    """A file of certificates or keys cannot be read, has none, or they do not fit together."""


class ConnectionFailed(ClientError):
    """There is no connection: refused, unreachable, unknown host, too late, or lost."""


class CertificateError(ConnectionFailed):
    """A certificate is refused.

    That of the server is for another name, has expired, or is not signed by a trusted authority. Or the server wants a
    certificate of the client, and another one than it was shown.
    """


class NotLongconn(ClientError):
    """The server answered, but not in this protocol."""


class Refused(ClientError):
    """The server refused a command, with `code` and `message`. `temporary`: trying again may help."""

    def __init__(self, code: int, message: str, temporary: bool = False) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.temporary = temporary


class Disconnected(ClientError):
    """The server ended the connection. `code` is the disconnect's number; `final`: the client must not come back.

    Centrifugo's client protocol makes 3500 to 3999 final, and 4500 to 4999 of applications.
    """

    def __init__(self, code: int, reason: str, reconnect: bool = False) -> None:
        super().__init__(f"disconnected by the server: {reason or 'no reason given'} ({code})")
        self.code = code
        self.reason = reason
        self.final = not reconnect and (3500 <= code < 4000 or 4500 <= code < 5000)


class OutcomeUnknown(ClientError):
    """A command was sent and no answer came. The server may have carried it out, so it was not sent again."""


class Closed(ClientError):
    """The program closed the client, or left the channel, before the answer came."""
