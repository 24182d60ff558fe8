"""Converts between protobuf messages and the objects of the core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from twisted.internet.defer import Deferred

from longconn.core.broker import Done
from longconn.core.errors import BAD_REQUEST, CommandError
from longconn.core.publication import Data, History, Info, Position, Publication
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


def data_of(request: pb.PublishRequest) -> Data:
    """The data to publish. Raises CommandError: BAD_DATA, BAD_REQUEST if there is none."""
    kind = request.WhichOneof("content")
    if kind is None:
        raise CommandError(BAD_REQUEST, what="publish without data or text")
    if kind == "text":
        return Data.of_text(request.text)
    return Data.of_json(request.data)


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


def info_message(info: Info) -> pb.ClientInfo:
    return pb.ClientInfo(
        name=info.name,
        client=info.client,
        user=_encodable(info.user),
        conn_info=info.conn_info.decode(),
        chan_info=info.chan_info.decode(),
    )


def presence_message(infos: Iterable[Info]) -> pb.PresenceResponse:
    return pb.PresenceResponse(clients=map(info_message, infos))


def publication_message(publication: Publication) -> pb.Publication:
    return pb.Publication(
        channel=publication.channel,
        offset=publication.offset,
        epoch=publication.epoch,
        data=publication.data.json.decode(),
        name=publication.info.name,
        client=publication.info.client,
        user=_encodable(publication.info.user),
        time=publication.time,
    )


def history_message(history: History) -> pb.HistoryResponse:
    return pb.HistoryResponse(
        publications=map(publication_message, history.publications),
        position=position_message(history.position),
        recovered=history.recovered,
    )


def _encodable(text: str) -> str:
    """Return a text that UTF-8 can encode: the JSON of a token may contain lone surrogates."""
    return text.encode("utf-8", "replace").decode()
