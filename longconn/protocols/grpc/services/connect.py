"""LongConn.Connect: the codec (`longconn.core.codec`) of a session, and the call that carries it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from longconn.core import commands
from longconn.core.commands import Command, Push, Result, SubscribeResult
from longconn.core.disconnects import IDLE
from longconn.core.errors import BAD_REQUEST, CommandError
from longconn.core.session import Session
from longconn.core.slices import cost_of_bytes
from longconn.protocols.grpc.call import GrpcCall
from longconn.protocols.grpc.services.callers import credentials, identify, named_metadata
from longconn.protocols.grpc.services.messages import (
    data_of,
    parse,
    position_message,
    since_of,
    subscribed_message,
)
from longconn.v1 import longconn_pb2 as pb
from longconn.wire.grpc import Compressed, frame
from longconn.wire.grpc_messages import (
    HISTORY,
    PRESENCE,
    PUSHES,
    PushFormat,
    answer,
    backlog,
    history_parts,
    presence_parts,
)
from longconn.wire.grpc_status import StatusCode, StatusError, status_of_opening

#: Bytes from which on a command waits for a slice of a turn, and bytes of a command that cost as much as one item that
#: is looked at.
_LARGE = 16 * 1024
_BYTES_PER_ITEM = 1024


async def connect(call: GrpcCall) -> None:
    """Execute commands until the client half-closes. Then, when all of them are answered, the call ends."""
    carrier = await _connected(call)
    await carrier.run()


async def _connected(call: GrpcCall) -> _Carrier:
    """Execute the first command, which is not kept while the call goes on. Raises CommandError if it is refused."""
    first = parse(pb.ConnectRequest, await _first_message(call))
    if first.WhichOneof("command") != "connect":
        raise StatusError(StatusCode.INVALID_ARGUMENT, "the first command is connect")
    # A token in the command goes first; without any proof the gate decides.
    if not first.connect.token and (credentials(call) or not call.hub.gate.is_open):
        await identify(call)
    carrier = _Carrier(call)
    carrier.receive(first)
    return carrier


async def _first_message(call: GrpcCall) -> bytes:
    timeout = call.hub.settings.handshake_timeout
    timer = call.hub.clock.callLater(timeout, call.outlet.close, IDLE) if timeout else None
    try:
        data = await call.read()
    finally:
        if timer is not None and timer.active():
            timer.cancel()
    if data is None:
        raise StatusError(StatusCode.INVALID_ARGUMENT, "there is no command")
    return data


class _Carrier:
    """Hands the messages of a call to its session. While a command must wait, no further message is read.

    A command that waits is kept as it came: the codec inflates it when the session executes it.
    """

    def __init__(self, call: GrpcCall) -> None:
        self._call = call
        self._error: CommandError | StatusError | None = None
        self._changed: Deferred[None] | None = None
        #: whether a message waits for a slice of a turn
        self.input_waits = False
        hub = call.hub
        codec = ConnectCodec(hub.settings.max_message, self._on_error)
        self._session = Session(
            hub, call.outlet, codec, self, "grpc", call.host, call.address, self._on_error, self._on_change,
            identity=call.identity,
        )  # fmt: skip
        self._session.client.headers = named_metadata(call)
        call.on_end(self._session.stop)

    async def run(self) -> None:
        """Read and execute the further commands. Raises StatusError for a message that is no command."""
        session, call = self._session, self._call
        try:
            while (message := await call.read_encoded()) is not None:
                size = message.size if isinstance(message, Compressed) else len(message)
                if size >= _LARGE:
                    self.input_waits = True
                    await call.slice(cost_of_bytes(size))
                    self.input_waits = False
                    session.queue.charge(size // _BYTES_PER_ITEM)
                self.receive(message)
                del message
                await self._until(lambda: not session.queue.held_back)
            await self._until(lambda: session.answered)
        finally:
            session.write_replies()

    def receive(self, item: pb.ConnectRequest | bytes | Compressed) -> None:
        """Let the session execute a command. Raises the error of a refused one."""
        self._session.receive([item])
        if self._error is not None:
            raise self._error

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed = Deferred()
            await self._changed
            if self._error is not None:
                raise self._error

    def _on_change(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None:
            self._call.hub.turn.soon(lambda: changed.callback(None))  # not within the session's own call

    def _on_error(self, error: CommandError | StatusError) -> None:
        """The connect is refused, or a message is no command."""
        self._error = status_of_opening(error) if isinstance(error, CommandError) else error
        self._session.queue.close()
        self._on_change()

    def pause_reading(self) -> None:
        """Nothing: `run` asks whether the session can take more."""

    def resume_reading(self) -> None:
        """Go on with `run`."""
        self._on_change()


class ConnectCodec:
    """An item is a ConnectRequest, parsed or as it came; a message is a ConnectResponse in gRPC's frame.

    `max_message` bounds the data of a publish command. `on_error` is called with the error of an item that is no
    command.
    """

    ping = frame(pb.ConnectResponse(heartbeat=pb.Heartbeat()).SerializeToString())
    expiry_grace = 0.0
    closes_on_mismatch = False

    def __init__(self, max_message: int, on_error: Callable[[StatusError], None]) -> None:
        self._max_message = max_message
        self._on_error = on_error

    def split(self, frame: bytes) -> list[bytes]:
        """A message holds one command."""
        return [frame]

    def read(self, item: pb.ConnectRequest | bytes | Compressed) -> Command | None:
        """Read a command; a RefusedCommand if it cannot be executed. None, after `on_error`, if there is none."""
        if isinstance(item, pb.ConnectRequest):
            return self._command(item)
        try:
            request = parse(pb.ConnectRequest, item if isinstance(item, bytes) else item.inflate())
            if request.WhichOneof("command") == "connect":
                raise StatusError(StatusCode.INVALID_ARGUMENT, "connect again")
        except StatusError as error:
            self._on_error(error)
            return None
        return self._command(request)

    def _command(self, request: pb.ConnectRequest) -> Command:
        try:
            if request.WhichOneof("command") == "publish":
                return self._publish(request.id, request.publish)
            read = _READERS.get(request.WhichOneof("command") or "")
            if read is None:
                raise CommandError(BAD_REQUEST, what="no command that is known here")
            return read(request.id, request)
        except CommandError as error:
            return commands.RefusedCommand(request.id, error, request.WhichOneof("command") or "")

    def _publish(self, id: int, body: pb.PublishRequest) -> Command:
        _refuse_name(body.name)
        return commands.Publish(id, body.channel, data_of(body, self._max_message))

    def reply(self, id: int, result: Result) -> bytes:
        """The answer to a command. The publications that a subscription missed follow it."""
        written = _WRITERS[type(result)](id, result)
        answer = frame(written if isinstance(written, bytes) else written.SerializeToString())
        if isinstance(result, SubscribeResult) and result.history.publications:
            answer += b"".join(backlog(PUSHES[False], result.channel, result.history.publications))
        return answer

    def refusal(self, id: int, error: CommandError) -> bytes:
        """The answer to a command that is refused."""
        reason = error.reason
        body = pb.Error(code=reason.code, message=str(error), temporary=reason.temporary)
        return frame(pb.ConnectResponse(id=id, error=body).SerializeToString())

    def push(self, push: Push) -> bytes:
        """An event about the session: the id is 0."""
        if isinstance(push, commands.SubscribePush):
            return self.reply(0, push.result)
        if isinstance(push, commands.UnsubscribePush):
            ended = pb.Unsubscribed(channel=push.channel, code=push.code, reason=push.reason)
            return frame(pb.ConnectResponse(unsubscribed=ended).SerializeToString())
        if isinstance(push, commands.RefreshPush):
            return frame(pb.ConnectResponse(refreshed=pb.Refreshed(ttl=push.ttl or 0)).SerializeToString())
        return b""  # the status of the call says it

    def frame(self, messages: Sequence[bytes]) -> bytes:
        """Messages have their frames already."""
        return b"".join(messages)

    def format(self, join_leave: bool) -> PushFormat:
        """The wire format of a channel's events."""
        return PUSHES[join_leave]


# Commands.


def _read_connect(id: int, request: pb.ConnectRequest) -> Command:
    body = request.connect
    return commands.Connect(
        id, body.token, body.name or None, None, float(body.heartbeat), resume=body.resume, label=body.label or None
    )


def _read_subscribe(id: int, request: pb.ConnectRequest) -> Command:
    body = request.subscribe
    _refuse_name(body.name)
    return commands.Subscribe(id, body.channel, body.token, since_of(body), body.join_leave)


def _read_history(id: int, request: pb.ConnectRequest) -> Command:
    body = request.history
    since = since_of(body)
    newest = since is None and body.limit > 0
    return commands.ReadHistory(id, body.channel, since, body.limit or -1, reverse=newest, strict=False)


def _refuse_name(name: str) -> None:
    if name:
        raise CommandError(BAD_REQUEST, what="a name here is given by connect")


_READERS: dict[str, Callable[[int, pb.ConnectRequest], Command]] = {
    "connect": _read_connect,
    "subscribe": _read_subscribe,
    "unsubscribe": lambda id, request: commands.Unsubscribe(id, request.unsubscribe.channel),
    "presence": lambda id, request: commands.Presence(id, request.presence.channel),
    "history": _read_history,
    "ping": lambda id, request: commands.Ping(id),
    "refresh": lambda id, request: commands.Refresh(id, request.refresh.token),
    "sub_refresh": lambda id, request: commands.SubRefresh(id, request.sub_refresh.channel, request.sub_refresh.token),
    "rpc": lambda id, request: commands.RPC(id, request.rpc.method, request.rpc.data.encode()),
}

# Answers.


def _write_connected(id: int, result: commands.ConnectResult) -> pb.ConnectResponse:
    return pb.ConnectResponse(
        id=id, connected=pb.Connected(client=result.client, name=result.name, ttl=result.ttl or 0)
    )


def _write_subscribed(id: int, result: SubscribeResult) -> pb.ConnectResponse:
    return pb.ConnectResponse(
        id=id, subscribed=subscribed_message(result.channel, result.history, result.since, result.data)
    )


def _write_presence(id: int, result: commands.PresenceResult) -> bytes:
    return answer(id, PRESENCE, presence_parts(result.infos))


def _write_history(id: int, result: commands.HistoryResult) -> bytes:
    result.history.publications.sort(key=lambda each: each.offset)  # the newest may come first
    return answer(id, HISTORY, history_parts(result.history))


_WRITERS: dict[type, Callable[[int, Any], pb.ConnectResponse | bytes]] = {
    commands.ConnectResult: _write_connected,
    commands.SubscribeResult: _write_subscribed,
    commands.UnsubscribeResult: lambda id, result: pb.ConnectResponse(
        id=id, unsubscribed=pb.Unsubscribed(channel=result.channel)
    ),
    commands.PublishResult: lambda id, result: pb.ConnectResponse(
        id=id, published=pb.PublishResponse(position=position_message(result.position))
    ),
    commands.PresenceResult: _write_presence,
    commands.HistoryResult: _write_history,
    commands.PingResult: lambda id, result: pb.ConnectResponse(id=id, pong=pb.Pong()),
    commands.RefreshResult: lambda id, result: pb.ConnectResponse(id=id, refreshed=pb.Refreshed(ttl=result.ttl or 0)),
    commands.SubRefreshResult: lambda id, result: pb.ConnectResponse(
        id=id, sub_refreshed=pb.SubRefreshed(ttl=result.ttl or 0)
    ),
    commands.RPCResult: lambda id, result: pb.ConnectResponse(
        id=id, rpc=pb.RPCResponse(data=result.data.decode("utf-8", "replace"))
    ),
}
