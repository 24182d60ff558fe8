"""A chat made with aiohttp on uvloop: WebSocket, SSE and a GET. The access log is off."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict

import uvloop
from aiohttp import web

members: defaultdict[str, set[web.WebSocketResponse]] = defaultdict(set)
streams: defaultdict[str, set[web.StreamResponse]] = defaultdict(set)


async def send(channel: str, text: str) -> None:
    """Send to all of a channel."""
    for each in list(members[channel]):
        await each.send_str(text)
    event = f"data: {text}\n\n".encode()
    for stream in list(streams[channel]):
        await stream.write(event)


async def chat(request: web.Request) -> web.WebSocketResponse:
    """A member over WebSocket."""
    response = web.WebSocketResponse(compress=False)
    await response.prepare(request)
    channel = request.query.get("channel", "")
    members[channel].add(response)
    try:
        async for message in response:
            await send(channel, message.data)
    finally:
        members[channel].discard(response)
    return response


async def events(request: web.Request) -> web.StreamResponse:
    """A subscriber over SSE."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    members_of = streams[request.match_info["name"]]
    members_of.add(response)
    try:
        await asyncio.Future()
    finally:
        members_of.discard(response)
    return response


async def publish(request: web.Request) -> web.Response:
    """Publish the body, or each line of it."""
    for line in (await request.text()).splitlines():
        await send(request.match_info["name"], line)
    return web.json_response({"epoch": "x", "offset": 1})


async def hello(request: web.Request) -> web.Response:
    """A short text."""
    return web.Response(text="hello word")


async def main(port: int) -> None:
    """Serve until the process is ended."""
    app = web.Application(client_max_size=16 << 20)
    app.add_routes([web.get("/ws", chat), web.get("/PrintHello", hello)])
    app.add_routes([web.get("/channels/{name}/events", events), web.post("/channels/{name}", publish)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Future()


uvloop.run(main(int(sys.argv[1])))
