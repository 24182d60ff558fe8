"""The methods of the server API: each reads its request, calls an operation, and writes the result.

A request is read whole, those inside a batch too, before anything is done for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from msgspec import Raw, Struct, defstruct
from msgspec.json import Decoder

from longconn.core import json_text
from longconn.core.broker import Done
from longconn.core.disconnects import FORCE_DISCONNECT, Disconnect
from longconn.core.errors import BAD_REQUEST, INTERNAL, METHOD_NOT_FOUND, NOT_AVAILABLE, CommandError
from longconn.core.log import about, log
from longconn.core.publication import Data, Position
from longconn.core.revocations import DEFAULT_AGE, Revocation
from longconn.core.tokens import SubscriptionToken
from longconn.server_api import spread
from longconn.server_api.messages import (
    DEFAULT_LIMIT,
    APIBatch,
    APIBroadcast,
    APIChannel,
    APIChannels,
    APIClients,
    APIDisconnect,
    APIHistory,
    APIInfo,
    APIPublication,
    APIPublish,
    APIRecent,
    APIRefresh,
    APIRevoke,
    APISubscribe,
    APITarget,
    APIUnsubscribe,
    broadcast_result,
    busiest_result,
    channels_result,
    clients_result,
    info_result,
    position_result,
    reply,
    stats_result,
)
from longconn.server_api.operations import ServerAPI, Target
from longconn.server_api.spread import Merge, merged
from longconn.wire.centrifugo import history_result, presence_result

#: A request that was read. Calling it executes the request, and passes its result as JSON to `done`; it may raise
#: CommandError.
APICall = Callable[[ServerAPI, Done[bytes]], None]

#: Bytes of a reason in a close frame (RFC 6455, section 5.5.1).
_MOST_REASON = 123
_NOTHING = b"{}"


def read(method: str, body: bytes) -> APICall:
    """The request for a method of `METHODS`, or for `batch`. Raises JSONError."""
    if method == "batch":
        batch = json_text.read(_BATCH, body)
        commands = [_read_command(bytes(each)) for each in batch.commands or ()]
        return partial(_run_batch, commands, batch.parallel is True)
    return _call_of(method, json_text.read(METHODS[method].decoder, body), body)


def answer_node(api: ServerAPI, body: bytes, done: Done[bytes]) -> None:
    """Execute a request that another node passes on, for this node alone. Raises CommandError."""
    method, _, request = body.partition(b"\n")
    known = METHODS[method.decode()]
    known.call(json_text.read(known.decoder, request), api, done)


def _call_of(method: str, request: Any, body: bytes) -> APICall:
    """The function of a request, whose text is `body`: for all nodes where the method concerns them."""
    known = METHODS[method]
    if known.merge is None:
        return partial(known.call, request)
    return partial(_call_all, known.merge, known, method, body, request)


def _call_all(
    merge: Merge, known: Method, method: str, body: bytes, request: Any, api: ServerAPI, done: Done[bytes]
) -> None:
    """Execute a request here and at the other nodes. A node that does not answer makes it INTERNAL, worth a retry."""

    def executed(result: bytes | CommandError) -> None:
        if isinstance(result, CommandError):
            done(result)  # the others would refuse it too
        else:
            api.hub.nodes.ask_others("api", method.encode() + b"\n" + body, partial(gathered, result))

    def gathered(own: bytes, answers: list[bytes | CommandError]) -> None:
        results = [each for each in answers if not isinstance(each, CommandError)]
        if len(results) < len(answers):
            done(CommandError(INTERNAL))
        else:
            done(merged(merge, request, [own, *results]) if results else own)

    known.call(request, api, executed)


def _written(done: Done[bytes], write: Callable[[Any], bytes]) -> Done[Any]:
    """Passes an error on to `done`, or a result as `write` writes it."""

    def answered(result: Any) -> None:
        done(result if isinstance(result, CommandError) else write(result))

    return answered


def _write_nothing(result: object) -> bytes:
    return _NOTHING


def _refuse_members(request: Struct, *names: str) -> None:
    """Raises CommandError(NOT_AVAILABLE) if one of the members is set."""
    for name in names:
        if getattr(request, name):
            raise CommandError(NOT_AVAILABLE, what=name)


# Publishing.


def _publish(request: APIPublish, api: ServerAPI, done: Done[bytes]) -> None:
    api.publish(
        request.channel or "",
        _data(request),
        _written(done, position_result),
        request.skip_history is True,
        request.idempotency_key or "",
    )


def _broadcast(request: APIBroadcast, api: ServerAPI, done: Done[bytes]) -> None:
    data = _data(request)
    if not request.channels:
        raise CommandError(BAD_REQUEST, what="there are no channels")

    def published(results: list[Position | CommandError]) -> None:
        _log_refused("broadcast", results)
        done(broadcast_result(results))

    api.broadcast(request.channels, data, published, request.skip_history is True, request.idempotency_key or "")


def _data(request: APIPublication) -> Data:
    _refuse_members(request, "b64data", "tags", "delta", "version", "version_epoch")
    raw = bytes(request.data)
    if not raw:
        raise CommandError(BAD_REQUEST, what="there is no data")
    return Data.of_json(raw)


# Connections.


def _subscribe(request: APISubscribe, api: ServerAPI, done: Done[bytes]) -> None:
    target = _target(request)
    _refuse_members(request, "b64info", "b64data", "recover_since", "override")
    expires_at = float(request.expire_at) if request.expire_at else None
    info, data = _json(request.info), _json(request.data)
    granted = SubscriptionToken(request.channel or "", target.user, expires_at, info, data)
    api.subscribe(granted, target, _written(done, _write_nothing))


def _unsubscribe(request: APIUnsubscribe, api: ServerAPI, done: Done[bytes]) -> None:
    api.unsubscribe(request.channel or "", _target(request))
    done(_NOTHING)


def _disconnect(request: APIDisconnect, api: ServerAPI, done: Done[bytes]) -> None:
    target = _target(request)
    disconnect = FORCE_DISCONNECT
    if request.disconnect is not None:
        code, reason = request.disconnect.code or 0, request.disconnect.reason or ""
        if not 3000 <= code < 5000 or len(reason.encode()) > _MOST_REASON:
            raise CommandError(BAD_REQUEST, what=f"a code is 3000 to 4999, a reason at most {_MOST_REASON} bytes")
        disconnect = Disconnect(code, "custom", reason)
    api.disconnect(target, disconnect, frozenset(request.whitelist or ()))
    done(_NOTHING)


def _refresh(request: APIRefresh, api: ServerAPI, done: Done[bytes]) -> None:
    target = _target(request)
    expires_at = float(request.expire_at) if request.expire_at else None
    api.refresh(target, expires_at, request.expired is True, _json(request.info))
    done(_NOTHING)


def _revoke(request: APIRevoke, api: ServerAPI, done: Done[bytes]) -> None:
    if not (request.user or request.token_id or request.issued_before):
        raise CommandError(BAD_REQUEST, what="there is no user, token_id or issued_before")
    if request.token_id and (request.user or request.issued_before):
        raise CommandError(BAD_REQUEST, what="a token_id stands alone")
    until = float(request.expire_at) if request.expire_at else api.hub.wall_time() + DEFAULT_AGE
    before = float(request.issued_before) if request.issued_before else None
    closed = api.revoke(Revocation(until, request.user or "", request.token_id or "", before))
    done(b'{"num_clients":%d}' % closed)


def _target(request: APITarget) -> Target:
    _refuse_members(request, "label_filter", "all_users")
    if request.user is None and not (request.client or request.session):
        # An empty user means all connections without a user: a request has to say so.
        raise CommandError(BAD_REQUEST, what="there is no user")
    return Target(request.user or "", request.client or "", request.session or "")


def _json(raw: Raw) -> bytes:
    """A member that is any JSON value, compact; empty without one."""
    written = bytes(raw)
    return b"" if written in (b"", b"null") else Data.of_json(written).json


# Channels, and the node.


def _presence(request: APIChannel, api: ServerAPI, done: Done[bytes]) -> None:
    api.presence(request.channel or "", _written(done, presence_result))


def _presence_stats(request: APIChannel, api: ServerAPI, done: Done[bytes]) -> None:
    api.presence(request.channel or "", _written(done, stats_result))


def _history(request: APIHistory, api: ServerAPI, done: Done[bytes]) -> None:
    since = request.since
    position = None if since is None else Position(since.epoch or "", since.offset or 0)
    write = _written(done, history_result)
    api.history(request.channel or "", write, position, request.limit or 0, request.reverse is True)


def _history_remove(request: APIChannel, api: ServerAPI, done: Done[bytes]) -> None:
    api.remove_history(request.channel or "", _written(done, _write_nothing))


def _channels(request: APIChannels, api: ServerAPI, done: Done[bytes]) -> None:
    if request.order is None and request.limit is None:
        api.channels(request.pattern or "", _written(done, channels_result))
    else:
        order, limit = request.order or "clients", DEFAULT_LIMIT if request.limit is None else request.limit
        api.busiest_channels(request.pattern or "", order, limit, _written(done, busiest_result))


def _clients(request: APIClients, api: ServerAPI, done: Done[bytes]) -> None:
    limit = DEFAULT_LIMIT if request.limit is None else request.limit
    api.clients(request.match or "", request.order or "queued", limit, _written(done, clients_result))


def _recent(request: APIRecent, api: ServerAPI, done: Done[bytes]) -> None:
    done(json_text.write(api.recent()))


def _info(request: APIInfo, api: ServerAPI, done: Done[bytes]) -> None:
    done(info_result(api.info()))


@dataclass(frozen=True, slots=True)
class Method:
    """A method: the reader of its requests, and the function that is called with one."""

    decoder: Decoder[Any]
    call: Callable[[Any, ServerAPI, Done[bytes]], None]
    #: makes one result of those of all nodes; None for a method that the broker has the same result for at each node
    merge: Merge | None = None


METHODS = {
    "publish": Method(Decoder(APIPublish), _publish),
    "broadcast": Method(Decoder(APIBroadcast), _broadcast),
    "subscribe": Method(Decoder(APISubscribe), _subscribe, spread.nothing),
    "unsubscribe": Method(Decoder(APIUnsubscribe), _unsubscribe, spread.nothing),
    "disconnect": Method(Decoder(APIDisconnect), _disconnect, spread.nothing),
    "history": Method(Decoder(APIHistory), _history),
    "history_remove": Method(Decoder(APIChannel), _history_remove),
    "presence": Method(Decoder(APIChannel), _presence),
    "presence_stats": Method(Decoder(APIChannel), _presence_stats),
    "info": Method(Decoder(APIInfo), _info, spread.all_nodes),
    "refresh": Method(Decoder(APIRefresh), _refresh, spread.nothing),
    "revoke": Method(Decoder(APIRevoke), _revoke, spread.sum_of_clients),
    "channels": Method(Decoder(APIChannels), _channels, spread.channels),
    "clients": Method(Decoder(APIClients), _clients, spread.clients),
    "recent": Method(Decoder(APIRecent), _recent),
}
_BATCH = Decoder(APIBatch)


# Batches.

# One command of a batch: an object with one member, named by a method.
_members: list[tuple[str, Any, None]] = [(name, each.decoder.type | None, None) for name, each in METHODS.items()]
_MEMBERS = Decoder(dict[str, Raw])
_COMMAND: Decoder[Any] = Decoder(defstruct("APICommand", _members) | None)


def _read_command(text: bytes) -> tuple[int, str, APICall]:
    """A command of a batch: its length in bytes, its method ("" if it is refused), and its function."""
    members = json_text.read(_COMMAND, text)
    if members is None:
        return len(text), "", _refuse_null
    for name in METHODS:
        request = getattr(members, name)
        if request is not None:
            body = bytes(json_text.read(_MEMBERS, text)[name])
            return len(text), name, _call_of(name, request, body)
    return len(text), "", _refuse_unknown


def _refuse_null(api: ServerAPI, done: Done[bytes]) -> None:
    raise CommandError(BAD_REQUEST, what="a command is null")


def _refuse_unknown(api: ServerAPI, done: Done[bytes]) -> None:
    raise CommandError(METHOD_NOT_FOUND)


def _run_batch(commands: list[tuple[int, str, APICall]], parallel: bool, api: ServerAPI, done: Done[bytes]) -> None:
    api.calls.update(name for _, name, _ in commands if name)

    def answered(results: list[bytes | CommandError]) -> None:
        _log_refused("batch", results)
        api.refused += sum(isinstance(each, CommandError) for each in results)
        replies = [reply(name, result) for (_, name, _), result in zip(commands, results, strict=True)]
        done(b'{"replies":[' + b",".join(replies) + b"]}")

    api.many([(size, partial(command, api)) for size, _, command in commands], answered, parallel)


def _log_refused(method: str, results: list[Any]) -> None:
    refused = [each for each in results if isinstance(each, CommandError)]
    if refused:
        log.info(
            "API %s: %d of %d refused, the first: %s",
            method,
            len(refused),
            len(results),
            refused[0],
            extra=about("api_refused", code=refused[0].reason.code),
        )
