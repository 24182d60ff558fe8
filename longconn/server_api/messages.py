"""The server API's JSON: the members of requests, and how results and errors are written.

    request   {"channel": "c", "data": …}          reply   {"result": {…}}  or  {"error": {"code", "message"}}
    batch     {"commands": [{"publish": {…}}, …]}          {"replies": [{"publish": {…}}, {"error": {…}}, …]}

A member that is null is absent, unknown members are ignored. Names, numbers and messages are those of
Centrifugo's server API (centrifugal/centrifugo, `internal/apiproto/api.proto`, `errors.go`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any

from msgspec import Meta, Raw, Struct

from longconn.core import errors
from longconn.core.errors import CommandError, Reason
from longconn.core.json_text import write as dump
from longconn.core.publication import Info, Position
from longconn.server_api.operations import NodeInfo
from longconn.server_api.overview import ChannelInfo, ClientInfo
from longconn.wire.centrifugo import fields

#: Clients or channels in an answer where a request does not say how many.
DEFAULT_LIMIT = 100
_HIGHEST = 2**63 - 1
_Unsigned = Annotated[int, Meta(ge=0, le=_HIGHEST)]

# Requests. Members of type `Any` are not supported: a request in which one is set is refused. Times are in seconds
# since 1970.


class APIPublication(Struct):
    """The members that `publish` and `broadcast` share."""

    data: Raw = Raw()
    skip_history: bool | None = None
    idempotency_key: str | None = None
    b64data: Any = None
    tags: Any = None
    delta: Any = None
    version: Any = None
    version_epoch: Any = None


class APIPublish(APIPublication):
    channel: str | None = None


class APIBroadcast(APIPublication):
    channels: list[str] | None = None


class APITarget(Struct):
    """Which connections are meant."""

    user: str | None = None
    client: str | None = None
    session: str | None = None
    label_filter: Any = None
    all_users: Any = None


class APISubscribe(APITarget):
    channel: str | None = None
    expire_at: _Unsigned | None = None
    info: Raw = Raw()
    data: Raw = Raw()
    b64info: Any = None
    b64data: Any = None
    recover_since: Any = None
    override: Any = None


class APIUnsubscribe(APITarget):
    channel: str | None = None


class APIDisconnectReason(Struct):
    code: _Unsigned | None = None
    reason: str | None = None


class APIDisconnect(APITarget):
    whitelist: list[str] | None = None
    disconnect: APIDisconnectReason | None = None


class APIRefresh(APITarget):
    expired: bool | None = None
    expire_at: _Unsigned | None = None
    info: Raw = Raw()


class APIRevoke(Struct):
    user: str | None = None
    token_id: str | None = None
    issued_before: _Unsigned | None = None
    expire_at: _Unsigned | None = None


class APIChannel(Struct):
    channel: str | None = None


class APIPosition(Struct):
    offset: _Unsigned | None = None
    epoch: str | None = None


class APIHistory(APIChannel):
    limit: Annotated[int, Meta(ge=-1, le=_HIGHEST)] | None = None
    reverse: bool | None = None
    since: APIPosition | None = None


class APIChannels(Struct):
    """`order` and `limit` are longconn's own: with one of them the answer has the first channels, as a list."""

    pattern: str | None = None
    order: str | None = None
    limit: _Unsigned | None = None


class APIClients(Struct):
    """A method of longconn's own."""

    match: str | None = None
    order: str | None = None
    limit: _Unsigned | None = None


class APIRecent(Struct):
    """No members. A method of longconn's own."""


class APIInfo(Struct):
    """No members."""


class APIBatch(Struct):
    commands: list[Raw] | None = None
    parallel: bool | None = None


# Errors.

_MESSAGES: dict[Reason, str] = {
    errors.INTERNAL: "internal server error",
    errors.UNAUTHORIZED: "unauthorized",
    errors.UNKNOWN_CHANNEL: "unknown channel",
    errors.METHOD_NOT_FOUND: "not found",
    errors.LIMIT_EXCEEDED: "limit exceeded",
    errors.BAD_REQUEST: "bad request",
    errors.NOT_AVAILABLE: "not available",
    errors.TOO_MANY_REQUESTS: "too many requests",
    errors.UNRECOVERABLE: "unrecoverable position",
}


def reason_of(error: CommandError) -> Reason:
    """The reason that this API gives for an error: one that Centrifugo has a number for."""
    return error.reason if error.reason in _MESSAGES else errors.BAD_REQUEST


def error_json(error: CommandError) -> bytes:
    reason = reason_of(error)
    return dump({"code": reason.code, "message": _MESSAGES[reason]})


def response(result: bytes | CommandError) -> bytes:
    """The answer to one command."""
    if isinstance(result, CommandError):
        return b'{"error":%b}' % error_json(result)
    return b'{"result":%b}' % result


def reply(method: str, result: bytes | CommandError) -> bytes:
    """The answer to one command of a batch."""
    if isinstance(result, CommandError):
        return b'{"error":%b}' % error_json(result)
    return b'{"%b":%b}' % (method.encode(), result)


# Results.


def position_result(position: Position) -> bytes:
    return fields(offset=position.offset, epoch=position.epoch)


def broadcast_result(results: Iterable[Position | CommandError]) -> bytes:
    responses = [response(each if isinstance(each, CommandError) else position_result(each)) for each in results]
    return b'{"responses":[' + b",".join(responses) + b"]}"


def stats_result(infos: list[Info]) -> bytes:
    return dump({"num_clients": len(infos), "num_users": len({each.user for each in infos})})


def channels_result(channels: dict[str, int]) -> bytes:
    return dump({"channels": {name: {"num_clients": count} for name, count in channels.items()}})


def busiest_result(found: tuple[int, list[ChannelInfo]]) -> bytes:
    number, channels = found
    return dump({"num_channels": number, "channels": [asdict(each) for each in channels]})


def clients_result(found: tuple[int, list[ClientInfo]]) -> bytes:
    number, clients = found
    return dump({"num_clients": number, "clients": [asdict(each) for each in clients]})


def info_result(info: NodeInfo) -> bytes:
    node = {
        name: getattr(info, name)
        for name in ("uid", "name", "version", "num_clients", "num_users", "num_channels", "num_subs", "uptime")
    }
    # The items were counted during this interval: since the start.
    node["metrics"] = {"interval": info.uptime, "items": info.items}
    listed = [{name: value for name, value in asdict(each).items() if value} for each in info.revocations]
    if listed:
        node["revocations"] = listed
    return dump({"nodes": [node]})
