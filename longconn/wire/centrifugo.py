"""Centrifugo's client protocol, JSON flavour: commands in, replies and pushes out.

    command   {"id": 1, "subscribe": {"channel": "c"}}     a pong is {}
    reply     {"id": 1, "subscribe": {…}}  or  {"id": 1, "error": {"code", "message", "temporary"}}
    push      {"push": {"channel": "c", "pub": {"data": …, "offset": 8, "info": {…}}}}      a ping is {}

A frame holds objects joined by line feeds. Zero fields are left out, unknown ones ignored. The
definitions are `definitions/client.proto` in the public repository centrifugal/protocol.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from longconn.core.disconnects import Disconnect
from longconn.core.errors import BAD_DATA, BAD_REQUEST, CommandError
from longconn.core.publication import Counts, Event, History, Info, Join, Leave, Publication, Rename
from longconn.wire import json_spans as slices
from longconn.wire.sse import chunk, quoted
from longconn.wire.websocket import frame as websocket_frame

#: Names of commands, in the order in which a server takes the first that is there.
METHODS = (
    "connect", "subscribe", "unsubscribe", "publish", "presence", "presence_stats",
    "history", "ping", "send", "rpc", "refresh", "sub_refresh",
)  # fmt: skip

PING = b"{}"


class MalformedError(ValueError):
    """A frame is no command; the connection is closed for it."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its id (0 for `send` and pongs), its name ("" for a pong), its body, what was written, its bytes."""

    id: int
    method: str
    body: dict[str, Any]
    line: str
    size: int

    def raw(self, member: str) -> str | None:
        """A member of the body as it was written, to be published unchanged; None if it is absent.

        Raises CommandError(BAD_DATA) if it nests as deeply as the parser goes.
        """
        try:
            outer = slices.member(self.line, 0, self.method)
            return None if outer is None else slices.part(self.line, slices.member(self.line, outer[0], member))
        except RecursionError:
            raise CommandError(BAD_DATA, what="JSON") from None


def read_command(line: bytes) -> Command:
    """One line of a frame. Raises MalformedError."""
    try:
        written = line.decode()
        value = slices.loads(written)
    except (ValueError, RecursionError):
        raise MalformedError("not JSON") from None
    if not isinstance(value, dict):
        raise MalformedError("not an object")
    id = value.get("id", 0)
    if type(id) is not int or not 0 <= id < 2**32:
        raise MalformedError("an id is a number from 1")
    for method in METHODS:
        body = value.get(method)
        if body is not None:
            if not isinstance(body, dict):
                raise MalformedError(f"the body of {method} is no object")
            if not id and method != "send":
                raise MalformedError("a command without an id")
            return Command(id, method, body, written, len(line))
    if id:
        raise MalformedError("a command without a known body")
    return Command(0, "", {}, written, len(line))


def starts_connect(line: bytes) -> bool:
    """Whether a first line of a TCP connection asks for this protocol: an object with `connect`."""
    if not line.lstrip().startswith(b"{") or b'"connect"' not in line:
        return False
    try:
        return read_command(line.strip()).method == "connect"
    except MalformedError:
        return False


# Members of a body. One that is null is absent, as in the definitions' own decoders; each of these raises
# CommandError(BAD_REQUEST) for a value of another kind.


def text(body: dict[str, Any], name: str) -> str:
    """A string; empty without one."""
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CommandError(BAD_REQUEST, what=f"{name} is no string")
    return value


def number(body: dict[str, Any], name: str, low: int = 0) -> int:
    """A whole number; 0 without one."""
    value = body.get(name)
    if value is None:
        return 0
    if type(value) is not int or not low <= value < 2**63:
        raise CommandError(BAD_REQUEST, what=f"{name} is no number from {low}")
    return value


def flag(body: dict[str, Any], name: str) -> bool:
    """A boolean; false without one."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise CommandError(BAD_REQUEST, what=f"{name} is neither true nor false")
    return value is True


def inner(body: dict[str, Any], name: str) -> dict[str, Any] | None:
    """An object; None without one."""
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise CommandError(BAD_REQUEST, what=f"{name} is no object")
    return value


# Replies.


def reply(id: int, method: str, result: bytes = b"{}") -> bytes:
    """A reply with its result, an object as JSON."""
    return b'{"id":%d,"%b":%b}' % (id, method.encode(), result)


def error_reply(id: int, error: CommandError) -> bytes:
    """A refused command."""
    value: dict[str, Any] = {"code": error.reason.code, "message": str(error)}
    if error.reason.temporary:
        value["temporary"] = True
    return b'{"id":%d,"error":%b}' % (id, dump(value))


def dump(value: object) -> bytes:
    """A value as JSON; half a character, which has no form in UTF-8, as `?`."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


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


def subscribe_result(
    history: History,
    *,
    recovering: bool,
    recoverable: bool,
    positioned: bool,
    data: bytes = b"",
    expires: bool = False,
    ttl: int = 0,
) -> bytes:
    """SubscribeResult: what was missed comes with it, in order."""
    return fields(
        recoverable=recoverable,
        positioned=positioned,
        epoch=history.position.epoch if positioned else "",
        offset=history.position.offset if positioned else 0,
        publications=publications_json(history.publications) if recovering and history.publications else b"",
        was_recovering=recovering,
        recovered=recovering and history.recovered,
        expires=expires,
        ttl=ttl,
        data=data,
    )


def history_result(history: History) -> bytes:
    """HistoryResult. Where something is counted or listed, zero is told, too: SDKs hand it on as it came."""
    return b'{"publications":%b,"epoch":%b,"offset":%d}' % (
        publications_json(history.publications),
        dump(history.position.epoch),
        history.position.offset,
    )


def presence_result(infos: Iterable[Info]) -> bytes:
    members = [quoted(each.client) + b":" + info_json(each) for each in infos]
    return b'{"presence":{' + b",".join(members) + b"}}"


# Pushes.


def push(channel: bytes, kind: str, value: bytes) -> bytes:
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
                pushes.append(push(name, "pub", publication_json(each)))
            elif self.join_leave:
                pushes.extend(_presence_pushes(name, each))
        return self.frame(pushes) if pushes else b""


def _presence_pushes(channel: bytes, event: Event) -> list[bytes]:
    if isinstance(event, Join | Leave):
        kind = "join" if isinstance(event, Join) else "leave"
        return [push(channel, kind, fields(info=info_json(event.info)))]
    if isinstance(event, Rename):
        old = replace(event.info, name=event.old)
        return [
            push(channel, "leave", fields(info=info_json(old))),
            push(channel, "join", fields(info=info_json(event.info))),
        ]
    if isinstance(event, Counts):
        return []  # the protocol has no form for it: presence_stats tells
    return []
