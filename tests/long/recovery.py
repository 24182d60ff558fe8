"""200 clients of Centrifugo's client protocol drop and recover at random while four publish, over real sockets.

Each client must receive the same publications as all others, without a gap or a double, unless it learns that it cannot
recover. Half of the clients use WebSocket, half TCP lines.
"""

import asyncio
import json
import random
import socket
import struct
import time
from collections import Counter
from typing import Any

from websockets.asyncio.client import connect

from tests.live.programs import Server

CLIENTS = 200
PUBLISHERS = 4
#: Publications a second of one publisher, and the size of the history: three seconds.
RATE = 25
KEPT = 300
CHANNEL = "soak"
#: Seconds at the end for publications to reach all clients.
LAST = 20.0


class Wrong(AssertionError):
    """A check failed."""


class Lines:
    """A connection over TCP lines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, commands: str) -> None:
        self._writer.write(commands.encode() + b"\n")
        await self._writer.drain()

    async def recv(self) -> str:
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the server closed")
        return line.decode()

    def drop(self) -> None:
        sock: socket.socket = self._writer.get_extra_info("socket")
        # A reset: bytes on their way are lost.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


class Frames:
    """A WebSocket connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.send = connection.send
        self.recv = connection.recv

    def drop(self) -> None:
        self._connection.transport.abort()


async def dial(port: int, lines: bool) -> Lines | Frames:
    if lines:
        return Lines(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 24))
    url = f"ws://127.0.0.1:{port}/connection/websocket"
    return Frames(await connect(url, max_size=None, ping_interval=None, compression=None, proxy=None))


class Client:
    """A client that reads and remembers its position."""

    def __init__(self, soak: "Soak", number: int) -> None:
        self._soak = soak
        self._number = number
        self.epoch: str | None = None
        self.offset = 0
        self.received = 0

    async def run(self) -> None:
        soak = self._soak
        while not soak.over.is_set():
            connection = await dial(soak.port, lines=bool(self._number % 2))
            reading = asyncio.ensure_future(self._read(connection))
            pause = soak.random.expovariate(1 / 3)
            over = asyncio.ensure_future(soak.over.wait())
            await asyncio.wait({reading, over}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            if soak.over.is_set():
                await self._finish(reading)
            over.cancel()
            connection.drop()
            if reading.done():
                reading.result()
                raise Wrong(f"client {self._number}: the reading ended")
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            soak.counts["dropped"] += 1
            if not soak.over.is_set():
                # Mostly a short time, sometimes longer than the history reaches.
                await asyncio.sleep(soak.random.choice((0, 0.05, 0.3, 1, 1, 5)))

    async def _finish(self, reading: "asyncio.Future[None]") -> None:
        """Wait until all publications have arrived."""
        end = time.monotonic() + LAST
        while self.offset < self._soak.published and not reading.done():
            if time.monotonic() > end:
                raise Wrong(f"client {self._number} is at {self.offset} of {self._soak.published}")
            await asyncio.sleep(0.02)
        if reading.done():
            reading.result()

    async def _read(self, connection: Lines | Frames) -> None:
        body: dict[str, Any] = {"channel": CHANNEL}
        if self.epoch is not None:
            body |= {"recover": True, "epoch": self.epoch, "offset": self.offset}
        await connection.send('{"id":1,"connect":{}}\n' + json.dumps({"id": 2, "subscribe": body}))
        while True:
            for line in (await connection.recv()).split("\n"):
                value = json.loads(line) if line else {"id": 0}
                if value == {}:
                    await connection.send("{}")
                elif "error" in value:
                    raise Wrong(f"client {self._number}: {value}")
                elif "subscribe" in value:
                    self._subscribed(value["subscribe"])
                elif "push" in value:
                    self._take(value["push"]["pub"])

    def _subscribed(self, result: dict[str, Any]) -> None:
        counts = self._soak.counts
        if self.epoch is None:
            counts["fresh"] += 1
        elif result.get("recovered"):
            counts["recovered"] += 1
            counts["recovered publications"] += len(result.get("publications", ()))
            if self.offset != result.get("offset", 0):
                raise Wrong(f"client {self._number} recovered from {result} and not from {self.offset}")
            for each in result.get("publications", ()):
                self._take(each)
            self.epoch = result["epoch"]
            return
        elif not result.get("was_recovering") or "publications" in result:
            raise Wrong(f"client {self._number}: {result}")
        elif self._soak.published - self.offset < KEPT // 2:
            raise Wrong(f"client {self._number} was told that {self.offset} of {self._soak.published} is lost")
        else:
            counts["told unrecovered"] += 1
        self.epoch, self.offset = result["epoch"], result.get("offset", 0)

    def _take(self, publication: dict[str, Any]) -> None:
        offset = publication["offset"]
        if offset != self.offset + 1:
            raise Wrong(f"client {self._number} read {offset} after {self.offset}")
        said = self._soak.truth.setdefault(offset, publication["data"])
        if said != publication["data"]:
            raise Wrong(f"{offset} is {said} to one and {publication['data']} to another")
        self.offset = offset
        self.received += 1


class Soak:
    """One run."""

    def __init__(self, seed: int, port: int) -> None:
        self.random = random.Random(seed)
        self.port = port
        self.over = asyncio.Event()
        #: data by offset, as the first client read it; and the number of accepted publications
        self.truth: dict[int, list[int]] = {}
        self.published = 0
        self.counts: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        clients = [Client(self, number) for number in range(CLIENTS)]
        publishing = [asyncio.ensure_future(self._publish(number)) for number in range(PUBLISHERS)]
        reading = [asyncio.ensure_future(each.run()) for each in clients]
        ended, _ = await asyncio.wait({*reading, *publishing}, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for each in ended:
            each.result()
        for each in publishing:
            each.cancel()
        await asyncio.gather(*publishing, return_exceptions=True)
        self.over.set()
        await asyncio.gather(*reading)
        self.counts["received"] = sum(each.received for each in clients)
        self._check_order()

    async def _publish(self, number: int) -> None:
        """Publish at a rate, waiting for every reply, so that `published` is never too low."""
        connection = await dial(self.port, lines=bool(number % 2))
        await connection.send('{"id":1,"connect":{}}')
        said = 0
        while True:
            said += 1
            command = {"id": said + 1, "publish": {"channel": CHANNEL, "data": [number, said]}}
            await asyncio.shield(self._ask(connection, command))
            await asyncio.sleep(self.random.expovariate(RATE))

    async def _ask(self, connection: Lines | Frames, command: dict[str, Any]) -> None:
        self.published += 1
        await connection.send(json.dumps(command))
        while True:
            for line in (await connection.recv()).split("\n"):
                value = json.loads(line) if line else {"id": 0}
                if value == {}:
                    await connection.send("{}")
                elif value.get("id") == command["id"]:
                    if "error" in value:
                        raise Wrong(f"{command}: {value}")
                    return

    def _check_order(self) -> None:
        """Check that the publications of each publisher are in order."""
        for number in range(PUBLISHERS):
            said = [self.truth[each][1] for each in sorted(self.truth) if self.truth[each][0] == number]
            if said != sorted(set(said)):
                raise Wrong(f"publisher {number} was read in another order")


def main(seed: int, seconds: float, say: Any) -> None:
    """Run once, for `seconds` seconds."""
    server = Server(f"history_size = {KEPT}\nhistory_bytes = 10000000\npublish_rate = 0\nsend_queue = 4000000\n")
    try:

        async def run() -> Counter[str]:
            soak = Soak(seed, server.port)
            try:
                await soak.run(seconds)
            except BaseException:
                say(f"failed with seed {seed}; {dict(soak.counts)}")
                raise
            soak.counts["published"] = soak.published
            return soak.counts

        say(str(dict(asyncio.run(run()))))
    finally:
        server.clean_up()
