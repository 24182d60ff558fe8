"""What may go wrong between this process and a Redis server.

LongConnError
  RedisError           the base
    LinkLostError      there is no connection, or it was lost before the answer: the outcome is unknown
    RefusedError       the server refused a command, and did nothing
    BadRecordError     what is kept in Redis was not written by longconn
"""

from __future__ import annotations

from longconn.core.errors import LongConnError


class RedisError(LongConnError):
    """The base of the errors of this package."""


class LinkLostError(RedisError):
    """There is no connection, or it was lost before the answer.

    `sent` says that the command may have been executed.
    """

    def __init__(self, text: str, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class RefusedError(RedisError):
    """The server refused a command. `code` is the first word of its answer, as OOM, READONLY, WRONGTYPE."""

    @property
    def code(self) -> str:
        return str(self).partition(" ")[0]


class BadRecordError(RedisError):
    """What is kept in Redis was not written by longconn."""
