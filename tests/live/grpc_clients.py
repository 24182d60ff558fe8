"""The stock clients of gRPC as programs: `python -m tests.live.grpc_clients SCENARIO TARGET [ROOTS]`.

Each prints one line of JSON at its end. In a process of their own, since the library has threads of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

MIB = 1024 * 1024
WAIT = 10.0
#: A pool of connections for each channel, where the library would share them.
OWN = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
#: The space is sent as it is, and is not part of the value.
METADATA = (("one", " 1 "), ("raw-bin", b"\0\xff"))


def status(call: Any) -> list[Any]:
    """How a call ended, as far as JSON can say it."""
    trailing = {key: value if isinstance(value, str) else value.hex() for key, value in call.trailing_metadata() or ()}
    return [call.code().name, call.details(), trailing]


def refused(make: Callable[[], Any]) -> list[Any]:
    try:
        made = make()
        if hasattr(made, "__next__"):
            list(made)
    except grpc.RpcError as error:
        return status(error)
    return ["OK"]


def kinds(channel: grpc.Channel) -> dict[str, Any]:
    """Every kind of call, by the blocking client."""
    echo, count = channel.unary_unary("/t/Echo"), channel.stream_unary("/t/Count")
    many, both = channel.unary_stream("/t/Many"), channel.stream_stream("/t/Both")
    answer, call = channel.unary_unary("/t/Metadata").with_call(b"", timeout=WAIT, metadata=METADATA)
    zipped = echo(b"hello" * 1000, timeout=WAIT, compression=grpc.Compression.Gzip)
    return {
        "unary": echo(b"hello", timeout=WAIT).decode(),
        "empty": echo(b"", timeout=WAIT).decode(),
        "large": len(echo(b"x" * 4 * MIB, timeout=WAIT)),
        "gzip": zipped == b"hello" * 1000,
        "client stream": count((b"x" * 1000 for _ in range(1000)), timeout=WAIT).decode(),
        "server stream": len(list(many(b"1000", timeout=WAIT))),
        "both": [each.decode() for each in both(iter([b"a", b"b"]), timeout=WAIT)],
        "metadata": [sorted(json.loads(answer)), dict(call.initial_metadata())["first"], status(call)],
        "status": refused(lambda: channel.unary_unary("/t/Refused")(b"", timeout=WAIT)),
        "status of a stream": refused(lambda: channel.unary_stream("/t/Refused")(b"", timeout=WAIT)),
        "bug": refused(lambda: channel.unary_unary("/t/Bug")(b"", timeout=WAIT)),
        "unknown": refused(lambda: channel.unary_unary("/t/Nothing")(b"", timeout=WAIT)),
        "too large": refused(lambda: echo(b"x" * (4 * MIB + 1), timeout=WAIT)),
        "deflate": refused(lambda: echo(b"x", timeout=WAIT, compression=grpc.Compression.Deflate))[0],
        "deadline": refused(lambda: channel.unary_unary("/t/Stall")(b"", timeout=0.1))[0],
        "deadline of a stream": refused(lambda: channel.unary_stream("/t/Stall")(b"", timeout=0.1))[0],
        "two for one": refused(lambda: channel.stream_unary("/t/Echo")(iter([b"a", b"b"]), timeout=WAIT))[0],
    }


async def async_refused(call: Any) -> list[Any]:
    try:
        if hasattr(call, "read"):
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return status(error)
    return ["OK"]


async def async_kinds(channel: grpc.aio.Channel) -> dict[str, Any]:
    """The same by the asynchronous client."""
    echo, count = channel.unary_unary("/t/Echo"), channel.stream_unary("/t/Count")
    many, both = channel.unary_stream("/t/Many"), channel.stream_stream("/t/Both")
    call = channel.unary_unary("/t/Metadata")(b"", timeout=WAIT, metadata=METADATA)
    answer = await call
    said = [await call.code(), await call.details(), await call.trailing_metadata()]
    trailing = {key: value if isinstance(value, str) else value.hex() for key, value in said[2]}
    zipped = await echo(b"hello" * 1000, timeout=WAIT, compression=grpc.Compression.Gzip)
    return {
        "unary": (await echo(b"hello", timeout=WAIT)).decode(),
        "empty": (await echo(b"", timeout=WAIT)).decode(),
        "large": len(await echo(b"x" * 4 * MIB, timeout=WAIT)),
        "gzip": zipped == b"hello" * 1000,
        "client stream": (await count((b"x" * 1000 for _ in range(1000)), timeout=WAIT)).decode(),
        "server stream": len([each async for each in many(b"1000", timeout=WAIT)]),
        "both": [each.decode() async for each in both(iter([b"a", b"b"]), timeout=WAIT)],
        "metadata": [
            sorted(json.loads(answer)),
            next(value for key, value in await call.initial_metadata() if key == "first"),
            [said[0].name, said[1], trailing],
        ],
        "status": await async_refused(channel.unary_unary("/t/Refused")(b"", timeout=WAIT)),
        "status of a stream": await async_refused(channel.unary_stream("/t/Refused")(b"", timeout=WAIT)),
        "bug": await async_refused(channel.unary_unary("/t/Bug")(b"", timeout=WAIT)),
        "unknown": await async_refused(channel.unary_unary("/t/Nothing")(b"", timeout=WAIT)),
        "too large": await async_refused(echo(b"x" * (4 * MIB + 1), timeout=WAIT)),
        "deflate": (await async_refused(echo(b"x", timeout=WAIT, compression=grpc.Compression.Deflate)))[0],
        "deadline": (await async_refused(channel.unary_unary("/t/Stall")(b"", timeout=0.1)))[0],
        "deadline of a stream": (await async_refused(channel.unary_stream("/t/Stall")(b"", timeout=0.1)))[0],
        "two for one": (await async_refused(channel.stream_unary("/t/Echo")(iter([b"a", b"b"]), timeout=WAIT)))[0],
    }


async def streams(channels: list[grpc.aio.Channel], count: int) -> dict[str, Any]:
    """`count` calls that are all open at once, on these connections; each echoes."""
    calls = [channels[number % len(channels)].stream_stream("/t/Both")(timeout=30) for number in range(count)]

    async def say(number: int, call: Any) -> bool:
        text = b"%d" % number
        await call.write(text)
        return bool(await call.read() == text)

    right = await asyncio.gather(*(say(number, each) for number, each in enumerate(calls)))
    # All have been answered and none has ended: now the server is asked how many there are.
    seen = json.loads(await channels[0].unary_unary("/t/Seen")(b"", timeout=WAIT))
    for each in calls:
        await each.done_writing()
    ends = await asyncio.gather(*(each.read() for each in calls))
    codes = {(await each.code()).name for each in calls}
    return {"right": sum(right), "ended": ends.count(grpc.aio.EOF), "codes": sorted(codes), "seen": seen}


async def cancel(channel: grpc.aio.Channel) -> dict[str, Any]:
    """When this side cancelled, and when it saw that the other had."""
    times = []
    for _ in range(5):
        call = channel.unary_stream("/t/Stall")(b"")
        await call.initial_metadata()
        times.append(time.time())
        call.cancel()
    ended = []
    for _ in range(5):
        call = channel.unary_stream("/t/Ends")(b"", timeout=WAIT)
        said = float(await call.read())
        code = await call.code()
        ended.append([code.name, time.time() - said])
    return {"cancelled": times, "ended": ended}


def blocking_cancel(channel: grpc.Channel) -> dict[str, Any]:
    """The same by the blocking client, from another thread."""
    times = []
    for _ in range(3):
        call = channel.unary_stream("/t/Stall")(b"")
        call.initial_metadata()
        times.append(time.time())
        threading.Timer(0, call.cancel).start()
        refused(lambda call=call: call)
    return {"cancelled": times}


async def deaf(channel: grpc.aio.Channel, path: str, request: bytes) -> dict[str, Any]:
    """One call is read and one is not, until the first reads the last message; then how the other ends."""
    rogue = channel.unary_stream(path)(request)
    await rogue.initial_metadata()
    good = grpc.aio.insecure_channel(TARGET, options=OWN).unary_stream(path)(request)
    await good.initial_metadata()
    print("ready", flush=True)
    count = size = 0
    while True:
        message = await good.read()
        count += 1
        size += len(message)
        if b"the last" in message:
            break
    good.cancel()
    return {"count": count, "size": size, "rogue": await async_refused(rogue)}


async def listen(channel: grpc.aio.Channel, path: str, request: bytes, unary: bytes) -> dict[str, Any]:
    """A stream and a call under way, until the server ends them; and what a call is told that comes then."""
    stream = channel.unary_stream(path)(request)
    await stream.read()
    slow = channel.unary_unary("/t/Slow")(unary, timeout=WAIT)
    watch = channel.unary_stream("/t/Stall")(b"", timeout=WAIT)
    await watch.initial_metadata()
    print("ready", flush=True)
    found = {"slow": (await slow).decode(), "stream": await async_refused(stream), "watch": await async_refused(watch)}
    late = channel.unary_unary("/t/Echo")(b"", timeout=WAIT)
    found["late"] = (await async_refused(late))[0]
    return found


async def with_async(scenario: str, arguments: list[str]) -> dict[str, Any]:
    number = 100 if scenario == "hundred" else 1
    channels = [grpc.aio.insecure_channel(TARGET, options=OWN) for _ in range(number)]
    try:
        if scenario == "kinds-async":
            return await async_kinds(channels[0])
        if scenario == "thousand":
            return await streams(channels, 1000)
        if scenario == "hundred":
            return await streams(channels, 200)
        if scenario == "cancel":
            return await cancel(channels[0])
        if scenario == "deaf":
            return await deaf(channels[0], arguments[0], bytes.fromhex(arguments[1]))
        return await listen(channels[0], arguments[0], bytes.fromhex(arguments[1]), b"slow")
    finally:
        for each in channels:
            await each.close()


def main(scenario: str, arguments: list[str]) -> dict[str, Any]:
    if scenario == "kinds":
        with grpc.insecure_channel(TARGET, options=OWN) as channel:
            return kinds(channel)
    if scenario == "cancel-blocking":
        with grpc.insecure_channel(TARGET, options=OWN) as channel:
            return blocking_cancel(channel)
    if scenario == "secure":
        roots = grpc.ssl_channel_credentials(Path(arguments[0]).read_bytes())
        with grpc.secure_channel(TARGET, roots, options=OWN) as channel:
            return kinds(channel)
    return asyncio.run(with_async(scenario, arguments))


if __name__ == "__main__":
    TARGET = sys.argv[2]
    print(json.dumps(main(sys.argv[1], sys.argv[3:])), flush=True)
