"""The commands of Centrifugo's client protocol, as JSON: one line of a frame is one command.

The messages are those of `definitions/client.proto` in the public repository centrifugal/protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import msgspec

from longconn.core import commands
from longconn.core.commands import Command, MalformedCommandError, RefusedCommand
from longconn.core.errors import BAD_DATA, BAD_REQUEST, NOT_AVAILABLE, TOO_LARGE, CommandError
from longconn.core.json_text import JSONError, LoneSurrogateError, WrongTypeError, read
from longconn.core.publication import Data, Position

#: A bit of a subscribe's `flag` (`subscriptionFlags` of the SDKs): an error is better than a loss.
REFUSES_LOSS = 2
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


class _ConnectMembers(msgspec.Struct):
    chat: msgspec.Raw = _ABSENT
    login: msgspec.Raw = _ABSENT


class _ChatMember(msgspec.Struct):
    name: _Text = None
    resume: _Text = None
    label: _Text = None


class _LoginMembers(msgspec.Struct):
    user: _Text = None
    password: _Text = None


class _SubscribeRequest(msgspec.Struct):
    channel: _Text = None
    token: _Text = None
    recover: _Flag = None
    epoch: _Text = None
    offset: _Number = None
    join_leave: _Flag = None
    flag: _Number = None
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


class _SimplePublish(msgspec.Struct, forbid_unknown_fields=True):
    channel: str
    data: msgspec.Raw


class _PublishCommand(msgspec.Struct, forbid_unknown_fields=True):
    """A publish as SDKs write it, which is most of what comes: it is read in one step."""

    id: Annotated[int, msgspec.Meta(ge=1, lt=2**32)]
    publish: _SimplePublish


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
_CONNECT_DATA = msgspec.json.Decoder(_ConnectMembers)
_CHAT = msgspec.json.Decoder(_ChatMember)
_LOGIN = msgspec.json.Decoder(_LoginMembers)
_SUBSCRIBE = msgspec.json.Decoder(_SubscribeRequest)
_CHANNEL = msgspec.json.Decoder(_ChannelRequest)
_PUBLISH = msgspec.json.Decoder(_PublishRequest)
_PUBLISH_COMMAND = msgspec.json.Decoder(_PublishCommand)
_HISTORY = msgspec.json.Decoder(_HistoryRequest)
_TOKEN = msgspec.json.Decoder(_TokenRequest)
_DATA = msgspec.json.Decoder(_DataRequest)


def read_command(line: bytes, max_message: int) -> Command | None:
    """One line of a frame; None for a pong. Raises MalformedCommandError.

    A command that can be named but not executed is a RefusedCommand: a member of a wrong type (BAD_REQUEST), more than
    `max_message` bytes (TOO_LARGE).
    """
    if line.isascii() and b'"publish"' in line and len(line) <= max_message:
        try:
            simple = _PUBLISH_COMMAND.decode(line)
            return commands.Publish(simple.id, simple.publish.channel, Data.of_json(bytes(simple.publish.data)))
        except (msgspec.MsgspecError, RecursionError, CommandError):
            pass  # what is wrong, or unusual, is found below
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
    for method in READERS:
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
        return READERS[method](id, body)
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
    return connect_command(id, request.token or "", bytes(request.data), subs)


def connect_command(id: int, token: str, data: bytes, subs: Mapping[str, commands.Subscribe]) -> commands.Connect:
    """A connect with `data`. A login in it is for this server, and no hook sees the password."""
    login = _login(data)
    chat = _chat(data)
    return commands.Connect(
        id, token, chat.name, subs,
        data=b"" if login else data, login=login, resume=chat.resume or "", label=chat.label,
    )  # fmt: skip


def _login(data: bytes) -> tuple[str, str] | None:
    """The name and the password in a connect's `data`, `{"login": {"user", "password"}}`."""
    if b'"login"' not in data or not data.startswith(b"{"):
        return None
    try:
        login = bytes(read(_CONNECT_DATA, data).login)
        found = read(_LOGIN, login) if login.startswith(b"{") else None
    except WrongTypeError as error:
        raise CommandError(BAD_REQUEST, what=str(error)) from None
    except JSONError:
        return None
    return (found.user, found.password) if found is not None and found.user and found.password is not None else None


def _chat(data: bytes) -> _ChatMember:
    """What a connect's `data`, `{"chat": {"name", "resume", "label"}}`, asks for; the rest is the application's."""
    if b'"chat"' not in data or not data.startswith(b"{"):
        return _ChatMember()
    try:
        chat = bytes(read(_CONNECT_DATA, data).chat)
        return read(_CHAT, chat) if chat.startswith(b"{") else _ChatMember()
    except WrongTypeError as error:
        raise CommandError(BAD_REQUEST, what=str(error)) from None
    except JSONError:
        return _ChatMember()


def _read_subscribe(id: int, body: bytes) -> Command:
    request = read(_SUBSCRIBE, body)
    return _subscribe(id, request.channel or "", request)


def _subscribe(id: int, channel: str, request: _SubscribeRequest) -> commands.Subscribe:
    """`delta` is not read: it is an offer, and Centrifuge ignores it for a channel without delta."""
    since = Position(request.epoch or "", request.offset or 0) if request.recover else None
    unsupported = [name for name in ("tf", "type", "phase", "cursor") if _is_set(getattr(request, name))]
    return commands.Subscribe(
        id,
        channel,
        request.token or "",
        since,
        bool(request.join_leave),
        bool((request.flag or 0) & REFUSES_LOSS),
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


#: The commands by the name of their member, in the order in which a server takes the first that is there.
READERS: dict[str, Callable[[int, bytes], Command]] = {
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
