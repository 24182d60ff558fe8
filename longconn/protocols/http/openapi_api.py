"""The server API's methods, as `longconn.protocols.http.openapi` describes them."""

from __future__ import annotations

from longconn.protocols.http.openapi_parts import (
    BOOLEAN,
    INTEGER,
    STRING,
    Json,
    answer,
    body,
    fields,
    listed,
    mapped,
    one,
    operation,
    ref,
)

_ANY: Json = {"description": "any JSON value"}
_TARGET = {
    "user": {"type": "string", "description": "whose connections; empty: of those without a user"},
    "client": {"type": "string", "description": "only the one with this id"},
    "session": {"type": "string", "description": "only the one with this session"},
}
_PUBLISHING = {
    "data": _ANY,
    "skip_history": {"type": "boolean", "description": "only for who is subscribed now; no offset"},
    "idempotency_key": {"type": "string", "description": "done once in 5 minutes, and answered the same"},
}
_TIME: Json = {"type": "integer", "description": "seconds since 1970; 0 for never"}
_DISCONNECT = fields(("code",), code={"type": "integer", "minimum": 3000, "maximum": 4999}, reason=STRING)
_NOTHING: Json = {"type": "object"}

#: By method: what it does, its request, its result.
_METHODS: dict[str, tuple[str, Json, Json]] = {
    "publish": (
        "publish in a channel",
        fields(("channel", "data"), channel=STRING, **_PUBLISHING),
        ref("ApiPosition"),
    ),
    "broadcast": (
        "publish the same in many channels",
        fields(("channels", "data"), channels=listed(STRING), **_PUBLISHING),
        fields(("responses",), responses=listed(fields((), result=ref("ApiPosition"), error=ref("Error")))),
    ),
    "subscribe": (
        "subscribe connections to a channel, whatever its rights",
        fields(("channel", "user"), channel=STRING, **_TARGET, expire_at=_TIME, info=_ANY, data=_ANY),
        _NOTHING,
    ),
    "unsubscribe": (
        "end the subscriptions of connections to a channel",
        fields(("channel", "user"), channel=STRING, **_TARGET),
        _NOTHING,
    ),
    "disconnect": (
        "close connections of any kind",
        fields(
            ("user",),
            **_TARGET,
            whitelist={"type": "array", "items": STRING, "description": "ids of clients that stay"},
            disconnect=_DISCONNECT,
        ),
        _NOTHING,
    ),
    "refresh": (
        "let connections expire at another time",
        fields(("user",), **_TARGET, expired=BOOLEAN, expire_at=_TIME, info=_ANY),
        _NOTHING,
    ),
    "presence": (
        "who is subscribed to a channel",
        fields(("channel",), channel=STRING),
        fields(("presence",), presence=mapped(ref("ApiClient"))),
    ),
    "presence_stats": (
        "how many are subscribed to a channel",
        fields(("channel",), channel=STRING),
        fields(("num_clients", "num_users"), num_clients=INTEGER, num_users=INTEGER),
    ),
    "history": (
        "what is kept of a channel",
        fields(
            ("channel",),
            channel=STRING,
            limit={"type": "integer", "description": "0: only where the channel stands; -1: all"},
            since=ref("ApiPosition"),
            reverse=BOOLEAN,
        ),
        fields(
            ("publications", "epoch", "offset"),
            publications=listed(fields(("data",), data=_ANY, info=ref("ApiClient"), offset=INTEGER, time=INTEGER)),
            epoch=STRING,
            offset=INTEGER,
        ),
    ),
    "history_remove": ("forget what is kept of a channel", fields(("channel",), channel=STRING), _NOTHING),
    "channels": (
        "channels with subscribers",
        fields((), pattern={"type": "string", "description": "with * ? [abc] [!abc]"}),
        fields(("channels",), channels=mapped(fields(("num_clients",), num_clients=INTEGER))),
    ),
    "info": ("what the server has and did", _NOTHING, fields(("nodes",), nodes=listed(ref("ApiNode")))),
}


def _described(summary: str, request: Json, response: Json) -> Json:
    described = operation("api", summary, {"200": answer("done, or refused", one(response))}, body=body(one(request)))
    return {"post": described | {"security": [{"key": []}, {"authorization": []}]}}


def _batch() -> Json:
    requests = {name: request for name, (_, request, _) in _METHODS.items()}
    results = {name: result for name, (_, _, result) in _METHODS.items()}
    return _described(
        "many commands, one after another",
        fields(("commands",), commands=listed(fields((), **requests)), parallel=BOOLEAN),
        fields(("replies",), replies=listed(fields((), error=ref("Error"), **results))),
    )


#: By path.
METHODS: dict[str, Json] = {
    **{
        f"/api/{name}": _described(summary, request, fields((), result=result, error=ref("Error")))
        for name, (summary, request, result) in _METHODS.items()
    },
    "/api/batch": _batch(),
}

_NUMBERS = ("num_clients", "num_users", "num_channels", "num_subs", "uptime")
SCHEMAS: dict[str, Json] = {
    "ApiPosition": fields((), offset=INTEGER, epoch=STRING),
    "ApiClient": fields((), user=STRING, client=STRING, conn_info=_ANY, chan_info=_ANY),
    "ApiNode": fields(
        ("uid", "name", "version", *_NUMBERS, "metrics"),
        uid=STRING,
        name=STRING,
        version=STRING,
        **dict.fromkeys(_NUMBERS, INTEGER),
        metrics=fields(("interval", "items"), interval=INTEGER, items=mapped({"type": "number"})),
    ),
}
