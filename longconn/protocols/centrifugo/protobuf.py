"""The codec of Centrifugo's client protocol in its Protobuf flavour: `client.proto` beside this file.

A frame holds messages, each after its length as a varint. Data are bytes there, and JSON texts here: a channel's data
are JSON values, whatever reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from google.protobuf.message import DecodeError

from longconn.core import commands
from longconn.core.commands import Command, MalformedCommandError, Push, RefusedCommand, Result, SubscribeResult
from longconn.core.errors import BAD_REQUEST, NOT_AVAILABLE, TOO_LARGE, CommandError
from longconn.core.publication import Data, Event, Info, Join, Leave, Position, Publication, Rename
from longconn.protocols.centrifugo import client_pb2 as pb
from longconn.wire.centrifugo import Frame, conn_info_of
from longconn.wire.centrifugo_commands import REFUSES_LOSS, connect_command
from longconn.wire.sse import chunk
from longconn.wire.websocket import BINARY
from longconn.wire.websocket import frame as websocket_frame


def delimited(message: bytes) -> bytes:
    """A message after its length."""
    size, prefix = len(message), bytearray()
    while size > 127:
        prefix.append(size & 127 | 128)
        size >>= 7
    prefix.append(size)
    return bytes(prefix) + message


#: Stands for the rest of a malformed frame. It is no message of Protobuf.
MALFORMED = b"\xff"


def split(frame: bytes) -> list[bytes]:
    """The messages of a frame. The last one is MALFORMED if the frame is malformed there."""
    found: list[bytes] = []
    at = 0
    while at < len(frame):
        size = shift = 0
        while at < len(frame) and frame[at] & 128 and shift < 28:
            size |= (frame[at] & 127) << shift
            shift += 7
            at += 1
        if at == len(frame) or frame[at] & 128:
            return [*found, MALFORMED]
        size |= frame[at] << shift
        at += 1
        if at + size > len(frame):
            return [*found, MALFORMED]
        found.append(frame[at : at + size])
        at += size
    return found


def binary_frame(messages: Sequence[bytes]) -> bytes:
    """One binary frame of WebSocket."""
    return websocket_frame(b"".join(messages), BINARY)


def stream_chunk(messages: Sequence[bytes]) -> bytes:
    """A chunk of an HTTP/1.1 response."""
    return chunk(b"".join(messages))


def body_part(messages: Sequence[bytes]) -> bytes:
    """A part of a response of HTTP/1.0, which has no chunks."""
    return b"".join(messages)


class CentrifugoProtobuf:
    """The codec of a session (`longconn.core.codec`): an item is a message of a frame."""

    ping = b"\0"
    expiry_grace = 25.0
    closes_on_mismatch = True

    def __init__(self, frame: Frame, max_message: int) -> None:
        self._frame = frame
        self._max_message = max_message

    def split(self, frame: bytes) -> list[bytes]:
        """The messages of a frame. The last one is MALFORMED if the frame is malformed there."""
        return split(frame)

    def read(self, item: bytes) -> Command | None:
        """A command; None for a pong. Raises MalformedCommandError."""
        try:
            command = pb.Command.FromString(item)
        except DecodeError:
            raise MalformedCommandError("not Protobuf") from None
        id = command.id
        method = next((each for each in _READERS if command.HasField(each)), "")
        if not method:
            if id:
                raise MalformedCommandError("a command without a known body")
            return None
        if not id and method != "send":
            raise MalformedCommandError("a command without an id")
        try:
            if len(item) > self._max_message:
                raise CommandError(TOO_LARGE, limit=self._max_message)
            return _READERS[method](id, getattr(command, method))
        except CommandError as error:
            return RefusedCommand(id, error, method)

    def reply(self, id: int, result: Result) -> bytes:
        """The reply to a command."""
        method, write = _WRITERS[type(result)]
        return _reply(id=id, **{method: write(result)})

    def refusal(self, id: int, error: CommandError) -> bytes:
        """The reply to a refused command."""
        reason = error.reason
        return _reply(id=id, error=pb.Error(code=reason.code, message=str(error), temporary=reason.temporary))

    def push(self, push: Push) -> bytes:
        """A push about the session."""
        if isinstance(push, commands.SubscribePush):
            result = push.result
            body = pb.Subscribe(
                recoverable=result.recoverable, positioned=result.positioned, data=result.data, **_position(result)
            )
            return _reply(push=pb.Push(channel=result.channel, subscribe=body))
        if isinstance(push, commands.UnsubscribePush):
            ended = pb.Unsubscribe(code=push.code, reason=push.reason)
            return _reply(push=pb.Push(channel=push.channel, unsubscribe=ended))
        if isinstance(push, commands.RefreshPush):
            return _reply(push=pb.Push(refresh=pb.Refresh(**_expiry(push.ttl))))
        disconnect = push.disconnect
        end = pb.Disconnect(code=disconnect.code, reason=disconnect.text, reconnect=disconnect.reconnect)
        return _reply(push=pb.Push(disconnect=end))

    def frame(self, messages: Sequence[bytes]) -> bytes:
        """Messages as the carrier wants them."""
        return self._frame(messages)

    def format(self, join_leave: bool) -> ProtobufFormat:
        """The wire format of a channel's events."""
        return ProtobufFormat(self._frame, join_leave)


@dataclass(frozen=True)
class ProtobufFormat:
    """A channel's events as pushes, in one frame a batch. Joins and leaves only where they were asked for."""

    frame: Frame
    join_leave: bool
    tells_own_join: ClassVar[bool] = True

    def encode(self, channel: str, events: Sequence[Event]) -> bytes:
        """The events as one frame; empty if there is none that it has a form for."""
        pushes: list[bytes] = []
        for event in events:
            if isinstance(event, Publication):
                pushes.append(_reply(push=pb.Push(channel=channel, pub=_publication(event))))
            elif self.join_leave and isinstance(event, Join):
                pushes.append(_reply(push=pb.Push(channel=channel, join=pb.Join(info=_info(event.info)))))
            elif self.join_leave and isinstance(event, Leave):
                pushes.append(_reply(push=pb.Push(channel=channel, leave=pb.Leave(info=_info(event.info)))))
            elif self.join_leave and isinstance(event, Rename):
                pushes.append(_reply(push=pb.Push(channel=channel, leave=pb.Leave(info=_info(event.before)))))
                pushes.append(_reply(push=pb.Push(channel=channel, join=pb.Join(info=_info(event.info)))))
        return self.frame(pushes) if pushes else b""


# Commands.


def _read_connect(id: int, request: pb.ConnectRequest) -> Command:
    subs = {channel: _subscribe(0, channel, each) for channel, each in request.subs.items()}
    return connect_command(id, request.token, request.data, subs)


def _subscribe(id: int, channel: str, request: pb.SubscribeRequest) -> commands.Subscribe:
    return commands.Subscribe(
        id,
        channel,
        request.token,
        Position(request.epoch, request.offset) if request.recover else None,
        request.join_leave,
        bool(request.flag & REFUSES_LOSS),
        next((name for name in ("tf", "type", "phase", "cursor") if getattr(request, name)), ""),
    )


def _read_publish(id: int, request: pb.PublishRequest) -> Command:
    if not request.data:
        raise CommandError(BAD_REQUEST, what="publish without data")
    if request.type or request.key or request.removed:
        raise CommandError(NOT_AVAILABLE, what="map publish")
    return commands.Publish(id, request.channel, Data.of_json(request.data))


def _read_history(id: int, request: pb.HistoryRequest) -> Command:
    since = Position(request.since.epoch, request.since.offset) if request.HasField("since") else None
    if request.limit < -1:
        raise CommandError(BAD_REQUEST, what="limit is no number from -1")
    return commands.ReadHistory(id, request.channel, since, request.limit, request.reverse)


def _read_sub_refresh(id: int, request: pb.SubRefreshRequest) -> Command:
    if request.type:
        raise CommandError(NOT_AVAILABLE, what="shared poll")
    return commands.SubRefresh(id, request.channel, request.token)


def _json(data: bytes) -> bytes:
    """Data for the program. Raises CommandError(BAD_DATA) if it is no JSON."""
    return Data.of_json(data).json if data else b""


#: In the order in which a server takes the first that is there.
_READERS: dict[str, Callable[[int, Any], Command]] = {
    "connect": _read_connect,
    "subscribe": lambda id, request: _subscribe(id, request.channel, request),
    "unsubscribe": lambda id, request: commands.Unsubscribe(id, request.channel),
    "publish": _read_publish,
    "presence": lambda id, request: commands.Presence(id, request.channel),
    "presence_stats": lambda id, request: commands.PresenceStats(id, request.channel),
    "history": _read_history,
    "ping": lambda id, request: commands.Ping(id),
    "send": lambda id, request: commands.Send(_json(request.data)),
    "rpc": lambda id, request: commands.RPC(id, request.method, _json(request.data)),
    "refresh": lambda id, request: commands.Refresh(id, request.token),
    "sub_refresh": _read_sub_refresh,
}

# Results.


def _reply(**fields: Any) -> bytes:
    return delimited(pb.Reply(**fields).SerializeToString())


def _expiry(ttl: int | None) -> dict[str, Any]:
    return {} if ttl is None else {"expires": True, "ttl": ttl}


def _position(result: SubscribeResult) -> dict[str, Any]:
    position = result.position
    return {"epoch": position.epoch, "offset": position.offset} if result.positioned else {}


def _info(info: Info) -> pb.ClientInfo:
    return pb.ClientInfo(
        user=info.user.encode("utf-8", "replace").decode(),
        client=info.client,
        conn_info=conn_info_of(info),
        chan_info=info.chan_info,
    )


def _publication(publication: Publication) -> pb.Publication:
    info = publication.info
    named = info.client or info.user or info.conn_info or info.chan_info or info.name
    return pb.Publication(
        data=publication.data.json,
        info=_info(info) if named else None,  # the server's own have none
        offset=publication.offset,
        time=round(publication.time * 1000),
    )


def _publications(publications: Iterable[Publication]) -> list[pb.Publication]:
    return [_publication(each) for each in publications]


def _subscribe_result(result: SubscribeResult) -> pb.SubscribeResult:
    recovering = result.since is not None
    recovered = recovering and result.history.recovered
    return pb.SubscribeResult(
        recoverable=result.recoverable,
        positioned=result.positioned,
        # A part of what was missed could pass for all of it.
        publications=_publications(result.history.publications) if recovered else [],
        was_recovering=recovering,
        recovered=recovered,
        data=result.data,
        **_position(result),
        **_expiry(result.ttl),
    )


def _connect_result(result: commands.ConnectResult) -> pb.ConnectResult:
    return pb.ConnectResult(
        client=result.client,
        version=result.version,
        subs={each.channel: _subscribe_result(each) for each in result.subs},
        ping=result.ping,
        pong=result.pong,
        session=result.session,
        node=result.node,
        data=result.data,
        **_expiry(result.ttl),
    )


def _history_result(result: commands.HistoryResult) -> pb.HistoryResult:
    top = result.history.position
    return pb.HistoryResult(publications=_publications(result.history.publications), epoch=top.epoch, offset=top.offset)


_WRITERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    commands.ConnectResult: ("connect", _connect_result),
    commands.SubscribeResult: ("subscribe", _subscribe_result),
    commands.UnsubscribeResult: ("unsubscribe", lambda result: pb.UnsubscribeResult()),
    commands.PublishResult: ("publish", lambda result: pb.PublishResult()),
    commands.PresenceResult: (
        "presence",
        lambda result: pb.PresenceResult(presence={each.client: _info(each) for each in result.infos}),
    ),
    commands.PresenceStatsResult: (
        "presence_stats",
        lambda result: pb.PresenceStatsResult(num_clients=result.clients, num_users=result.users),
    ),
    commands.HistoryResult: ("history", _history_result),
    commands.PingResult: ("ping", lambda result: pb.PingResult()),
    commands.RPCResult: ("rpc", lambda result: pb.RPCResult(data=result.data)),
    commands.RefreshResult: (
        "refresh",
        lambda result: pb.RefreshResult(client=result.client, version=result.version, **_expiry(result.ttl)),
    ),
    commands.SubRefreshResult: ("sub_refresh", lambda result: pb.SubRefreshResult(**_expiry(result.ttl))),
}
