"""A member that speaks the Protobuf flavour of Centrifugo's protocol over WebSocket.

The suite writes and reads JSON. Here the messages of the SDK's own module stand for it.
"""

import base64
import json
import re
from typing import Any

from centrifuge.protocol import client_pb2 as sdk
from google.protobuf.json_format import MessageToDict, ParseDict

from longconn.protocols.centrifugo.protobuf import delimited, split
from tests.behaviour.centrifugo import Object, StructuredWebSocketMember

#: Fields of bytes that hold JSON.
_JSON_FIELDS = ("data", "conn_info", "chan_info")

#: Members of results that are there in JSON although they are zero.
_ZEROS: dict[str, Object] = {"presence": {"presence": {}}, "presence_stats": {"num_clients": 0, "num_users": 0}}


def to_message(line: str) -> bytes:
    """A command of the suite. What is no object of JSON goes out as it is."""
    try:
        value = json.loads(line, parse_float=_Written, parse_int=_Written)
        if not all(isinstance(each, _Written if name == "id" else dict) for name, each in value.items()):
            raise TypeError("an id is a number, and any other member is an object")
        return ParseDict(_encoded(value), sdk.Command()).SerializeToString()
    except Exception:
        return line.encode(errors="surrogatepass")


class _Written(str):
    """A number as it was written."""


def _encoded(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: base64.b64encode(_dump(each).encode(errors="surrogatepass")).decode()
            if name in _JSON_FIELDS
            else _encoded(each)
            for name, each in value.items()
        }
    return json.loads(value) if isinstance(value, _Written) else value


def _dump(value: Any) -> str:
    if isinstance(value, _Written):
        return value
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_dump(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_dump, value)) + "]"
    text = json.dumps(value, ensure_ascii=False)
    # Half a character has no form but its escape.
    return json.dumps(value) if re.search("[\ud800-\udfff]", text) else text


def to_text(message: bytes) -> str:
    """A reply, a push or a ping as the suite reads it."""
    reply = sdk.Reply.FromString(message)
    found = _decoded(MessageToDict(reply, preserving_proto_field_name=True))
    for name, zeros in _ZEROS.items():
        if name in found:
            found[name] = zeros | found[name]
    return _dump(found)


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    if not isinstance(value, dict):
        return value
    found: Object = {}
    for name, each in value.items():
        if name in _JSON_FIELDS:
            found[name] = _Written(base64.b64decode(each).decode())
        elif name in ("offset", "time"):
            found[name] = int(each)
        else:
            found[name] = _decoded(each)
    return found


class ProtobufMember(StructuredWebSocketMember):
    """Asks for Protobuf by the URL."""

    path = "/connection/websocket?cf_protocol=protobuf"

    def send_raw(self, data: str) -> None:
        self.client.say(b"".join([delimited(to_message(line)) for line in data.split("\n") if line]))

    def open(self, commands: list[Object]) -> None:
        self._bodies: list[str] = []
        super().open(commands)

    def bodies(self) -> list[str]:
        messages: list[Any] = self.client.messages
        self._bodies += ["\n".join(map(to_text, split(each))) for each in messages[len(self._bodies) :]]
        return self._bodies

    def _on_read(self) -> None:
        for body in self.bodies()[self._seen :]:
            self._pong(body)
        self._seen = len(self._bodies)
