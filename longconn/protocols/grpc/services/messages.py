"""Converts between protobuf messages and the objects of the core."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from twisted.internet.defer import Deferred

from longconn.core.broker import Done
from longconn.core.errors import BAD_REQUEST, TOO_LARGE, CommandError
from longconn.core.publication import Data, History, Position
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.grpc_status import StatusCode, StatusError

_M = TypeVar("_M", bound=Message)
_T = TypeVar("_T")


def parse(kind: type[_M], data: bytes) -> _M:
    """Return a message of the type `kind`. Raises StatusError(INTERNAL) if `data` is none (`doc/statuscodes.md`)."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise StatusError(StatusCode.INTERNAL, f"not a {kind.DESCRIPTOR.full_name}") from None


def answered(ask: Callable[[Done[_T]], object]) -> Deferred[_T]:
    """Fires with the result that `ask` gives its `done`, or fails with the CommandError."""
    deferred: Deferred[_T] = Deferred()

    def done(result: _T | CommandError) -> None:
        if isinstance(result, CommandError):
            deferred.errback(result)
        else:
            deferred.callback(result)

    ask(done)
    return deferred


# Requests.


def data_of(request: pb.PublishRequest, limit: int) -> Data:
    """The data to publish. Raises CommandError: BAD_DATA, BAD_REQUEST if there is none.

    TOO_LARGE if it has more than `limit` characters: it is not read then, which would take longer than it took to come.
    """
    kind = request.WhichOneof("content")
    if kind is None:
        raise CommandError(BAD_REQUEST, what="publish without data or text")
    text: str = request.text if kind == "text" else request.data
    if len(text) > limit:
        raise CommandError(TOO_LARGE, limit=limit)
    return Data.of_text(text) if kind == "text" else Data.of_json(text)


def since_of(request: pb.SubscribeRequest | pb.HistoryRequest) -> Position | None:
    """Return the position in a request; None without one."""
    return Position(request.since.epoch, request.since.offset) if request.HasField("since") else None


# Answers.


def position_message(position: Position) -> pb.Position:
    return pb.Position(epoch=position.epoch, offset=position.offset)


def start_of(history: History, since: Position | None) -> Position:
    """Return the position before the first publication that follows the answer to a subscribe."""
    if history.recovered:
        return Position(history.position.epoch, since.offset) if since is not None else history.position
    kept = history.publications
    return Position(kept[0].epoch, kept[0].offset - 1) if kept else history.position


def subscribed_message(channel: str, history: History, since: Position | None, data: bytes) -> pb.Subscribed:
    """Return the answer to a subscribe."""
    return pb.Subscribed(
        channel=channel,
        position=position_message(start_of(history, since)),
        was_recovering=since is not None,
        recovered=since is not None and history.recovered,
        data=data.decode(),
    )
