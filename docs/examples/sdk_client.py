"""Reads a channel, and publishes one message in it: python sdk_client.py ws://localhost:9999/connection/websocket"""

import asyncio
import sys

from centrifuge import Client, PublicationContext, SubscribedContext, SubscriptionEventHandler


class Reader(SubscriptionEventHandler):
    async def on_subscribed(self, context: SubscribedContext) -> None:
        if context.was_recovering and not context.recovered:
            print("back; what was said meanwhile is lost", flush=True)
        else:
            print("subscribed", flush=True)

    async def on_publication(self, context: PublicationContext) -> None:
        info = context.pub.info
        name = info.conn_info["name"] if info and info.conn_info else "somebody"
        print(f"{name}: {context.pub.data}", flush=True)


async def main(address: str) -> None:
    # With a name, the program takes part in the chat; without it, people do not see it join.
    client = Client(address, data={"chat": {"name": "thermometer"}})
    lobby = client.new_subscription("lobby", events=Reader())
    await client.connect()
    await lobby.subscribe()
    await lobby.ready()
    await lobby.publish({"temperature": 21.5})
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1]))
