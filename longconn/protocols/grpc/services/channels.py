"""LongConn.Publish, Presence and History: calls that make no client."""

from __future__ import annotations

from longconn.core.publication import History, Info, Position
from longconn.protocols.grpc.call import GrpcCall
from longconn.protocols.grpc.services.callers import caller
from longconn.protocols.grpc.services.messages import (
    answered,
    data_of,
    parse,
    position_message,
    since_of,
)
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.grpc_messages import history_parts, presence_parts

#: Microseconds that encoding a part of an answer takes.
_PART = 500


async def publish(call: GrpcCall) -> None:
    """Publish, at the rate of the caller's address."""
    request = parse(pb.PublishRequest, await call.read_one())
    door = call.hub.door
    publisher, data = await caller(call, request.name), data_of(request, call.hub.settings.max_message)
    position: Position = await answered(lambda done: door.publish(publisher, request.channel, data, done))
    call.write(pb.PublishResponse(position=position_message(position)).SerializeToString())


async def presence(call: GrpcCall) -> None:
    """The subscribers of a channel now."""
    request = parse(pb.PresenceRequest, await call.read_one())
    asking, door = await caller(call), call.hub.door
    await call.slice(_PART)
    infos: list[Info] = await answered(lambda done: door.presence(asking, request.channel, done))
    call.write(await call.encode(presence_parts(infos), _PART))


async def history(call: GrpcCall) -> None:
    """The history: with `since` the first publications after it, otherwise the newest; in the channel's order."""
    request = parse(pb.HistoryRequest, await call.read_one())
    asking, door, since, limit = await caller(call), call.hub.door, since_of(request), request.limit or -1
    newest = since is None and limit > 0
    await call.slice(_PART)
    found: History = await answered(lambda done: door.history(asking, request.channel, done, since, limit, newest))
    if newest:
        found.publications.reverse()
    call.write(await call.encode(history_parts(found), _PART))
