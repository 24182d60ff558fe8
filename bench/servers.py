"""The servers that are measured, and how each is spoken to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.generator import compile_c
from bench.install import CACHE, NODE, PYTHON
from bench.process import ROOT, BenchError

PEERS = ROOT / "bench" / "peers"
Dialect = Mapping[str, str]  # options of the load generator; TEXT in them stands for the message, see rows.py


def _prefixed(prefix: str, dialect: Dialect) -> dict[str, str]:
    return {f"{prefix}.{name}": value for name, value in dialect.items()}


def _post(path: str, content_type: str) -> str:
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\nContent-Length: LENGTH\r\n\r\n"


TCP = {"carrier": "raw", "message": "TEXT\r\n"}
WS = {"carrier": "ws", "path": "/ws?channel=bench@", "message": "TEXT"}
EVENTS = "GET /channels/bench@/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
SSE_OPEN = {"carrier": "raw", "hello": EVENTS, "expect": "\r\n\r\n"}
SSE = {**SSE_OPEN, **_prefixed("publisher", WS)}
CENTRIFUGO = {
    "carrier": "ws",
    "path": "/connection/websocket",
    "hello": '{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"bench@"}}',
    "expect": '"id":2',
    "message": '{"id":3,"publish":{"channel":"bench@","data":"TEXT"}}',
}
_SILENT = {**CENTRIFUGO, "hello": '{"id":1,"connect":{}}', "expect": '"id":1', "reply": '"id":3'}
WITH_REPLY = {**CENTRIFUGO, **_prefixed("publisher", _SILENT)}
GET = {"carrier": "raw", "request": "GET /PrintHello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"}
POST = {"carrier": "raw", "request": _post("/channels/bench0", "text/plain"), "body": "TEXT"}
NDJSON = {"carrier": "raw", "request": _post("/channels/bench0", "application/x-ndjson"), "body": '"TEXT"\n'}
LISTENED = _prefixed("listener", WS)  # what is posted goes to a subscriber
WEBSOCKET = {"ws": WS, "ws-open": WS}
HTTP = {"get": GET, "post": {**POST, **LISTENED}, "ndjson": {**NDJSON, **LISTENED}}


@dataclass(frozen=True)
class Server:
    """A server: its command for a port, what it speaks, and why it is not there (a text, or None)."""

    name: str
    command: Callable[[int], list[str]]
    dialects: Mapping[str, Dialect]
    missing: Callable[[], str | None] = lambda: None
    environment: Mapping[str, str] | None = None


def _ours(port: int) -> list[str]:
    twistd = str(Path(sysconfig.get_path("scripts"), "twistd"))
    limits = ["--publish-rate=0", "--publish-bytes=0"]
    return [sys.executable, twistd, "-n", "--pidfile=", "longconn", f"--port=127.0.0.1:{port}", *limits]


def _python(program: str) -> Callable[[int], list[str]]:
    return lambda port: [str(PYTHON), str(PEERS / f"{program}.py"), str(port)]


def _without(module: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        there = list((CACHE / "python" / "lib").glob(f"python3*/site-packages/{module}"))
        return None if there else f"{module} is not installed: python -m bench --install"

    return missing


def _bun() -> Path | None:
    # The package for processors without AVX2 is there, too; it would be slower.
    found = sorted(NODE.glob("@oven/bun-linux-*/bin/bun"), key=lambda path: "baseline" in str(path))
    return found[0] if found else None


def _floor(port: int) -> list[str]:
    return [str(compile_c([PEERS / "floor.c"], "floor")), str(port)]


def _no_gcc() -> str | None:
    return None if shutil.which("gcc") else "gcc is missing"


def _loads(package: Path) -> bool:
    """Whether node can load a package: one in machine code may want another C library."""
    node = shutil.which("node")
    command = [node or "", "-e", f"require({json.dumps(str(package))})"]
    return node is not None and subprocess.run(command, capture_output=True).returncode == 0


UWS = NODE / "@btc-vision" / "uwebsockets.js"

SERVERS = (
    Server(
        "longconn",
        _ours,
        {
            **WEBSOCKET,
            **HTTP,
            "tcp": TCP,
            "tcp-open": {**TCP, "hello": "ping\r\n", "expect": "pong"},
            "sse": SSE,
            "sse-open": SSE_OPEN,
            "centrifugo": CENTRIFUGO,
            "centrifugo-reply": WITH_REPLY,
            "centrifugo-open": CENTRIFUGO,
        },
        environment={"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))},
    ),
    Server(
        "Twisted LineReceiver",
        lambda port: [sys.executable, str(PEERS / "line_receiver.py"), str(port)],
        {"tcp": TCP, "tcp-open": {**TCP, "hello": "ping\r\n", "expect": "ping"}},
    ),
    Server("picows", _python("picows_chat"), WEBSOCKET, _without("picows")),
    Server("websockets", _python("websockets_chat"), WEBSOCKET, _without("websockets")),
    Server(
        "aiohttp",
        _python("aiohttp_chat"),
        {**WEBSOCKET, **HTTP, "sse": SSE, "sse-open": SSE_OPEN},
        _without("aiohttp"),
    ),
    Server(
        "Bun",
        lambda port: [str(_bun()), str(PEERS / "bun_chat.js"), str(port)],
        {**WEBSOCKET, **HTTP, "sse": SSE, "sse-open": SSE_OPEN},
        lambda: None if _bun() else "bun is not installed: python -m bench --install",
    ),
    Server(
        "uWebSockets.js",
        lambda port: [shutil.which("node") or "node", str(PEERS / "uws_chat.js"), str(port)],
        {**WEBSOCKET, "get": GET},
        lambda: None if _loads(UWS) else "node, or a uWebSockets.js that runs here, is missing",
        {"BENCH_UWS": str(UWS)},
    ),
    Server("socketify", _python("socketify_chat"), {**WEBSOCKET, "get": GET}, _without("socketify")),
    Server(
        "C floor",
        _floor,
        {**WEBSOCKET, "tcp": TCP, "tcp-open": {**TCP, "hello": "ping\r\n", "expect": "pong"}, "get": GET},
        _no_gcc,
    ),
)


def named(name: str) -> Server:
    """Return a server by its name, or raise BenchError."""
    for server in SERVERS:
        if server.name.lower() == name.lower():
            return server
    raise BenchError(f"no server {name!r}; there are {', '.join(server.name for server in SERVERS)}")
