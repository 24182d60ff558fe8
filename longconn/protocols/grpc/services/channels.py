"""LongConn.Publish, Presence and History: calls that make no client."""

from __future__ import annotations

import math

from longconn.core.errors import CommandError
from longconn.core.publication import History, Info, Position
from longconn.protocols.grpc.call import GrpcCall
from longconn.protocols.grpc.services.callers import caller
from longconn.protocols.grpc.services.messages import (
    answered,
    data_of,
    history_message,
    parse,
    position_message,
    presence_message,
    since_of,
)
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.grpc import PUSHBACK


async def publish(call: GrpcCall) -> None:
    """Publish, at the rate of the caller's address."""
    request = parse(pb.PublishRequest, await call.read_one())
    publisher, data, door = caller(call, request.name), data_of(request), call.hub.door
    try:
        position: Position = await answered(lambda done: door.publish(publisher, request.channel, data, done))
    except CommandError as error:
        wait = error.values.get("retry_after")
        if isinstance(wait, float):
            call.trailing.append((PUSHBACK, str(math.ceil(wait * 1000))))
        raise
    call.write(pb.PublishResponse(position=position_message(position)).SerializeToString())


async def presence(call: GrpcCall) -> None:
    """The subscribers of a channel now."""
    request = parse(pb.PresenceRequest, await call.read_one())
    asking, door = caller(call), call.hub.door
    infos: list[Info] = await answered(lambda done: door.presence(asking, request.channel, done))
    call.write(presence_message(infos).SerializeToString())


async def history(call: GrpcCall) -> None:
    """What is kept: with `since` the first publications after it, otherwise the newest; in the channel's order."""
    request = parse(pb.HistoryRequest, await call.read_one())
    asking, door, since, limit = caller(call), call.hub.door, since_of(request), request.limit or -1
    newest = since is None and limit > 0
    found: History = await answered(lambda done: door.history(asking, request.channel, done, since, limit, newest))
    if newest:
        found.publications.reverse()
    call.write(history_message(found).SerializeToString())
