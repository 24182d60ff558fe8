"""Centrifugo's client protocol, JSON flavour: commands in, replies and pushes out.

    command   {"id": 1, "subscribe": {"channel": "c"}}     a pong is {}
    reply     {"id": 1, "subscribe": {…}}  or  {"id": 1, "error": {"code", "message", "temporary"}}
    push      {"push": {"channel": "c", "pub": {"data": …, "offset": 8, "info": {…}}}}      a ping is {}

A frame holds objects joined by line feeds. Zero fields are left out, unknown ones ignored. The
definitions are `definitions/client.proto` in the public repository centrifugal/protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import msgspec

from longconn.core import commands
from longconn.core.commands import Command, MalformedCommandError, Push, RefusedCommand, Result
from longconn.core.disconnects import Disconnect
from longconn.core.errors import BAD_DATA, BAD_REQUEST, NOT_AVAILABLE, TOO_LARGE, CommandError
from longconn.core.json_text import JSONError, LoneSurrogateError, WrongTypeError, read
from longconn.core.json_text import write as dump
from longconn.core.publication import Counts, Data, Event, History, Info, Join, Leave, Position, Publication, Rename
from longconn.wire.sse import chunk, quoted
from longconn.wire.websocket import frame as websocket_frame

PING = b"{}"
#: A bit of a subscribe's `flag` (`subscriptionFlags` of the SDKs): an error is better than a loss.
_REFUSES_LOSS = 2
#: JSON values that are no value to the definitions' own decoders.
_ZERO = (b"", b"null", b"0", b"false", b'""')
_ABSENT = msgspec.Raw()

# The definitions' messages. A member that is null is absent.

_Text = str | None
_Flag = bool | None
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None


class _Envelope(msgspec.Struct):
    """A command: the first of these members that is there names it."""

    id: int = 0
    connect: msgspec.Raw = _ABSENT
    subscribe: msgspec.Raw = _ABSENT
    unsubscribe: msgspec.Raw = _ABSENT
    publish: msgspec.Raw = _ABSENT
    presence: msgspec.Raw = _ABSENT
    presence_stats: msgspec.Raw = _ABSENT
    history: msgspec.Raw = _ABSENT
    ping: msgspec.Raw = _ABSENT
    send: msgspec.Raw = _ABSENT
    rpc: msgspec.Raw = _ABSENT
    refresh: msgspec.Raw = _ABSENT
    sub_refresh: msgspec.Raw = _ABSENT


class _ConnectRequest(msgspec.Struct):
    token: _Text = None
    data: msgspec.Raw = _ABSENT
    subs: dict[str, msgspec.Raw] | None = None


class _SubscribeRequest(msgspec.Struct):
    channel: _Text = None
    token: _Text = None
    recover: _Flag = None
    epoch: _Text = None
    offset: _Number = None
    join_leave: _Flag = None
    flag: _Number = None
    delta: msgspec.Raw = _ABSENT
    tf: msgspec.Raw = _ABSENT
    type: msgspec.Raw = _ABSENT
    phase: msgspec.Raw = _ABSENT
    cursor: msgspec.Raw = _ABSENT


class _ChannelRequest(msgspec.Struct):
    channel: _Text = None


class _PublishRequest(msgspec.Struct):
    channel: _Text = None
    data: msgspec.Raw = _ABSENT
    type: msgspec.Raw = _ABSENT
    key: msgspec.Raw = _ABSENT
    removed: msgspec.Raw = _ABSENT


class _StreamPosition(msgspec.Struct):
    offset: _Number = None
    epoch: _Text = None


class _HistoryRequest(msgspec.Struct):
    channel: _Text = None
    limit: Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)] | None = None
    since: _StreamPosition | None = None
    reverse: _Flag = None


class _TokenRequest(msgspec.Struct):
    channel: _Text = None
    token: _Text = None
    type: msgspec.Raw = _ABSENT


class _DataRequest(msgspec.Struct):
    method: _Text = None
    data: msgspec.Raw = _ABSENT


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_CONNECT = msgspec.json.Decoder(_ConnectRequest)
_SUBSCRIBE = msgspec.json.Decoder(_SubscribeRequest)
_CHANNEL = msgspec.json.Decoder(_ChannelRequest)
_PUBLISH = msgspec.json.Decoder(_PublishRequest)
_HISTORY = msgspec.json.Decoder(_HistoryRequest)
_TOKEN = msgspec.json.Decoder(_TokenRequest)
_DATA = msgspec.json.Decoder(_DataRequest)


def read_command(line: bytes, max_message: int) -> Command | None:
    """One line of a frame; None for a pong. Raises MalformedCommandError.

    A command that can be named but not executed is a RefusedCommand: a member of a wrong type (BAD_REQUEST), more than
    `max_message` bytes (TOO_LARGE).
    """
    lone_surrogate = False
    try:
        envelope = read(_ENVELOPE, line)
    except LoneSurrogateError as error:
        # The command is answered with an error of its own: no channel and no data can have such a string.
        lone_surrogate = True
        envelope = read(_ENVELOPE, error.repaired)
    except WrongTypeError as error:
        raise MalformedCommandError("an id is a number from 1" if "id" in str(error) else "not an object") from None
    except JSONError as error:
        raise MalformedCommandError(str(error)) from None
    id = envelope.id
    if not 0 <= id < 2**32:
        raise MalformedCommandError("an id is a number from 1")
    for method in _READERS:
        body = bytes(getattr(envelope, method))
        if body and body != b"null":
            break
    else:
        if id:
            raise MalformedCommandError("a command without a known body")
        return None
    if not body.startswith(b"{"):
        raise MalformedCommandError(f"the body of {method} is no object")
    if not id and method != "send":
        raise MalformedCommandError("a command without an id")
    try:
        if len(line) > max_message:
            raise CommandError(TOO_LARGE, limit=max_message)
        if lone_surrogate and method in _WITH_DATA:
            raise CommandError(BAD_DATA, what="text with a lone surrogate")
        return _READERS[method](id, body)
    except WrongTypeError as error:
        return RefusedCommand(id, CommandError(BAD_REQUEST, what=str(error)), method)
    except CommandError as error:
        return RefusedCommand(id, error, method)


def _read_connect(id: int, body: bytes) -> Command:
    request = read(_CONNECT, body)
    subs = {}
    for channel, raw in (request.subs or {}).items():
        written = bytes(raw)
        subs[channel] = _subscribe(0, channel, read(_SUBSCRIBE, b"{}" if written == b"null" else written))
    return commands.Connect(id, request.token or "", _chat_name(bytes(request.data)), subs)


def _chat_name(data: bytes) -> str | None:
    """The name in a connect's `data`, `{"chat": {"name"}}`; the rest of `data` is the application's."""
    value = msgspec.json.decode(data) if b'"chat"' in data else None
    chat = value.get("chat") if isinstance(value, dict) else None
    name = chat.get("name") if isinstance(chat, dict) else None
    if name is not None and not isinstance(name, str):
        raise CommandError(BAD_REQUEST, what="name is no string")
    return name


def _read_subscribe(id: int, body: bytes) -> Command:
    request = read(_SUBSCRIBE, body)
    return _subscribe(id, request.channel or "", request)


def _subscribe(id: int, channel: str, request: _SubscribeRequest) -> commands.Subscribe:
    since = Position(request.epoch or "", request.offset or 0) if request.recover else None
    unsupported = [name for name in ("delta", "tf", "type", "phase", "cursor") if _is_set(getattr(request, name))]
    return commands.Subscribe(
        id,
        channel,
        request.token or "",
        since,
        bool(request.join_leave),
        bool((request.flag or 0) & _REFUSES_LOSS),
        unsupported[0] if unsupported else "",
    )


def _is_set(raw: msgspec.Raw) -> bool:
    return bytes(raw) not in _ZERO


def _read_publish(id: int, body: bytes) -> Command:
    request = read(_PUBLISH, body)
    data = bytes(request.data)
    if not data:
        raise CommandError(BAD_REQUEST, what="publish without data")
    if _is_set(request.type) or _is_set(request.key) or _is_set(request.removed):
        raise CommandError(NOT_AVAILABLE, what="map publish")
    return commands.Publish(id, request.channel or "", Data.of_json(data))


def _read_history(id: int, body: bytes) -> Command:
    request = read(_HISTORY, body)
    since = request.since
    position = None if since is None else Position(since.epoch or "", since.offset or 0)
    return commands.ReadHistory(id, request.channel or "", position, request.limit or 0, bool(request.reverse))


def _read_sub_refresh(id: int, body: bytes) -> Command:
    request = read(_TOKEN, body)
    if _is_set(request.type):
        raise CommandError(NOT_AVAILABLE, what="shared poll")
    return commands.SubRefresh(id, request.channel or "", request.token or "")


def _read_rpc(id: int, body: bytes) -> Command:
    request = read(_DATA, body)
    return commands.RPC(id, request.method or "", bytes(request.data))


#: In the order in which a server takes the first that is there.
_READERS: dict[str, Callable[[int, bytes], Command]] = {
    "connect": _read_connect,
    "subscribe": _read_subscribe,
    "unsubscribe": lambda id, body: commands.Unsubscribe(id, read(_CHANNEL, body).channel or ""),
    "publish": _read_publish,
    "presence": lambda id, body: commands.Presence(id, read(_CHANNEL, body).channel or ""),
    "presence_stats": lambda id, body: commands.PresenceStats(id, read(_CHANNEL, body).channel or ""),
    "history": _read_history,
    "ping": lambda id, body: commands.Ping(id),
    "send": lambda id, body: commands.Send(bytes(read(_DATA, body).data)),
    "rpc": _read_rpc,
    "refresh": lambda id, body: commands.Refresh(id, read(_TOKEN, body).token or ""),
    "sub_refresh": _read_sub_refresh,
}
#: Commands whose data reach others.
_WITH_DATA = ("publish", "send", "rpc")


def starts_connect(line: bytes) -> bool:
    """Whether the first line of a TCP connection asks for this protocol: an object with `connect`."""
    if not line.lstrip().startswith(b"{") or b'"connect"' not in line:
        return False
    try:
        envelope = read(_ENVELOPE, line.strip())
    except JSONError:
        return False
    return envelope.id > 0 and bytes(envelope.connect).startswith(b"{")


class CentrifugoJSON:
    """The codec of a session (`longconn.core.session.Codec`): an item is a line, a message an object.

    `frame` joins objects as the carrier wants them: `text_frame`, `lines`, `stream_lines`, `events`, `stream_events`.
    """

    ping = PING
    expiry_grace = 25.0
    closes_on_mismatch = True

    def __init__(self, frame: Frame, max_message: int) -> None:
        self._frame = frame
        self._max_message = max_message

    def read(self, line: bytes) -> Command | None:
        """A command, or None for a pong or an empty line. Raises MalformedCommandError."""
        return read_command(line, self._max_message) if line else None

    def reply(self, id: int, result: Result) -> bytes:
        """The reply to a command."""
        kind = type(result)
        if kind is commands.PublishResult:
            return b'{"id":%d,"publish":{}}' % id
        method, write = _RESULTS[kind]
        return b'{"id":%d,"%b":%b}' % (id, method, write(result))

    def refusal(self, id: int, error: CommandError) -> bytes:
        """The reply to a refused command."""
        return error_reply(id, error)

    def push(self, push: Push) -> bytes:
        """A push about the session."""
        if isinstance(push, commands.SubscribePush):
            return channel_push(quoted(push.result.channel), "subscribe", subscribe_result(push.result))
        if isinstance(push, commands.UnsubscribePush):
            return channel_push(quoted(push.channel), "unsubscribe", fields(code=push.code, reason=push.reason))
        if isinstance(push, commands.RefreshPush):
            return b'{"push":{"refresh":%b}}' % fields(**_expiry(push.ttl))
        return disconnect_push(push.disconnect)

    def frame(self, messages: Sequence[bytes]) -> bytes:
        """Objects as the carrier wants them."""
        return self._frame(messages)

    def format(self, join_leave: bool) -> CentrifugoFormat:
        """The wire format of a channel's events."""
        return CentrifugoFormat(self._frame, join_leave)


# Replies.


def error_reply(id: int, error: CommandError) -> bytes:
    """A refused command."""
    value: dict[str, Any] = {"code": error.reason.code, "message": str(error)}
    if error.reason.temporary:
        value["temporary"] = True
    return b'{"id":%d,"error":%b}' % (id, dump(value))


def fields(**values: Any) -> bytes:
    """An object of those fields that are not zero. Bytes are JSON already."""
    members = []
    for name, value in values.items():
        if value:
            members.append(b'"%b":%b' % (name.encode(), value if isinstance(value, bytes) else dump(value)))
    return b"{" + b",".join(members) + b"}"


def info_json(info: Info) -> bytes:
    """ClientInfo. Of somebody of the chat, whom no token describes, it tells the name."""
    conn_info = info.conn_info or (fields(name=info.name) if info.chat and info.name else b"")
    return fields(user=info.user, client=info.client, conn_info=conn_info, chan_info=info.chan_info)


def publication_json(publication: Publication) -> bytes:
    """Publication. Its `time` is in milliseconds since 1970 here."""
    info = info_json(publication.info)
    return b'{"data":%b%b%b,"time":%d}' % (
        publication.data.json,
        b',"info":%b' % info if info != b"{}" else b"",  # the server's own have none
        b',"offset":%d' % publication.offset if publication.offset else b"",
        round(publication.time * 1000),
    )


def publications_json(publications: Iterable[Publication]) -> bytes:
    return b"[" + b",".join([publication_json(each) for each in publications]) + b"]"


def _expiry(ttl: int | None) -> dict[str, Any]:
    return {} if ttl is None else {"expires": True, "ttl": ttl}


def subscribe_result(result: commands.SubscribeResult) -> bytes:
    """SubscribeResult. What was missed comes with it, in order, but never a part of it: that could pass for all."""
    recovering = result.since is not None
    history, positioned = result.history, result.positioned
    recovered = recovering and history.recovered
    return fields(
        recoverable=result.recoverable,
        positioned=positioned,
        epoch=history.position.epoch if positioned else "",
        offset=history.position.offset if positioned else 0,
        publications=publications_json(history.publications) if recovered and history.publications else b"",
        was_recovering=recovering,
        recovered=recovered,
        **_expiry(result.ttl),
        data=result.data,
    )


def _connect_result(result: commands.ConnectResult) -> bytes:
    members = [quoted(each.channel) + b":" + subscribe_result(each) for each in result.subs]
    return fields(
        client=result.client,
        version=result.version,
        subs=b"{" + b",".join(members) + b"}" if members else b"",
        ping=result.ping,
        pong=result.pong,
        session=result.session,
        node=result.node,
        **_expiry(result.ttl),
    )


def history_result(history: History) -> bytes:
    """HistoryResult. Zeros of lists and counts are written too, because SDKs hand them on as they come."""
    return b'{"publications":%b,"epoch":%b,"offset":%d}' % (
        publications_json(history.publications),
        dump(history.position.epoch),
        history.position.offset,
    )


def presence_result(infos: Iterable[Info]) -> bytes:
    """PresenceResult."""
    members = [quoted(each.client) + b":" + info_json(each) for each in infos]
    return b'{"presence":{' + b",".join(members) + b"}}"


_RESULTS: dict[type, tuple[bytes, Callable[[Any], bytes]]] = {
    commands.ConnectResult: (b"connect", _connect_result),
    commands.SubscribeResult: (b"subscribe", subscribe_result),
    commands.UnsubscribeResult: (b"unsubscribe", lambda result: b"{}"),
    commands.PresenceResult: (b"presence", lambda result: presence_result(result.infos)),
    commands.PresenceStatsResult: (
        b"presence_stats",
        lambda result: b'{"num_clients":%d,"num_users":%d}' % (result.clients, result.users),
    ),
    commands.HistoryResult: (b"history", lambda result: history_result(result.history)),
    commands.RefreshResult: (
        b"refresh",
        lambda result: fields(client=result.client, version=result.version, **_expiry(result.ttl)),
    ),
    commands.SubRefreshResult: (b"sub_refresh", lambda result: fields(**_expiry(result.ttl))),
    commands.PingResult: (b"ping", lambda result: b"{}"),
    commands.RPCResult: (b"rpc", lambda result: fields(data=result.data)),
}


# Pushes.


def channel_push(channel: bytes, kind: str, value: bytes) -> bytes:
    """A push about a channel, whose name is a JSON string already."""
    return b'{"push":{"channel":%b,"%b":%b}}' % (channel, kind.encode(), value)


def disconnect_push(disconnect: Disconnect) -> bytes:
    value = fields(code=disconnect.code, reason=disconnect.text, reconnect=disconnect.reconnect)
    return b'{"push":{"disconnect":%b}}' % value


Frame = Callable[[Sequence[bytes]], bytes]


def text_frame(objects: Sequence[bytes]) -> bytes:
    """One WebSocket text frame."""
    return websocket_frame(b"\n".join(objects))


def lines(objects: Sequence[bytes]) -> bytes:
    """Lines of TCP."""
    return b"\n".join(objects) + b"\n"


def stream_lines(objects: Sequence[bytes]) -> bytes:
    """Lines in a chunk of an HTTP/1.1 response."""
    return chunk(lines(objects))


def events(objects: Sequence[bytes]) -> bytes:
    """One server-sent event."""
    return b"".join([b"data: %b\n" % each for each in objects]) + b"\n"


def stream_events(objects: Sequence[bytes]) -> bytes:
    """A server-sent event in a chunk of an HTTP/1.1 response."""
    return chunk(events(objects))


@dataclass(frozen=True)
class CentrifugoFormat:
    """A channel's events as pushes, in one frame a batch. Comings and goings only where they were asked for."""

    frame: Frame
    join_leave: bool
    tells_own_join: ClassVar[bool] = True

    def encode(self, channel: str, events: Sequence[Event]) -> bytes:
        name = quoted(channel)
        pushes: list[bytes] = []
        for each in events:
            if isinstance(each, Publication):
                pushes.append(channel_push(name, "pub", publication_json(each)))
            elif self.join_leave:
                pushes.extend(_presence_pushes(name, each))
        return self.frame(pushes) if pushes else b""


def _presence_pushes(channel: bytes, event: Event) -> list[bytes]:
    if isinstance(event, Join | Leave):
        kind = "join" if isinstance(event, Join) else "leave"
        return [channel_push(channel, kind, fields(info=info_json(event.info)))]
    if isinstance(event, Rename):
        old = replace(event.info, name=event.old)
        return [
            channel_push(channel, "leave", fields(info=info_json(old))),
            channel_push(channel, "join", fields(info=info_json(event.info))),
        ]
    if isinstance(event, Counts):
        return []  # the protocol has no form for it: presence_stats tells
    return []
