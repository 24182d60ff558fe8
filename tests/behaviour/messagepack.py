"""A codec of sessions in MessagePack. It measures the seam: what a further codec has to know is in this file.

    command   [method, {"id", …}]            the members are those of `longconn.core.commands`
    reply     [id, method, result]           or  [id, "error", {"code", "message", "temporary"}]
    push      [0, kind, {…}]                 a ping is [0, "ping", {}], a pong ["pong", {}]

Data are a JSON text in a `bin`. A frame is one message; frames follow their lengths, four bytes each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from msgspec.msgpack import Decoder, Encoder

from longconn.core import commands
from longconn.core.commands import Command, MalformedCommandError, Push, RefusedCommand, Result
from longconn.core.errors import BAD_REQUEST, NOT_AVAILABLE, CommandError
from longconn.core.publication import Counts, Data, Event, Publication, Rename


class _Id(msgspec.Struct):
    id: int = 0


_COMMANDS: dict[str, type] = {
    "connect": commands.Connect, "subscribe": commands.Subscribe, "unsubscribe": commands.Unsubscribe,
    "publish": commands.Publish, "presence": commands.Presence, "presence_stats": commands.PresenceStats,
    "history": commands.ReadHistory, "refresh": commands.Refresh, "sub_refresh": commands.SubRefresh,
    "ping": commands.Ping, "send": commands.Send, "rpc": commands.RPC,
}  # fmt: skip
_RESULTS: dict[type, str] = {
    commands.ConnectResult: "connect", commands.SubscribeResult: "subscribe",
    commands.UnsubscribeResult: "unsubscribe", commands.PublishResult: "publish",
    commands.PresenceResult: "presence", commands.PresenceStatsResult: "presence_stats",
    commands.HistoryResult: "history", commands.RefreshResult: "refresh",
    commands.SubRefreshResult: "sub_refresh", commands.PingResult: "ping", commands.RPCResult: "rpc",
}  # fmt: skip
_PUSHES: dict[type, str] = {
    commands.SubscribePush: "subscribe", commands.UnsubscribePush: "unsubscribe",
    commands.RefreshPush: "refresh", commands.DisconnectPush: "disconnect",
}  # fmt: skip
#: Commands that there are elsewhere.
_UNAVAILABLE = ("map_publish", "shared_poll")


def _read_data(kind: type, value: Any) -> Any:
    if isinstance(value, bytes):
        return Data.of_json(value)
    raise TypeError("data are a JSON text in bytes")


_ENVELOPE, _ID = Decoder(tuple[str, msgspec.Raw]), Decoder(_Id)
_DECODERS: dict[str, Decoder[Any]] = {name: Decoder(kind, dec_hook=_read_data) for name, kind in _COMMANDS.items()}
_ENCODER = Encoder(enc_hook=lambda data: data.json)  # nothing else has no form in MessagePack


def message(*parts: Any) -> bytes:
    """One message."""
    return _ENCODER.encode(parts)


def frames(messages: Sequence[bytes]) -> bytes:
    """Messages after their lengths."""
    return b"".join([len(each).to_bytes(4) + each for each in messages])


class MessagePack:
    """The codec (`longconn.core.codec`): an item is the bytes of one command."""

    ping = message(0, "ping", {})
    expiry_grace = 25.0
    closes_on_mismatch = True

    def split(self, frame: bytes) -> list[bytes]:
        return [frame]

    def read(self, item: bytes) -> Command | None:
        try:
            method, body = _ENVELOPE.decode(item)
            id = _ID.decode(body).id
        except (msgspec.MsgspecError, RecursionError) as error:
            raise MalformedCommandError(str(error)) from None
        if method == "pong":
            return None
        if (method not in _COMMANDS and method not in _UNAVAILABLE) or not (method != "send") <= id < 2**32:
            raise MalformedCommandError("no command that is known, or no id from 1")
        if method in _UNAVAILABLE:
            return RefusedCommand(id, CommandError(NOT_AVAILABLE, what=method), method)
        try:
            return _checked(_DECODERS[method].decode(body))
        except msgspec.MsgspecError as error:
            return RefusedCommand(id, CommandError(BAD_REQUEST, what=str(error)), method)
        except CommandError as error:
            return RefusedCommand(id, error, method)

    def reply(self, id: int, result: Result) -> bytes:
        return message(id, _RESULTS[type(result)], result)

    def refusal(self, id: int, error: CommandError) -> bytes:
        reason = error.reason
        return message(id, "error", {"code": reason.code, "message": str(error), "temporary": reason.temporary})

    def push(self, push: Push) -> bytes:
        return message(0, _PUSHES[type(push)], push)

    def frame(self, messages: Sequence[bytes]) -> bytes:
        return frames(messages)

    def format(self, join_leave: bool) -> MessagePackFormat:
        return MessagePackFormat(join_leave)


def _checked(command: Command) -> Command:
    """Check what the types of a command do not say. Raises CommandError."""
    if isinstance(command, commands.Subscribe | commands.ReadHistory):
        limit = command.limit if isinstance(command, commands.ReadHistory) else 0
        if not -1 <= limit < 2**63 or (command.since is not None and not 0 <= command.since.offset < 2**63):
            raise CommandError(BAD_REQUEST, what="a number that is too small or too large")
    elif isinstance(command, commands.Connect):
        command.subs = command.subs or {}
    elif isinstance(command, commands.RPC | commands.Send):
        command.data = Data.of_json(command.data).json if command.data else b""
    return command


@dataclass(frozen=True)
class MessagePackFormat:
    """A channel's events: `pub`, `join` and `leave`."""

    join_leave: bool
    tells_own_join: ClassVar[bool] = True

    def encode(self, channel: str, events: Sequence[Event]) -> bytes:
        pushes = []
        for each in events:
            if isinstance(each, Publication):
                pushes.append(message(0, "pub", each))
            elif self.join_leave and not isinstance(each, Counts):
                if isinstance(each, Rename):
                    pushes.append(message(0, "leave", {"channel": channel, "info": each.before}))
                kind = "join" if isinstance(each, Rename) else type(each).__name__.lower()
                pushes.append(message(0, kind, {"channel": channel, "info": each.info}))
        return frames(pushes)
