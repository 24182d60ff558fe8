"""Centrifugo's client protocol over HTTP: replies and pushes down a response, commands up by POSTs.

POST /connection/http_stream   body: commands, `connect` first      down: objects, a line each
GET  /connection/sse           ?cf_connect=connect and subscribes   down: server-sent events
POST /connection/sse           body: commands, `connect` first      down: server-sent events
POST /emulation                {"session", "node", "data"}          up, for either: 204, or 404
"""

from __future__ import annotations

from functools import partial

import msgspec
from google.protobuf.message import DecodeError

from longconn.core import json_text
from longconn.core.broker import Done
from longconn.core.codec import Codec
from longconn.core.commands import Command, Connect, DisconnectPush, RefusedCommand, Subscribe
from longconn.core.disconnects import Disconnect
from longconn.core.errors import NOT_AVAILABLE, CommandError
from longconn.core.hub import Hub
from longconn.core.json_text import JSONError
from longconn.core.publication import Data
from longconn.core.session import Session
from longconn.protocols.centrifugo import client_pb2 as pb
from longconn.protocols.centrifugo.protobuf import CentrifugoProtobuf, body_part, stream_chunk
from longconn.protocols.http.errors import HTTPError
from longconn.protocols.http.exchange import HTTPExchange
from longconn.protocols.http.request import media_type
from longconn.protocols.http.response import StreamingResponse
from longconn.protocols.http.routes import Access, Route
from longconn.protocols.http.upgrade import asks_for_protobuf
from longconn.wire.centrifugo import CentrifugoJSON, events, lines, stream_events, stream_lines

#: What SDKs send Protobuf as.
_PROTOBUF = "application/octet-stream"
#: Bytes of commands that may wait for a session's rate before further ones are refused.
_MOST_WAITING = 256 * 1024


class URLCommand(bytes):
    """A command that came in the URL of a GET. Any page can make a browser send it, with no Origin (`<img>`)."""


class SSECodec(CentrifugoJSON):
    """Refuses what a GET may not ask for: it changes nothing (RFC 9110, section 9.2.1)."""

    def read(self, line: bytes) -> Command | None:
        command = super().read(line)
        if type(line) is not URLCommand or command is None or isinstance(command, Connect | Subscribe | RefusedCommand):
            return command
        method = type(command).__name__.lower()
        return RefusedCommand(command.id, CommandError(NOT_AVAILABLE, what=f"{method} in a GET"), method)


class DownStream:
    """The response of one session. Reading cannot be stopped here: `/emulation` refuses what is too much."""

    def __init__(self, exchange: HTTPExchange, kind: str, protobuf: bool = False) -> None:
        self._exchange = exchange
        self._session: Session | None = None
        self._response = StreamingResponse(exchange, self._on_close, self._on_lost)
        self._protocol = kind
        self._content_type = "text/event-stream" if kind == "sse" else _PROTOBUF if protobuf else "application/json"
        chunked, limit = self._response.chunked, exchange.hub.settings.max_message
        if protobuf:
            self._codec: Codec = CentrifugoProtobuf(stream_chunk if chunked else body_part, limit)
        elif kind == "sse":
            self._codec = SSECodec(stream_events if chunked else events, limit)
        else:
            self._codec = CentrifugoJSON(stream_lines if chunked else lines, limit)

    def open(self, commands: bytes, in_url: bool = False) -> None:
        """Start a session with its first commands, which may have come in the URL of a GET.

        Raises CommandError where there is no room.
        """
        exchange = self._exchange
        try:
            hub, outlet = exchange.hub, self._response.outlet
            self._session = Session(
                hub, outlet, self._codec, self, self._protocol, exchange.host, exchange.address,
                identity=exchange.identity,
            )  # fmt: skip
            self._session.client.headers = exchange.caller.headers
        except CommandError:
            self._response.give_up()
            raise
        self._response.watch()
        self._response.start((("Content-Type", self._content_type),))
        items = self._codec.split(commands)
        self._session.receive([URLCommand(each) for each in items] if in_url else items)

    @property
    def input_waits(self) -> bool:
        """Bodies become commands at once."""
        return False

    def pause_reading(self) -> None:
        """Nothing: `/emulation` asks whether commands wait."""

    def resume_reading(self) -> None:
        """Nothing was stopped."""

    def _on_close(self, disconnect: Disconnect) -> None:
        self._response.end(self._codec.frame((self._codec.push(DisconnectPush(disconnect)),)))

    def _on_lost(self) -> None:
        if self._session is not None:
            self._session.stop()
            self._session = None


def http_stream(exchange: HTTPExchange) -> None:
    """Open a session over a streamed response. Raises CommandError or HTTPError."""
    DownStream(exchange, "http_stream", _is_protobuf(exchange)).open(exchange.body())


def _is_protobuf(exchange: HTTPExchange) -> bool:
    kind = media_type(exchange.header("content-type"))
    return kind == _PROTOBUF or asks_for_protobuf(exchange)


def sse(exchange: HTTPExchange) -> None:
    """Open a session over server-sent events. Raises CommandError or HTTPError."""
    method = exchange.request.method
    if method == b"HEAD":
        exchange.text(200, "")
        return
    in_url = method == b"GET"
    if in_url and not _accepts_events(exchange):
        raise HTTPError(406, "the answer is text/event-stream, which Accept does not name")
    commands = (exchange.parameter("cf_connect") or "").encode("utf-8", "replace") if in_url else exchange.body()
    if not commands:
        raise HTTPError(400, "the first commands are expected in ?cf_connect=")
    DownStream(exchange, "sse").open(commands, in_url)


def _accepts_events(exchange: HTTPExchange) -> bool:
    """Whether an EventSource or a program asks: an image or a frame of a page accepts other types before `*/*`."""
    types = {media_type(each) for value in exchange.headers("accept") for each in value.split(",")} - {""}
    return types <= {"*/*"} or bool(types & {"text/event-stream", "text/*"})


def emulation(exchange: HTTPExchange) -> None:
    """Commands of a session that reads elsewhere. Raises HTTPError."""
    read = _read_protobuf if _is_protobuf(exchange) else _read_json
    name, node, commands = read(exchange.body())
    if node in ("", exchange.hub.node):
        _receive(exchange.hub, name, commands)
        _received(exchange)
    else:
        exchange.watch()
        body = name.encode("utf-8", "replace") + b"\n" + commands
        exchange.hub.nodes.ask(node, "emulation", body, partial(_forwarded, exchange))


def _received(exchange: HTTPExchange) -> None:
    exchange.request.setResponseCode(204)
    exchange.request.finish()


def _forwarded(exchange: HTTPExchange, result: bytes | CommandError) -> None:
    """Another node was asked to take the commands. Its answer is empty, or the error."""
    if exchange.lost:
        return
    if isinstance(result, CommandError):
        missing = HTTPError(404, "there is no such session")
        exchange.fail(missing if result.reason is NOT_AVAILABLE else result)
    elif result:
        status, _, text = result.decode().partition(" ")
        exchange.fail(HTTPError(int(status), text))
    else:
        _received(exchange)


def serve_nodes(hub: Hub) -> None:
    """Take commands for sessions of this node that reach other nodes."""

    def receive(body: bytes, done: Done[bytes]) -> None:
        name, _, commands = body.partition(b"\n")
        try:
            _receive(hub, name.decode(), commands)
        except HTTPError as error:
            done(f"{error.status} {error}".encode())
        else:
            done(b"")

    hub.nodes.handlers["emulation"] = receive


def _receive(hub: Hub, name: str, commands: bytes) -> None:
    """Pass commands to a session of this node. Raises HTTPError."""
    session: Session | None = hub.sessions.get(name)
    if session is None:
        raise HTTPError(404, "there is no such session")
    if session.waiting_bytes + len(commands) > _MOST_WAITING:
        raise HTTPError(429, "too many commands")
    session.receive(session.codec.split(commands))


class EmulationRequest(msgspec.Struct):
    """Whose commands they are, and the commands: a string, or one command as an object."""

    session: str
    data: msgspec.Raw
    node: str = ""


_EMULATION = msgspec.json.Decoder(EmulationRequest)


def _read_json(body: bytes) -> tuple[str, str, bytes]:
    """Session, node and commands of a request. Raises HTTPError."""
    try:
        request = json_text.read(_EMULATION, body)
        # The definitions say bytes: SDKs send the commands as a string, or as the object itself.
        data = Data.of_json(bytes(request.data))
    except (JSONError, CommandError):
        raise HTTPError(400, 'a request is {"session", "node", "data"}') from None
    return request.session, request.node, data.json if data.text is None else data.text.encode()


def _read_protobuf(body: bytes) -> tuple[str, str, bytes]:
    try:
        request = pb.EmulationRequest.FromString(body)
    except DecodeError:
        raise HTTPError(400, "a request is an EmulationRequest") from None
    return request.session, request.node, request.data


#: What a resource serves, by path.
ROUTES = {
    "/connection/http_stream": Route(None, http_stream, access=Access.LATER),
    "/connection/sse": Route(sse, sse, access=Access.LATER),
    # The session is the proof: nobody else knows it.
    "/emulation": Route(None, emulation, access=Access.PUBLIC),
}
