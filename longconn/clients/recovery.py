"""The recovery position of a subscription, and how subscribes, publications and histories are read."""

from __future__ import annotations

import msgspec

from longconn.clients.centrifugo import member
from longconn.clients.errors import ConnectionFailed, NotLongconn
from longconn.clients.events import (
    Event,
    HistoryPage,
    Joined,
    JSONObject,
    JSONText,
    JSONValue,
    Left,
    Lost,
    Member,
    Position,
    Publication,
)

NO_POSITION = Position("", 0)
_ABSENT = msgspec.Raw(b"null")


class _ConnInfo(msgspec.Struct):
    """The member of a `conn_info` that clients read; the rest of it is the application's."""

    name: msgspec.Raw = _ABSENT


_CONN_INFO = msgspec.json.Decoder(_ConnInfo)
_NAME = msgspec.json.Decoder(str)


class GapError(ConnectionFailed):
    """A publication is missing. A new connection recovers it from the last position."""


class RecoveryPosition:
    """Where one subscription goes on after a lost connection. `position` is that after the last event that came."""

    def __init__(self, channel: str, since: Position | None, recover: bool, join_leave: bool) -> None:
        self.channel = channel
        self.position = since or NO_POSITION
        self._recover = recover
        self._join_leave = join_leave
        # The position that the next subscribe asks to recover from; None to recover nothing.
        self._since = since
        self._was_subscribed = False
        # Whether the channel counts its publications.
        self._counted = False

    def request(self, token: str) -> JSONObject:
        """A SubscribeRequest."""
        body: JSONObject = {"channel": self.channel}
        if token:
            body["token"] = token
        if self._join_leave:
            body["join_leave"] = True
        if self._since is not None:
            body |= {"recover": True, "epoch": self._since.epoch, "offset": self._since.offset}
        return body

    def forget(self) -> None:
        """The server refused the position. The next request has none, and its answer gives a `Lost`."""
        self._since = None

    def on_subscribed(self, result: JSONObject) -> list[Event]:
        """The events of a SubscribeResult. Raises NotLongconn."""
        old, asked = self.position, self._since is not None
        self._counted = member(result, "recoverable", bool, False) or member(result, "positioned", bool, False)
        now = read_position(result) if self._counted else NO_POSITION
        events: list[Event]
        if asked and member(result, "recovered", bool, False):
            events = list(read_publications(self.channel, now.epoch, result))
        elif self._recover and (self._was_subscribed or old != NO_POSITION or asked):
            events = [Lost(self.channel, old, now)]
        else:
            events = []
        # The answer names the position before its publications.
        last = events[-1] if events else None
        self.position = Position(now.epoch, last.offset) if isinstance(last, Publication) else now
        self._was_subscribed = True
        self._since = self.position if self._recover and self._counted else None
        return events

    def on_push(self, kind: str, value: JSONObject) -> list[Event]:
        """The events of a push. Raises NotLongconn, and GapError if a publication before this one is missing."""
        if kind != "pub":
            who = read_member(member(value, "info", dict, {}))
            return [Joined(self.channel, who) if kind == "join" else Left(self.channel, who)]
        publication = read_publication(self.channel, self.position.epoch, value)
        if self._counted and publication.offset:
            if publication.offset <= self.position.offset:
                return []  # the answer to the subscribe had it already
            if publication.offset > self.position.offset + 1:
                raise GapError(f"publications of {self.channel} are missing")
            self.position = Position(self.position.epoch, publication.offset)
            if self._recover:
                self._since = self.position
        return [publication]


def read_position(value: JSONObject) -> Position:
    return Position(member(value, "epoch", str, ""), member(value, "offset", int, 0))


def read_publications(channel: str, epoch: str, result: JSONObject) -> list[Publication]:
    found = member(result, "publications", list, [])
    return [read_publication(channel, epoch, each) for each in found]


def read_publication(channel: str, epoch: str, value: object) -> Publication:
    """A Publication. Its `time` is in milliseconds on the wire, and optional."""
    if not isinstance(value, dict):
        raise NotLongconn("this is no longconn server: a publication in its answer is no object")
    who = read_member(member(value, "info", dict, {}))
    time = member(value, "time", int, 0)
    offset = member(value, "offset", int, 0)
    text = read_text(value.get("data", _ABSENT))
    return Publication(
        channel, offset, epoch, read_value(text), who.name, who.client, time / 1000 if time else None, text
    )


def read_text(raw: msgspec.Raw) -> JSONText:
    return JSONText(bytes(raw).decode())


def read_value(text: JSONText) -> JSONValue:
    """The value of a text that is JSON. Raises NotLongconn if it nests deeper than any server of ours accepts."""
    try:
        return text.value()
    except RecursionError as error:
        raise NotLongconn("a value in the server's answer is nested too deep") from error


def read_member(info: JSONObject) -> Member:
    """A ClientInfo. The name is that of its `conn_info`, else its user, else its client's id."""
    client, user = member(info, "client", str, ""), member(info, "user", str, "")
    name = _given_name(info.get("conn_info", _ABSENT)) or user
    return Member(client, user, name or client, bool(name) and member(info, "chat", bool, True))


def _given_name(conn_info: msgspec.Raw) -> str:
    """The name in a `conn_info`; "" if there is none."""
    try:
        return _NAME.decode(_CONN_INFO.decode(conn_info).name)
    except msgspec.DecodeError:
        return ""


def read_members(result: JSONObject) -> list[Member]:
    """The members of a PresenceResult, sorted by name."""
    found = member(result, "presence", dict, {})
    members = [read_member(each) for each in found.values() if isinstance(each, dict)]
    return sorted(members, key=lambda each: (each.name, each.client))


def read_history(channel: str, result: JSONObject) -> HistoryPage:
    """A HistoryResult."""
    position = read_position(result)
    return HistoryPage(read_publications(channel, position.epoch, result), position)
