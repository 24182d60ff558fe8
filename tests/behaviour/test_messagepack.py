"""The suite of Centrifugo's client protocol, for a codec and a carrier of the tests' own."""

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from longconn.core.commands import DisconnectPush
from longconn.core.disconnects import BAD_REQUEST, IDLE, Disconnect
from longconn.core.errors import CommandError
from longconn.core.hub import Hub
from longconn.core.session import Session
from longconn.protocols.connection.set_up import PausableReading, set_up
from longconn.protocols.connection.socket_outlet import SocketOutlet
from longconn.testing import MemoryConnection
from tests.behaviour import messagepack
from tests.behaviour.centrifugo import Object, StructuredMember
from tests.behaviour.centrifugo_suite import OwnEndpointBehaviour
from tests.behaviour.messagepack import MessagePack, frames, message
from tests.behaviour.suite import Late

#: Bytes of answers that are under way at once over a broker that is far away: eight of them.
MOST_UNDER_WAY = 3_500_000


def split(data: bytearray) -> list[bytes]:
    """Take the whole messages off the start."""
    found = []
    while len(data) >= 4 and len(data) >= 4 + (size := int.from_bytes(data[:4])):
        found.append(bytes(data[4 : 4 + size]))
        del data[: 4 + size]
    return found


class MessagePackTCP(PausableReading, Protocol):
    """The carrier: one client on a connection."""

    _outlet: SocketOutlet
    _session: Session | None = None

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._codec = MessagePack()
        self._partial = bytearray()

    def connectionMade(self) -> None:
        self._outlet, host, address = set_up(self._hub, self.transport, self._on_close)
        try:
            self._session = Session(self._hub, self._outlet, self._codec, self, "messagepack", host, address)
        except CommandError as error:
            self._outlet.finish(frames([self._codec.refusal(0, error)]), self._outlet.lose)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._outlet.stop()
        if self._session is not None:
            self._session.stop()
            self._session = None

    def _on_close(self, disconnect: Disconnect) -> None:
        self._outlet.finish(frames([self._codec.push(DisconnectPush(disconnect))]), self._outlet.lose)

    def dataReceived(self, data: bytes) -> None:
        if self._outlet.closing or self._session is None:
            return
        self._partial += data
        self._session.receive(split(self._partial))
        if len(self._partial) > 2 * self._hub.settings.max_message and not self._outlet.closing:
            self._session.close(BAD_REQUEST, "a message that is too long")


# The client's side: the suite's JSON to messages, and back.


def to_message(line: str) -> bytes:
    """A command of the suite. What is no object of JSON goes out as it is."""
    try:
        value = msgspec.json.decode(line.encode(errors="surrogatepass"), type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError):
        try:
            value = msgspec.json.decode(line.replace("\\ud800", " ").encode(), type=dict[str, msgspec.Raw])
        except (msgspec.MsgspecError, RecursionError):
            return line.encode()
    if not value:
        return message("pong", {})
    id = msgspec.json.decode(value.pop("id", msgspec.Raw(b"0")))
    method, raw = next(iter(value.items()), ("", msgspec.Raw(b"{}")))
    if not bytes(raw).startswith(b"{"):
        return message(method, [])
    body = {name: bytes(each) for name, each in msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).items()}
    return message(*_command(method, id, body))


def _command(method: str, id: Any, written: dict[str, bytes]) -> tuple[str, dict[str, Any]]:
    """The name and the members that a command has in MessagePack."""
    data = written.pop("data", None)
    body: dict[str, Any] = {name: msgspec.json.decode(each) for name, each in written.items() if each != b"null"}
    body["id"] = id
    if method == "connect":
        chat = msgspec.json.decode(data).get("chat") if data else None
        return method, body | ({"name": chat["name"]} if chat else {})
    if (method == "publish" and "key" in body) or (method == "sub_refresh" and "type" in body):
        return "map_publish" if method == "publish" else "shared_poll", body
    if data is not None:
        body["data"] = data
    if method not in ("refresh", "ping", "send", "rpc"):
        body.setdefault("channel", "")
    if method == "rpc":
        body.setdefault("data", b"")
    if method == "subscribe":
        recover = body.pop("recover", False)
        if recover is True:
            body["since"] = {"epoch": body.pop("epoch", ""), "offset": body.pop("offset", 0)}
        elif recover:
            body["since"] = recover
        body["refuses_loss"] = bool(body.pop("flag", 0) & 2)
        body["unsupported"] = next((name for name in ("tf", "type") if name in body), "")
    if method == "history" and isinstance(body.get("since"), dict):
        body["since"] = {"epoch": "", "offset": 0} | body["since"]
    return method, body


def to_text(data: bytes) -> str:
    """A reply, a push or a ping as the suite reads it."""
    id, method, value = msgspec.msgpack.decode(data)
    if method == "ping" and not id:
        return "{}"
    if method == "error":
        found: Object = {"id": id, "error": value}
    elif id:
        found = {"id": id, method: _RESULTS.get(method, _same)(value)}
    else:
        found = {"push": _push(method, value)}
    return msgspec.json.encode(found).decode()


def _filled(**members: Any) -> Object:
    """Members that are not zero; bytes are JSON."""
    return {name: msgspec.Raw(each) if isinstance(each, bytes) else each for name, each in members.items() if each}


def _same(value: Object) -> Object:
    return _filled(**value)


def _info(info: Object) -> Object:
    conn_info = info["conn_info"] or msgspec.json.encode({"name": info["name"]})
    return _filled(user=info["user"], client=info["client"], conn_info=conn_info, chan_info=info["chan_info"])


def _publication(value: Object) -> Object:
    return {"data": msgspec.Raw(value["data"]), **_filled(info=_info(value["info"]), offset=value["offset"])}


def _subscribed(result: Object) -> Object:
    history = result["history"]
    recovered = result["since"] is not None and history["recovered"]
    position = history["position"] | ({"offset": result["since"]["offset"]} if recovered else {})
    return _filled(
        recoverable=result["recoverable"],
        positioned=result["positioned"],
        **(position if result["positioned"] else {}),
        publications=[_publication(each) for each in history["publications"]] if recovered else [],
        was_recovering=result["since"] is not None,
        recovered=recovered,
        data=result["data"],
        ttl=result["ttl"],
    )


def _history(result: Object) -> Object:
    history = result["history"]
    return {"publications": [_publication(each) for each in history["publications"]], **history["position"]}


_RESULTS: dict[str, Any] = {
    "subscribe": _subscribed,
    "publish": lambda result: {},
    "unsubscribe": lambda result: {},
    "presence": lambda result: {"presence": {each["client"]: _info(each) for each in result["infos"]}},
    "presence_stats": lambda result: {"num_clients": result["clients"], "num_users": result["users"]},
    "history": _history,
}


def _push(kind: str, value: Object) -> Object:
    if kind == "pub":
        return {"channel": value["channel"], "pub": _publication(value)}
    if kind in ("join", "leave"):
        return {"channel": value["channel"], kind: {"info": _info(value["info"])}}
    if kind == "subscribe":
        return {"channel": value["result"]["channel"], kind: _subscribed(value["result"])}
    if kind == "unsubscribe":
        return {"channel": value.pop("channel"), kind: value}
    return {kind: value["disconnect"] if kind == "disconnect" else value}


class MessagePackMember(StructuredMember):
    """Speaks MessagePack, whatever the suite writes and reads."""

    protocol = "messagepack"

    def open(self, commands: list[Object]) -> None:
        self.client = self.server.connect(self.factories["messagepack"], **self.options)
        self.client.on_data = self._on_data
        self._partial = bytearray()
        self._bodies: list[str] = []
        if commands:
            self.send(*commands)

    @property
    def connection(self) -> MemoryConnection:
        connection: MemoryConnection = self.client
        return connection

    @property
    def name(self) -> str:
        return f"{self.client.local.host}:{self.client.local.port}"

    def _on_data(self, data: bytes) -> None:
        self._partial += data
        for each in split(self._partial):
            self._bodies.append(to_text(each))
            self._pong(self._bodies[-1])

    def send_raw(self, data: str) -> None:
        self.client.send(frames([to_message(line) for line in data.split("\n") if line]))

    def bodies(self) -> list[str]:
        return self._bodies


class MessagePackTests(OwnEndpointBehaviour):
    member = MessagePackMember

    def serve(self, **settings: Any) -> None:
        super().serve(**settings)
        hub = self.server.hub
        self.factories["messagepack"] = Factory.forProtocol(partial(MessagePackTCP, hub))  # type: ignore[assignment]

    def refused(self, member: Any) -> bool:
        return bool(member.closed and any("limit exceeded" in each for each in member.bodies()))

    def test_who_does_not_connect_is_let_go(self) -> None:
        member = self.silent()
        self.server.advance(12)
        self.assertTrue(self.was_told(member, IDLE))
        self.assertEqual(self.server.hub.clients, {})


class MessagePackOverLateBrokerTests(Late, MessagePackTests):
    most_for_one = MOST_UNDER_WAY


class SizeTests(SynchronousTestCase):
    def test_a_codec_is_small(self) -> None:
        """What a codec must know of a session fits in 150 lines."""
        self.assertLessEqual(len(Path(messagepack.__file__).read_text().splitlines()), 150)


del OwnEndpointBehaviour
