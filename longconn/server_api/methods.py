"""The methods of the server API: what each reads of its request, asks of the hub, and writes of the answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from longconn.core.broker import Done
from longconn.core.client import check_size
from longconn.core.disconnects import FORCE_DISCONNECT, Disconnect
from longconn.core.errors import BAD_REQUEST, METHOD_NOT_FOUND, CommandError
from longconn.core.hub import Hub, log
from longconn.core.publication import Data, Position
from longconn.core.tokens import SubscriptionToken
from longconn.server_api import messages as wire
from longconn.server_api.messages import Request
from longconn.server_api.operations import Target
from longconn.wire.centrifugo import presence_result

#: A command that was read: it answers with its result as JSON, or raises CommandError.
Call = Callable[[Done[bytes]], None]

#: What of Centrifugo's API is not here.
_OF_PUBLICATIONS = ("b64data", "tags", "delta", "version", "version_epoch")
_OF_TARGETS = ("label_filter", "all_users")
#: Bytes of a reason in a close frame (RFC 6455, section 5.5.1).
_MOST_REASON = 123


def read(hub: Hub, method: str, request: Request) -> Call:
    """What a request asks for. Raises MalformedError; what else is wrong is refused when it is called."""
    try:
        return METHODS[method](hub, request)
    except CommandError as error:
        return partial(_refuse, error)


def _refuse(error: CommandError, done: Done[bytes]) -> None:
    done(error)


def _written(done: Done[bytes], write: Callable[[Any], bytes]) -> Done[Any]:
    """What tells `done` a result as `write` writes it, or its error."""

    def known(result: Any) -> None:
        done(result if isinstance(result, CommandError) else write(result))

    return known


def _nothing(result: object) -> bytes:
    return b"{}"


def _known(write: Callable[[], bytes]) -> Call:
    """A command that is answered at once."""
    return lambda done: done(write())


def _after(act: Callable[[], None]) -> Call:
    """A command that is done at once, and has no result."""

    def call(done: Done[bytes]) -> None:
        act()
        done(b"{}")

    return call


# Publishing.


def _data(hub: Hub, request: Request) -> Data:
    request.refuse(*_OF_PUBLICATIONS)
    data = request.data("data")
    if data is None:
        raise CommandError(BAD_REQUEST, what="there is no data")
    check_size(data.size, hub.settings.max_message)
    return data


def _publish(hub: Hub, request: Request) -> Call:
    channel, key, skip = request.text("channel"), request.text("idempotency_key"), request.flag("skip_history")
    data = _data(hub, request)
    return lambda done: hub.api.publish(channel, data, _written(done, wire.position_result), skip, key)


def _broadcast(hub: Hub, request: Request) -> Call:
    channels, key, skip = request.texts("channels"), request.text("idempotency_key"), request.flag("skip_history")
    data = _data(hub, request)
    if not channels:
        raise CommandError(BAD_REQUEST, what="there are no channels")

    def call(done: Done[bytes]) -> None:
        def known(results: list[Position | CommandError]) -> None:
            _log_refused("broadcast", results)
            done(wire.broadcast_result(results))

        hub.api.broadcast(channels, data, known, skip, key)

    return call


# Connections.


def _target(request: Request) -> Target:
    target = Target(request.text("user"), request.text("client"), request.text("session"))
    request.refuse(*_OF_TARGETS)
    if request.values.get("user") is None and not (target.client or target.session):
        # An empty user means all without one: too many to be meant by nothing.
        raise CommandError(BAD_REQUEST, what="there is no user")
    return target


def _subscribe(hub: Hub, request: Request) -> Call:
    channel, expire_at = request.text("channel"), request.number("expire_at")
    target = _target(request)
    request.refuse("b64info", "b64data", "recover_since", "override")
    info, data = _json(request, "info"), _json(request, "data")
    granted = SubscriptionToken(channel, target.user, float(expire_at) if expire_at else None, info, data)
    return lambda done: hub.api.subscribe(granted, target, _written(done, _nothing))


def _json(request: Request, name: str) -> bytes:
    data = request.data(name)
    return b"" if data is None or data.json == b"null" else data.json


def _unsubscribe(hub: Hub, request: Request) -> Call:
    channel = request.text("channel")
    target = _target(request)
    return _after(lambda: hub.api.unsubscribe(channel, target))


def _disconnect(hub: Hub, request: Request) -> Call:
    whitelist = request.texts("whitelist")
    asked = request.inner("disconnect")
    code, reason = (asked.number("code"), asked.text("reason")) if asked is not None else (0, "")
    target = _target(request)
    disconnect = FORCE_DISCONNECT
    if asked is not None:
        if not 3000 <= code < 5000 or len(reason.encode()) > _MOST_REASON:
            raise CommandError(BAD_REQUEST, what=f"a code is 3000 to 4999, a reason at most {_MOST_REASON} bytes")
        disconnect = Disconnect(code, "custom", reason)
    return _after(lambda: hub.api.disconnect(target, disconnect, frozenset(whitelist)))


def _refresh(hub: Hub, request: Request) -> Call:
    expired, expire_at = request.flag("expired"), request.number("expire_at")
    target = _target(request)
    info = _json(request, "info")
    at = float(expire_at) if expire_at else None
    return _after(lambda: hub.api.refresh(target, at, expired, info))


# Channels, and the node.


def _presence(hub: Hub, request: Request) -> Call:
    channel = request.text("channel")
    return _known(lambda: presence_result(hub.api.presence(channel)))


def _presence_stats(hub: Hub, request: Request) -> Call:
    channel = request.text("channel")
    return _known(lambda: wire.stats_result(hub.api.presence(channel)))


def _history(hub: Hub, request: Request) -> Call:
    channel, limit, reverse = request.text("channel"), request.number("limit", -1), request.flag("reverse")
    asked = request.inner("since")
    since = None if asked is None else Position(asked.text("epoch"), asked.number("offset"))
    return lambda done: hub.api.history(channel, _written(done, wire.history_result), since, limit, reverse)


def _history_remove(hub: Hub, request: Request) -> Call:
    channel = request.text("channel")
    return lambda done: hub.api.remove_history(channel, _written(done, _nothing))


def _channels(hub: Hub, request: Request) -> Call:
    pattern = request.text("pattern")
    return _known(lambda: wire.channels_result(hub.api.channels(pattern)))


def _info(hub: Hub, request: Request) -> Call:
    return _known(lambda: wire.info_result(hub.api.info()))


METHODS: dict[str, Callable[[Hub, Request], Call]] = {
    "publish": _publish,
    "broadcast": _broadcast,
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "disconnect": _disconnect,
    "history": _history,
    "history_remove": _history_remove,
    "presence": _presence,
    "presence_stats": _presence_stats,
    "info": _info,
    "refresh": _refresh,
    "channels": _channels,
}


# Many at once.


def read_batch(hub: Hub, request: Request) -> Call:
    """A batch: all is read before the first of it is done. Raises MalformedError."""
    commands = [(size, *_command(hub, each)) for size, each in wire.read_commands(request)]
    parallel = request.flag("parallel")

    def call(done: Done[bytes]) -> None:
        hub.api.calls.update(method for _, method, _ in commands if method)

        def known(results: list[bytes | CommandError]) -> None:
            _log_refused("batch", results)
            hub.api.refused += sum(isinstance(each, CommandError) for each in results)
            replies = [wire.reply(method, result) for (_, method, _), result in zip(commands, results, strict=True)]
            done(b'{"replies":[' + b",".join(replies) + b"]}")

        hub.api.many([(size, each) for size, _, each in commands], known, parallel)

    return call


def _command(hub: Hub, command: Request | None) -> tuple[str, Call]:
    """A command of a batch: its method, and what it does."""
    if command is None:
        return "", partial(_refuse, CommandError(BAD_REQUEST, what="a command is null"))
    for method in METHODS:
        inner = command.inner(method)
        if inner is not None:
            return method, read(hub, method, inner)
    return "", partial(_refuse, CommandError(METHOD_NOT_FOUND))


def _log_refused(method: str, results: list[Any]) -> None:
    refused = [each for each in results if isinstance(each, CommandError)]
    if refused:
        log.info("API %s: %d of %d refused, the first: %s", method, len(refused), len(results), refused[0])
