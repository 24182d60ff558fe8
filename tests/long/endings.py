"""The end of a server under 1,000 readers of server-sent events and 1,000 publications a second.

At SIGTERM each reader must have read all that was acknowledged, and must be told to come back. They come to the
successor spread over time. After `kill -9` all come back within the spread, and each is told that publications may be
missing.
"""

import asyncio
import json
import random
import time
from collections import Counter
from typing import Any

from tests.live.programs import Server

READERS = 1_000
#: Lines of one request, and seconds between two requests: 1,000 lines a second.
LINES = 50
PAUSE = 0.05
CHANNEL = "soak"
SETTINGS = "channel_rate = 0\npublish_rate = 0\npublish_bytes = 0\nlog_clients = false\n"
#: Seconds until all are back: the longest pause that the server advises, and what a busy machine needs.
BACK = 20.0


class Wrong(AssertionError):
    """A check failed."""


class Reader:
    """Reads events as EventSource does: it waits for `retry` after the end, and names the last id."""

    def __init__(self, run: "Run") -> None:
        self.run = run
        self.last = ""
        self.retry = 1.0
        #: connections that were answered, and what they were told first
        self.opened = 0
        self.told: list[str] = []

    async def live(self) -> None:
        while not self.run.over:
            try:
                await self._read()
            except OSError:
                self.retry = max(self.retry, 1.0)
            if not self.run.over:
                await asyncio.sleep(self.retry * random.uniform(0.9, 1.1))

    async def _read(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.run.server.port, limit=1 << 20)
        self.run.connects[int(time.monotonic() - self.run.since)] += 1
        last = f"Last-Event-ID: {self.last}\r\n" if self.last else ""
        head = f"GET /channels/{CHANNEL}/events HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n{last}\r\n"
        writer.write(head.encode())
        rest = b""
        try:
            while data := await reader.read(1 << 18):
                events, _, rest = (rest + data).rpartition(b"\n\n")
                if b"event: " in events or b"retry: " in events:
                    self._look(events.decode())
                if (start := events.rfind(b"id: ")) >= 0:
                    self.last = events[start + 4 : events.find(b"\n", start)].decode()
        finally:
            writer.close()

    def _look(self, events: str) -> None:
        """What is no publication."""
        for line in events.split("\n"):
            name, _, value = line.partition(": ")
            if name == "retry":
                self.retry = int(value) / 1000
            elif name == "event":
                self.opened += value == "position"
                if value in ("unrecovered", "disconnect"):
                    self.told.append(value)


class Run:
    """One server after the other, and its readers."""

    def __init__(self, say: Any) -> None:
        self.say = say
        self.server = Server(SETTINGS)
        self.readers = [Reader(self) for _ in range(READERS)]
        self.over = False
        self.publishing = False
        self.acknowledged = ("", 0)
        #: connects by second since the last start
        self.connects: Counter[int] = Counter()
        self.since = time.monotonic()

    async def run(self) -> None:
        tasks = [asyncio.ensure_future(each.live()) for each in self.readers]
        try:
            await self._until(lambda: all(each.opened for each in self.readers), "come")
            await self._end_in_order()
            await self._kill()
        finally:
            self.over = True
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(self.server.clean_up)

    async def _end_in_order(self) -> None:
        publishing = asyncio.ensure_future(self._publish())
        await asyncio.sleep(4)
        begun = time.monotonic()
        await asyncio.to_thread(self.server.stop)
        ended = time.monotonic() - begun
        await publishing
        epoch, offset = self.acknowledged
        for each in self.readers:
            told, _, number = each.last.rpartition(":")
            if told != epoch or int(number) < offset:
                raise Wrong(f"acknowledged {epoch}:{offset}, and a reader stands at {each.last}")
            if each.told != ["disconnect"]:
                raise Wrong(f"a reader was told {each.told}")
        self.say(f"SIGTERM: {offset:,} acknowledged, all of them read by {READERS:,} readers; ended in {ended:.1f} s")
        await self._restart("after SIGTERM")

    async def _kill(self) -> None:
        publishing = asyncio.ensure_future(self._publish())
        await asyncio.sleep(2)
        await asyncio.to_thread(self.server.kill)
        await publishing
        await self._restart("after kill -9")

    async def _restart(self, when: str) -> None:
        before = [each.opened for each in self.readers]
        told = [len(each.told) for each in self.readers]
        await asyncio.to_thread(self.server.start)
        self.connects.clear()
        self.since = time.monotonic()
        back = lambda: all(each.opened > count for each, count in zip(self.readers, before, strict=True))  # noqa: E731
        await self._until(back, "come back")
        took = time.monotonic() - self.since
        await asyncio.sleep(0.5)
        silent = [each for each, count in zip(self.readers, told, strict=True) if each.told[count:] != ["unrecovered"]]
        if silent:
            raise Wrong(f"{when} {len(silent)} readers were told {silent[0].told}")
        most = max(self.connects.values())
        self.say(f"{when}: all back and told in {took:.1f} s; at most {most} connects in a second")

    async def _until(self, true: Any, what: str) -> None:
        end = time.monotonic() + BACK
        while not true():
            if time.monotonic() > end:
                raise Wrong(f"not all {what} in {BACK:g} s")
            await asyncio.sleep(0.05)

    async def _publish(self) -> None:
        """Publish until the server takes no more. What it acknowledged is noted."""
        body = b"".join(b'{"n":%d}\n' % number for number in range(LINES))
        head = f"POST /channels/{CHANNEL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
            while True:
                writer.write(request)
                answer = await reader.readuntil(b"\r\n\r\n")
                length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                found = json.loads(await reader.readexactly(length))
                if b" 200 " not in answer:
                    return
                self.acknowledged = found["epoch"], found["offset"]
                await asyncio.sleep(PAUSE)
        except (OSError, asyncio.IncompleteReadError):
            return


def main(seed: int, seconds: float, say: Any) -> None:
    """Run once; it takes some half a minute, whatever `seconds` says. Raises Wrong."""
    random.seed(seed)
    asyncio.run(Run(say).run())
