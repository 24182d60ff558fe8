"""LongConn.Publish, Presence and History: calls that make no client."""

from __future__ import annotations

import math

from longconn.core.errors import TOO_MANY_REQUESTS, CommandError
from longconn.core.namespaces import Action
from longconn.core.publication import History, Info, Position
from longconn.core.tokens import ConnectionToken
from longconn.protocols.grpc.call import GrpcCall
from longconn.protocols.grpc.services.callers import check, identify
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
    hub, channel = call.hub, request.channel
    claims = identify(call)
    check(hub, Action.PUBLISH, channel, claims)
    data = data_of(request, hub.settings.max_message)
    if request.name:
        hub.claim(request.name)
    wait = hub.post_wait(call.host, data.size)
    if wait:
        call.trailing.append((PUSHBACK, str(math.ceil(wait * 1000))))
        raise CommandError(TOO_MANY_REQUESTS)
    info = _info(call, claims, request)
    position: Position = await answered(lambda done: hub.publish(channel, data, info, done, call.host))
    call.write(pb.PublishResponse(position=position_message(position)).SerializeToString())


def _info(call: GrpcCall, claims: ConnectionToken, request: pb.PublishRequest) -> Info:
    granted = claims.subs.get(request.channel)
    name = request.name or call.hub.assigned_name(call.address)
    return Info(name, "", claims.user, claims.info, granted.info if granted is not None else b"")


async def presence(call: GrpcCall) -> None:
    """Who is subscribed now."""
    request = parse(pb.PresenceRequest, await call.read_one())
    check(call.hub, Action.PRESENCE, request.channel, identify(call))
    call.write(presence_message(call.hub.presence(request.channel)).SerializeToString())


async def history(call: GrpcCall) -> None:
    """What is kept."""
    request = parse(pb.HistoryRequest, await call.read_one())
    check(call.hub, Action.HISTORY, request.channel, identify(call))
    since, limit = since_of(request), request.limit or -1
    found: History = await answered(lambda done: call.hub.history(request.channel, done, since, limit, call.host))
    call.write(history_message(found).SerializeToString())
