"""A program on asyncio's event loop with two bots: an `asyncio.Task` drives one, Twisted the other.

Each answers `hello`. After `stop` the service shuts down, and the program prints how the bots ended.
"""

import asyncio

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred

from longconn import LocalMember, LongConnService


async def answer(member: LocalMember) -> str:
    async for publication in member.subscribe("lobby"):
        if publication.data.text == "hello":
            position = await member.publish("lobby", f"hello from {member.name}")
            kept = await member.history("lobby", limit=0)
            assert kept.position.offset >= position.offset
    return f"{member.name} ended: {member.disconnect and member.disconnect.text}"


async def wait_for_stop(member: LocalMember) -> None:
    async for publication in member.subscribe("lobby"):
        if publication.data.text == "stop":
            break
    member.close()


async def main() -> None:
    loop = asyncio.get_running_loop()
    asyncioreactor.install(loop)  # before anything imports a reactor
    from twisted.internet import reactor

    service = LongConnService(reactor, port=["127.0.0.1:0"])
    service.startService()
    bots = [
        asyncio.create_task(answer(LocalMember(service.hub, "task"))),
        # Started within a Task, and yet Twisted drives it.
        Deferred.fromCoroutine(answer(LocalMember(service.hub, "twisted"))).asFuture(loop),
    ]
    await asyncio.sleep(0)
    print(f"listening on {service.addresses[0][1].port}", flush=True)
    await wait_for_stop(LocalMember(service.hub, "guard"))
    await service.stopService().asFuture(loop)
    for each in await asyncio.gather(*bots):
        print(each, flush=True)


asyncio.run(main())
