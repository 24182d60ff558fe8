"""Centrifugo's client protocol, JSON flavour: commands in, replies and pushes out.

    command   {"id": 1, "subscribe": {"channel": "c"}}     a pong is {}
    reply     {"id": 1, "subscribe": {…}}  or  {"id": 1, "error": {"code", "message", "temporary"}}
    push      {"push": {"channel": "c", "pub": {"data": …, "offset": 8, "info": {…}}}}      a ping is {}

A frame holds objects joined by line feeds. Zero fields are left out, unknown ones ignored. The
definitions are `definitions/client.proto` in the public repository centrifugal/protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from longconn.core import commands
from longconn.core.commands import Command, Push, Result
from longconn.core.disconnects import Disconnect
from longconn.core.errors import CommandError
from longconn.core.json_text import write as dump
from longconn.core.publication import Counts, Event, History, Info, Join, Leave, Publication, Rename
from longconn.wire.centrifugo_commands import read_command
from longconn.wire.sse import chunk, quoted
from longconn.wire.websocket import frame as websocket_frame

PING = b"{}"
#: Subprotocols of WebSocket (RFC 6455, section 1.9).
JSON_SUBPROTOCOL, PROTOBUF_SUBPROTOCOL = "centrifuge-json", "centrifuge-protobuf"


class CentrifugoJSON:
    """The codec of a session (`longconn.core.codec.Codec`): an item is a line, a message an object.

    `frame` joins objects as the carrier wants them: `text_frame`, `lines`, `stream_lines`, `events`, `stream_events`.
    """

    ping = PING
    expiry_grace = 25.0
    closes_on_mismatch = True

    def __init__(self, frame: Frame, max_message: int) -> None:
        self._frame = frame
        self._max_message = max_message

    def split(self, frame: bytes) -> list[bytes]:
        """The lines of a frame."""
        return frame.split(b"\n")

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
    """ClientInfo."""
    # A presence may have 20,000 of them, for which `fields` is slow.
    conn_info = conn_info_of(info)
    written = b'"user":%b,' % dump(info.user) if info.user else b""
    if info.client:
        written += b'"client":%b,' % dump(info.client)
    if conn_info:
        written += b'"conn_info":%b,' % conn_info
    if info.chan_info:
        written += b'"chan_info":%b,' % info.chan_info
    return b"{%b}" % written[:-1]


def client_json(info: Info) -> bytes:
    """ClientInfo of a client. A member of our own says that people are not told when it comes and goes."""
    written = info_json(info)
    return written if info.chat or written == b"{}" else written[:-1] + b',"chat":false}'


def conn_info_of(info: Info) -> bytes:
    """What others read about a client, as JSON: what its token says, with its name; or the name alone."""
    return info.conn_info or (b'{"name":%b}' % dump(info.name) if info.name else b"")


def publication_json(publication: Publication) -> bytes:
    """Publication. Its `time` is in milliseconds since 1970 here."""
    return _publication(publication, _info_member(publication.info))


def _info_member(info: Info) -> bytes:
    """The member that names the publisher; the server's own publications have none."""
    written = info_json(info)
    return b',"info":%b' % written if written != b"{}" else b""


def _publication(publication: Publication, info: bytes) -> bytes:
    return b'{"data":%b%b%b,"time":%d}' % (
        publication.data.json,
        info,
        b',"offset":%d' % publication.offset if publication.offset else b"",
        round(publication.time * 1000),
    )


def publications_json(publications: Iterable[Publication]) -> bytes:
    return b"[" + b",".join([publication_json(each) for each in publications]) + b"]"


def _expiry(ttl: int | None) -> dict[str, Any]:
    return {} if ttl is None else {"expires": True, "ttl": ttl}


def subscribe_result(result: commands.SubscribeResult) -> bytes:
    """SubscribeResult. It has all missed publications in order, or none: a client would take a part for all."""
    recovering = result.since is not None
    history, positioned = result.history, result.positioned
    recovered = recovering and history.recovered
    return fields(
        recoverable=result.recoverable,
        positioned=positioned,
        epoch=result.position.epoch if positioned else "",
        offset=result.position.offset if positioned else 0,
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
        data=result.data,
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
    members = [b"%b:%b" % (dump(each.client), client_json(each)) for each in infos]
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
    """A channel's events as pushes, in one frame a batch. Joins and leaves only where they were asked for."""

    frame: Frame
    join_leave: bool
    tells_own_join: ClassVar[bool] = True

    def encode(self, channel: str, events: Sequence[Event]) -> bytes:
        name = quoted(channel)
        pushes: list[bytes] = []
        info: Info | None = None
        written = b""
        for each in events:
            if isinstance(each, Publication):
                if each.info is not info:  # those of one publisher most often follow each other
                    info = each.info
                    written = _info_member(info)
                pushes.append(channel_push(name, "pub", _publication(each, written)))
            elif self.join_leave:
                pushes.extend(_presence_pushes(name, each))
        return self.frame(pushes) if pushes else b""


def _presence_pushes(channel: bytes, event: Event) -> list[bytes]:
    if isinstance(event, Join | Leave):
        kind = "join" if isinstance(event, Join) else "leave"
        return [channel_push(channel, kind, fields(info=client_json(event.info)))]
    if isinstance(event, Rename):
        return [
            channel_push(channel, "leave", fields(info=client_json(event.before))),
            channel_push(channel, "join", fields(info=client_json(event.info))),
        ]
    if isinstance(event, Counts):
        return []  # the protocol has no form for it: presence_stats tells
    return []
