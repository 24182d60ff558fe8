"""A server with a bot in its lobby: python bot.py 127.0.0.1:9999"""

import sys
from typing import Any

from twisted.internet.task import react

from longconn import LocalMember, LongConnService


async def main(reactor: Any, port: str) -> None:
    service = LongConnService(reactor, port=[port])
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    for _, address in service.addresses:
        print(f"listening on {address.host}:{address.port}", flush=True)
    bot = LocalMember(service.hub, "bot")
    async for publication in bot.subscribe("lobby"):
        if publication.data.text == "hello":
            await bot.publish("lobby", f"hello, {publication.info.name}")


if __name__ == "__main__":
    react(main, sys.argv[1:])
