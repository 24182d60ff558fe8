"""Drives centrifuge-python, unmodified, by lines of JSON (`tests.live.programs.Driven`).

Arguments: ADDRESS ASKS FLAVOUR.
"""

import asyncio
import json
import sys
from dataclasses import asdict
from typing import Any

from centrifuge import CentrifugeError, Client, StreamPosition
from centrifuge.exceptions import ReplyError


def say(**value: Any) -> None:
    # Over Protobuf the SDK's data are bytes.
    print(json.dumps(value, default=json.loads), flush=True)


class Program:
    """One client of the SDK."""

    def __init__(self, address: str, asks_tokens: bool, protobuf: bool) -> None:
        self.asked: dict[int, asyncio.Future[str]] = {}
        options: Any = {"get_token": self.connection_token} if asks_tokens else {}
        self.client = Client(
            address,
            use_protobuf=protobuf,
            events=Events(""),
            min_reconnect_delay=0.05,
            max_reconnect_delay=0.2,
            proxy=None,
            **options,
        )
        self.asks_tokens = asks_tokens
        self.protobuf = protobuf

    async def token(self, channel: str) -> str:
        number = len(self.asked) + 1
        self.asked[number] = asyncio.get_running_loop().create_future()
        say(**{"event": "token", "id": number, "for": channel})
        return await self.asked[number]

    async def connection_token(self) -> str:
        return await self.token("")

    async def do(self, do: str, **parameters: Any) -> Any:
        return await getattr(self, "do_" + do)(**parameters)

    async def do_connect(self) -> None:
        await self.client.connect()

    async def do_disconnect(self) -> None:
        await self.client.disconnect()

    async def do_subscribe(self, channel: str, join_leave: bool = False, token: bool = False) -> None:
        subscription = self.client.get_subscription(channel) or self.client.new_subscription(
            channel,
            events=Events(channel),  # type: ignore[arg-type]
            join_leave=join_leave,
            get_token=self.token if token else None,
            min_resubscribe_delay=0.05,
            max_resubscribe_delay=0.2,
        )
        await subscription.subscribe()

    async def do_unsubscribe(self, channel: str) -> None:
        subscription = self.client.get_subscription(channel)
        assert subscription is not None
        await subscription.unsubscribe()

    def data(self, value: Any) -> Any:
        return json.dumps(value).encode() if self.protobuf else value

    async def do_publish(self, channel: str, data: Any) -> None:
        await self.client.publish(channel, self.data(data))

    async def do_presence(self, channel: str) -> Any:
        return {key: asdict(each) for key, each in (await self.client.presence(channel)).clients.items()}

    async def do_presence_stats(self, channel: str) -> Any:
        return asdict(await self.client.presence_stats(channel))

    async def do_history(self, channel: str, limit: int, since: Any = None, reverse: bool = False) -> Any:
        position = None if since is None else StreamPosition(**since)
        return asdict(await self.client.history(channel, limit, position, reverse))

    async def do_rpc(self, method: str, data: Any) -> Any:
        return (await self.client.rpc(method, self.data(data))).data

    async def run(self, reader: asyncio.StreamReader) -> None:
        running = set()
        while line := await reader.readline():
            command = json.loads(line)
            number = command.pop("id")
            if command["do"] == "token":
                self.asked[number].set_result(command["token"])
                continue
            task = asyncio.ensure_future(self.answer(number, command))
            running.add(task)
            task.add_done_callback(running.discard)

    async def answer(self, number: int, command: Any) -> None:
        try:
            say(id=number, result=await self.do(**command))
        except ReplyError as error:
            say(id=number, error=error.code)
        except CentrifugeError as error:
            print(repr(error), flush=True)
            say(id=number, error=0)


class Events:
    """Says everything that the SDK tells, of the connection or of a channel."""

    def __init__(self, channel: str) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)

        async def note(context: Any) -> None:
            channel = getattr(context, "channel", self._channel)
            value: dict[str, Any] = {"event": name.removeprefix("on_"), "channel": channel}
            for each in ("client", "code", "reason", "recovered", "was_recovering", "data"):
                if hasattr(context, each):
                    value[each] = getattr(context, each)
            if getattr(context, "stream_position", None) is not None:
                value |= asdict(context.stream_position)
            if hasattr(context, "pub"):
                info = context.pub.info
                value |= {"data": context.pub.data, "offset": context.pub.offset, "info": info and asdict(info)}
            if hasattr(context, "info"):
                value |= {"client": context.info.client, "user": context.info.user, "info": asdict(context.info)}
            say(**value)

        return note


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await Program(sys.argv[1], sys.argv[2] == "tokens", sys.argv[3] == "protobuf").run(reader)


def run() -> None:
    asyncio.run(main())
