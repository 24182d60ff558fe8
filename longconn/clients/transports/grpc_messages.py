"""Objects of Centrifugo's client protocol as messages of LongConn.Connect, and back. No I/O.

    {"id": 2, "subscribe": {"channel": "c"}}          ConnectRequest(id=2, subscribe=SubscribeRequest(channel="c"))
    {"push": {"channel": "c", "pub": {"data": …}}}    ConnectResponse(publication=Publication(channel="c", data="…"))

`longconn/v1/longconn.proto` describes the messages. A command that Connect does not have is refused here (108): `rpc`,
and with it `chat.rename`, and the renewal of tokens. When a token expires, the server ends the call, and the client
begins another one.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from longconn.clients.centrifugo import UNRECOVERABLE, member
from longconn.clients.errors import NotLongconn
from longconn.clients.events import JSONObject
from longconn.clients.transports.json_frames import MOST, write_json
from longconn.core.json_text import JSONError, read
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.grpc import MessageReader
from longconn.wire.grpc_status import StatusError

# Codes of the error replies that are made here.
_BAD_REQUEST = 107
_NOT_AVAILABLE = 108
#: Seconds between two heartbeats that the server is asked for.
HEARTBEAT = 25
_RAW = msgspec.json.Decoder(msgspec.Raw)
#: The form of names that a server gives to clients without a name. A client cannot choose such a name.
_ASSIGNED = re.compile(r":|^guest-\d+$")


class Translation:
    """Translates the commands and answers of one call."""

    def __init__(self) -> None:
        self._messages = MessageReader(MOST)
        # The commands for histories without an answer yet, by number.
        self._histories: dict[int, JSONObject] = {}

    # Commands.

    def command(self, value: JSONObject) -> pb.ConnectRequest | JSONObject:
        """A command as a message, or the error reply to a command that has none."""
        try:
            request = self._request(value["id"], value)
        except (ValueError, TypeError) as error:  # a lone surrogate, a number that is too large
            return _refusal(value, _BAD_REQUEST, f"bad request: {' '.join(str(error).split())}")
        if request is None:
            (method,) = value.keys() - {"id"}
            return _refusal(value, _NOT_AVAILABLE, f"not available: {method} over gRPC")
        return request

    def _request(self, id: int, value: JSONObject) -> pb.ConnectRequest | None:
        if "connect" in value:
            body = value["connect"]
            chat = member(member(body, "data", dict, {}), "chat", dict, {})
            token = body.get("token", "")
            return pb.ConnectRequest(id=id, connect=pb.ConnectCommand(token=token, heartbeat=HEARTBEAT, **chat))
        if "subscribe" in value:
            return pb.ConnectRequest(id=id, subscribe=_subscribe(value["subscribe"]))
        if "unsubscribe" in value:
            return pb.ConnectRequest(id=id, unsubscribe=pb.UnsubscribeRequest(**value["unsubscribe"]))
        if "publish" in value:
            body = value["publish"]
            data = bytes(body["data"]).decode()
            return pb.ConnectRequest(id=id, publish=pb.PublishRequest(channel=body["channel"], data=data))
        if "presence" in value:
            return pb.ConnectRequest(id=id, presence=pb.PresenceRequest(**value["presence"]))
        if "history" in value:
            request = pb.ConnectRequest(id=id, history=_history(value["history"]))
            self._histories[id] = value["history"]
            return request
        return None

    # Answers and pushes.

    def objects(self, data: bytes) -> list[JSONObject]:
        """The objects of the messages that `data` completes. Raises NotLongconn."""
        found = []
        self._messages.feed(data)
        try:
            while (message := self._messages.take()) is not None:
                plain = message if isinstance(message, bytes) else message.inflate()
                value = self._object(pb.ConnectResponse.FromString(plain))
                if value is not None:
                    found.append(value)
        except StatusError as error:
            text = "this is no longconn server: it answered with a message that was not asked for"
            raise NotLongconn(text) from error
        except DecodeError as error:
            raise NotLongconn("this is no longconn server: its answer is no ConnectResponse") from error
        return found

    def _object(self, response: pb.ConnectResponse) -> JSONObject | None:
        """A message as an object; None if there is none for it. Raises NotLongconn."""
        event = response.WhichOneof("event")
        value: Any = getattr(response, event) if event else None
        if response.id:
            return self._answer(response.id, event, value)
        if event == "heartbeat":
            return {}
        if event == "publication":
            return {"push": {"channel": value.channel, "pub": _publication(value)}}
        if event in ("join", "leave"):
            return {"push": {"channel": value.channel, event: {"info": _member(value.info)}}}
        if event == "unsubscribed":
            why = {"code": value.code, "reason": value.reason}
            return {"push": {"channel": value.channel, "unsubscribe": why}}
        return None

    def _answer(self, id: int, event: str | None, value: Any) -> JSONObject | None:
        asked = self._histories.pop(id, None)
        if event == "error":
            error = {"code": value.code, "message": value.message, "temporary": value.temporary}
            return {"id": id, "error": error}
        if event == "connected":
            return {"id": id, "connect": {"client": value.client, "ping": HEARTBEAT}}
        if event == "subscribed":
            return {"id": id, "subscribe": _subscribed(value)}
        if event == "unsubscribed":
            return {"id": id, "unsubscribe": {}}
        if event == "published":
            return {"id": id, "publish": {}}
        if event == "presence":
            return {"id": id, "presence": {"presence": {each.client: _member(each) for each in value.clients}}}
        if event == "history" and asked is not None:
            return {"id": id} | _page(asked, value)
        return None


def _refusal(value: JSONObject, code: int, message: str) -> JSONObject:
    return {"id": value["id"], "error": {"code": code, "message": message}}


def _position(value: JSONObject) -> pb.Position:
    return pb.Position(epoch=value.get("epoch", ""), offset=value.get("offset", 0))


def _subscribe(body: JSONObject) -> pb.SubscribeRequest:
    return pb.SubscribeRequest(
        channel=body["channel"],
        token=body.get("token", ""),
        join_leave=body.get("join_leave", False),
        since=_position(body) if body.get("recover") else None,
    )


def _subscribed(value: pb.Subscribed) -> JSONObject:
    """A SubscribeResult. The missed publications come after it as pushes."""
    counted = bool(value.position.epoch)
    return {
        "recoverable": counted,
        "epoch": value.position.epoch,
        "offset": value.position.offset,
        "recovered": value.recovered,
    }


def _history(body: JSONObject) -> pb.HistoryRequest:
    """A request whose answer has at least the publications of the page that `body` asks for.

    Connect has neither a reverse history nor a limit of nothing. With a position, its limit counts from there;
    without one, it counts from the end, and here from the start.
    """
    request = pb.HistoryRequest(channel=body["channel"])
    limit = body.get("limit", 0)
    since = body.get("since")
    if limit == 0:
        request.limit = 1
    elif body.get("reverse"):
        request.limit = max(0, limit) if since is None else 0
    else:
        request.limit = max(0, limit)
        request.since.CopyFrom(_position(since or {}))
    return request


def _page(asked: JSONObject, answer: pb.HistoryResponse) -> JSONObject:
    """The page that `asked` asks for, as the part of a reply: `history`, or `error`."""
    limit, since, reverse = asked.get("limit", 0), asked.get("since"), asked.get("reverse")
    if since is not None and since.get("epoch") not in (None, "", answer.position.epoch):
        return {"error": {"code": UNRECOVERABLE, "message": "unrecoverable position"}}
    found = list(answer.publications)
    if since is not None:
        at = since.get("offset", 0)
        found = [each for each in found if (each.offset < at if reverse else each.offset > at)]
    if reverse:
        found.reverse()
    publications = [_publication(each) for each in (found[:limit] if limit >= 0 else found)]
    position = {"epoch": answer.position.epoch, "offset": answer.position.offset}
    return {"history": {"publications": publications, **position}}


def _publication(value: pb.Publication) -> JSONObject:
    try:
        data = read(_RAW, value.data.encode())
    except JSONError as error:
        raise NotLongconn("this is no longconn server: what was published there is no JSON") from error
    return {
        "offset": value.offset,
        "data": data,
        "info": _info(value),
        "time": round(value.time * 1000) if abs(value.time) < 1e12 else 0,
    }


def _member(value: pb.ClientInfo) -> JSONObject:
    """A ClientInfo with `chat`: over gRPC the form of its name tells whether the client is in the chat."""
    return _info(value) | {"chat": _ASSIGNED.search(value.name) is None}


def _info(value: pb.Publication | pb.ClientInfo) -> JSONObject:
    """A ClientInfo of Centrifugo's client protocol, with the members that clients read."""
    return {"client": value.client, "user": value.user, "conn_info": msgspec.Raw(write_json({"name": value.name}))}
