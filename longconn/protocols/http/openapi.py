"""GET /openapi.json: what every path takes and answers, in OpenAPI 3.1 (spec.openapis.org/oas/v3.1.0).

The document has those paths that are routed. A test sees to it that each of them is described here, and
that what is described is routed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import longconn
from longconn.protocols.http.openapi_api import METHODS, SCHEMAS
from longconn.protocols.http.openapi_parts import (
    INTEGER,
    JSON,
    NUMBER,
    STRING,
    answer,
    body,
    fields,
    one,
    operation,
    parameter,
    ref,
)
from longconn.protocols.http.routes import Route

_TEXT = "text/plain"
_CHANNEL = parameter("channel", "path", "a channel's name, `/` in it as %2F")
_NAME = parameter("name", "query", "a name to go by, if it is free")
_SINCE = parameter("since", "query", "EPOCH:OFFSET: what came after it")
_POSITION = fields(("epoch", "offset"), epoch=STRING, offset=INTEGER)
_EVENTS = "text/event-stream"


def _upgrade(summary: str, *parameters: Any) -> Any:
    responses = {
        "101": answer("WebSocket (RFC 6455) from here on"),
        "426": answer("an upgrade is expected", one(ref("Failure"))),
    }
    return {"get": operation("websocket", summary, responses, *parameters)}


def _get(tag: str, summary: str, content: Any, *parameters: Any) -> Any:
    return {"get": operation(tag, summary, {"200": answer(summary, content)}, *parameters)}


_COMMANDS = "commands of the structured protocol, an object a line, `connect` first"
_REPLIES = "replies and pushes of the structured protocol"

#: Every path but those of the server API, by method.
PATHS: dict[str, Any] = {
    "/": _get("page", "the chat page", {"text/html": {"schema": STRING}}),
    "/page/{file}": _get(
        "page",
        "a file of which the page is made",
        {each: {"schema": STRING} for each in ("text/css", "text/javascript", "image/svg+xml")},
        parameter("file", "path", "its name"),
    ),
    "/PrintHello": _get(
        "health", "a greeting; X-Connection says who asked, and how often", {_TEXT: {"schema": STRING}}
    ),
    "/health/live": _get("health", "the process answers", {_TEXT: {"schema": STRING}}),
    "/health/ready": {
        "get": operation(
            "health",
            "whether new work is welcome",
            {"200": answer("it is", {_TEXT: {"schema": STRING}}), "503": answer("it is not, now", one(ref("Failure")))},
        )
    },
    "/openapi.json": _get("health", "this document", one({"type": "object"})),
    "/ws": _upgrade("chat lines as text frames", parameter("channel", "query", "the channel to be in"), _NAME),
    "/echo": _upgrade("every message comes back as it went"),
    "/websocket": _upgrade("every message comes back as it went"),
    "/connection/websocket": _upgrade("the structured protocol, an object a line of a text frame"),
    "/connection/http_stream": {
        "post": operation(
            "structured",
            "the structured protocol over a response that does not end",
            {
                "200": answer(f"{_REPLIES}, an object a line", one(STRING)),
                "415": answer("this is Protobuf", one(ref("Failure"))),
            },
            body=body({JSON: {"schema": {"type": "string", "description": _COMMANDS}}}),
        )
    },
    "/connection/sse": {
        "get": operation(
            "structured",
            "the structured protocol over server-sent events",
            {"200": answer(_REPLIES, {_EVENTS: {"schema": STRING}})},
            parameter("cf_connect", "query", _COMMANDS, required=True),
        ),
        "post": operation(
            "structured",
            "the structured protocol over server-sent events, for programs",
            {"200": answer(_REPLIES, {_EVENTS: {"schema": STRING}})},
            body=body({JSON: {"schema": {"type": "string", "description": _COMMANDS}}}),
        ),
    },
    "/emulation": {
        "post": operation(
            "structured",
            "commands of a client that reads over http_stream or sse",
            {"204": answer("they were taken"), "404": answer("there is no such session", one(ref("Failure")))},
            body=body(
                one(fields(("session", "data"), session=STRING, node=STRING, data={"type": ["string", "object"]}))
            ),
        )
    },
    "/channels/{channel}": {
        "get": operation(
            "channels",
            "what is kept of a channel after a position; with `wait` what comes next",
            {"200": answer("where the channel stands, and what came", one(ref("History")))},
            _CHANNEL,
            _SINCE,
            parameter("wait", "query", "seconds to wait for something, at most 60", schema=NUMBER),
        ),
        "post": operation(
            "channels",
            "publish: a JSON value, a text, or lines of JSON",
            {"200": answer("the position of the last publication", one(ref("Published")))},
            _CHANNEL,
            _NAME,
            body=body({JSON: {"schema": {}}, "application/x-ndjson": {"schema": STRING}, _TEXT: {"schema": STRING}}),
        ),
    },
    "/channels/{channel}/events": _get(
        "channels",
        "a channel as server-sent events",
        {_EVENTS: {"schema": STRING}},
        _CHANNEL,
        _SINCE,
        _NAME,
        parameter("Last-Event-ID", "header", "as `since`, and before it"),
    ),
    "/channels/{channel}/stream": _get(
        "channels",
        "a channel as publications, a line each; an empty line is a heartbeat",
        {"application/x-ndjson": {"schema": ref("Publication")}},
        _CHANNEL,
        _SINCE,
        _NAME,
    ),
}

_SCHEMAS: dict[str, Any] = {
    "Failure": fields(("error",), error=ref("Error")),
    "Error": fields(("code", "message"), code=INTEGER, message=STRING),
    "Publication": fields(
        ("channel", "offset", "epoch", "data", "name", "time"),
        channel=STRING,
        offset=INTEGER,
        epoch=STRING,
        data={},
        name=STRING,
        time={"type": "number", "description": "seconds since 1970"},
    ),
    "History": fields(
        ("epoch", "offset", "recovered", "publications"),
        epoch=STRING,
        offset=INTEGER,
        recovered={"type": "boolean", "description": "nothing is missing since the position asked for"},
        publications={"type": "array", "items": ref("Publication")},
    ),
    "Published": {"allOf": [_POSITION, fields((), count={"type": "integer", "description": "of lines of JSON"})]},
}


def document(routes: Mapping[str, Route]) -> dict[str, Any]:
    """The description of `routes`."""
    described = PATHS | METHODS
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "longconn",
            "version": longconn.__version__,
            "description": "Every GET may be a HEAD, every path is asked for its methods by OPTIONS. Without further "
            "words a failure is 400 (malformed), 403 (a foreign page), 404, 405, 413, 429 or 503.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        # Relative to this document: a program may serve all this below a path of its own.
        "servers": [{"url": "./"}],
        "paths": {path: described[path] for path in routes},
        "components": {
            "schemas": _SCHEMAS | SCHEMAS,
            "responses": {"Failure": answer("it was refused", one(ref("Failure")))},
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "authorization": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`apikey` and the key, a space between",
                },
            },
        },
    }
