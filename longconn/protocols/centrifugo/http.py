"""The structured protocol over HTTP: replies and pushes down a response, commands up by POSTs.

POST /connection/http_stream   body: commands, `connect` first      down: objects, a line each
GET  /connection/sse           ?cf_connect=commands                 down: server-sent events
POST /emulation                {"session", "node", "data"}          up, for either: 204, or 404
"""

from __future__ import annotations

import msgspec

from longconn.core import json_text
from longconn.core.disconnects import Disconnect
from longconn.core.errors import CommandError
from longconn.core.hub import Hub
from longconn.core.json_text import JSONError
from longconn.core.publication import Data
from longconn.core.session import Session
from longconn.protocols.http.errors import HTTPError
from longconn.protocols.http.exchange import HTTPExchange
from longconn.protocols.http.request import media_type
from longconn.protocols.http.response import StreamingResponse
from longconn.protocols.http.routes import Route
from longconn.wire.centrifugo import CentrifugoJSON, Frame, disconnect_push, events, lines, stream_events, stream_lines

#: What SDKs send Protobuf as.
_PROTOBUF = "application/octet-stream"
#: Bytes of commands that may wait for a session's rate before further ones are refused.
_MOST_WAITING = 256 * 1024


class DownStream:
    """The response of one session. Reading cannot be stopped here: what is too much is refused at `/emulation`."""

    def __init__(self, exchange: HTTPExchange, kind: str) -> None:
        self._exchange = exchange
        self._session: Session | None = None
        self._response = StreamingResponse(exchange, self._on_close, self._on_lost)
        self._sse = kind == "sse"
        self.protocol = kind
        chunked = self._response.chunked
        frames: tuple[Frame, Frame] = (stream_events, events) if self._sse else (stream_lines, lines)
        self.frame: Frame = frames[0] if chunked else frames[1]

    def open(self, commands: bytes) -> None:
        """Start a session with its first commands. Raises CommandError where there is no room."""
        exchange = self._exchange
        try:
            hub, outlet = exchange.hub, self._response.outlet
            codec = CentrifugoJSON(self.frame, hub.settings.max_message)
            self._session = Session(hub, outlet, codec, self, self.protocol, exchange.host, exchange.address)
        except CommandError:
            self._response.give_up()
            raise
        self._response.watch()
        self._response.start((("Content-Type", "text/event-stream" if self._sse else "application/json"),))
        self._session.receive(commands.split(b"\n"))

    def pause_reading(self) -> None:
        """Nothing: `/emulation` asks whether commands wait."""

    def resume_reading(self) -> None:
        """Nothing was stopped."""

    def _on_close(self, disconnect: Disconnect) -> None:
        self._response.end(self.frame((disconnect_push(disconnect),)))

    def _on_lost(self) -> None:
        if self._session is not None:
            self._session.stop()
            self._session = None


def http_stream(exchange: HTTPExchange) -> None:
    """Open a session over a streamed response. Raises CommandError or HTTPError."""
    if media_type(exchange.header("content-type")) == _PROTOBUF:  # who sends it could not read an answer in JSON
        raise HTTPError(415, "the structured protocol is spoken in JSON here, not in Protobuf")
    DownStream(exchange, "http_stream").open(exchange.body())


def sse(exchange: HTTPExchange) -> None:
    """Open a session over server-sent events. Raises CommandError or HTTPError."""
    if exchange.request.method == b"HEAD":
        exchange.text(200, "")
        return
    commands = exchange.parameter("cf_connect")
    if exchange.request.method == b"POST":
        commands = exchange.body().decode("utf-8", "replace")
    if not commands:
        raise HTTPError(400, "the first commands are expected in ?cf_connect=")
    DownStream(exchange, "sse").open(commands.encode("utf-8", "replace"))


def emulation(exchange: HTTPExchange) -> None:
    """Commands of a session that reads elsewhere. Raises HTTPError."""
    session, commands = _read(exchange.hub, exchange.body())
    if session.waiting_bytes + len(commands) > _MOST_WAITING:
        raise HTTPError(429, "too many commands")
    session.receive(commands.split(b"\n"))
    exchange.request.setResponseCode(204)
    exchange.request.finish()


class EmulationRequest(msgspec.Struct):
    """Whose commands they are, and the commands: a string, or one command as an object."""

    session: str
    data: msgspec.Raw
    node: str = ""


_EMULATION = msgspec.json.Decoder(EmulationRequest)


def _read(hub: Hub, body: bytes) -> tuple[Session, bytes]:
    try:
        request = json_text.read(_EMULATION, body)
        # The definitions say bytes: SDKs send the commands as a string, or as the object itself.
        data = Data.of_json(bytes(request.data))
    except (JSONError, CommandError):
        raise HTTPError(400, 'a request is {"session", "node", "data"}') from None
    session: Session | None = hub.sessions.get(request.session) if request.node in ("", hub.node) else None
    if session is None:
        raise HTTPError(404, "there is no such session")
    return session, data.json if data.text is None else data.text.encode()


#: What a resource serves, by path.
ROUTES = {
    "/connection/http_stream": Route(None, http_stream),
    "/connection/sse": Route(sse, sse),
    "/emulation": Route(None, emulation),
}
